"""The trace term of FID, 2048 channels: `python -m benchmarks.frechet [rounds=5] [threads=2] [small=1] [only=WORD]`.

tr sqrt(S1 S2) by scipy's matrix square root of the product, as pytorch-fid has it, against what metrics/frechet.py
does: eigenvalues where there are more images than channels, else singular values of the cross-Gram matrix of the
features. How long scipy takes depends on the OpenBLAS that it was built with; both read OPENBLAS_NUM_THREADS at start.
"""

import warnings
from collections.abc import Iterator
from functools import partial

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from benchmarks.compare import Item, main
from metrics.frechet import trace_from_covariances, trace_from_features

Floats = NDArray[np.float64]


def centred(images: int, channels: int, seed: int) -> Floats:
    """Features of a 1/k spectrum, less their mean, over sqrt(N - 1): their covariance is X^T X."""
    x = np.random.default_rng(seed).standard_normal((images, channels)) / np.sqrt(np.arange(1, channels + 1))
    return (x - x.mean(0)) / np.sqrt(images - 1)


def by_square_root(first: Floats, second: Floats) -> float:
    """tr sqrt(S1 S2), complex numbers and all; where the product is singular, with 1e-6 on both diagonals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy's on a singular product
        root = scipy.linalg.sqrtm(first @ second)
        if not np.isfinite(root).all():
            offset = 1e-6 * np.eye(len(first))
            root = scipy.linalg.sqrtm((first + offset) @ (second + offset))
    return float(np.trace(root).real)


def check(images: int, channels: int) -> float:
    """Relative difference of the two at a quarter of the size."""
    x, y = (centred(images // 4, channels // 4, seed) for seed in (0, 1))
    first, second = x.T @ x, y.T @ y
    ours = trace_from_covariances(first, second) if images > channels else trace_from_features(x, y)
    return abs(ours / by_square_root(first, second) - 1)


def items(small: bool) -> Iterator[Item]:
    """More images than channels, and the study's 200."""
    channels = 256 if small else 2048
    for images, target in ((channels * 5 // 4, 1200.0), (channels * 25 // 256, 20.0)):
        x, y = (centred(images, channels, seed) for seed in (0, 1))
        first, second = x.T @ x, y.T @ y
        full = images > channels
        ours = partial(trace_from_covariances, first, second) if full else partial(trace_from_features, x, y)
        yield Item(
            f"Frechet trace, {channels}-d, N = {images}",
            {"transcription": partial(by_square_root, first, second), "ours": ours},
            check=partial(check, images, channels),
            tolerance=1e-5 if full else 1e-3,
            official=9590,
            targets={"ours": target},
            rounds=1,
            remark="" if full else "a covariance of rank N - 1, where the square root is the less exact of the two",
        )


if __name__ == "__main__":
    main(items)
