"""Stop within one step of the first value that is no number, saying which term and which network."""

import torch
from torch import Tensor, nn


class Diverged(Exception):
    """Training produced a NaN or an infinity; the last checkpoint is from before."""


class FiniteGuard:
    """Looks at every step's losses and gradient norms.

    On a GPU a step's values are read after the next step was queued, so that the host never waits for the device; they
    are read at once on a CPU, and before anything is saved.
    """

    def __init__(self, device: torch.device) -> None:
        self.late = device.type != "cpu"
        self.pending: tuple[int, list[str], Tensor] | None = None

    def watch(self, step: int, values: dict[str, Tensor]) -> None:
        """Take a step's scalars; raises Diverged for the previous ones on a GPU, for these on a CPU."""
        previous, self.pending = (
            self.pending,
            (step, list(values), torch.stack([v.detach().double() for v in values.values()])),
        )
        self._read(previous if self.late else self.pending)

    def settle(self) -> None:
        """Read what is pending, as before a save."""
        self._read(self.pending)

    @staticmethod
    def _read(pending: tuple[int, list[str], Tensor] | None) -> None:
        if pending is None:
            return
        step, names, values = pending
        if bool(torch.isfinite(values).all()):
            return
        bad = [f"{name} = {value}" for name, value in zip(names, values.tolist(), strict=True) if value - value != 0]
        raise Diverged(
            f"step {step}: not finite: {', '.join(bad)} (norm/NETWORK is a gradient norm); "
            "the last checkpoint is from before; lower train.lr, try train.precision=float32, or another seed"
        )


def gradient_norm(network: nn.Module) -> Tensor:
    """Euclidean norm of all gradients of a network, float32 on its device."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return (
        torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)).float()) if gradients else torch.zeros(())
    )
