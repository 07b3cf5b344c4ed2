"""Stop at the first loss or gradient that is no number or beyond a limit, saying which, and keep what reproduces it."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from engine.bundle import keep
from engine.distributed import barrier, rank, world
from errors import Diverged

WARN = 1e-2  # of the limit: from here on one line says that it is near
GRADIENTS = 1e3  # gradient norms may be so many times the limit of losses: small features make them large at a start


class FiniteGuard:
    """Looks at every step's losses and gradient norms, of all ranks.

    On a GPU a step's values are read after the next step was queued, and that one is not waited for: the device always
    has work. They are read at once on a CPU, and before anything is saved. Ranks send each other their values on the
    device, so that all of them stop at the same step.
    Args:
        limit: largest absolute loss that is still training, and 1 / GRADIENTS of the largest gradient norm; None: any
            number is.
        folder: of the run, where `diverged/` is to be written; None: nowhere.
    """

    def __init__(self, device: torch.device, limit: float | None = None, folder: Path | None = None) -> None:
        self.late = device.type != "cpu"
        self.limit, self.folder = limit, folder
        self.warned = False
        self.pending: _Pending | None = None

    def watch(self, step: int, values: dict[str, Tensor], batches: Sequence[Mapping[str, Any]] = ()) -> None:
        """Take a step's scalars; raises Diverged for the previous ones on a GPU, for these on a CPU.

        Every rank has to call it, with the same names. `batches` are the step's, to be kept where they end the run.
        """
        previous, self.pending = self.pending, _Pending.of(step, values, batches)
        self._read(previous if self.late else self.pending)

    def settle(self) -> None:
        """Read what is pending, as before a save."""
        self._read(self.pending)

    def _read(self, pending: "_Pending | None") -> None:
        if pending is None:
            return
        values = pending.read()
        allowed = torch.isfinite(values)
        if self.limit is not None:
            limits = [self.limit * (GRADIENTS if name.startswith("norm/") else 1) for name in pending.names]
            share = values.abs() / torch.tensor(limits, dtype=values.dtype)
            allowed &= share <= 1
            if not self.warned and bool(allowed.all()) and share.amax() > WARN:
                self.warned = True
                of_rank, at = divmod(int(share.argmax()), len(pending.names))
                self._warn(pending.step, pending.names[at], float(values[of_rank, at]))
        if not bool(allowed.all()):
            self._stop(pending, values, allowed)

    def _warn(self, step: int, name: str, value: float) -> None:
        if rank() == 0:
            line = (
                f"warning: step {step}: {name} = {value:.3g} is large; training stops above train.limit={self.limit:g}"
            )
            print(line, file=sys.stderr, flush=True)

    def _stop(self, pending: "_Pending", values: Tensor, allowed: Tensor) -> None:
        first = int(allowed.all(1).int().argmin())  # rank whose values are told
        found = dict(zip(pending.names, values[first].tolist(), strict=True))
        bad = [name for name, good in zip(pending.names, allowed[first].tolist(), strict=True) if not good]
        beyond = bool(torch.isfinite(values[first]).all())
        what = f"above train.limit={self.limit:g}" if beyond else "not finite"
        shown = ", ".join(f"{name} = {found[name]:.4g}" for name in bad)
        where = f" on rank {first}" if world() > 1 else ""
        kept = ""
        if self.folder is not None:
            bundle = keep(self.folder, pending.step, found, pending.batches, first)
            kept = f"; `python scripts/reproduce.py {bundle}` makes the step again"
            barrier()  # all files are there before any rank ends
        raise Diverged(
            f"step {pending.step}{where}: {what}: {shown} (norm/NETWORK is a gradient norm, allowed {GRADIENTS:g} "
            "times as much); the last checkpoint is from before; lower train.lr, or try train.precision=float32 or "
            "another seed"
            f"{', or raise the limit' if beyond else ''}{kept}",
            pending.step,
            found,
        )


class _Pending(NamedTuple):
    """A step's values, (ranks, names); of a GPU a copy in pinned memory, which is complete once the event has happened
    there.

    To read them off the device itself would queue behind the step that follows, and wait for that one too.
    """

    step: int
    names: list[str]
    values: Tensor
    copied: torch.cuda.Event | None
    batches: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, step: int, values: dict[str, Tensor], batches: Sequence[Mapping[str, Any]] = ()) -> "_Pending":
        stacked = torch.stack([value.detach().double() for value in values.values()])
        if world() > 1 and dist.is_initialized():
            every = [torch.empty_like(stacked) for _ in range(world())]
            dist.all_gather(every, stacked)
            stacked = torch.stack(every)
        else:
            stacked = stacked[None]
        if not stacked.is_cuda:
            return cls(step, list(values), stacked, None, batches)
        host = torch.empty(stacked.shape, dtype=stacked.dtype, pin_memory=True).copy_(stacked, non_blocking=True)
        return cls(step, list(values), host, torch.cuda.current_stream(stacked.device).record_event(), batches)

    def read(self) -> Tensor:
        """The values on the host, waiting for their own step at most."""
        if self.copied is not None:
            self.copied.synchronize()
        return self.values


def gradient_norm(network: nn.Module) -> Tensor:
    """Euclidean norm of all gradients of a network, float32 on its device."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    if not gradients:
        return torch.zeros((), device=next(network.parameters()).device)
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)).float())
