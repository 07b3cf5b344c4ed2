"""Entropic optimal transport between two sets of N patches: Sinkhorn's iteration, Cuturi 2013, arXiv:1306.0895.

It rescales the rows and columns of a kernel K in turn, u = 1 / (K v), then v = 1 / (K^T u). In the log domain that is
safe and slow, on exponentials fast and unsafe. Here the first update runs in the log domain, the others by
matrix-vector products on the exponential of what it leaves, the plan so far; and when their scalings have grown
large, they are absorbed into the logarithms and the exponential is formed anew (Schmitzer 2019, arXiv:1610.06519).

Legend: B images, N patches; L log kernel and K plan so far, both (N, N) or (B, N, N); f, g logarithms of the row and
column scalings absorbed in K, and y, x the scalings since then, each (N) or (B, N).
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SETTLED = 1e-9  # the iteration ends early where all that is left of it cannot change a log scaling by more


def sinkhorn(log_kernel: Tensor, iterations: int) -> Tensor:
    """Logarithm of diag(u) K diag(v) after `iterations` of u = 1 / (K v), v = 1 / (K^T u), from v = 1.

    v comes last: the columns of the plan sum to 1, its rows as nearly as the iteration has converged.
    Args:
        log_kernel: (B, N, N) log K = -cost / regulariser. -inf forbids a pair; every row and column keeps a finite
            entry, except that N = 1 gives the plan 1 whatever the kernel. Gradients flow to it through all iterations.
        iterations: pairs of updates, at least 1.
    Returns: (B, N, N) log plan, float64 whatever the input: rounding it to float32 would be its largest error. A device
        without float64 (mps) computes and returns float32.
    Raises: ValueError for another shape or fewer iterations.
    """
    if log_kernel.dim() != 3 or log_kernel.shape[-2] != log_kernel.shape[-1]:
        raise ValueError(f"log_kernel is {tuple(log_kernel.shape)}, not (B, N, N)")
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}, not 1 or more")
    dtype = torch.float32 if log_kernel.device.type == "mps" else torch.float64
    if log_kernel.shape[-1] == 1:
        return torch.zeros_like(log_kernel, dtype=dtype)
    with torch.autocast(log_kernel.device.type, enabled=False):
        return _Sinkhorn.apply(log_kernel, iterations, dtype)


class _Stretch(NamedTuple):
    """Iterations on one K = exp(L + f + g): the scalings y, x that each of them left."""

    f: Tensor
    g: Tensor
    scalings: list[tuple[Tensor, Tensor]]


class _Sinkhorn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log_kernel: Tensor, iterations: int, dtype: torch.dtype) -> Tensor:
        plan = torch.empty_like(log_kernel, dtype=dtype, memory_format=torch.contiguous_format)
        record = ctx.needs_input_grad[0]
        ctx.stretches = [_iterate(*parts, iterations, record) for parts in _split(log_kernel, plan)]
        ctx.save_for_backward(log_kernel)
        return plan

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (log_kernel,) = ctx.saved_tensors
        total = gradient.clone(memory_format=torch.contiguous_format)
        for parts, stretches in zip(_split(log_kernel, total), ctx.stretches, strict=True):
            _adjoint(*parts, stretches)
        return total.to(log_kernel.dtype), None, None


def _split(log_kernel: Tensor, other: Tensor) -> list[tuple[Tensor, Tensor]]:
    """One image at a time on the CPU, where products with one matrix are 3 to 5 times as fast as the batched one."""
    if log_kernel.device.type != "cpu":
        return [(log_kernel, other)]
    return list(zip(log_kernel, other, strict=True))


def _times(kernel: Tensor, vector: Tensor) -> Tensor:
    return torch.mv(kernel, vector) if kernel.dim() == 2 else torch.bmm(kernel, vector.unsqueeze(-1)).squeeze(-1)


def _logsumexp(logs: Tensor, dim: int) -> Tensor:
    """In place: large temporaries cost more than the arithmetic."""
    largest = logs.amax(dim, keepdim=True)
    return logs.sub_(largest).exp_().sum(dim).log_().add_(largest.squeeze(dim))


def _rescale(log_kernel: Tensor, f: Tensor, g: Tensor, out: Tensor) -> Tensor:
    return torch.add(log_kernel, f.unsqueeze(-1), out=out).add_(g.unsqueeze(-2))


def _limit(dtype: torch.dtype) -> float:
    """Largest |log y| and |log x| before they are absorbed.

    Entries of K are kept above exp(-4 limits): then no product falls below the smallest number of the type, and what
    that floor adds to a sum is exp(-2 limits) of it.
    """
    return -math.log(torch.finfo(dtype).tiny) / 6


def _iterate(log_kernel: Tensor, plan: Tensor, iterations: int, record: bool) -> list[_Stretch]:
    """Fills `plan`, which holds K on the way, with the log plan. Returns every iteration if they are to be recorded."""
    limit = _limit(plan.dtype)
    f = -_logsumexp(plan.copy_(log_kernel), -1)
    g = -_logsumexp(torch.add(log_kernel, f.unsqueeze(-1), out=plan), -2)
    stretches = [_Stretch(f, g, [])]
    done, settled = 1, False
    while done < iterations and not settled:
        # Columns of K sum to 1 and its rows keep an entry of 1 / N^2: one update moves no log by more than 2 log N.
        kernel = _rescale(log_kernel, f, g, plan).clamp_(min=-4 * limit).exp_()
        x = torch.ones_like(f)
        stretch = _Stretch(f, g, [])
        steps, check, size, change = 0, 1, 0.0, 0.0
        while done < iterations and not settled and size + change <= limit:
            before = x
            y = _times(kernel, x).reciprocal_()
            x = _times(kernel.mT, y).reciprocal_()
            done, steps = done + 1, steps + 1
            if record:
                stretch.scalings.append((y, x))
            if steps == check and done < iterations:
                # No later update moves a log by more than this one: the iteration is 1-Lipschitz in the maximum norm.
                logs = torch.stack([y, x, x / before]).log_().abs_().flatten(1).amax(1).tolist()
                size, change = max(logs[:2]), logs[2]
                safe = (limit - size) / change if change > 0 else iterations
                check += int(max(1, min(check, safe)))
                settled = not record and change * (iterations - done) < SETTLED
        f, g = f + y.log(), g + x.log()
        stretches.append(stretch)
    _rescale(log_kernel, f, g, plan)
    return stretches if record else []


def _adjoint(log_kernel: Tensor, total: Tensor, stretches: list[_Stretch]) -> None:
    """Turns `total`, the gradient with respect to the log plan L + f + g, into the one with respect to L.

    Backwards through g = -logsumexp_i(L + f) and f = -logsumexp_j(L + g): each takes from `total` K times a matrix of
    rank one, and the matrices of a stretch are summed by one product.
    """
    to_f, to_g = total.sum(-1), total.sum(-2)
    kernel = torch.empty_like(total)
    for f, g, scalings in reversed(stretches[1:]):
        _rescale(log_kernel, f, g, kernel).clamp_(min=-4 * _limit(kernel.dtype)).exp_()
        columns, rows = [], []
        for step in reversed(range(len(scalings))):
            y, x = scalings[step]
            before = scalings[step - 1][1] if step else torch.ones_like(x)
            to_x = x * to_g
            to_y = y * (to_f - y * _times(kernel, to_x))
            columns += [y, to_y]
            rows += [to_x, before]
            to_f, to_g = torch.zeros_like(to_f), -before * _times(kernel.mT, to_y)
        total -= kernel.mul_(torch.stack(columns, -1) @ torch.stack(rows, -2))
    f, g, _ = stretches[0]
    by_column = _rescale(log_kernel, f, g, kernel).exp_()
    to_f = to_f - _times(by_column, to_g)
    total -= by_column.mul_(to_g.unsqueeze(-2))
    by_row = torch.add(log_kernel, f.unsqueeze(-1), out=kernel).exp_()
    total -= by_row.mul_(to_f.unsqueeze(-1))
