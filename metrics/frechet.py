"""The Frechet distance between two Gaussians fitted to features, without a matrix square root.

Heusel et al. 2017, arXiv:1706.08500; Dowson and Landau 1982: |m1 - m2|^2 + tr S1 + tr S2 - 2 tr sqrt(S1 S2). With
Inception features it is FID. The last trace is taken from eigenvalues of a symmetric matrix, or, from raw features,
from singular values of their cross-Gram matrix: no complex numbers, no failure on singular covariances, and much faster
than `scipy.linalg.sqrtm`.

Legend: N, M images of two sets, C channels of a feature.
"""

import numpy as np
import scipy.linalg
import torch
import torch.distributed as dist
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

EXACT = 3e-7  # relative error of a trace, as estimated, below which the faster way is taken


class Moments:
    """Float64 sums over features from which mean and covariance follow; they add up over batches and over ranks.

    Attributes: n (), total (C,), outer (C, C), all float64.
    """

    def __init__(self, channels: int, device: torch.device | str = "cpu"):
        self.n = torch.zeros((), dtype=torch.float64, device=device)
        self.total = torch.zeros(channels, dtype=torch.float64, device=device)
        self.outer = torch.zeros(channels, channels, dtype=torch.float64, device=device)

    def update(self, features: Tensor) -> None:
        """Add (B, C) features. Raises ValueError for a NaN or an infinity."""
        f = features.detach().to(self.outer)
        if not f.isfinite().all():
            raise ValueError("features hold a NaN or an infinity")
        self.n += len(f)
        self.total += f.sum(0)
        self.outer += f.mT @ f

    def reduce(self) -> "Moments":
        """Sum the states over all ranks, in place; nothing to do in a single process. Returns itself."""
        if dist.is_available() and dist.is_initialized():
            for state in (self.n, self.total, self.outer):
                dist.all_reduce(state)
        return self

    def compute(self) -> tuple[Tensor, Tensor]:
        """Mean (C,) and unbiased covariance (C, C), float64. Raises ValueError for fewer than two features."""
        if self.n < 2:
            raise ValueError(f"a covariance needs two images at least, {int(self.n)} came")
        mean = self.total / self.n
        return mean, (self.outer - self.n * mean.outer(mean)) / (self.n - 1)


def frechet_distance(mean1: ArrayLike, cov1: ArrayLike, mean2: ArrayLike, cov2: ArrayLike) -> float:
    """|m1 - m2|^2 + tr S1 + tr S2 - 2 tr sqrt(S1 S2) of means (C,) and covariances (C, C).

    With R R^T = S1, tr sqrt(S1 S2) = sum of square roots of the eigenvalues of R^T S2 R. Computed in float64 on the
    CPU, wherever the arguments are; no gradient flows. Rounding can leave a value just below zero (some 1e-7 of the
    traces): it is returned as 0.

    Raises: ValueError for shapes that do not fit and for a NaN (a covariance of one image is NaN) or an infinity.
    """
    m1, s1, m2, s2 = (_array(value) for value in (mean1, cov1, mean2, cov2))
    if not (m1.shape == m2.shape and m1.ndim == 1 and s1.shape == s2.shape == (*m1.shape, *m1.shape)):
        raise ValueError(f"means {m1.shape} and {m2.shape}, covariances {s1.shape} and {s2.shape} do not fit")
    cross = trace_from_covariances(s1, s2)
    return max(float(((m1 - m2) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * cross), 0.0)


def trace_from_covariances(s1: NDArray[np.float64], s2: NDArray[np.float64]) -> float:
    """tr sqrt(S1 S2) of covariances (C, C) from the eigenvalues of R^T S2 R, R R^T = S1.

    R is the Cholesky factor, in a third of the time of one from eigenvectors; those serve where S1 is singular.
    """
    s1, s2 = (s1 + s1.T) / 2, (s2 + s2.T) / 2
    try:
        squares = scipy.linalg.eigvalsh(s2, s1, type=2, driver="gv")  # of S2 S1 x = w x
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(s1)
        root = vectors * np.sqrt(values.clip(min=0))
        squares = np.linalg.eigvalsh(root.T @ s2 @ root)
    return float(np.sqrt(squares.clip(min=0)).sum())


def trace_from_features(x1: NDArray[np.float64], x2: NDArray[np.float64]) -> float:
    """tr sqrt(S1 S2) of S = X^T X, X (N, C) and (M, C): the sum of the singular values of K = X1 X2^T.

    Of a large K they are taken as square roots of the eigenvalues of K K^T, in less than half the time, where that is
    exact enough: rounding moves an eigenvalue by some eps times the largest one, and so its root by
    min(sqrt(that), that / (2 root)), whose sum is on the safe side of the true error by a factor of about ten.
    """
    cross = x1 @ x2.T if len(x1) <= len(x2) else x2 @ x1.T
    if 2 * len(cross) > x1.shape[1]:
        roots = np.sqrt(np.linalg.eigvalsh(cross @ cross.T).clip(min=0))
        moved = np.finfo(np.float64).eps * roots[-1] ** 2
        if np.minimum(np.sqrt(moved), moved / (2 * roots.clip(min=1e-300))).sum() < EXACT * roots.sum():
            return float(roots.sum())
    return float(np.linalg.svd(cross, compute_uv=False).sum())


def frechet_from_features(features1: ArrayLike, features2: ArrayLike) -> float:
    """The same distance from raw features (N, C) and (M, C), by the cheaper of two exact forms.

    Where N and M are C at most: tr sqrt(S1 S2) = nuclear norm of X1 X2^T, X = (features - mean) / sqrt(N - 1), an
    (N, M) matrix: milliseconds for hundreds of images, and the more precise on these singular covariances. Else by
    `Moments`. `python -m benchmarks.frechet` times both against scipy's matrix square root.

    Raises: ValueError for fewer than two features a set, for different C, for a NaN or an infinity.
    """
    x1, x2 = _array(features1), _array(features2)
    if x1.ndim != 2 or x2.ndim != 2 or x1.shape[1] != x2.shape[1]:
        raise ValueError(f"features {x1.shape} and {x2.shape}: (N, C) and (M, C) were wanted")
    if min(len(x1), len(x2)) < 2:
        raise ValueError(f"a Frechet distance needs two images a set at least, {len(x1)} and {len(x2)} came")
    if max(len(x1), len(x2)) > x1.shape[1]:
        fitted: list[Tensor] = []
        for x in (x1, x2):
            moments = Moments(x.shape[1])
            moments.update(torch.from_numpy(x))
            fitted += moments.compute()
        return frechet_distance(*fitted)
    mean1, mean2 = x1.mean(0), x2.mean(0)
    x1, x2 = (x1 - mean1) / np.sqrt(len(x1) - 1), (x2 - mean2) / np.sqrt(len(x2) - 1)
    cross = trace_from_features(x1, x2)
    return max(float(((mean1 - mean2) ** 2).sum() + (x1**2).sum() + (x2**2).sum() - 2 * cross), 0.0)


def _array(value: ArrayLike) -> NDArray[np.float64]:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    array = np.asarray(value, np.float64)
    if not np.isfinite(array).all():
        raise ValueError("a Frechet distance of a NaN or an infinity was asked for; features or covariance are broken")
    return array
