"""Depth out of coloured images, and its errors: rel and rms (Eigen et al. 2014, arXiv:1406.2283).

    rel = mean |p - g| / g          rms = sqrt(mean (p - g)^2) in metres          over pixels with a known depth g

CFL generates depth as colours and does not say how it was read back. Here a pixel's depth is that of the nearest colour
of the map; what this costs, true depth coloured and read back, is the floor of a score.

Legend: N images, H rows, W columns. Depth is in metres; 0 and what is not finite are unknown.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from data.depth import FAR, colorize, table

__all__ = ["FAR", "Errors", "align_median", "colorize", "decolorize", "known", "nearest", "rel", "rms"]

NEAR = 1e-3  # metres, the least prediction
CHUNK = 1 << 14  # pixels that are compared with all colours at once


def nearest(image: Tensor, colormap: str = "turbo") -> tuple[Tensor, Tensor]:
    """Index of the nearest colour of a map, and the distance to it.

    Args:
        image: (..., 3, H, W) uint8 RGB.
    Returns: (..., 1, H, W) int64 in 0..255, of equally near colours the lower; (..., 1, H, W) float32 Euclidean
        distance, in steps of 8-bit RGB.
    """
    if image.dtype != torch.uint8 or image.ndim < 3 or image.shape[-3] != 3:
        raise ValueError(f"image {tuple(image.shape)} of {image.dtype}: (..., 3, H, W) of uint8 was wanted")
    colors = table(colormap).to(image.device).float()
    pixels = image.movedim(-3, -1)
    found, far = [], []
    for part in pixels.reshape(-1, 3).float().split(CHUNK):  # whole numbers below 2^24: float32 is exact
        squared = part.square().sum(1, keepdim=True) - 2 * part @ colors.T + colors.square().sum(1)
        least, index = squared.min(1)  # the first of several
        found.append(index)
        far.append(least.sqrt())
    shape = pixels.shape[:-1]
    return torch.cat(found).view(shape).unsqueeze(-3), torch.cat(far).view(shape).unsqueeze(-3)


def decolorize(image: Tensor, colormap: str = "turbo", far: float = FAR) -> Tensor:
    """The depth of coloured images: (..., 3, H, W) uint8 RGB to (..., 1, H, W) float32 in 0..far, undoing `colorize`.

    Within half a step, far / 510, of what was coloured; four colours of jet and two of viridis occur twice.
    """
    return nearest(image, colormap)[0] * (far / 255)


class Errors:
    """Sums of rel and rms over images; they add up over batches and ranks.

    Args:
        pooled: over all pixels of all images alike, else per image and then the mean of the images.
    """

    def __init__(self, pooled: bool = False) -> None:
        self.pooled = pooled
        self.sums = torch.zeros(3, dtype=torch.float64)  # weight, rel, rms (pooled: squares)

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Count depths of one shape: (N, 1, H, W), (N, H, W), or (H, W) of one image.

        Raises: ValueError for differing shapes.
        """
        if predicted.shape != truth.shape:
            raise ValueError(f"predicted {tuple(predicted.shape)} and truth {tuple(truth.shape)} differ")
        images = (predicted, truth) if truth.ndim > 2 else (predicted[None], truth[None])
        for p, g in zip(*images, strict=True):
            seen = known(g)
            if not seen.any():
                continue  # an image without a known depth says nothing
            p, g = p[seen].double(), g[seen].double()
            relative, square, n = ((p - g).abs() / g).sum(), (p - g).square().sum(), len(g)
            row = [n, relative, square] if self.pooled else [1, relative / n, (square / n).sqrt()]
            self.sums += torch.stack([torch.as_tensor(x, dtype=torch.float64).cpu() for x in row])

    def reduce(self) -> "Errors":
        """Sum over all ranks, in place; nothing to do in a single process. Returns itself."""
        if dist.is_available() and dist.is_initialized():
            sums = self.sums.to("cuda" if dist.get_backend() == "nccl" else "cpu")
            dist.all_reduce(sums)
            self.sums = sums.cpu()
        return self

    def compute(self) -> dict[str, float]:
        """{rel, rms}. Raises: ValueError where no pixel had a known depth."""
        weight, relative, root = self.sums.tolist()
        if weight == 0:
            raise ValueError("no pixel has a known depth")
        return {"rel": relative / weight, "rms": (root / weight) ** 0.5 if self.pooled else root / weight}


def known(depth: Tensor) -> Tensor:
    """Where a depth is known: positive and finite."""
    return (depth > 0) & depth.isfinite()


def rel(predicted: Tensor, truth: Tensor, pooled: bool = False) -> float:
    """Mean of |predicted - truth| / truth over pixels of known truth; shapes as for `Errors.update`."""
    return _errors(predicted, truth, pooled)["rel"]


def rms(predicted: Tensor, truth: Tensor, pooled: bool = False) -> float:
    """Root of the mean squared difference, in metres, over pixels of known truth; shapes as for `Errors.update`."""
    return _errors(predicted, truth, pooled)["rms"]


def _errors(predicted: Tensor, truth: Tensor, pooled: bool) -> dict[str, float]:
    errors = Errors(pooled)
    errors.update(predicted, truth)
    return errors.compute()


def align_median(predicted: Tensor, truth: Tensor) -> Tensor:
    """Each image of (N, 1, H, W) scaled to the median of its known truth, which removes an unknown scale."""
    out = predicted.clone()
    for image, p, g in zip(out, predicted, truth, strict=True):
        if known(g).any():
            image *= g[known(g)].median() / p[known(g)].median().clamp(min=NEAR)
    return out
