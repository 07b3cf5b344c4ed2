"""Drawings of a person's 18 joints (OpenPose, Cao et al. 2017, arXiv:1611.08050): skeleton and distances, or heat maps.

The skeleton is that of CoCosNet (Zhang et al. 2020, arXiv:2004.05571), released code; heat maps are those of PATN (Zhu
et al. 2019, arXiv:1904.03349). Everything is drawn at 256x256, where the sizes below belong.
Joints: a (x, y) in pixels each, or None for one that was not found; nose neck, right then left shoulder elbow wrist,
right then left hip knee ankle, right and left eye, right and left ear.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from data.prepare.distance import distance_map

Joint: TypeAlias = tuple[float, float] | None

SIZE = 256
JOINTS = 18
RADIUS = 4.0  # of a joint's disc, and half the width of a limb
SIGMA = 6.0  # of a heat map
ROUNDING = 1e-9  # so that the tips of an ellipse belong to it
OPACITY = 0.6  # of a limb over what was drawn before
# Joints at the ends of each limb, counted from 1.
LIMBS = (
    (2, 3), (2, 6), (3, 4), (4, 5), (6, 7), (7, 8), (2, 9), (9, 10), (10, 11), (2, 12), (12, 13), (13, 14), (2, 1),
    (1, 15), (15, 17), (1, 16), (16, 18),
)  # fmt: skip
# Of joint i and limb i, in steps of 20 degrees from blue through green and red.
COLORS = (
    (0, 0, 255), (0, 85, 255), (0, 170, 255), (0, 255, 255), (0, 255, 170), (0, 255, 85), (0, 255, 0), (85, 255, 0),
    (170, 255, 0), (255, 255, 0), (255, 170, 0), (255, 85, 0), (255, 0, 0), (255, 0, 85), (255, 0, 170), (255, 0, 255),
    (170, 0, 255), (85, 0, 255),
)  # fmt: skip


def skeleton(joints: Sequence[Joint]) -> tuple[Tensor, Tensor]:
    """The picture (3, 256, 256) of discs and limbs on black, and the distances (17, 256, 256) to each limb, uint8.

    Discs come first, limbs over them, each at 0.6 over 0.4 of what is there. A limb that lacks a joint is not drawn,
    and its distance is 255 all over.
    """
    canvas = torch.zeros(3, SIZE, SIZE)
    for joint, color in zip(joints, COLORS, strict=True):
        if joint is not None:
            canvas = torch.where(disc(joint), _paint(color), canvas)
    distances = []
    for (first, second), color in zip(LIMBS, COLORS, strict=False):
        start, end = joints[first - 1], joints[second - 1]
        shape = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
        if start is not None and end is not None:
            shape = limb(start, end)
            canvas = torch.where(shape, ((1 - OPACITY) * canvas + OPACITY * _paint(color)).round(), canvas)
        distances.append(distance_map(shape))
    return canvas.to(torch.uint8), torch.cat(distances)


def heat_maps(joints: Sequence[Joint]) -> Tensor:
    """(18, 256, 256) uint8: 255 exp(-r^2 / (2 sigma^2)) at distance r from each joint; zero for one that is missing."""
    maps = torch.zeros(JOINTS, SIZE, SIZE)
    for at, joint in enumerate(joints):
        if joint is not None:
            right, down = _offsets(joint)
            maps[at] = 255 * torch.exp(-(right**2 + down**2) / (2 * SIGMA**2))
    return maps.round().to(torch.uint8)


def disc(joint: tuple[float, float]) -> Tensor:
    """(1, 256, 256) bool: pixels whose centre is within `RADIUS` of the joint."""
    right, down = _offsets(joint)
    return (right**2 + down**2 <= RADIUS**2)[None]


def limb(start: tuple[float, float], end: tuple[float, float]) -> Tensor:
    """(1, 256, 256) bool: the ellipse from joint to joint, `RADIUS` to either side of the line between them."""
    (x, y), (other_x, other_y) = start, end
    right, down = _offsets(((x + other_x) / 2, (y + other_y) / 2))
    length = math.hypot(other_x - x, other_y - y)
    toward_x, toward_y = ((other_x - x) / length, (other_y - y) / length) if length else (1.0, 0.0)
    along, across = right * toward_x + down * toward_y, down * toward_x - right * toward_y
    half = max(length / 2, 0.5)  # joints on one pixel still make a limb
    return ((along / half) ** 2 + (across / RADIUS) ** 2 <= 1 + ROUNDING)[None]


def _offsets(point: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """(1, 256) pixels to the right of a point and (256, 1) pixels below it."""
    steps = torch.arange(SIZE, dtype=torch.float64)
    return steps[None, :] - point[0], steps[:, None] - point[1]


def _paint(color: tuple[int, int, int]) -> Tensor:
    return torch.tensor(color, dtype=torch.float32)[:, None, None]
