"""Label maps of an evaluation: 8-bit PNGs of stored ids, read as the ids that a segmenter was trained on.

A data set stores more ids than are scored (Cityscapes 34 against 19, GTA5 the same, ADE20K 151 against 150): the map
from one to the other is data of the evaluation, not of the reader. Ids are integers: they are resized by nearest
neighbour only.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from errors import UserError
from listing import composed
from metrics.images import Size
from pixels import ids_of, opened, read_header

VOID = 255  # the evaluation id of pixels without a class


def score_table(score_map: Sequence[int] | None) -> Tensor:
    """A table (256,) int64 from stored to evaluation ids; ids beyond the map become VOID; None changes nothing."""
    if score_map is None:
        return torch.arange(256)
    values = list(score_map)
    if len(values) > 256 or not all(isinstance(value, int) and 0 <= value <= VOID for value in values):
        raise UserError(
            f"score_map={values}: 256 whole numbers in 0..{VOID} at most were wanted, one for each stored id"
        )
    return torch.tensor(values + [VOID] * (256 - len(values)))


def read_labels(path: Path, table: Tensor, classes: int, size: Size) -> Tensor:
    """A single-channel label PNG as (H, W) int64 evaluation ids, resized to `size` by nearest neighbour.

    Raises: UserError naming the file for an RGB or 16-bit label, an unreadable file, or ids that the segmenter does not
        know.
    """
    with opened(path) as image:
        if image.mode not in ("L", "P", "1"):  # of a palette image the indices are the ids
            raise UserError(f"{path}: mode {image.mode}; an 8-bit PNG of label ids was wanted")
        stored = Image.fromarray(ids_of(path, image).astype(np.uint8))
    ids = table[torch.from_numpy(np.array(stored.resize(size[::-1], Image.Resampling.NEAREST))).long()]
    unknown = sorted(set(ids.unique().tolist()) - set(range(classes)) - {VOID})
    if unknown:
        raise UserError(
            f"{path}: ids {unknown} are not in 0..{classes - 1} of the segmenter; map them, or to {VOID}, by score_map="
        )
    return ids


def label_size(path: Path) -> Size:
    """(H, W) of a label PNG, from its header. Raises: UserError naming an unreadable file."""
    return read_header(path).size


def pair(folders: dict[str, tuple[Path, list[Path]]]) -> dict[str, list[Path]]:
    """Files of several folders in one order, matched by relative path in NFC without suffix, as the first has them.

    Args:
        folders: {config key: (folder, its files)}.
    Raises: UserError listing names that another folder lacks, or that stand for two files of one folder.
    """
    named: dict[str, dict[str, Path]] = {}
    for key, (folder, files) in folders.items():
        named[key] = {composed(file.relative_to(folder).with_suffix("").as_posix()): file for file in files}
        if len(named[key]) < len(files):
            raise UserError(
                f"{key}={folder}: two files share a name but for the suffix; each name must stand for one image"
            )
    wanted = list(next(iter(named.values())))
    for key, files_by_name in named.items():
        missing = [name for name in wanted if name not in files_by_name]
        if missing:
            raise UserError(
                f"{key}={folders[key][0]}: none for {len(missing)} of {len(wanted)} images: {', '.join(missing[:10])}"
            )
    return {key: [files_by_name[name] for name in wanted] for key, files_by_name in named.items()}
