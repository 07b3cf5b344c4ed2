"""The modules that DDP wraps: one forward makes all losses of one optimizer's networks."""

from typing import Any

import torch
from torch import Tensor, nn

from losses.objective import Objective, Views

JUDGED = frozenset({"fake_score", "real_score", "fake_stages", "real_stages"})  # views that the discriminator makes


class GeneratorStep(nn.Module):
    """Setting, encoder and the terms that need no discriminator, under one forward."""

    def __init__(self, setting: nn.Module, encoder: nn.Module | None, objective: Objective) -> None:
        super().__init__()
        self.setting, self.encoder, self.objective = setting, encoder, objective

    def forward(self, batch: dict[str, Any], draw: int) -> tuple[dict[str, Tensor], Tensor]:
        """Weighted terms by name, and the fake with its graph. `draw` seeds the patch ids, equal on every rank."""
        views = Views(self.encoder, self.setting(batch), torch.Generator().manual_seed(draw))
        return self.objective(views), views["fake"]


class DiscriminatorStep(nn.Module):
    """The discriminator's own loss on a detached fake; fake and real go through it as one batch (SPADE)."""

    def __init__(self, discriminator: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.discriminator, self.loss = discriminator, loss

    def forward(self, condition: Tensor, fake: Tensor, real: Tensor) -> Tensor:
        """Scalar loss; no gradient to the fake."""
        scales = self.discriminator(condition, torch.cat([fake.detach(), real.to(fake.dtype)]))
        fakes, reals = zip(*(stages[-1].chunk(2) for stages in scales), strict=True)
        return self.loss(list(reals), list(fakes))


class Adversarial(nn.Module):
    """The terms that read the discriminator's views, evaluated with its parameters frozen."""

    def __init__(self, discriminator: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.discriminator, self.objective = discriminator, objective
        self.reads_real = any(name.startswith("real") for name in objective.reads)

    def forward(self, condition: Tensor, fake: Tensor, real: Tensor) -> dict[str, Tensor]:
        """Weighted terms by name; gradients reach the fake only. The real side keeps no graph."""
        judged = self.discriminator(condition, fake)
        views = {"fake_score": [stages[-1] for stages in judged], "fake_stages": [stages[:-1] for stages in judged]}
        if self.reads_real:
            with torch.no_grad():
                judged = self.discriminator(condition, real.to(fake.dtype))
            views |= {
                "real_score": [stages[-1] for stages in judged],
                "real_stages": [stages[:-1] for stages in judged],
            }
        return self.objective(Views(None, views))
