"""The learning-rate factor of a step, and the moving average of weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from omegaconf import DictConfig
from torch import nn

from engine.config import Schedule
from models.blocks import SpectralConv2d


def factor(epoch: int, epochs: int, decay_epochs: int, schedule: Schedule) -> float:
    """Learning-rate factor of a 1-based epoch: constant for `epochs`, then linear.

    SPADE lowers the rate at the end of each epoch e > epochs by 1/decay, so that epoch epochs + 1 still has the full
    rate and the last one 1/decay; CUT has 1 - max(0, e - epochs)/(decay + 1). Both are the released code's.
    """
    past = epoch - epochs
    if past <= 0 or decay_epochs == 0:
        return 1.0
    if schedule is Schedule.spade:
        return max(0.0, 1 - (past - 1) / decay_epochs)
    return max(0.0, 1 - past / (decay_epochs + 1))


def step_factor(step: int, steps: int, decay_steps: int) -> float:
    """Factor of a 0-based step of a run that is given in steps: constant, then linear over the last `decay_steps`."""
    return 1.0 if decay_steps == 0 else min(1.0, (steps - step) / decay_steps)


class Average:
    """Exponential moving average of a network's weights and buffers, updated after each step.

    average <- decay * average + (1 - decay) * weight. Integer buffers are copied, and so are the vectors of spectral
    norms: a mean of unit vectors is shorter than one, and the norm estimated with it too small (by half and more, seen
    in SPADE's skips).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = network
        self.values = {name: value.detach().clone() for name, value in network.state_dict().items()}
        spectral = [name for name, layer in network.named_modules() if isinstance(layer, SpectralConv2d)]
        self.copied = {f"{name}.{vector}".lstrip(".") for name in spectral for vector in "uv"}

    @torch.no_grad()
    def update(self) -> None:
        """Take the network's present weights in."""
        for name, value in self.network.state_dict().items():
            mean = self.values[name]
            if mean.is_floating_point() and name not in self.copied:
                mean.lerp_(value, 1 - self.decay)
            else:
                mean.copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network holds the averages inside the block and its own weights again after it."""
        own = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.values)
        try:
            yield
        finally:
            self.network.load_state_dict(own)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The averages by name of the network's own state."""
        return self.values

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take saved averages over."""
        for name, value in state.items():
            self.values[name].copy_(value)


class Plan:
    """How long a run is and which learning rate each step has.

    Args:
        train: the config's `train`; per_epoch: steps of one epoch.
    """

    def __init__(self, train: DictConfig, per_epoch: int) -> None:
        self.train, self.per_epoch = train, per_epoch
        self.steps = train.steps if train.steps is not None else (train.epochs + train.decay_epochs) * per_epoch

    @property
    def plain_from(self) -> int | None:
        """The 0-based step from which images come without random crops: the decay's first, unless it keeps them."""
        if self.train.decay_crop:
            return None
        if self.train.steps is not None:
            return self.steps - self.train.decay_steps
        return self.train.epochs * self.per_epoch

    def factor(self, step: int) -> float:
        """Learning-rate factor of a 0-based step."""
        if self.train.steps is not None:
            return step_factor(step, self.steps, self.train.decay_steps)
        return factor(step // self.per_epoch + 1, self.train.epochs, self.train.decay_epochs, self.train.schedule)
