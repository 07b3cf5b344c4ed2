"""SWD of 200 against 200 images at 256x256: `python -m benchmarks.swd [rounds=5] [threads=2] [small=1] [only=WORD]`.

Both sides draw the same windows and directions, so that they give the same number up to rounding.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks import plain_swd
from benchmarks.compare import Item, main
from benchmarks.images import noise
from metrics.swd import DIRECTIONS, REPEATS, WINDOW, WINDOWS, sliced_wasserstein


def corners(role: int) -> plain_swd.Corners:
    """The windows that metrics/swd.py draws with seed 0."""

    def draw(level: int, n: int, height: int, width: int) -> tuple[NDArray, NDArray]:
        rng = np.random.default_rng([0, level, role])
        rows = rng.integers(height - WINDOW + 1, size=(n, WINDOWS))
        return rows, rng.integers(width - WINDOW + 1, size=(n, WINDOWS))

    return draw


def directions(level: int) -> list[plain_swd.Floats]:
    """The directions that metrics/swd.py draws with seed 0, as columns."""
    rng = np.random.default_rng([0, level, 2])
    return [rng.standard_normal((DIRECTIONS, 3 * WINDOW**2)).astype(np.float32).T for _ in range(REPEATS)]


def items(small: bool) -> Iterator[Item]:
    """One item; the study's 200 images of either set."""
    count, side = (4, 32) if small else (200, 256)
    rng = np.random.default_rng(0)
    fake, real = (np.stack([noise(side, side, rng) for _ in range(count)]).transpose(0, 3, 1, 2) for _ in range(2))

    def theirs() -> float:
        return plain_swd.sliced_wasserstein(fake, real, corners, directions)

    def ours() -> float:
        return sliced_wasserstein(fake, real, seeds=1).mean

    yield Item(
        f"SWD, {count} against {count} images, {side}x{side}",
        {"transcription": theirs, "ours": ours},
        check=lambda: abs(ours() / theirs() - 1),
        tolerance=1e-4,
        official=4150,
        targets={"ours": 1300},
        rounds=1,
        remark="without decoding, one repetition of evaluate.py's three; the older tool sums in float32",
    )


if __name__ == "__main__":
    main(items)
