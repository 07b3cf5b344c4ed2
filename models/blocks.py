"""Parts that several networks share: initialisation, spectral norm, synchronised batch norm, instance norm.

Spectral normalisation: Miyato et al. 2018, arXiv:1802.05957. Batch norm: Ioffe and Szegedy 2015, arXiv:1502.03167; over
ranks its statistics are those of the whole batch, as in SPADE (Park et al. 2019, arXiv:1903.07291).
"""

from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


def init_weights(module: nn.Module, gain: float = 0.02) -> None:
    """Fill every convolution and linear layer in place: Xavier normal weights of this gain, zero biases.

    This is the initialisation of SPADE, CUT and F-LSeSim. Spectral-normed layers then refresh their singular vectors.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_normal_(layer.weight, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if isinstance(layer, SpectralConv2d):
            layer.iterate(SETTLE)


SETTLE = 5  # power iterations on fresh weights, so that eval mode is meaningful before the first training step


class SpectralConv2d(nn.Conv2d):
    """Convolution whose weight is divided by its largest singular value sigma = u^T W v, W flattened to (out, rest).

    One power iteration per training forward (v <- norm(W^T u), u <- norm(W v), eps 1e-12), none in eval mode. u and v
    are buffers and constants for the gradient; sigma is differentiated through W. sigma is computed in the weight's own
    precision, also under autocast.
    """

    u: Tensor
    v: Tensor
    fixed: Tensor | None

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
    ) -> None:
        super().__init__(channels, out, kernel, stride, padding, bias=bias, padding_mode=padding_mode)
        flat = self.weight.flatten(1)
        self.register_buffer("u", F.normalize(torch.randn_like(flat[:, 0]), dim=0, eps=1e-12))
        self.register_buffer("v", F.normalize(torch.randn_like(flat[0]), dim=0, eps=1e-12))
        self.register_buffer("fixed", None, persistent=False)
        self.iterate(SETTLE)

    @torch.no_grad()
    def iterate(self, count: int) -> None:
        """Run `count` power iterations on u and v; nothing on the meta device, which holds no values.

        They become new tensors, since those of the last forward belong to its graph. Changed in place, they would also
        give a compiled graph wrong gradients: where it computes them again on the way back, it starts from the changed
        ones (torch 2.14).
        """
        if self.weight.is_meta:
            return
        flat = rows(self.weight, self.weight)
        for _ in range(count):
            v = F.normalize(flat.mT @ self.u, dim=0, eps=1e-12)
            self.u, self.v = F.normalize(flat @ v, dim=0, eps=1e-12), unrows(v[None], self.weight).flatten()

    def normalized_weight(self) -> Tensor:
        """The weight over sigma, (out, in, kernel, kernel); in training mode after one power iteration."""
        if self.weight.is_meta:  # a shape alone; autocast does not know the device
            return self.weight
        with torch.autocast(self.weight.device.type, enabled=False):
            if self.training:
                self.iterate(1)
            return _OverSigma.apply(self.weight, self.u, self.v)

    @torch.no_grad()
    def fix(self) -> None:
        """Keep the normalized weight for all forwards to come, without gradient, until `train` is called."""
        self.eval()
        self.fixed = self.normalized_weight()

    def train(self, mode: bool = True) -> "SpectralConv2d":
        """As nn.Module.train; forgets a fixed weight."""
        self.fixed = None
        return super().train(mode)

    def forward(self, input: Tensor) -> Tensor:
        weight = self.normalized_weight() if self.fixed is None else self.fixed
        return self._conv_forward(input, weight, self.bias)


class _OverSigma(torch.autograd.Function):
    """Y = W / sigma with sigma = u^T W v; the gradient of W is (G - <G, Y> u v^T) / sigma.

    Written out because autograd's own way makes some seven passes over the weight, a tenth of a training step.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
        v = rows(v.view(1, *weight.shape[1:]), weight)[0]
        sigma = torch.dot(u, rows(weight, weight) @ v)
        out = weight / sigma
        ctx.save_for_backward(out, u, v, sigma)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        out, u, v, sigma = ctx.saved_tensors
        flat = rows(grad, out)
        along = torch.dot(flat.flatten(), rows(out, out).flatten())
        return unrows(torch.addr(flat, u * -along, v).div_(sigma), out), None, None


def rows(x: Tensor, like: Tensor) -> Tensor:
    """(O, I, k, k) as a matrix of O rows, columns in the memory order of `like`: channels_last needs no copy."""
    return x.permute(0, 2, 3, 1).flatten(1) if channels_last(like) else x.flatten(1)


def unrows(matrix: Tensor, like: Tensor) -> Tensor:
    """The inverse of `rows`, with the size and memory format of `like` except for the number of rows."""
    _, channels, height, width = like.shape
    if channels_last(like):
        return matrix.view(-1, height, width, channels).permute(0, 3, 1, 2)
    return matrix.view(-1, channels, height, width)


def channels_last(x: Tensor) -> bool:
    """Whether x lies in channels_last order and in no other."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


class BatchNorm(nn.Module):
    """Batch norm without affine parameters, (B, C, H, W) -> same; in training its statistics are those of all ranks.

    With `sync` and a process group of more than one rank the statistics are combined by one differentiable all-reduce,
    on any device and backend, so that two ranks equal one with the joined batch; per-rank batches may differ in size.
    Statistics are at least float32. Running statistics as torch.nn.BatchNorm2d keeps them (momentum 0.1, unbiased
    variance), used in eval mode. Raises ValueError when a channel has a single value in training.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, sync: bool = True, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.sync, self.eps, self.momentum = sync, eps, momentum
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.num_batches_tracked += 1
            if self.sync and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
                return self.normalize_over_ranks(x)
        return F.batch_norm(x, self.running_mean, self.running_var, None, None, self.training, self.momentum, self.eps)

    def normalize_over_ranks(self, x: Tensor) -> Tensor:
        """Training forward with the moments of every rank, joined by Chan's parallel formula."""
        values = x if x.dtype == torch.float64 else x.float()
        var, mean = torch.var_mean(values, (0, 2, 3), correction=0)
        count = torch.full_like(mean, x.numel() / x.shape[1])
        gathered = gather(torch.stack([count, mean, var]))  # (ranks, 3, C)
        counts, means, variances = gathered.unbind(1)
        total = counts.sum(0)  # 2 at least, one value from each rank; to look would stall a GPU
        mean = (counts * means).sum(0) / total
        var = (counts * (variances + (means - mean) ** 2)).sum(0) / total
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_((var * total / (total - 1)).to(self.running_var), self.momentum)
        scale = torch.rsqrt(var + self.eps)
        return ((values - mean[:, None, None]) * scale[:, None, None]).to(x.dtype)


class _SumOverRanks(torch.autograd.Function):
    """All-reduce whose gradient is all-reduced too: each rank's loss depends on every rank's addend."""

    @staticmethod
    def forward(ctx: Any, addend: Tensor) -> Tensor:
        total = addend.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad


def gather(x: Tensor) -> Tensor:
    """x of every rank, (ranks, *x.shape), differentiable: a sum of tables in which each rank fills its own row."""
    table = x.new_zeros(dist.get_world_size(), *x.shape)
    table = torch.cat([table[: dist.get_rank()], x[None], table[dist.get_rank() + 1 :]])
    return _SumOverRanks.apply(table)


def instance_norm(x: Tensor) -> Tensor:
    """Instance norm without affine parameters or running statistics, eps 1e-5, biased variance: (B, C, H, W) -> same.

    Written as the same map in the form that is fast and keeps channels_last: a group norm of one channel per group, or
    on a CPU in channels_last a batch norm of one image at a time. Milliseconds on one core, forward and backward of
    2 x 256 x 64 x 64 in channels_last (group / instance / batch norm): float32 24 / 44 / 16, bfloat16 115 / 18 / 10.
    """
    if x.device.type == "cpu" and channels_last(x):
        images = [F.batch_norm(image, None, None, training=True, eps=1e-5) for image in x.split(1)]
        return images[0] if len(images) == 1 else torch.cat(images)
    return F.group_norm(x, x.shape[1], eps=1e-5)


class InstanceNorm(nn.Module):
    """`instance_norm` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return instance_norm(x)
