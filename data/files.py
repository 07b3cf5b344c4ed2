"""Names of files: what lies in a folder, and who is whose partner.

Partners share their relative path without suffix; sorting and counting never pair anything.
"""

import glob
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from data.reading import SUFFIXES
from errors import UserError

T = TypeVar("T")


def find_images(folder: Path) -> dict[str, Path]:
    """Relative stem -> file of every image under `folder`, sorted by name; links are followed, hidden files left out.

    Raises: UserError for a missing or empty folder, and where two files differ by suffix only.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {seen(folder.parent)}")
    found: dict[str, Path] = {}
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in sorted(Path(place) / name for name in files if not name.startswith(".")):
            if file.suffix.lower() in SUFFIXES:
                _add(found, folder, file)
    if not found:
        raise UserError(f"{folder}: holds no images; wanted files of {', '.join(sorted(SUFFIXES))}")
    return dict(sorted(found.items()))


def _add(found: dict[str, Path], folder: Path, file: Path) -> None:
    """Enters a file under its name. Raises: UserError where another suffix of the same name came before."""
    name = file.relative_to(folder).with_suffix("").as_posix()
    if name in found:
        raise UserError(f"{file}: has the same name as {found[name].name}; remove one of them")
    found[name] = file


def match(sides: dict[str, dict[str, Path]], place: Path) -> list[str]:
    """The names that all sides share. Raises: UserError listing the first names without a partner, side by side."""
    (first, files), *others = sides.items()
    for other, partners in others:
        alone, lost = sorted(files.keys() - partners.keys()), sorted(partners.keys() - files.keys())
        if alone or lost:
            raise UserError(
                f"{place}: {len(alone)} in {first} without {other} ({first_names(alone)}), {len(lost)} in {other}"
                f" without {first} ({first_names(lost)}); pairs have the same name, apart from the suffix"
            )
    return list(files)


def find_inputs(path: Path) -> tuple[Path, dict[str, Path]]:
    """The folder that names are relative to, and name -> file, for a folder, a file or a pattern."""
    if path.is_dir():
        base = path / "input" if (path / "input").is_dir() else path
        return base, find_images(base)
    if path.is_file():
        return path.parent, {path.stem: path}
    files = sorted(Path(file) for file in glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute patterns too
    files = [file for file in files if file.is_file() and file.suffix.lower() in SUFFIXES]
    if not files:
        raise UserError(f"{path}: no such folder, file or pattern; set input")
    base = Path(os.path.commonpath([file.parent for file in files]))
    found: dict[str, Path] = {}
    for file in files:
        _add(found, base, file)
    return base, found


def check_aspect(source: Path, own: tuple[int, int], partner: Path, other: tuple[int, int]) -> None:
    """Partners may differ in size, not in shape beyond the rounding of one pixel."""
    (height, width), (high, wide) = own, other
    if abs(wide - width * high / height) > 1 and abs(high - height * wide / width) > 1:
        raise UserError(
            f"{partner}: is {wide}x{high}, but {source.parent.name}/{source.name} is {width}x{height}; partners have"
            " the same ratio of width to height: crop one of them"
        )


def first_names(names: list[str]) -> str:
    """The first ten, for errors."""
    return (", ".join(names[:10]) + (", ..." if len(names) > 10 else "")) or "none"


def seen(folder: Path) -> str:
    """What lies in a folder, for errors about what does not."""
    if not folder.is_dir():
        return f"{folder} does not exist either"
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return f"{folder} has the folders {', '.join(names[:10]) or 'none'}"


def in_threads(work: Callable[..., T], items: Iterable) -> list[T]:
    """`work` of every item, in order; the first error in that order is raised. Pillow decodes outside the GIL."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(work, items))
