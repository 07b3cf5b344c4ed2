"""From a command line to a function: a user's mistake becomes one line and exit code 1, a bug of ours keeps its traceback."""

import difflib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from errors import UserError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def launch(main: Callable[[], object]) -> None:
    """Run a Hydra main function; print a UserError or a config error as one line and exit with 1."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and any(word in ("-m", "--multirun") for word in sys.argv[1:]):
        fail("-m (multirun) came under torchrun, where its second job would hang; use one of them, or loop over torchrun in a shell script")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing, so that one place words all errors
    try:
        main()
    except UserError as error:
        fail(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        fail(explain(error, sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)


def fail(message: str) -> None:
    """Print one line to standard error (from the first rank of a torchrun) and exit with 1."""
    rank = os.environ.get("RANK", "0")
    print(f"error: {message}" if rank == "0" else f"error (rank {rank}): {message}", file=sys.stderr, flush=True)
    sys.exit(1)


def explain(error: Exception, arguments: list[str]) -> str:
    """One line out of Hydra's and OmegaConf's messages, with the nearest legal word where one can be found."""
    causes = []
    cause: BaseException | None = error
    while cause is not None:
        user = cause if isinstance(cause, UserError) else None
        if user is not None:
            return str(user)
        causes.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    text = "\n".join(causes)
    missing = re.search(r"Could not find '([\w/.\-]+)'", text) or re.search(r"Could not load '([\w/.\-]+)'", text)
    if missing:
        return _missing_choice(missing[1])
    if "mismatched input" in text or "token recognition" in text or "no viable alternative" in text or "extraneous input" in text:
        word = re.search(r"Error parsing override '(.*?)'\n", text, re.S)
        return (f"{word[1] if word else ' '.join(arguments)}: not readable as an override KEY=VALUE; a value with any of = , ~ ; ( [ { or blanks "
                """needs inner quotes: 'KEY="VALUE"'""")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in dict.fromkeys(lines) if not re.match(r"(full_key|reference_type|object_type|See https|Set the env|\*+)", line)]
    where = re.search(r"full_key: (\S+)", text)
    message = "; ".join(lines[:3])
    if where and where[1] not in message:
        message = f"{where[1]}: {message}"
    unknown = re.search(r"Key '([\w.]+)' (?:is not in struct|not in '(\w+)')", text)
    if unknown:
        message += _nearest_key(where[1] if where else unknown[1])
    return message


def _missing_choice(choice: str) -> str:
    group, _, name = choice.partition("/") if choice.startswith("experiment/") else choice.rpartition("/")
    root = CONFIGS / group
    options = sorted(str(path.relative_to(root).with_suffix("")) for path in root.rglob("*.yaml")) if group and root.is_dir() else []
    if not options:
        return f"{choice}: no such config; look into configs/"
    close = difflib.get_close_matches(name, options, n=4, cutoff=0.5)
    tail = f"did you mean {' or '.join(close)}?" if close else f"available: {', '.join(options)}"
    return f"{group}={name}: no such choice; {tail}"


def _nearest_key(path: str) -> str:
    from engine.config import trunk_keys

    close = difflib.get_close_matches(path, trunk_keys(), n=1)
    return f"; did you mean '{close[0]}'?" if close else "; `--cfg job` prints every key there is"
