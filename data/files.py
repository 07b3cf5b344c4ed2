"""Names of files: what lies in a folder, and who is whose partner.

Partners share their relative path without suffix; sorting and counting never pair anything.
"""

import glob
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TypeVar

from errors import UserError
from listing import SUFFIXES, ImageFiles, find_images
from pixels import Header, read_header

S = TypeVar("S")
T = TypeVar("T")
BLOCK, SLOW = 64, 5e-4  # files whose headers are timed together; seconds a file from which the disk is waited for
CHUNK = 16  # items that a thread takes at once: handing over one costs as much as reading its header


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


def find_inputs(path: Path) -> tuple[Path, ImageFiles]:
    """The folder that names are relative to, and name -> file, for a folder, a file or a pattern."""
    if path.is_dir():
        base = path / "input" if (path / "input").is_dir() else path
        return base, find_images(base)
    if path.is_file():
        return path.parent, ImageFiles(path.parent, {path.stem: path.suffix})
    if path.exists():
        raise UserError(f"{path}: is neither a file nor a folder; set input")
    files = sorted(Path(file) for file in glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute patterns too
    files = [file for file in files if file.is_file() and file.suffix.lower() in SUFFIXES]
    if not files:
        raise UserError(f"{path}: no such folder, file or pattern; set input")
    base = Path(os.path.commonpath([file.parent for file in files]))
    return base, ImageFiles.of(base, (file.relative_to(base).as_posix() for file in files))


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


def in_threads(work: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """`work` of every item, in order; the first error in that order is raised. Pillow decodes outside the GIL."""
    waiting = list(items)
    chunks = [waiting[start : start + CHUNK] for start in range(0, len(waiting), CHUNK)]
    with ThreadPoolExecutor() as pool:
        return list(chain.from_iterable(pool.map(lambda chunk: [work(item) for item in chunk], chunks)))
