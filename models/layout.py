"""A semantic map, given as ids or as dense channels, and the convolutions over it.

A 3x3 convolution of a one-hot map only adds up nine columns of its weight, so ids can look them up in a table instead.
Milliseconds on one CPU core, 128 filters, four 64x64 maps (convolution / look-up), forward: 12 channels 2.9 / 1.0, 151
channels 32 / 1.2; forward and backward: 12 channels 11 / 11, 36 channels 20 / 12, 151 channels 75 / 14; in bfloat16, on
a CPU with instructions for it, 12 channels 4 / 11, 151 channels 14 / 12. The gradient of a table costs the same for any
number of channels, so `Layout.conv` chooses by it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .blocks import channels_last

LOOKUP_FROM = 16  # channels from which the look-up wins in training on a CPU; without gradients it always does
REDUCED = 8  # times as many in bfloat16, whose convolutions are the faster ones
CACHED = 2**19  # entries of a gradient that a core's cache holds while the table's gradient reads them once a tap
PLACES_FROM = 512  # places of the output, over all images, from which a table pays; fewer take the convolution anyway


class Layout:
    """A semantic map of `channels` channels at full size, and its reductions, each made once.

    Args:
        semantic: a floating (B, channels, H, W) map, or an integer (B, 1 + E, H, W) map: ids in 0..channels-E-1 in
            channel 0, then E maps of 0 and 1 (instance edges) that become the last E channels. No gradient reaches it.
        channels: of the dense map.
        like: a weight that will be convolved with it: gives dtype and memory format.

    Raises ValueError when the channels do not fit.
    """

    def __init__(self, semantic: Tensor, channels: int, like: Tensor) -> None:
        self.ids = not semantic.is_floating_point()
        extra = semantic.shape[1] - 1 if self.ids else 0
        if semantic.ndim != 4 or (extra >= channels if self.ids else semantic.shape[1] != channels):
            raise ValueError(
                f"semantic map {tuple(semantic.shape)} of {semantic.dtype}, where the network takes an integer "
                f"(B, 1 + edges, H, W) map of ids or a floating (B, {channels}, H, W) map"
            )
        self.semantic, self.channels, self.classes, self.like = semantic, channels, channels - extra, like
        self.found: dict[str, Tensor] = {}
        self.reductions: dict[int, Layout] = {1: self}

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.semantic.shape[2], self.semantic.shape[3]

    def reduced(self, factor: int) -> "Layout":
        """The map at 1/factor of its sides by nearest neighbour: source index floor(i * factor)."""
        if factor not in self.reductions:
            small = self.semantic[:, :, ::factor, ::factor]
            self.reductions[factor] = Layout(small, self.channels, self.like)
        return self.reductions[factor]

    def dense(self) -> Tensor:
        """(B, channels, H, W) in the dtype of the computation."""
        if "dense" not in self.found:
            self.found["dense"] = self.to_compute(self.one_hot() if self.ids else self.semantic)
        return self.found["dense"]

    @property
    def dtype(self) -> torch.dtype:
        """Of the computation: autocast's, else the weight's."""
        kind = self.like.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.like.dtype

    def to_compute(self, x: Tensor) -> Tensor:
        order = torch.channels_last if channels_last(self.like) else torch.contiguous_format
        return x.to(self.dtype).contiguous(memory_format=order)

    def one_hot(self) -> Tensor:
        ids, edges = self.semantic[:, 0], self.semantic[:, 1:]
        classes = torch.arange(self.classes, device=ids.device).view(-1, 1, 1)
        return torch.cat([ids[:, None] == classes, edges != 0], 1)

    def pooled(self) -> Tensor:
        """3x3 average pooling of stride 2 that does not count padding, (B, channels, ceil(H/2), ceil(W/2))."""
        if not self.ids:
            return pool(self.dense())
        ids = self.windows(self.semantic[:, 0].long(), 3, 2, 1)  # (B, h, w, 9), -1 outside
        ids = ids.permute(0, 3, 1, 2)  # (B, 9, h, w)
        inside = ids >= 0
        share = inside.to(self.like.dtype) / inside.sum(1, keepdim=True)
        pooled = share.new_zeros(ids.shape[0], self.classes, *ids.shape[2:]).scatter_add_(1, ids.clamp(min=0), share)
        if self.classes < self.channels:
            pooled = torch.cat([pooled, pool(self.semantic[:, 1:].to(pooled.dtype))], 1)
        return self.to_compute(pooled)

    def keys(self) -> Tensor:
        """(B, H, W) int64: the id, and `classes` more for every combination of edges, which count as binary digits."""
        ids, edges = self.semantic[:, 0].long(), self.semantic[:, 1:] != 0
        for index, edge in enumerate(edges.unbind(1)):
            ids = ids + (self.classes << index) * edge
        return ids

    def windows(self, x: Tensor, kernel: int, stride: int, padding: int, mode: str = "zeros") -> Tensor:
        """What (B, H, W) integers show at each position of a sliding window, (B, h, w, kernel**2), -1 in a padding of
        zeros."""
        if mode == "zeros":
            x = F.pad(x, (padding,) * 4, value=-1)
        else:
            rows, columns = (
                F.pad(torch.arange(side, dtype=torch.float32, device=x.device)[None], (padding,) * 2, mode)[0].long()
                for side in self.size
            )
            x = x[:, rows[:, None], columns]
        return x.unfold(1, kernel, stride).unfold(2, kernel, stride).flatten(3)

    def conv(self, weight: Tensor, bias: Tensor | None, stride: int, padding: int, mode: str = "zeros") -> Tensor:
        """Convolution of the dense map with weight (O, channels, k, k): (B, O, h, w); `mode` of the padding."""
        learning = torch.is_grad_enabled() and weight.requires_grad
        least = LOOKUP_FROM * (REDUCED if self.dtype.itemsize == 2 else 1)
        pays = self.semantic[:, 0].numel() >= PLACES_FROM * stride**2
        if self.ids and pays and (not learning or (self.channels >= least and weight.device.type == "cpu")):
            return self.look_up(weight, bias, stride, padding, mode)
        return padded_conv(self.dense(), weight, bias, stride, padding, mode)

    def look_up(self, weight: Tensor, bias: Tensor | None, stride: int, padding: int, mode: str = "zeros") -> Tensor:
        """`conv` as a sum of table rows, one a tap: that of its key, or the tap's last for the padding; float32 sums.

        The table holds the weight's columns, those of edges added to every id's, and a share of the bias in every row.
        """
        taps, keys = weight.shape[-1] ** 2, self.classes << (self.channels - self.classes)
        name = f"rows {weight.shape[-1]} {stride} {padding} {mode}"
        if name not in self.found:
            seen = self.windows(self.keys(), weight.shape[-1], stride, padding, mode)
            first = torch.arange(taps, device=seen.device) * (keys + 1)
            self.found[name] = first + seen.masked_fill(seen < 0, keys)
        rows = self.found[name]
        columns = weight.permute(2, 3, 1, 0).contiguous().flatten(0, 1)  # (taps, channels, O)
        share = weight.new_zeros(len(weight)) if bias is None else bias / taps
        table = [columns[:, : self.classes] + share]
        for edge in columns[:, self.classes :].unbind(1):
            table += [found + edge[:, None] for found in table]
        table.append(share.expand(taps, 1, -1))
        out = _SumOfRows.apply(torch.cat(table, 1).flatten(0, 1), rows.view(-1, taps), self.dtype)
        return self.to_compute(out.view(*rows.shape[:3], -1).permute(0, 3, 1, 2))


class _SumOfRows(torch.autograd.Function):
    """(R, O) table, rounded to a type, and (N, K) rows to their (N, O) sums in that type, each summed in the table's.

    PyTorch's own gradient of it sorts all rows first.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.size, ctx.dtype = table.shape, table.dtype
        return F.embedding_bag(rows, table.to(dtype), mode="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (rows,) = ctx.saved_tensors
        grad = grad.to(ctx.dtype).contiguous()
        out = grad.new_zeros(ctx.size)
        block = max(1, CACHED // max(1, grad.shape[1]))
        for part, seen in zip(grad.split(block), rows.split(block), strict=True):
            for row in seen.unbind(1):
                out.index_add_(0, row, part)
        return out, None, None


def padded_conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, mode: str) -> Tensor:
    """Convolution with zeros, replicated or reflected values around the map."""
    if mode == "zeros":
        return F.conv2d(x, weight, bias, stride, padding)
    return F.conv2d(F.pad(x, (padding,) * 4, mode), weight, bias, stride)


def pool(x: Tensor) -> Tensor:
    """Between the scales of the discriminator: 3x3 average of stride 2, padding not counted."""
    return F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
