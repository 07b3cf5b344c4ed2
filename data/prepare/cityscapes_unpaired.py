"""Cityscapes without pairs, as CUT and MoNCE translate it: A are label maps in the benchmark's 19 colours, B photos.

The same download as cityscapes.py, at 256x256 unless size= says otherwise. Ids are resized by nearest neighbour and
then coloured, so that no two colours blend; labels/ holds the ids of A, which translations of A are scored against.
`test` is the official val; there is no `val`.

cut_compatible=true makes the pixels of CUT's own script instead (Park et al. 2020): the release's colour files, resized
as photos are, so that colours blend, and both sides through JPEG of quality 100. Its folders hold photos in A: with
them, set dataset.source=B dataset.target=A.
"""

import io
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.labels import colorize
from data.prepare import cityscapes
from data.prepare.plan import REPLACE, Drawn, Item, Plan, Size
from data.reading import LabelReader, read_image
from data.transforms import resize_ids
from errors import UserError
from pixels import read_header

COLORS = {"color": ("gtFine", "_gtFine_color.png")}


def find(raw: Path, allow_partial: bool = False, cut_compatible: bool = False) -> Plan:
    """Both sides of a raw Cityscapes tree. Raises: UserError with the expected tree, or naming lost partners."""
    sides = {side: cityscapes.SIDES[side] for side in ("photo", "labelIds")} | (COLORS if cut_compatible else {})
    plan, found = cityscapes.pairs(raw, allow_partial, sides)
    plan.size = (256, 256)
    for place, name, files in found:
        label, photo = files["labelIds"], files["photo"]
        shown = Drawn((label, photo), partial(_colored, label, photo))
        real: Path | Drawn = photo
        if cut_compatible:
            shown = Drawn((files["color"], photo), partial(_through_jpeg, files["color"], photo))
            real = Drawn((photo,), partial(_through_jpeg, photo, photo))
        plan.items += [Item(place, name, {"labels": label, "A": shown}), Item(place, name, {"B": real})]
    return plan


def _colored(label: Path, photo: Path, size: Size) -> Tensor:
    """(3, *size) colours of the ids."""
    ids = LabelReader(35, cure=REPLACE).read(label)
    _check_size(label, tuple(ids.shape[-2:]), photo)
    return colorize(resize_ids(ids, size), "cityscapes")


def _through_jpeg(file: Path, photo: Path, size: Size) -> Tensor:
    """(3, *size) of a picture as CUT's script leaves it."""
    pixels = read_image(file)
    _check_size(file, tuple(pixels.shape[-2:]), photo)
    image = Image.fromarray(pixels.movedim(0, -1).contiguous().numpy()).resize(size[::-1], Image.Resampling.BICUBIC)
    packed = io.BytesIO()
    image.save(packed, format="JPEG", subsampling=0, quality=100)
    return torch.from_numpy(np.array(Image.open(packed))).movedim(-1, 0).contiguous()


def _check_size(file: Path, own: tuple[int, ...], photo: Path) -> None:
    """A label map and its photo go to different sides, and yet must have one size."""
    if (size := read_header(photo).size) != own:
        raise UserError(f"{photo}: is {size[1]}x{size[0]}, its label map {own[1]}x{own[0]}; {REPLACE}")
