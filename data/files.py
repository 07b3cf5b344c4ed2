"""Names of files: what lies in a folder, and who is whose partner.

Partners share their relative path without suffix; sorting and counting never pair anything.
"""

import glob
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TypeVar

from data.reading import SUFFIXES, Header, read_header
from errors import UserError

S = TypeVar("S")
T = TypeVar("T")
BLOCK, SLOW = 64, 5e-4  # files whose headers are timed together; seconds a file from which the disk is waited for
CHUNK = 16  # items that a thread takes at once: handing over one costs as much as reading its header


class ImageFiles(Mapping[str, Path]):
    """Relative stem -> file, in order of names. A path is made when it is asked for: a million take a tenth of that."""

    def __init__(self, folder: Path, suffixes: dict[str, str]) -> None:
        self.folder, self.suffixes = folder, suffixes

    def __getitem__(self, name: str) -> Path:
        return self.folder / f"{name}{self.suffixes[name]}"

    def __contains__(self, name: object) -> bool:
        return name in self.suffixes

    def __iter__(self) -> Iterator[str]:
        return iter(self.suffixes)

    def __len__(self) -> int:
        return len(self.suffixes)


def find_images(folder: Path) -> Mapping[str, Path]:
    """Relative stem -> file of every image under `folder`, sorted by name; links are followed, hidden files left out.

    Raises: UserError for a missing or empty folder, and where two files differ by suffix only.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {seen(folder.parent)}")
    found: dict[str, str] = {}
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        prefix = "" if place == str(folder) else f"{Path(place).relative_to(folder).as_posix()}/"
        for file in sorted(files):
            stem, dot, suffix = file.rpartition(".")
            if file.startswith(".") or f".{suffix.lower()}" not in SUFFIXES:
                continue
            name = prefix + stem
            if name in found:
                raise _twice(folder / f"{prefix}{file}", f"{stem}{found[name]}")
            found[name] = sys.intern(dot + suffix)
    if not found:
        raise UserError(f"{folder}: holds no images; wanted files of {', '.join(sorted(SUFFIXES))}")
    return ImageFiles(folder, dict(sorted(found.items())))


def _twice(file: Path, other: str) -> UserError:
    return UserError(f"{file}: has the same name as {other}; remove one of them")


def match(sides: Mapping[str, Mapping[str, Path]], place: Path) -> list[str]:
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


def find_inputs(path: Path) -> tuple[Path, Mapping[str, Path]]:
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
        name = file.relative_to(base).with_suffix("").as_posix()
        if name in found:
            raise _twice(file, found[name].name)
        found[name] = file
    return base, found


def check_aspect(source: Path, own: tuple[int, int], partner: Path, other: tuple[int, int]) -> None:
    """Partners may differ in size, not in shape beyond the rounding of one pixel."""
    (height, width), (high, wide) = own, other
    if abs(wide - width * high / height) > 1 and abs(high - height * wide / width) > 1:
        raise UserError(
            f"{partner}: is {wide}x{high}, but {source.parent.name}/{source.name} is {width}x{height}; partners have"
            " the same ratio of width to height: crop one of them"
        )


def read_headers(files: Mapping[str, Path], names: Iterable[str]) -> list[Header]:
    """Headers of the files of `names`, in order. Raises: UserError of the first that is no image.

    By one thread while the disk answers at once: headers are parsed under the GIL, for which several threads queue (2.4
    times as long, seen on two cores). From the first slow block on by many, which wait for the disk together.
    """
    waiting, found = list(names), list[Header]()
    while len(found) < len(waiting):
        block = waiting[len(found) : len(found) + BLOCK]
        begun = time.perf_counter()
        found += [read_header(files[name]) for name in block]
        if time.perf_counter() - begun > SLOW * len(block):
            return found + in_threads(lambda name: read_header(files[name]), waiting[len(found) :])
    return found


def first_names(names: list[str]) -> str:
    """The first ten, for errors."""
    return (", ".join(names[:10]) + (", ..." if len(names) > 10 else "")) or "none"


def seen(folder: Path) -> str:
    """What lies in a folder, for errors about what does not."""
    if not folder.is_dir():
        return f"{folder} does not exist either"
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    folders = [name for name in names if (folder / name).is_dir()]
    if folders:
        return f"{folder} has the folders {first_names(folders)}"
    return f"{folder} has no folders" + (f", but {len(names)} files: {first_names(names)}" if names else "")


def in_threads(work: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """`work` of every item, in order; the first error in that order is raised. Pillow decodes outside the GIL."""
    waiting = list(items)
    chunks = [waiting[start : start + CHUNK] for start in range(0, len(waiting), CHUNK)]
    with ThreadPoolExecutor() as pool:
        return list(chain.from_iterable(pool.map(lambda chunk: [work(item) for item in chunk], chunks)))
