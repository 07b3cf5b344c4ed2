"""What a data set returns: one typed dict of uint8 tensors, always the same; and the image range.

Images stay uint8 until they are on the device: a quarter of the copying, and one rule for the range.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, TypeAlias, TypedDict

import torch
from torch import Tensor
from typing_extensions import NotRequired


class Example(TypedDict):
    """One item of a data set.

    name: the item's key, a relative path without suffix, such as "berlin/000019".
    source: (1, H, W) uint8 label ids, or a (C, H, W) uint8 image; absent from items of an unpaired `reals()`.
    target: (C, H, W) uint8 image; absent from items of `folders.Inputs` and of an unpaired `sources()`.
    instance: (1, H, W) int32 instance ids, where the data set has them.
    depth: (1, H, W) int32 millimetres, of which the target shows the colours, where the data set has depth.
    label: (1, H, W) uint8 ids that a translation of the source is scored against, in items of `sources()`.
    """

    name: str
    source: NotRequired[Tensor]
    target: NotRequired[Tensor]
    instance: NotRequired[Tensor]
    depth: NotRequired[Tensor]
    label: NotRequired[Tensor]


class Batch(TypedDict):
    """Examples collated by torch's default collate: the same keys, tensors with a leading B, names as a list."""

    name: list[str]
    source: NotRequired[Tensor]
    target: NotRequired[Tensor]
    instance: NotRequired[Tensor]
    depth: NotRequired[Tensor]
    label: NotRequired[Tensor]


Sides: TypeAlias = Sequence[Annotated[int, range(1, 16385)]]  # height and width; PIXELS bounds their product
Ids: TypeAlias = Sequence[Annotated[int, range(256)]]
Classes: TypeAlias = Annotated[int, range(1, 257)]
Channels: TypeAlias = Annotated[int, range(1, 1025)]
Lengths: TypeAlias = Mapping[str, Annotated[int, range(1, 1_000_001)]]
PIXELS = 2**24  # of an item; 64 maps of as many, as generators make of it, take 4 GiB in float32

Key: TypeAlias = int | tuple[int, int] | tuple[int, int, bool]


def unpack(key: Key) -> tuple[int, int, bool]:
    """The key of an item, index or (index, draw) or (index, draw, plain), as all three.

    `draw` numbers the random crop and flip (0 where it is not given); `plain` leaves the crop out.
    """
    if isinstance(key, int):
        return key, 0, False
    index, draw, *plain = key
    return index, draw, bool(plain and plain[0])


def to_float(image: Tensor) -> Tensor:
    """uint8 image of any shape to float32 in [-1, 1], the range that every network takes and gives."""
    return image.float() / 127.5 - 1


def to_uint8(image: Tensor) -> Tensor:
    """Image in [-1, 1] to uint8, clamped and rounded to the nearest level; the inverse of `to_float`. No gradient."""
    return ((image.detach().float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
