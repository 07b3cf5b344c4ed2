"""Directions of feature vectors, with a gradient that stays bounded where a vector has no direction."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

DEGENERATE = 1e-3  # of the mean length in an image, less than the step of an 8-bit pixel: no direction worth the name


def unit(vectors: Tensor, dim: int = -1, *, plus: float = 0.0, least: float = 0.0, held: bool = True) -> Tensor:
    """v / (|v| + plus), CUT's form, or v / max(|v|, least), F-LSeSim's.

    The gradient of a direction grows as 1 / |v|, to 1 / plus or 1 / least for a vector of zeros, such as a dead ReLU
    leaves; one of them would drown the gradients of all others. Where |v| is less than r, DEGENERATE times the mean
    length in the same image, the gradient is therefore multiplied by |v| / r: it is at most 1 / r, and 0 for a vector
    of zeros. All longer vectors have the exact gradient.
    Args:
        vectors: (B, ...) of B images, each vector along `dim`; float32 or float64.
        plus, least: one of them above 0.
        held: the gradient knows that the divisor does not change below `least`, as F.normalize's; F.cosine_similarity's
            does not.
    """
    return _Unit.apply(vectors, dim, plus, least, held)


class _Unit(torch.autograd.Function):
    """With n = |v|, d the divisor and y = v / d: the gradient of v is (g - y (y . g) d' d / n) / d."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, dim: int, plus: float, least: float, held: bool) -> Tensor:
        length = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
        out = vectors / _divisor(length, plus, least)
        ctx.save_for_backward(out, length)
        ctx.settings = dim, plus, least, held
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        out, length = ctx.saved_tensors
        dim, plus, least, held = ctx.settings
        divisor = _divisor(length, plus, least)
        tiny = torch.finfo(length.dtype).tiny
        shortest = DEGENERATE * length.flatten(1).mean(1).view(-1, *[1] * (length.dim() - 1))
        share = torch.where(length <= shortest, length / shortest.clamp(min=tiny), 1.0)
        along = (out * gradient).sum(dim, keepdim=True) * divisor / length.clamp(min=tiny)
        if held:
            along = along * (length > least)
        return torch.addcmul(gradient, out, along, value=-1).mul_(share / divisor), None, None, None, None


def _divisor(length: Tensor, plus: float, least: float) -> Tensor:
    return length + plus if plus else length.clamp(min=least)
