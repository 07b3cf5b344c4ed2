"""Halving and doubling without aliasing, as CUT's networks do it, and the image sizes that halvings allow.

Zhang 2019, Making Convolutional Networks Shift-Invariant Again, arXiv:1904.11486. (B, C, H, W) throughout.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import channels_last


def check_size(height: int, width: int, multiple: int, network: str, smallest: int = 1, positions: int = 1) -> None:
    """Raise ValueError with the nearest legal sizes unless both sides are multiples of `multiple` from `smallest` on.

    Args:
        network: what needs it, for the message.
        positions: of the smallest maps, at 1/multiple of the sides, that a size in the message has at least: 1 or 2.
    """
    sides = (height, width)
    if any(side % multiple or side < smallest for side in sides):
        least = -(-smallest // multiple) * multiple
        floor = [max(side // multiple * multiple, least) for side in sides]
        ceil = [max(-(-side // multiple) * multiple, least) for side in sides]
        for near_by in (floor, ceil):
            if near_by[0] * near_by[1] < positions * multiple**2:
                near_by[1] *= 2
        near = f"{floor[0]}x{floor[1]}" + (f" or {ceil[0]}x{ceil[1]}" if ceil != floor else "")
        bound = f" from {least} on" if least > multiple else ""
        raise ValueError(
            f"size {height}x{width} (height x width): {network} needs multiples of {multiple}{bound}, such as {near}"
        )


class BlurDownsample(nn.Module):
    """Reflection padding of 1, then the filter [1, 2, 1] x [1, 2, 1] / 16 at stride 2; sides (n + 1) // 2, n > 1."""

    def forward(self, x: Tensor) -> Tensor:
        return _Blur.apply(x)


class _Blur(torch.autograd.Function):
    """A depthwise convolution whose gradient is written as shifts and adds, one axis after the other.

    Autograd's own gradient of it is slow, above all in bfloat16. Forward + backward in ms on one CPU core, 128 channels
    of 256x256, channels_last: float32 18 + 32, here 10 + 30; bfloat16 5 + 168, here 6 + 22.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.size = x.shape[2:]
        taps = (2 - torch.arange(-1, 2, device=x.device, dtype=x.dtype).abs()) / 4  # new_tensor would stall a GPU
        weight = (taps[:, None] * taps).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weight.contiguous(), None, 2, 0, 1, x.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _spread(_spread(grad, 3, ctx.size[1]), 2, ctx.size[0])


def _spread(grad: Tensor, axis: int, side: int) -> Tensor:
    """The adjoint along one axis: `side` places from (side + 1) // 2."""

    def at(x: Tensor, *bounds: int | None) -> Tensor:
        return x[(slice(None),) * axis + (slice(*bounds),)]

    last = grad.shape[axis] - 1
    shape = (*grad.shape[:axis], side, *grad.shape[axis + 1 :])
    order = torch.channels_last if channels_last(grad) else torch.contiguous_format
    out = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=order)
    even, odd = at(out, 0, None, 2), at(out, 1, None, 2)
    torch.mul(grad, 0.5, out=even)
    torch.mul(at(grad, 0, side // 2), 0.25, out=odd)
    at(odd, 0, last).add_(at(grad, 1, None), alpha=0.25)
    at(odd, 0, 1).add_(at(grad, 0, 1), alpha=0.25)  # the reflected place left of the first
    if side % 2:
        at(odd, last - 1, last).add_(at(grad, last, None), alpha=0.25)  # and right of the last
    return out


class Upsample(nn.Module):
    """Twice the sides, bilinear with half-pixel centres: the same as a transposed convolution with the filter
    [1, 3, 3, 1] x [1, 3, 3, 1] / 16 over replicated borders, which is two to thirty times slower."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
