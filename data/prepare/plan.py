"""What a raw tree holds and what becomes of it: found by a data set's own file, carried out by layout.py."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from data.files import first_names
from errors import UserError

REPLACE = "take it from the official download again"
Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Download:
    """Where a data set comes from, for `prepare.py --help`: plain text, a line or two each.

    get: where to register and what to download, and the tree that raw= wants. weighs: bytes, where known.
    licence: terms of use.
    """

    get: str
    weighs: str
    licence: str


@dataclass(frozen=True, eq=False)
class Drawn:
    """A file of the layout that is computed, where no raw file can be copied or converted.

    sources: the raw files that it is computed from; it is made again when one of them is newer.
    draw: its pixels at a (height, width): (C, H, W) uint8 of an image, (1, H, W) integers of ids or of millimetres;
        called from several threads. Raises: UserError for a bad raw file.
    size: (height, width) of what it shows, which its partners must share; None where it can be drawn at any.
    loose: its partners may have another size: it is drawn at `size` wherever size= asks for nothing else.
    """

    sources: tuple[Path, ...]
    draw: Callable[[Size], Tensor]
    size: Size | None = None
    loose: bool = False


@dataclass(frozen=True, eq=False)
class Item:
    """One pair of the raw tree, or one image where nothing is paired, and the split and name that it gets.

    files: raw file by the folder that it goes to: input and target, or depth in its place, with or without instance;
        or A, with or without labels; or B. A label map comes first: it settles the size.
    """

    split: str
    name: str
    files: Mapping[str, Path | Drawn]

    @property
    def paired(self) -> bool:
        """Whether this is a pair."""
        return "input" in self.files

    @property
    def origin(self) -> Path:
        """The first of its raw files."""
        return sources(next(iter(self.files.values())))[0]

    @property
    def listed(self) -> str:
        """The name that manifest.json lists: of an unpaired image with its side, since both sides may have it."""
        return self.name if self.paired else f"{'A' if 'A' in self.files else 'B'}/{self.name}"


@dataclass
class Plan:
    """What a raw tree holds and what becomes of it.

    items: all of them pairs, or none.
    source_counts: pairs of each raw split found; expected: those of the official release.
    classes, ignore: of the labels written; None where there are none. table: raw id -> written id, None where they are
        the same.
    channels: of the images in input/, where those are no labels.
    dropped: (name, reason) of pairs left out, with allow_partial=true or because the release is known to lack them.
    size: (height, width) that everything is resized to where size= is not given; None: as it is.
    photo_size: (height, width) of every photo of the official release, where they are all equal and small.
    known_bad: names of pairs that are bad in the official release: left out instead of refused.
    drop_constant: the official release holds photos of one colour: left out instead of refused.
    """

    items: list[Item]
    source_counts: dict[str, int]
    expected: dict[str, int]
    classes: int | None = None
    ignore: int | None = None
    table: list[int] | None = None
    channels: int = 3
    dropped: list[tuple[str, str]] = field(default_factory=list)
    size: Size | None = None
    photo_size: Size | None = None
    known_bad: frozenset[str] = frozenset()
    drop_constant: bool = False

    @property
    def labels(self) -> dict[str, Any]:
        """What input/ or labels/ holds, as manifest.json says it."""
        if self.classes is None:
            return {"kind": "image", "channels": self.channels}
        return {"kind": "ids", "classes": self.classes, "ignore": self.ignore}


def sources(file: Path | Drawn) -> tuple[Path, ...]:
    """The raw files behind a file of the layout."""
    return (file,) if isinstance(file, Path) else file.sources


def require(raw: Path, folders: list[str], tree: str) -> None:
    """Raises UserError with the expected tree where a folder of the raw tree is missing."""
    missing = [name for name in folders if not (raw / name).is_dir()]
    if missing:
        what = f"lacks {', '.join(missing)}" if raw.is_dir() else "no such folder"
        raise UserError(f"{raw}: {what}; raw= wants {tree}")


def drawn_apart(names: list[str], count: int, key: str) -> set[str]:
    """`count` of the names, drawn at random once and for all: the same on every machine and with every library."""
    hashes = {name: hashlib.sha256(f"{key}/{name}".encode(errors="surrogateescape")).digest() for name in names}
    return set(sorted(names, key=hashes.__getitem__)[:count])


def partners(
    sides: Mapping[str, Mapping[str, Path]], place: str, allow_partial: bool
) -> tuple[list[str], list[tuple[str, str]]]:
    """Names on every side, and those dropped for want of a partner. Raises: UserError unless they may be dropped."""
    everywhere = set.intersection(*(set(files) for files in sides.values()))
    lost = []
    for name in sorted(set().union(*sides.values()) - everywhere):
        lacking = ", ".join(side for side, files in sides.items() if name not in files)
        lost.append((name, f"no {lacking}"))
    if lost and not allow_partial:
        listed = first_names([f"{name} has {reason}" for name, reason in lost])
        raise UserError(
            f"{place}: {len(lost)} without a partner: {listed}; complete the download, or set allow_partial=true"
        )
    return sorted(everywhere), lost
