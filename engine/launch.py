"""From a command line to a function: a user's mistake becomes one line and exit code 1, a bug keeps its traceback."""

import difflib
import errno
import functools
import io
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from engine.paths import GONE
from engine.pipes import quiet_pipes
from errors import Diverged, UserError

OUTSIDE = {  # what the system refuses: no fault of ours
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR,
    errno.ENAMETOOLONG, errno.ELOOP, errno.EFBIG, errno.EIO, errno.ESTALE,
}  # fmt: skip
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
HEAD_START = 3.0  # seconds that the first rank has to print and to end


def entry(name: str) -> Callable[[Callable[[DictConfig], object]], Callable[[], None]]:
    """Decorate a function of a config with the command line of configs/<name>.yaml.

    User errors end here, inside Hydra's job: Hydra would put a line of its own before them.
    """

    def decorate(function: Callable[[DictConfig], object]) -> Callable[[], None]:
        @functools.wraps(function)
        def job(cfg: DictConfig) -> None:
            try:
                function(cfg)
            except Diverged as error:
                fail_together(str(error))
            except (UserError, OmegaConfBaseException) as error:
                fail(explain(error, sys.argv[1:]))

        return hydra.main(version_base=None, config_path=str(CONFIGS), config_name=name)(job)

    return decorate


def launch(main: Callable[[], object]) -> None:
    """Run a main function: a user's mistake, a config that cannot be composed and what the system refuses end as one
    line and exit code 1; `| head` ends it quietly."""
    with quiet_pipes():
        _launch(main)


def _launch(main: Callable[[], object]) -> None:
    try:
        Path.cwd()
    except FileNotFoundError:
        fail(GONE)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and any(word in ("-m", "--multirun") for word in sys.argv[1:]):
        fail(
            "-m (multirun) came under torchrun, where its second job would hang; use one of them, "
            "or loop over torchrun in a shell script"
        )
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing, so that one place words all errors
    try:
        main()
    except (UserError, HydraException, OmegaConfBaseException) as error:
        fail(explain(error, sys.argv[1:]))
    except OSError as error:  # a pipe's is no such error
        if error.errno not in OUTSIDE:
            raise
        fail(refusal(error))
    except KeyboardInterrupt:
        sys.exit(130)


def refusal(error: OSError) -> str:
    """One line about a file that cannot be read, made or written."""
    if error.filename is None:
        return f"{error.strerror}; free some space, or choose another folder"
    unread = Path(os.fsdecode(error.filename)).is_file() and not os.access(error.filename, os.R_OK)
    what = "read" if unread else "made or written"
    return (
        f"{os.fsdecode(error.filename)}: cannot be {what} ({error.strerror}); change its permissions, or the key that "
        "names it, such as run= or hydra.run.dir"
    )


def fail(message: str) -> None:
    """Print one line to standard error (from the first rank of a torchrun) and exit with 1."""
    rank = os.environ.get("RANK", "0")
    print(f"error: {message}" if rank == "0" else f"error (rank {rank}): {message}", file=sys.stderr, flush=True)
    sys.exit(1)


def fail_together(message: str) -> None:
    """`fail` of what all ranks found at once: the first one tells it. torchrun ends the others as soon as one has
    ended; these wait, so that it is not the first that is cut short."""
    if os.environ.get("RANK", "0") != "0":
        time.sleep(HEAD_START)
        sys.exit(1)
    fail(message)


def explain(error: Exception, arguments: list[str]) -> str:
    """One line out of Hydra's and OmegaConf's messages, with the nearest legal word where one can be found."""
    causes = []
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):  # one out of a data loader's worker brings the worker's traceback along
            return str(cause).strip().splitlines()[-1].removeprefix("errors.UserError: ")
        causes.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    text = "\n".join(causes)
    missing = re.search(r"Could not find '([\w/.\-]+)'", text) or re.search(r"Could not load '([\w/.\-]+)'", text)
    if missing:
        return _missing_choice(missing[1])
    if (
        "mismatched input" in text
        or "token recognition" in text
        or "no viable alternative" in text
        or "extraneous input" in text
    ):
        word = re.search(r"Error parsing override '(.*?)'\n", text, re.S)
        came = word[1] if word else " ".join(arguments)
        cure = "a value with = , ~ ; ( [ { or blanks needs inner quotes, as in 'KEY=\"VALUE\"'"
        return f"{came}: not readable as KEY=VALUE; {cure}"
    where = re.search(r"full_key: (\S+)", text)
    unknown = re.search(r"Key '([\w.]+)' (?:is not in struct|not in '(\w+)')", text)
    if unknown:
        return _unknown_key(where[1] if where else unknown[1])
    missing_value = re.search(r"Missing mandatory value: (\w[\w.]*)", text)
    if missing_value:
        return f"{missing_value[1]}: no value; set {missing_value[1]}=..."
    if "is not a subclass of Term" in text:
        return "objective: a term cannot be written on the command line; put it into a file of configs/objective"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    noise = re.compile(r"full_key|reference_type|object_type|See https|Set the env|\*+|To append|.*\$VALUE")
    message = "; ".join([line for line in dict.fromkeys(lines) if not noise.match(line)][:3])
    return message if not where or where[1] in message else f"{where[1]}: {message}"


def _missing_choice(choice: str) -> str:
    group, _, name = choice.partition("/") if choice.startswith("experiment/") else choice.rpartition("/")
    root = CONFIGS / group
    options = (
        sorted(str(path.relative_to(root).with_suffix("")) for path in root.rglob("*.yaml"))
        if group and root.is_dir()
        else []
    )
    if not options:
        return f"{choice}: no such config; look into configs/"
    close = difflib.get_close_matches(name, options, n=4, cutoff=0.5)
    tail = f"did you mean {' or '.join(close)}?" if close else f"available: {', '.join(options)}"
    return f"{group}={name}: no such choice; {tail}"


def _unknown_key(path: str) -> str:
    from engine.config import trunk_keys

    close = difflib.get_close_matches(path, trunk_keys(), n=1) or difflib.get_close_matches(
        path.rpartition(".")[2], ["weight", "term"], n=1
    )
    return f"{path}: no such key; " + (
        f"did you mean '{close[0]}'?" if close else "`--cfg job` prints every key there is"
    )
