"""Stop within one step of the first value that is no number, saying which term and which network."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Diverged(Exception):
    """Training produced a NaN or an infinity; the last checkpoint is from before."""


class FiniteGuard:
    """Looks at every step's losses and gradient norms.

    On a GPU a step's values are read after the next step was queued, and that one is not waited for: the device always
    has work. They are read at once on a CPU, and before anything is saved.
    """

    def __init__(self, device: torch.device) -> None:
        self.late = device.type != "cpu"
        self.pending: _Pending | None = None

    def watch(self, step: int, values: dict[str, Tensor]) -> None:
        """Take a step's scalars; raises Diverged for the previous ones on a GPU, for these on a CPU."""
        previous, self.pending = self.pending, _Pending.of(step, values)
        self._read(previous if self.late else self.pending)

    def settle(self) -> None:
        """Read what is pending, as before a save."""
        self._read(self.pending)

    @staticmethod
    def _read(pending: "_Pending | None") -> None:
        if pending is None:
            return
        values = pending.read()
        if bool(torch.isfinite(values).all()):
            return
        named = zip(pending.names, values.tolist(), strict=True)
        bad = [f"{name} = {value}" for name, value in named if value - value != 0]
        raise Diverged(
            f"step {pending.step}: not finite: {', '.join(bad)} (norm/NETWORK is a gradient norm); "
            "the last checkpoint is from before; lower train.lr, try train.precision=float32, or another seed"
        )


class _Pending(NamedTuple):
    """A step's values; of a GPU a copy in pinned memory, which is complete once the event has happened there.

    To read them off the device itself would queue behind the step that follows, and wait for that one too.
    """

    step: int
    names: list[str]
    values: Tensor
    copied: torch.cuda.Event | None

    @classmethod
    def of(cls, step: int, values: dict[str, Tensor]) -> "_Pending":
        stacked = torch.stack([value.detach().double() for value in values.values()])
        if not stacked.is_cuda:
            return cls(step, list(values), stacked, None)
        host = torch.empty(stacked.shape, dtype=stacked.dtype, pin_memory=True).copy_(stacked, non_blocking=True)
        return cls(step, list(values), host, torch.cuda.current_stream(stacked.device).record_event())

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
