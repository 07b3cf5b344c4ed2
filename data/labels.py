"""Label maps are integers: never normalised, never blended; colours are to look at, or to read ids from.

Ids stay integers up to the network, which takes them as they are or as the dense map of `one_hot` (Park et al. 2019,
SPADE, arXiv:1903.07291, section 3: one channel a class, with the instance boundaries as one more).
Shapes: B batch, H height, W width, E 0 or 1 edge channel.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from errors import UserError

Palette = str | Path | Sequence[Sequence[int]]  # a file, or rows ID R G B
UNSCORED = 255  # the training id that metrics leave out
PALETTES = ("cityscapes", "gta", "camvid", "shapes", "distinct")  # names that `colors` has a table for

# Cityscapes label id -> training id of its benchmark, for the ids 0..34; GTA uses the same ids.
CITYSCAPES_TRAIN_IDS = [
    *[255] * 7, 0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 255, 255, 16, 17,
    18, 255,
]  # fmt: skip
CITYSCAPES_COLORS = [
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
    (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70),
    (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
]  # fmt: skip
CAMVID_COLORS = [
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0), (192, 128, 128),
    (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192), (0, 0, 0),
]  # fmt: skip
SHAPES_COLORS = [
    (135, 190, 235), (120, 170, 90), (70, 110, 120), (240, 190, 60), (190, 90, 70), (40, 140, 90), (150, 80, 170),
    (235, 60, 110),
]  # fmt: skip


def _distinct_colors() -> list[tuple[int, int, int]]:
    """256 colours in which near ids differ much: bit k of the id sets a high bit of channel k mod 3; 0 is black."""
    ids = np.arange(256)
    channels = [sum(((ids >> (3 * level + c)) & 1) << (7 - level) for level in range(3)) for c in range(3)]
    return [(int(red), int(green), int(blue)) for red, green, blue in np.stack(channels, -1)]


def colors(name: str) -> Tensor:
    """(256, 3) uint8 display colours of the data set `name`; ids without a colour of their own are black.

    cityscapes and gta (label ids), camvid and shapes have their usual colours, every other name 256 distinct ones.
    """
    table = torch.zeros(256, 3, dtype=torch.uint8)
    if name.startswith(("cityscapes", "gta")):
        for label, train_id in enumerate(CITYSCAPES_TRAIN_IDS):
            if train_id != UNSCORED:
                table[label] = torch.tensor(CITYSCAPES_COLORS[train_id], dtype=torch.uint8)
        return table
    known = {"camvid": CAMVID_COLORS, "shapes": SHAPES_COLORS}.get(name) or _distinct_colors()
    table[: len(known)] = torch.tensor(known, dtype=torch.uint8)
    return table


def colorize(ids: Tensor, name: str = "") -> Tensor:
    """Label ids in 0..255, (B, 1, H, W) or (1, H, W), to uint8 RGB, (B, 3, H, W) or (3, H, W), for display."""
    return colors(name).to(ids.device)[ids.squeeze(-3).long()].movedim(-1, -3).contiguous()


def instance_edges(instance: Tensor) -> Tensor:
    """Boundaries of instances: 1 where the id differs from any of the four neighbours, else 0.

    Both pixels of a differing pair are marked, and nothing at the border of the image (SPADE's edge channel).
    Args:
        instance: (B, 1, H, W) ids of any integer type.
    Returns: (B, 1, H, W) uint8.
    """
    edges = torch.zeros_like(instance, dtype=torch.bool)
    across = instance[..., :, 1:] != instance[..., :, :-1]
    down = instance[..., 1:, :] != instance[..., :-1, :]
    edges[..., :, 1:] |= across
    edges[..., :, :-1] |= across
    edges[..., 1:, :] |= down
    edges[..., :-1, :] |= down
    return edges.to(torch.uint8)


def semantic_map(source: Tensor, classes: int, ignore: int | None = None, instance: Tensor | None = None) -> Tensor:
    """The integer map that the networks read: ids with `ignore` replaced by the extra class, then the instance edges.

    Args:
        source: (B, 1, H, W) uint8 ids in 0..classes-1 or `ignore`, checked when they were read.
        ignore: the id of unknown pixels, which becomes the class index `classes`.
        instance: (B, 1, H, W) instance ids, or None.
    Returns: (B, 1 + E, H, W), uint8, or int16 where `classes` does not fit: ids in 0..classes, then edges 0/1.
    """
    ids = source if classes < 256 else source.to(torch.int16)
    if ignore is not None:
        ids = torch.where(ids == ignore, classes, ids).to(ids.dtype)
    return ids if instance is None else torch.cat([ids, instance_edges(instance).to(ids.dtype)], 1)


def one_hot(semantic: Tensor, classes: int) -> Tensor:
    """(B, 1 + E, H, W) integer map of `semantic_map` to the dense (B, classes + E, H, W) float32 map.

    `classes` counts the extra class too where there is one.
    """
    dense = torch.zeros(semantic.shape[0], classes, *semantic.shape[2:], device=semantic.device)
    dense.scatter_(1, semantic[:, :1].long(), 1.0)
    return torch.cat([dense, semantic[:, 1:].float()], 1)


def score_map(classes: int, unscored: list[int] | None = None, scored: list[int] | None = None) -> list[int]:
    """256 training ids, one for each stored id: what metrics compare; `UNSCORED` (255) is left out of the scores.

    Args:
        unscored: ids left out; every other id below `classes` is its own training id.
        scored: instead, the training id of each id 0, 1, ..., such as CITYSCAPES_TRAIN_IDS.
    Raises: UserError unless `scored` has an entry for each of `classes` (0: unknown), each in 0..255, and for an id in
        `unscored` that there is not.
    """
    if scored is not None and classes and len(scored) != classes:
        raise UserError(
            f"dataset.scored lists {len(scored)} ids, dataset.classes is {classes}; wanted one training id for each id,"
            f" {UNSCORED} for those left out"
        )
    if wrong := [value for value in scored or () if not isinstance(value, int) or not 0 <= value <= UNSCORED]:
        raise UserError(f"dataset.scored holds {wrong[0]}; wanted training ids 0..{UNSCORED}")
    table = list(range(classes)) if scored is None else list(scored)
    stray = [label for label in unscored or () if label >= len(table) and label != UNSCORED]
    if table and stray:
        raise UserError(
            f"dataset.unscored={list(unscored or ())}: {stray[0]} is no id of the data set, which has 0 to "
            f"{len(table) - 1} (dataset.classes)"
        )
    table = [UNSCORED if label in (unscored or ()) else train_id for label, train_id in enumerate(table)]
    return (table + [UNSCORED] * 256)[:256]


def palette_rows(palette: Palette) -> list[list[int]]:
    """Rows [ID, R, G, B] in order of ids: as a checkpoint holds a palette, whose file may be gone when it is used.

    Raises: UserError, as `read_palette`.
    """
    return sorted([label, *color] for color, label in read_palette(palette).items())


def read_palette(palette: Palette) -> dict[tuple[int, int, int], int]:
    """Colours and ids of an RGB label map, out of a file or of `palette_rows`.

    Two forms are understood. Text: one colour a line, `ID R G B [name]`, separated by blanks or commas, `#` opens a
    comment. JSON (suffix .json): a list of [R, G, B], whose positions are the ids, or an object {"ID": [R, G, B]}.
    Several colours may share an id in the text form. A byte order mark is passed over.

    Raises: UserError naming file and line where the file is missing or malformed, gives a colour two ids, or has its
    columns in the order R G B ID.
    """
    if not isinstance(palette, str | Path):
        return _palette_of("dataset.palette", [(f"row {number}", row) for number, row in enumerate(palette, 1)])
    file = Path(palette)
    try:
        if file.exists() and not file.is_file():
            raise UserError(f"{file}: is no file; set dataset.palette to a file of lines ID R G B")
        if file.exists() and file.stat().st_size > 2**20:
            raise OSError("larger than 1 MiB")
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read as a palette ({error}); set dataset.palette") from error
    try:
        if file.suffix.lower() == ".json":
            data = json.loads(text)
            pairs = data.items() if isinstance(data, dict) else enumerate(data)
            rows = [(f"entry {label}", [label, *color]) for label, color in pairs]
        else:
            lines = [line.split("#")[0].replace(",", " ").split() for line in text.splitlines()]
            rows = [(f"line {number}", words[:4]) for number, words in enumerate(lines, 1) if words]
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{file}: is not a palette ({error}); wanted a JSON list or object of [R, G, B]") from error
    return _palette_of(file, rows)


def _palette_of(file: str | Path, rows: list[tuple[str, Any]]) -> dict[tuple[int, int, int], int]:
    """Colour -> id, checked; `file` and the place of each row are for errors."""
    table: dict[tuple[int, int, int], int] = {}
    for place, row in rows:
        try:
            label, red, green, blue = (int(value) for value in row)
            good = all(0 <= value <= 255 for value in (label, red, green, blue))
        except (ValueError, TypeError, OverflowError):
            good = False
        if not good:
            raise UserError(f"{file}: {place} is {row}; wanted ID R G B, four numbers in 0..255")
        if table.setdefault((red, green, blue), label) != label:
            first = table[red, green, blue]
            raise UserError(f"{file}: {place} gives colour {red},{green},{blue} the id {label}, before it was {first}")
    if not table:
        raise UserError(f"{file}: holds no colours; wanted lines ID R G B")
    if isinstance(file, Path) and file.suffix.lower() != ".json":
        ids, blues = ({int(row[at]) for _, row in rows} for at in (0, 3))
        if _count_up(blues) and not _count_up(ids):
            raise UserError(f"{file}: its last column counts up, its first does not: R G B ID? Wanted lines ID R G B")
    return table


def _count_up(values: set[int]) -> bool:
    """Whether a column looks like ids: 0, 1, 2 and so on without a gap, two at least, perhaps with 255 for unknown."""
    known = values - {UNSCORED} if len(values) <= UNSCORED else values
    return len(known) > 1 and min(known) <= 1 and max(known) - min(known) == len(known) - 1
