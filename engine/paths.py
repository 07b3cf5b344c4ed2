"""Paths that a command was given, checked before anything heavy is imported: nothing here imports torch."""

import glob
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

import openmp  # noqa: F401 - every entry imports this module, or launch.py, before torch
from errors import UserError
from files import refuse_overlap

GONE = "the current folder does not exist any more; change to another one"
QUOTED = set(",'\"[]{}()$\\")  # a value with these is Hydra's to read


def locate(checkpoint: str, which: str = "last") -> Path:
    """A checkpoint argument: a file, or a run folder, then its last.pt, or its best.pt where `which` is best."""
    path = Path(checkpoint).expanduser()
    if which not in ("last", "best"):
        raise UserError(f"which={which}: last or best was wanted")
    if not path.is_dir():
        if which == "best" and path.name != "best.pt":
            raise UserError(f"which=best: checkpoint={checkpoint} is a file; give the run's folder")
        return path
    if not (path / f"{which}.pt").is_file():
        cure = (
            "train with evaluate.every set, which keeps one" if which == "best" else "give a run folder or a .pt file"
        )
        raise UserError(f"checkpoint={checkpoint}: the folder holds no {which}.pt; {cure} (checkpoints/.../seed0)")
    return path / f"{which}.pt"


def check_checkpoint(checkpoint: str, which: str = "last") -> None:
    """Raises: UserError where the file of a checkpoint argument is not there."""
    path = locate(checkpoint, which)
    if not path.is_file():
        raise UserError(f"checkpoint={path}: no such file")


def check_input(place: str) -> None:
    """Raises: UserError where input= is no folder, file or pattern that fits any."""
    path = Path(place).expanduser()
    if not path.exists() and next(glob.iglob(str(path), recursive=True), None) is None:  # noqa: PTH207
        raise UserError(f"{path}: no such folder, file or pattern; set input")


def check_folder(key: str, place: str | None, wanted: str = "a folder of images") -> None:
    """Raises: UserError where a key does not name a folder; null is none."""
    if place is not None and not (path := Path(place).expanduser()).is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise UserError(f"{key}={place}: {what}; {wanted} was wanted")


def check_segmenter(place: str | None) -> None:
    """Raises: UserError where segmenter= is neither a file, nor a folder, nor hf:NAME."""
    if place is not None and not place.startswith("hf:") and not Path(place).expanduser().exists():
        raise UserError(f"segmenter={place}: no such file or folder")


def check_runs(paths: list[str]) -> None:
    """Raises: UserError where a path of runs= leads nowhere."""
    for path in paths:
        if not Path(path).expanduser().exists() and not glob.glob(str(Path(path).expanduser())):  # noqa: PTH207
            raise UserError(f"runs={path}: no such folder; a folder made by train.py was wanted")


def check_raw(place: str) -> None:
    """Raises: UserError where raw= is no folder."""
    if not Path(place).expanduser().is_dir():
        raise UserError(f"raw={place}: no such folder; `python prepare.py --help` says what each data set wants")


def check_root(root: str | Path) -> None:
    """Raises: UserError where dataset.root is no folder."""
    if not Path(root).expanduser().is_dir():
        raise UserError(
            f"{root}: no such folder; set dataset.root or DATA_ROOT, or make it by prepare.py (--help tells how)"
        )


def check_training(cfg: DictConfig, folder: Path) -> None:
    """The paths of train.py. Raises: UserError where one is missing, or the run folder and the data overlap."""
    root = data_root(cfg)
    if root is not None:
        check_root(root)
        refuse_overlap("hydra.run.dir", folder, {"dataset.root": root})
    if cfg.checkpoint is not None and not (folder / "last.pt").is_file():  # a run goes on without its beginning
        check_checkpoint(cfg.checkpoint)
    if cfg.evaluate.every:
        check_segmenter(cfg.evaluate.segmenter)


def data_root(cfg: DictConfig) -> Path | None:
    """The data folder of a run's config; None where the data are generated."""
    root = cfg.dataset.get("root") if OmegaConf.is_dict(cfg.get("dataset")) else None
    return None if root is None else Path(str(root)).expanduser()


def early(checks: Mapping[str, Callable[[str], Any]]) -> None:
    """For a script whose imports are heavy, before them: check the words KEY=PATH of its command line.

    Words that only Hydra can read are left to it.
    """

    def check() -> None:
        for word in sys.argv[1:]:
            key, _, value = word.partition("=")
            if key in checks and value not in ("", "null") and not QUOTED & set(value):
                checks[key](value)

    _or_fail(check)


def early_files(suffixes: tuple[str, ...]) -> None:
    """The same for a script whose words are files, of which the last is written."""

    def check() -> None:
        for word in [word for word in sys.argv[1:] if word.endswith(suffixes) and "=" not in word][:-1]:
            if not Path(word).is_file():
                raise UserError(f"{word}: no such file")

    _or_fail(check)


def _or_fail(check: Callable[[], None]) -> None:
    from engine.launch import fail

    try:
        Path.cwd()
        check()
    except FileNotFoundError:
        fail(GONE)
    except UserError as error:
        fail(str(error))
