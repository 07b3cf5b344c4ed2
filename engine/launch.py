"""From a command line to a function: a user's mistake becomes one line and exit code 1, a bug keeps its traceback."""

import difflib
import errno
import functools
import io
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from engine.paths import GONE
from engine.pipes import quiet_pipes
from engine.ranges import check_ranges
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
                check_ranges(cfg)
                function(cfg)
            except Diverged as error:
                fail_together(str(error))
            except (UserError, OmegaConfBaseException) as error:
                fail(_job() + explain(error, sys.argv[1:], name))

        main: Callable[[], None] = hydra.main(version_base=None, config_path=str(CONFIGS), config_name=name)(job)
        main.entry = name  # type: ignore[attr-defined]  # whose keys a typing error is compared with
        return main

    return decorate


def launch(main: Callable[[], object]) -> None:
    """Run a main function made by `entry`: a user's mistake, a config that cannot be composed and what the system
    refuses end as one line and exit code 1; `| head` ends it quietly."""
    with quiet_pipes():
        _launch(main)


def _launch(main: Callable[[], object]) -> None:
    try:
        Path.cwd()
    except FileNotFoundError:
        fail(GONE)
    several = os.environ.get("WORLD_SIZE", "1") not in ("0", "1")
    if several and any(word in ("-m", "--multirun") for word in sys.argv[1:]):
        fail(
            "-m (multirun) came under torchrun, where its second job would hang; use one of them, "
            "or loop over torchrun in a shell script"
        )
    check_environment(os.environ)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing, so that one place words all errors
    try:
        main()
    except (UserError, HydraException, OmegaConfBaseException) as error:
        fail(explain(error, sys.argv[1:], getattr(main, "entry", "train")))
    except OSError as error:  # a pipe's is no such error
        if error.errno not in OUTSIDE and not _makes_folder(error):
            raise
        fail(refusal(error))
    except ValueError as error:  # Hydra's word for a choice that is no text
        if not str(error).startswith("Config group override must be a string"):
            raise
        choice = next((word for word in sys.argv[1:] if re.match(r"[\w/]*=(null|[\d.]+|true|false)?$", word)), "")
        fail(f"{choice}: a config group takes a name; `--help` lists them")
    except KeyboardInterrupt:
        sys.exit(130)


def _makes_folder(error: OSError) -> bool:
    """Whether the system could not make a folder where there can be none, such as below /proc."""
    return error.errno == errno.ENOENT and traceback.extract_tb(error.__traceback__)[-1].name in ("mkdir", "makedirs")


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


def check_environment(variables: Mapping[str, str]) -> None:
    """Refuse what torchrun never sets: a part of its variables, or numbers that contradict each other."""
    numbers: dict[str, int] = {}
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        text = variables.get(name)
        if text is not None and not text.isdecimal():
            fail(f"{name}={text}: a whole number is expected; unset it, or start the ranks by torchrun")
        if text is not None:
            numbers[name] = int(text)
    world, rank = numbers.get("WORLD_SIZE", 1), numbers.get("RANK", 0)
    if world == 1 and rank == 0:
        return
    needed = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")
    came = f"{'WORLD_SIZE' if 'WORLD_SIZE' in numbers else 'RANK'}={world if 'WORLD_SIZE' in numbers else rank}"
    if lacking := [name for name in needed if name not in variables]:
        fail(f"{came} came without {', '.join(lacking)}: start the ranks by torchrun, or unset {came.split('=')[0]}")
    if rank >= world:
        fail(f"RANK={rank}: is no rank of WORLD_SIZE={world}, which are 0 to {world - 1}; start the ranks by torchrun")


def _job() -> str:
    """In a multirun, the number and the words of the job that failed."""
    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return ""
    words = list(HydraConfig.get().overrides.task)
    swept = [word for word in words if word not in sys.argv] or words
    return f"job {HydraConfig.get().job.num} ({' '.join(swept)}): "


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


def explain(error: Exception, arguments: list[str], entry: str = "train") -> str:
    """One line out of Hydra's and OmegaConf's messages, with the nearest legal word where one can be found.

    Args:
        arguments: of the command. entry: the name of its config.
    """
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
    if any(words in text for words in UNREADABLE):
        stuck = next((word for word in arguments if not word.startswith("-") and not _readable(word)), None)
        return _unreadable(stuck or " ".join(arguments))
    if ambiguous := re.search(r"Ambiguous value for argument '((.*?)=(.*))'", text):
        return (
            f"{ambiguous[1]}: several values, which -m runs one by one; a list is {ambiguous[2]}=[{ambiguous[3]}], and "
            f"one text needs inner quotes: '{ambiguous[2]}=\"{ambiguous[3]}\"'"
        )
    stranger = re.search(r"Could not override '(\w+)'\.", text)
    if stranger:
        return _unknown_key(stranger[1], entry)
    where = re.search(r"full_key: (\S+)", text)
    unknown = re.search(r"Key '([\w.]+)' (?:is not in struct|not in '(\w+)')", text)
    if unknown:
        return _unknown_key(where[1] if where else unknown[1], entry)
    missing_value = re.search(r"Missing mandatory value: (\w[\w.]*)", text)
    if missing_value:
        return f"{missing_value[1]}: no value; set {missing_value[1]}=..."
    if "is not a subclass of Term" in text:
        return "objective: a term cannot be written on the command line; put it into a file of configs/objective"
    expected = next((words for pattern, words in TYPES if re.search(pattern, text)), None)
    options = re.search(r"Invalid value '.*?', expected one of \[(.*?)\]", text)
    if expected is not None or options is not None:
        word = re.search(r"Error merging override (.*)", text)
        key = where[1] if where else "the value"
        given = word[1].lstrip("+") if word else key
        words = f"one of {options[1]}" if options is not None else expected
        return f"{given}: must be {words}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    noise = re.compile(r"full_key|reference_type|object_type|See https|Set the env|\*+|To append|.*\$VALUE")
    message = "; ".join([line for line in dict.fromkeys(lines) if not noise.match(line)][:3])
    return message if not where or where[1] in message else f"{where[1]}: {message}"


UNREADABLE = ("mismatched input", "token recognition", "no viable alternative", "extraneous input", "missing EQUAL")
TYPES = (  # what OmegaConf says of a value of another type, and what is expected
    (r"could not be converted to Integer", "a whole number"),
    (r"could not be converted to Float", "a number"),
    (r"not a valid bool|could not be converted to Boolean", "true or false"),
    (r"is not a ListConfig, list or tuple|Invalid value assigned: \w+ is not a (?:List|list)", "a list, such as [1,2]"),
    (r"Cannot convert '\w+' to string", "text"),
    (r"is not Optional|is not optional and cannot be assigned None", "a value, not null"),
)
BARE = re.compile(r"[\w/\-\\+.$%*@?|: ]", re.ASCII)  # what a value may hold without quotes, in Hydra's grammar


def _readable(word: str) -> bool:
    """Whether Hydra can read a word of the command line."""
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


def _unreadable(word: str) -> str:
    """What a word that Hydra cannot read should be typed as."""
    key, equals, value = word.partition("=")
    if not equals:
        return f"{word}: not readable as KEY=VALUE"
    if odd := re.search(r"[^\w.+~@:/\-]", key, re.ASCII):
        return f"{word}: not readable as KEY=VALUE; the key holds '{odd[0]}'"
    if letter := next((letter for letter in value if not BARE.match(letter)), ""):
        quote = "'" if '"' in value else '"'
        typed = f"{key}={quote}{value}{quote}"
        shell = f"'{typed}'" if quote == '"' else f'"{typed}"'
        return f"{word}: not readable as KEY=VALUE; a value with {letter} needs inner quotes: {shell}"
    return f"{word}: not readable as KEY=VALUE; inner quotes make any text a value: '{key}=\"{value}\"'"


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


def _unknown_key(path: str, entry: str) -> str:
    from engine.config import trunk_keys

    group = path.partition(".")[0]
    known = [key for key in trunk_keys(entry) if key != path]
    if group in known and "." in path:  # of a group's own keys, which its files have
        known = [key for key in _group_keys(group) if key != path]  # which another choice of the group has
    if inner := [key for key in known if key.startswith(f"{path}.")]:
        return f"{path}: is no value of its own; set {' or '.join(inner[:8])}"
    close = difflib.get_close_matches(path, known, n=1) or difflib.get_close_matches(
        path.rpartition(".")[2], ["weight", "term"] if group == "objective" else [], n=1
    )
    return f"{path}: no such key; " + (
        f"did you mean '{close[0]}'?" if close else "`--cfg job` prints every key there is"
    )


def _group_keys(group: str) -> list[str]:
    """Dotted keys of all files of a config group."""
    import yaml

    found: set[str] = set()

    def collect(node: object, path: str) -> None:
        for key, value in node.items() if isinstance(node, dict) else ():
            if not key.startswith("_") and key != "defaults":
                found.add(f"{path}.{key}")
                collect(value, f"{path}.{key}")

    for file in sorted((CONFIGS / group).rglob("*.yaml")):
        text = file.read_text(encoding="utf-8")
        content = yaml.safe_load(text) or {}
        collect(content.get(group) if "_global_" in text.partition("\n")[0] else content, group)
    return sorted(found)
