"""Sliced Wasserstein distance between the patches of two sets of images, level by level of a Laplacian pyramid.

Karras et al. 2018, "Progressive Growing of GANs", arXiv:1710.10196, in the variant with which the CUT and MoNCE papers'
numbers were made: 128 windows of 7x7 pixels an image and level, standardised per colour channel, projected on 4 x 128
unit directions, sorted, mean absolute difference, times 1000; the value is the mean over the levels.

Three things to know. The value of two samples of one distribution falls like 1/sqrt(N): compare at equal N only.
Standardising makes it blind to any change of colour or contrast of the whole set: keep FID beside it. Windows are drawn
afresh for each set, so a set against itself is near 0 but not 0.

Legend: N images, K windows of an image, P = N K patches, R = 3 * 7 * 7 = 147 numbers of a patch, D directions.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

WINDOW, WINDOWS, DIRECTIONS, REPEATS, SMALLEST = 7, 128, 128, 4, 16
CHUNK = 2**17  # pixels of which the pyramid is built at once: few enough to stay in the cache
EPS = 1e-8

Floats = NDArray[np.float32]
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class SlicedWasserstein:
    """levels: {"WxH": value}, means over seeds. mean: of levels. sd: of that over the seeds. counts: images used."""

    levels: dict[str, float]
    mean: float
    sd: float
    counts: tuple[int, int]
    warnings: list[str] = field(default_factory=list)


def sliced_wasserstein(
    fake: NDArray[np.uint8], real: NDArray[np.uint8], seed: int = 0, seeds: int = 3, count: str = "paper"
) -> SlicedWasserstein:
    """Sliced Wasserstein distance times 1000 of two sets of images.

    Args:
        fake, real: (N, 3, H, W) uint8, one H and W for both. Sides are cropped around the centre to multiples of
            2^(levels - 1); the levels are those whose shorter side is 16 at least.
        seed: of windows and directions; the same seed gives the same digits.
        seeds: number of repetitions over which value and standard deviation are taken.
        count: "paper" takes the first min(N fake, N real) images of both, as the papers' tool demands equal numbers;
            "all" takes all and integrates the difference of the two quantile functions exactly (at equal N the same
            digits).
    Raises: ValueError for other shapes, differing sizes, sides below 16, an empty set, an unknown `count`.
    """
    for name, images in (("fake", fake), ("real", real)):
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3 or not len(images):
            raise ValueError(f"{name}: (N, 3, H, W) uint8 images were wanted, {images.dtype} {images.shape} came")
    if fake.shape[2:] != real.shape[2:]:
        raise ValueError(f"fake images are {fake.shape[2:]}, real ones {real.shape[2:]} (H, W); one size was wanted")
    if count not in ("paper", "all"):
        raise ValueError(f"count '{count}' came; 'paper' or 'all' was wanted")
    if count == "paper":
        fake, real = fake[: len(real)], real[: len(fake)]
    levels, (top, left, height, width) = _levels(*fake.shape[2:])
    warnings: list[str] = []
    if (height, width) != fake.shape[2:]:
        warnings.append(
            f"swd: {fake.shape[3]}x{fake.shape[2]} images are cropped to {width}x{height}, for {levels} levels"
        )
    fake, real = (images[:, :, top : top + height, left : left + width] for images in (fake, real))
    names, values = [], np.empty((levels, seeds))
    below: list[NDArray] = [fake, real]
    for level in range(levels):
        names.append(f"{below[0].shape[3]}x{below[0].shape[2]}")
        patches = []  # of fake, of real: each an array (seeds, P, R)
        for role, images in enumerate(below):
            rngs = [np.random.default_rng([seed + repetition, level, role]) for repetition in range(seeds)]
            found, below[role] = _patches(images, rngs, last=level == levels - 1)
            patches.append(found)
        for repetition in range(seeds):
            a, b = (
                _standardise(found[repetition], f"{name} images, level {names[-1]}", warnings)
                for name, found in zip(("fake", "real"), patches, strict=True)
            )
            values[level, repetition] = 1000 * _projected(a, b, np.random.default_rng([seed + repetition, level, 2]))
    means = values.mean(0)
    return SlicedWasserstein(
        dict(zip(names, values.mean(1).tolist(), strict=True)),
        float(means.mean()),
        float(means.std(ddof=1)) if seeds > 1 else 0.0,
        (len(fake), len(real)),
        list(dict.fromkeys(warnings)),
    )


def _levels(height: int, width: int) -> tuple[int, tuple[int, int, int, int]]:
    """Number of levels, and the crop (top, left, H, W) that they divide."""
    if min(height, width) < SMALLEST:
        raise ValueError(f"images of {width}x{height}; both sides must be {SMALLEST} at least")
    levels = int(np.log2(min(height, width) // SMALLEST)) + 1
    multiple = 2 ** (levels - 1)
    cropped = height // multiple * multiple, width // multiple * multiple
    return levels, ((height - cropped[0]) // 2, (width - cropped[1]) // 2, *cropped)


def down(images: Floats) -> Floats:
    """Half the size of (..., H, W): binomial filter [1 4 6 4 1] / 16 both ways, mirrored border, every second pixel."""
    for axis in (-2, -1):  # rows first: they are contiguous
        even = np.ascontiguousarray(images[_at(axis, 0, None, 2)])
        odd = 4 * images[_at(axis, 1, None, 2)]
        sums = 6 * even + odd
        sums[_at(axis, 1)] += odd[_at(axis, 0, -1)]
        sums[_at(axis, 1)] += even[_at(axis, 0, -1)]
        sums[_at(axis, 0, -1)] += even[_at(axis, 1)]
        # the edge is not repeated: before pixel 0 come 1 and 2, after the last one, which is odd, the one before it
        sums[_at(axis, 0, 1)] += odd[_at(axis, 0, 1)] + even[_at(axis, 1, 2)]
        sums[_at(axis, -1)] += even[_at(axis, -1)]
        images = sums * np.float32(1 / 16)
    return images


def up(images: Floats) -> Floats:
    """Twice the size of (..., H, W): zeros between the pixels, the same filter times 2 each way, mirrored border."""
    for axis in (-1, -2):  # columns first: they are fewer so
        # the mirror lies at the fine pixels: before pixel 0 comes pixel 1, but after the last one itself
        before = np.concatenate([images[_at(axis, 1, 2)], images[_at(axis, 0, -1)]], axis)
        after = np.concatenate([images[_at(axis, 1)], images[_at(axis, -1)]], axis)
        shape = list(images.shape)
        shape[axis] *= 2
        fine = np.empty(shape, np.float32)
        fine[_at(axis, 0, None, 2)] = (before + 6 * images + after) * np.float32(1 / 8)
        fine[_at(axis, 1, None, 2)] = (images + after) * np.float32(1 / 2)
        images = fine
    return images


def _at(axis: int, *bounds: int | None) -> tuple:
    """Index of start[:stop[:step]] along the last axis or the one before it."""
    start, stop, step = (*bounds, None, None)[:3]
    return (..., slice(start, stop, step)) if axis == -1 else (..., slice(start, stop, step), slice(None))


def _patches(images: NDArray, rngs: list[np.random.Generator], last: bool) -> tuple[Floats, NDArray]:
    """Random windows (seeds, P, R) of this level of the pyramid, and the images of the next one."""
    n, _, height, width = images.shape
    found = np.empty((len(rngs), n, WINDOWS, 3, WINDOW, WINDOW), np.float32)
    corners = [
        (rng.integers(height - WINDOW + 1, size=(n, WINDOWS)), rng.integers(width - WINDOW + 1, size=(n, WINDOWS)))
        for rng in rngs
    ]
    below = images if last else np.empty((n, 3, height // 2, width // 2), np.float32)
    at_once = max(1, CHUNK // (height * width))

    def build(start: int) -> None:
        part = slice(start, start + at_once)
        detail = images[part].astype(np.float32)
        if not last:
            below[part] = down(detail)
            detail -= up(below[part])
        windows = np.lib.stride_tricks.sliding_window_view(detail, (WINDOW, WINDOW), axis=(2, 3))
        for into, (rows, columns) in zip(found, corners, strict=True):
            into[part] = windows[np.arange(len(detail))[:, None], :, rows[part], columns[part]]  # (B, K, 3, 7, 7)

    _in_threads(build, range(0, n, at_once))
    return found.reshape(len(rngs), n * WINDOWS, 3 * WINDOW * WINDOW), below


def _standardise(patches: Floats, what: str, warnings: list[str]) -> Floats:
    """Mean 0 and deviation 1 of each colour channel over all patches of a set (P, R), in place."""
    channels = patches.reshape(len(patches), 3, WINDOW * WINDOW)
    deviation = channels.std((0, 2), keepdims=True, dtype=np.float64)
    if (deviation < EPS).any():
        warnings.append(f"swd: {what}: a colour channel is constant, its patches carry no information")
    channels -= channels.mean((0, 2), keepdims=True, dtype=np.float64).astype(np.float32)
    channels /= (deviation + EPS).astype(np.float32)
    return patches


def _projected(a: Floats, b: Floats, rng: np.random.Generator) -> float:
    """Mean Wasserstein-1 distance over REPEATS x DIRECTIONS random unit directions of two sets (P, R)."""
    repeats = [rng.standard_normal((DIRECTIONS, a.shape[1])).astype(np.float32) for _ in range(REPEATS)]
    return float(np.mean(_in_threads(lambda directions: projected_distance(a, b, directions), repeats)))


def _in_threads(work: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """`work` of every item, in order; NumPy computes outside Python's lock."""
    with ThreadPoolExecutor(min(REPEATS, os.cpu_count() or 1)) as pool:
        return list(pool.map(work, items))


def projected_distance(a: Floats, b: Floats, directions: Floats) -> float:
    """Mean over directions (D, R), made unit here, of the Wasserstein-1 distance of a and b (P, R) projected on them.

    NumPy sorts contiguous rows several times as fast as torch does on a CPU.
    """
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    projected = [directions @ x.T for x in (a, b)]  # (D, P)
    for x in projected:
        x.sort(axis=1)
    if len(a) == len(b):
        return float(np.abs(projected[0] - projected[1]).mean(dtype=np.float64))
    return float(np.mean([wasserstein1(x, y) for x, y in zip(*projected, strict=True)]))


def wasserstein1(a: NDArray, b: NDArray) -> float:
    """Integral over [0, 1] of |quantile function of a - that of b|, of sorted samples (P,) and (Q,); exact."""
    if len(a) == len(b):
        return float(np.abs(a - b).mean(dtype=np.float64))
    steps = np.unique(np.concatenate(list(_steps(len(a), len(b)))))  # in units of 1 / (P Q)
    difference = np.abs(a[steps[:-1] // len(b)] - b[steps[:-1] // len(a)])
    return float((difference * np.diff(steps)).sum(dtype=np.float64) / (len(a) * len(b)))


def _steps(p: int, q: int) -> Iterator[NDArray[np.int64]]:
    """Where either quantile function jumps: multiples of 1 / P and of 1 / Q, counted in 1 / (P Q)."""
    yield np.arange(p + 1, dtype=np.int64) * q
    yield np.arange(q + 1, dtype=np.int64) * p
