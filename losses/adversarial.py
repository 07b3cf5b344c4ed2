"""GAN losses on a discriminator's predictions at one or several scales.

hinge: Lim and Ye 2017, arXiv:1705.02894 (SPADE, CFL, paired MoNCE); lsgan: Mao et al. 2017, arXiv:1611.04076 (CUT,
CycleGAN, F-LSeSim); nonsaturating: Goodfellow et al. 2014, arXiv:1406.2661, the log form that CFL prints as Eq. 9.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .nce import precise
from .objective import Views
from .words import word

Mode = Literal["hinge", "lsgan", "nonsaturating"]


class GeneratorGAN(nn.Module):
    """The generator's side: hinge -mean D, lsgan mean (D - 1)^2, nonsaturating mean log(1 + exp(-D)); D = D(fake).

    Args:
        mode: "hinge", "lsgan" or "nonsaturating".
        score: the view of predictions, one tensor or a list over scales, over which the loss is averaged.
    """

    def __init__(self, mode: Mode = "hinge", score: str = "fake_score") -> None:
        super().__init__()
        self.mode: Mode = word("mode", mode, Mode)
        self.score = score
        self.reads = frozenset({score})

    def forward(self, views: Views) -> Tensor:
        """Views -> scalar, float32 at least."""
        return _mean(views[self.score], self.loss)

    def loss(self, fake: Tensor) -> Tensor:
        """Scores of any shape -> scalar, float32 at least."""
        fake = precise(fake)
        if self.mode == "hinge":
            return -fake.mean()
        if self.mode == "lsgan":
            return (fake - 1).square().mean()
        return F.softplus(-fake).mean()


class DiscriminatorGAN(nn.Module):
    """The discriminator's side, R = D(real), D = D(fake).

    hinge: mean max(0, 1 - R) + mean max(0, 1 + D); lsgan: (mean (R - 1)^2 + mean D^2) / 2;
    nonsaturating: mean log(1 + exp(-R)) + mean log(1 + exp(D)).
    Args:
        mode: "hinge", "lsgan" or "nonsaturating".
    """

    def __init__(self, mode: Mode = "hinge") -> None:
        super().__init__()
        self.mode: Mode = word("mode", mode, Mode)

    def forward(self, real: Tensor | Sequence[Tensor], fake: Tensor | Sequence[Tensor]) -> Tensor:
        """Predictions, one tensor or a list over scales each -> scalar, averaged over scales, float32 at least."""
        return _mean(real, self.real_loss) + _mean(fake, self.fake_loss)

    def real_loss(self, real: Tensor) -> Tensor:
        """Scores of real images, of any shape -> scalar, float32 at least."""
        real = precise(real)
        if self.mode == "hinge":
            return F.relu(1 - real).mean()
        if self.mode == "lsgan":
            return (real - 1).square().mean() / 2
        return F.softplus(-real).mean()

    def fake_loss(self, fake: Tensor) -> Tensor:
        """Scores of generated images, of any shape -> scalar, float32 at least."""
        fake = precise(fake)
        if self.mode == "hinge":
            return F.relu(1 + fake).mean()
        if self.mode == "lsgan":
            return fake.square().mean() / 2
        return F.softplus(fake).mean()


def _mean(scores: Tensor | Sequence[Tensor], loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean over scales, outside autocast."""
    scales = [scores] if isinstance(scores, Tensor) else list(scores)
    with torch.autocast(scales[0].device.type, enabled=False):
        return torch.stack([loss(scale) for scale in scales]).mean()
