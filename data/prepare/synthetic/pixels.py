"""Pictures for miniature raw trees: regions of ids, and photos of them in soft colours."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Array = np.ndarray
Random = np.random.Generator


def regions(random: Random, height: int, width: int, ids: Sequence[int]) -> Array:
    """(H, W) uint8: a ground of one id and eight rectangles of others."""
    labels = np.full((height, width), random.choice(ids), np.uint8)
    for label in random.choice(ids, 8):
        top, left = random.integers(0, height - 4), random.integers(0, width - 4)
        labels[top : top + random.integers(3, height), left : left + random.integers(3, width // 2)] = label
    return labels


def photo(random: Random, labels: Array) -> Array:
    """(H, W, 3) uint8: every region in a colour of its id, lit from a side, with some grain."""
    height, width = labels.shape
    colors = np.random.default_rng(7).uniform(40, 215, (256, 3))
    light = np.linspace(0.8, 1.2, width)[None, :, None] * np.linspace(1.1, 0.9, height)[:, None, None]
    return (colors[labels] * light + random.normal(0, 6, (height, width, 3))).clip(0, 255).astype(np.uint8)


def save(file: Path, pixels: Array, palette: Array | None = None) -> None:
    """An image file of the array, (H, W) or (H, W, C); with a palette, (256, 3), the array holds indices into it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette.astype(np.uint8).tobytes())
    image.save(file, quality=95)  # of JPEG; PNG has none
