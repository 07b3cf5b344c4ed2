"""What a data set returns: one typed dict of uint8 tensors, always the same; and the image range.

Images stay uint8 until they are on the device: a quarter of the copying, and one rule for the range.
"""

from typing import TypedDict

import torch
from torch import Tensor
from typing_extensions import NotRequired


class Example(TypedDict):
    """One item of a data set.

    name: the item's key, a relative path without suffix, such as "berlin/000019".
    source: (1, H, W) uint8 label ids, or a (C, H, W) uint8 image.
    target: (3, H, W) uint8 image; absent from items of `folders.Inputs`.
    instance: (1, H, W) int32 instance ids, where the data set has them.
    """

    name: str
    source: Tensor
    target: NotRequired[Tensor]
    instance: NotRequired[Tensor]


class Batch(TypedDict):
    """Examples collated by torch's default collate: the same keys, tensors with a leading B, names as a list."""

    name: list[str]
    source: Tensor
    target: NotRequired[Tensor]
    instance: NotRequired[Tensor]


def to_float(image: Tensor) -> Tensor:
    """uint8 image of any shape to float32 in [-1, 1], the range that every network takes and gives."""
    return image.float() / 127.5 - 1


def to_uint8(image: Tensor) -> Tensor:
    """Image in [-1, 1] to uint8, clamped and rounded to the nearest level; the inverse of `to_float`. No gradient."""
    return ((image.detach().float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
