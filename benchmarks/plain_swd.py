"""The progressive-GAN tool's sliced Wasserstein distance, transcribed from its description: what ours is timed against.

Karras et al. 2018, arXiv:1710.10196, as the CUT and MoNCE papers used it: pyramids by two-dimensional convolutions of
the zero-filled image, one image level after the other, windows by fancy indices, np.sort of columns.
"""

from collections.abc import Callable, Iterator

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

BINOMIAL = np.array([1, 4, 6, 4, 1], np.float32)
FILTER = np.outer(BINOMIAL, BINOMIAL) / 256
WINDOW, WINDOWS, SMALLEST, MINIBATCH = 7, 128, 16, 16

Floats = NDArray[np.float32]
Corners = Callable[[int, int, int, int], tuple[NDArray, NDArray]]


def down(images: Floats) -> Floats:
    """Half the size of (B, 3, H, W)."""
    return scipy.ndimage.convolve(images, FILTER[None, None], mode="mirror")[:, :, ::2, ::2]


def up(images: Floats) -> Floats:
    """Twice the size of (B, 3, H, W)."""
    b, channels, height, width = images.shape
    filled = np.zeros((b, channels, 2 * height, 2 * width), images.dtype)
    filled[:, :, ::2, ::2] = images
    return scipy.ndimage.convolve(filled, 4 * FILTER[None, None], mode="mirror")


def pyramid(images: Floats, levels: int) -> Iterator[Floats]:
    """Differences between levels, fine to coarse, and what is left at the coarsest."""
    for _ in range(levels - 1):
        smaller = down(images)
        yield images - up(smaller)
        images = smaller
    yield images


def descriptors(images: NDArray[np.uint8], levels: int, corners: Corners) -> list[Floats]:
    """Windows of each level, (N * 128, 3, 7, 7); corners(level, N, H, W) gives rows and columns, (N, 128) each."""
    drawn = [corners(level, len(images), images.shape[2] >> level, images.shape[3] >> level) for level in range(levels)]
    found: list[list[Floats]] = [[] for _ in range(levels)]
    inside = np.arange(WINDOW)
    for start in range(0, len(images), MINIBATCH):
        part = slice(start, start + MINIBATCH)
        for level, detail in enumerate(pyramid(images[part].astype(np.float32), levels)):
            rows, columns = (at[part].reshape(-1, 1, 1, 1) for at in drawn[level])
            which = np.repeat(np.arange(len(detail)), WINDOWS).reshape(-1, 1, 1, 1)
            channel = np.arange(3).reshape(1, 3, 1, 1)
            found[level].append(
                detail[which, channel, rows + inside.reshape(1, 1, -1, 1), columns + inside.reshape(1, 1, 1, -1)]
            )
    return [np.concatenate(level) for level in found]


def standardised(windows: Floats) -> Floats:
    """(P, 3, 7, 7) to (P, 147), mean 0 and deviation 1 of each colour channel over all windows and pixels."""
    windows = windows - windows.mean(axis=(0, 2, 3), keepdims=True)
    windows /= windows.std(axis=(0, 2, 3), keepdims=True)
    return windows.reshape(len(windows), -1)


def distance(a: Floats, b: Floats, repeats: list[Floats]) -> float:
    """Mean absolute difference of the sorted projections of two sets (P, R) on the columns of each (R, D)."""
    results = []
    for directions in repeats:
        directions = directions / np.sqrt((directions**2).sum(axis=0, keepdims=True))
        projected = [np.sort(x @ directions, axis=0) for x in (a, b)]
        results.append(np.abs(projected[0] - projected[1]).mean())
    return float(np.mean(results))


def sliced_wasserstein(
    fake: NDArray[np.uint8],
    real: NDArray[np.uint8],
    corners: Callable[[int], Corners],
    directions: Callable[[int], list[Floats]],
) -> float:
    """Mean over the levels, times 1000.

    Args:
        fake, real: (N, 3, H, W), sides divisible by 2^(levels - 1).
        corners: by role, 0 for fake and 1 for real. directions: by level, four of (147, 128).
    """
    levels = int(np.log2(fake.shape[2] // SMALLEST)) + 1
    sets = [descriptors(images, levels, corners(role)) for role, images in enumerate((fake, real))]
    values = []
    for level in range(levels):
        a, b = (standardised(windows[level]) for windows in sets)
        values.append(1000 * distance(a, b, directions(level)))
    return float(np.mean(values))
