"""Kernel Inception distance: the squared maximum mean discrepancy of features, unbiased at any number of images.

Binkowski et al. 2018, "Demystifying MMD GANs", arXiv:1801.01401, kernel k(x, y) = (x.y / C + 1)^3. Its expectation is 0
for two samples of one distribution whatever N, where that of the Frechet distance is not, so it is the one to trust on
small test sets.

Legend: N, M images of two sets, C channels of a feature.
"""

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 2000  # rows of the kernel matrix held at once: 2000 x 10000 float64 are 160 MB


def kid(features1: Tensor | NDArray, features2: Tensor | NDArray) -> tuple[float, float]:
    """Unbiased MMD^2 over all images, no subsets, no seed; and its standard error by the jackknife.

    sum_{i != j} k(x_i, x_j) / (N (N - 1)) + the same of y - 2 mean k(x_i, y_j); may be negative. The jackknife leaves
    each image of either set out once, in closed form from row sums of the kernel matrices; it needs three images a set,
    else NaN.
    Args: features (N, C) and (M, C); float64 inside; no gradient flows.
    Returns: value and standard error, dimensionless (papers print them times 1000).
    Raises: ValueError for fewer than two images a set, for different C, for a NaN or an infinity.
    """
    x, y = _array(features1), _array(features2)
    n, m = len(x), len(y)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"features {x.shape} and {y.shape}: (N, C) and (M, C) were wanted")
    if min(n, m) < 2:
        raise ValueError(f"KID needs two images a set at least, {n} and {m} came")
    xx = _row_sums(x, x)[0] - _kernel((x * x).sum(1), x.shape[1])  # (N,) sums over j != i
    yy = _row_sums(y, y)[0] - _kernel((y * y).sum(1), y.shape[1])  # (M,)
    xy, yx = _row_sums(x, y)  # (N,) and (M,)
    value = xx.sum() / (n * (n - 1)) + yy.sum() / (m * (m - 1)) - 2 * xy.sum() / (n * m)
    if min(n, m) < 3:
        return float(value), math.nan
    within_x, within_y, across = xx.sum(), yy.sum(), xy.sum()
    without_x = (within_x - 2 * xx) / ((n - 1) * (n - 2)) + within_y / (m * (m - 1)) - 2 * (across - xy) / ((n - 1) * m)
    without_y = within_x / (n * (n - 1)) + (within_y - 2 * yy) / ((m - 1) * (m - 2)) - 2 * (across - yx) / (n * (m - 1))
    variance = (n - 1) * without_x.var() + (m - 1) * without_y.var()  # (n - 1) / n times a sum of n squares
    return float(value), float(np.sqrt(variance))


def _array(features: Tensor | NDArray) -> NDArray[np.float64]:
    if isinstance(features, Tensor):
        features = features.detach().cpu().numpy()
    array = np.asarray(features, np.float64)
    if not np.isfinite(array).all():
        raise ValueError("features hold a NaN or an infinity")
    return array


def _kernel(product: NDArray[np.float64], channels: int) -> NDArray[np.float64]:
    base = product / channels + 1
    return base * base * base


def _row_sums(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of k(x_i, y_j) over j, (N,), and over i, (M,), a block of rows at a time."""
    rows, columns = np.empty(len(x)), np.zeros(len(y))
    for start in range(0, len(x), BLOCK):
        block = _kernel(x[start : start + BLOCK] @ y.T, x.shape[1])
        rows[start : start + BLOCK] = block.sum(1)
        columns += block.sum(0)
    return rows, columns
