"""What a raw tree holds and what becomes of it: found by a data set's own file, carried out by layout.py."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data.files import first_names
from errors import UserError

REPLACE = "take it from the official download again"


@dataclass(frozen=True, eq=False)
class Item:
    """One pair of the raw tree, or one image where nothing is paired, and the split and name that it gets.

    files: raw file by the folder that it goes to: input and target, with or without instance; or A, with or without
        labels; or B. A label map comes first: it settles the size.
    """

    split: str
    name: str
    files: Mapping[str, Path]

    @property
    def paired(self) -> bool:
        """Whether this is a pair."""
        return "target" in self.files

    @property
    def listed(self) -> str:
        """The name that manifest.json lists: of an unpaired image with its side, since both sides may have it."""
        return self.name if self.paired else f"{'A' if 'A' in self.files else 'B'}/{self.name}"


@dataclass
class Plan:
    """What a raw tree holds and what becomes of it.

    items: all of them pairs, or none.
    source_counts: pairs of each raw split found; expected: those of the official release.
    classes, ignore: of the labels written. table: raw id -> written id, None where they are the same.
    dropped: (name, reason) of pairs left out, only with allow_partial=true.
    """

    items: list[Item]
    source_counts: dict[str, int]
    expected: dict[str, int]
    classes: int
    ignore: int | None = None
    table: list[int] | None = None
    dropped: list[tuple[str, str]] = field(default_factory=list)


def require(raw: Path, folders: list[str], tree: str) -> None:
    """Raises UserError with the expected tree where a folder of the raw tree is missing."""
    missing = [name for name in folders if not (raw / name).is_dir()]
    if missing:
        what = f"lacks {', '.join(missing)}" if raw.is_dir() else "no such folder"
        raise UserError(f"{raw}: {what}; raw= wants {tree}")


def partners(
    sides: dict[str, dict[str, Path]], place: str, allow_partial: bool
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
