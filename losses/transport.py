"""Entropic optimal transport between two sets of N patches: Sinkhorn's iteration, Cuturi 2013, arXiv:1306.0895.

It rescales the rows and columns of a kernel K in turn, u = 1 / (K v), then v = 1 / (K^T u). In the log domain that is
safe and slow, on exponentials fast and unsafe. Here the exponential is taken after every row and every column has been
given an entry 1, so that no sum can vanish; and when the scalings have grown large, they are absorbed into the
logarithms and the exponential is formed anew (Schmitzer 2019, arXiv:1610.06519).

Products with a large kernel cost what reading it costs. Most iterations on a large float32 kernel therefore read K
rounded to float32, and the last ones, which take out the rounding again, K in float64; scalings and long sums are
float64 throughout.

Legend: B images, N patches; L log kernel and K = exp(L + f + g), both (N, N) or (B, N, N); f, g logarithms of the row
and column scalings absorbed in K, and y, x the scalings since then, each (N) or (B, N).
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .nce import precise

SETTLED = 1e-9  # the iteration ends early where all that is left of it cannot change a log scaling by more
NEGLIGIBLE = 1e-12  # share of the gradient that may be left out where the iterations have converged
COARSE = 1e-6  # change of a log scaling from which on float32 would add more rounding than progress
CPU_BLOCK = 2**18  # entries of K that stay in the cache of one core: what is read for y is there for x
# At most so many rows and columns of K are added up in its own precision. Rounding has the same sign in every
# iteration: on some processors one float32 sum per row left 1.4e-5 in the log plan after 50 iterations, these 2e-6.
CPU_ROWS, CPU_COLUMNS = 128, 256


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
    f, g = potentials(log_kernel, iterations)
    if log_kernel.shape[-1] == 1:
        return torch.zeros_like(log_kernel, dtype=f.dtype)
    plan = log_kernel.to(f.dtype, copy=True)
    return plan.add_(f.unsqueeze(-1)).add_(g.unsqueeze(-2))


def potentials(log_kernel: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """log u and log v, (B, N) each, of sinkhorn's log plan = log_kernel + log u_i + log v_j.

    Only this sum has a meaning, and only its gradient is right. Where N = 1 both are zeros, and the log plan is 0.
    Arguments, type and errors are sinkhorn's.
    """
    if log_kernel.dim() != 3 or log_kernel.shape[-2] != log_kernel.shape[-1]:
        raise ValueError(f"log_kernel is {tuple(log_kernel.shape)}, not (B, N, N)")
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}, not 1 or more")
    work = torch.float32 if log_kernel.device.type == "mps" else torch.float64
    if log_kernel.shape[-1] == 1:
        f, g = log_kernel.new_zeros(2, len(log_kernel), 1, dtype=work)
        return f, g
    with torch.autocast(log_kernel.device.type, enabled=False):
        return _Potentials.apply(precise(log_kernel), iterations, work)


class _Stretch(NamedTuple):
    """Iterations on one K: the column scaling x before them, and y and x after each of them."""

    f: Tensor
    g: Tensor
    before: Tensor
    scalings: list[tuple[Tensor, Tensor]]


class _Potentials(torch.autograd.Function):
    """Logarithms (B, N) of the scalings u and v."""

    @staticmethod
    def forward(ctx: Any, log_kernel: Tensor, iterations: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        record = ctx.needs_input_grad[0]
        memory = _Memory()
        found = [_iterate(part, iterations, dtype, record, memory) for part in _split(log_kernel)]
        ctx.stretches = [stretches for _, _, stretches in found]
        ctx.save_for_backward(log_kernel)
        f, g = log_kernel.new_empty(2, *log_kernel.shape[:2], dtype=dtype)
        for f_part, g_part, (f_found, g_found, _) in zip(_split(f), _split(g), found, strict=True):
            f_part.copy_(f_found)
            g_part.copy_(g_found)
        return f, g

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_f: Tensor, to_g: Tensor) -> tuple[Tensor, None, None]:
        (log_kernel,) = ctx.saved_tensors
        total = torch.empty_like(log_kernel, memory_format=torch.contiguous_format)
        parts = zip(_split(total), _split(log_kernel), _split(to_f), _split(to_g), ctx.stretches, strict=True)
        for out, *given in parts:
            out.copy_(_adjoint(*given))
        return total, None, None


def _split(batch: Tensor) -> tuple[Tensor, ...]:
    """One image at a time on the CPU, where products with one matrix are 3 to 5 times as fast as the batched one."""
    return batch.unbind() if batch.device.type == "cpu" else (batch,)


def _times(kernel: Tensor, vector: Tensor) -> Tensor:
    return torch.mv(kernel, vector) if kernel.dim() == 2 else torch.bmm(kernel, vector.unsqueeze(-1)).squeeze(-1)


def _readable(kernel: Tensor) -> bool:
    """Whether the host may look at the scalings. It would have to wait for another device, which is to be fed instead:
    there scalings are absorbed before their bound allows them to grow large, and all iterations are made."""
    return kernel.device.type == "cpu"


class _Memory(dict[torch.dtype, Tensor]):
    """One matrix of each type, for all images in turn: new memory costs more than what is written to it."""

    def like(self, matrix: Tensor, dtype: torch.dtype) -> Tensor:
        if dtype not in self:
            self[dtype] = torch.empty(matrix.shape, dtype=dtype, device=matrix.device)
        return self[dtype]


def _rows(kernel: Tensor) -> int:
    """How many rows to work on at a time."""
    if kernel.dim() == 3 or kernel.numel() <= CPU_BLOCK:
        return kernel.shape[-2]
    return max(1, min(CPU_ROWS, CPU_BLOCK // kernel.shape[-1]))


def _update(kernel: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """y = 1 / (K x), then x = 1 / (K^T y)."""
    rows = _rows(kernel)
    if rows == kernel.shape[-2]:
        y = _times(kernel, x).reciprocal_()
        return y, _times(kernel.mT, y).reciprocal_()
    y, sums, rounded = torch.empty_like(x), torch.zeros_like(x), x.to(kernel.dtype)
    for block, part in zip(kernel.split(rows), y.split(rows), strict=True):
        part.zero_()
        for columns, scaling in zip(block.split(CPU_COLUMNS, -1), rounded.split(CPU_COLUMNS), strict=True):
            part += torch.mv(columns, scaling)
        part.reciprocal_()
        sums += torch.mv(block.mT, part.to(kernel.dtype))
    return y, sums.reciprocal_()


def _limit(dtype: torch.dtype) -> float:
    """Largest |log y| and |log x| before they are absorbed.

    Entries of K are kept above e^limit times the smallest number of the type: then no product falls below that number,
    and what this floor adds to a sum is less than e^(-limit) of it.
    """
    return -math.log(torch.finfo(dtype).tiny) / 4.5


def _exponential(log_kernel: Tensor, f: Tensor, g: Tensor, limit: float, out: Tensor) -> Tensor:
    rows, g = _rows(out), g.unsqueeze(-2)
    for logs, part, block in zip(log_kernel.split(rows, -2), f.split(rows, -1), out.split(rows, -2), strict=True):
        block.copy_(logs).add_(part.unsqueeze(-1)).add_(g).clamp_(min=-3.5 * limit).exp_()
    return out


def _iterate(
    log_kernel: Tensor, iterations: int, dtype: torch.dtype, record: bool, memory: _Memory
) -> tuple[Tensor, Tensor, list[_Stretch]]:
    """Logarithms of both scalings; and every iteration, if they are to be recorded."""
    readable = _readable(log_kernel)
    coarse = readable and log_kernel.dtype != dtype == torch.float64 and log_kernel.numel() > CPU_BLOCK
    limit = _limit(torch.float32 if coarse else dtype)
    largest = log_kernel.amax(-1, keepdim=True)
    f = -largest.squeeze(-1).to(dtype)
    g = -torch.sub(log_kernel, largest).amax(-2).to(dtype)
    x = g.neg().exp_()  # v = 1, less what is absorbed
    # At first every row and column of K has an entry 1; later its columns sum to 1 and its rows keep an entry of
    # 1 / N^2. Either way one update moves no log by more than this.
    bound = 2 * math.log(log_kernel.shape[-1])
    stretches = []
    done, settled = 0, False
    while done < iterations and not settled:
        kernel = _exponential(log_kernel, f, g, limit, memory.like(log_kernel, dtype))
        rounded = memory.like(log_kernel, torch.float32).copy_(kernel) if coarse else kernel
        stretch = _Stretch(f, g, x, [])
        steps, check, size, change = 0, 1, 0.0, 0.0
        while done < iterations and not settled and size + change <= limit:
            coarse = coarse and done + 1 < iterations
            before = x
            y, x = _update(rounded if coarse else kernel, x)
            done, steps = done + 1, steps + 1
            if record:
                stretch.scalings.append((y, x))
            if not readable:
                size, change = steps * bound, bound
            elif steps == check and done < iterations:
                # No later update moves a log by more than this one: the iteration is 1-Lipschitz in the maximum norm.
                logs = torch.stack([y, x, x / before]).log_().abs_().flatten(1).amax(1).tolist()
                size, change = max(logs[:2]), min(logs[2], bound)
                settled = not coarse and change * (iterations - done) < SETTLED
                coarse = coarse and change > COARSE
                safe = (limit - size) / change if change > 0 else iterations
                check += int(max(1, min(check, safe)))
        if record and settled:
            stretch.scalings.extend([(y, x)] * (iterations - done))
        stretches.append(stretch)
        f, g, x = f + y.log(), g + x.log(), torch.ones_like(f)
    return f, g, stretches if record else []


def _adjoint(log_kernel: Tensor, to_f: Tensor, to_g: Tensor, stretches: list[_Stretch]) -> Tensor:
    """The gradient with respect to L from those with respect to the log scalings.

    Backwards through log x = -log(K^T y) and log y = -log(K x): each takes K times a matrix of rank one, and the
    matrices of a stretch are summed by one product. Both arguments are sums of one matrix, the gradient of the plan, so
    that they add up to the same number, but for rounding, whose effect would not fade on the way back.
    """
    total = log_kernel.new_zeros(log_kernel.shape, dtype=to_f.dtype)
    kernel = torch.empty_like(total)
    left = sum(len(stretch.scalings) for stretch in stretches)
    to_f = to_f + (to_g.sum(-1, keepdim=True) - to_f.sum(-1, keepdim=True)) / to_f.shape[-1]
    negligible = NEGLIGIBLE * (to_f.abs().sum() + to_g.abs().sum())
    for f, g, start, scalings in reversed(stretches):
        _exponential(log_kernel, f, g, _limit(kernel.dtype), kernel)
        columns, rows = [], []
        for step in reversed(range(len(scalings))):
            y, x = scalings[step]
            before = scalings[step - 1][1] if step else start
            to_x = x * to_g
            to_y = y * (to_f - y * _times(kernel, to_x))
            columns += [y, to_y]
            rows += [to_x, before]
            to_f, to_g = torch.zeros_like(to_f), -before * _times(kernel.mT, to_y)
            left -= 1
            # Each step left adds a matrix of twice the size of to_g, in the sum of absolute values, which never grows.
            if _readable(kernel) and 2 * left * to_g.abs().sum() <= negligible:
                left = 0
                break
        total -= kernel.mul_(torch.stack(columns, -1) @ torch.stack(rows, -2))
        if left == 0:
            break
    return total
