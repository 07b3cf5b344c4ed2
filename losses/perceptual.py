"""Regression losses: the mean absolute difference of images, of an encoder's features, of a discriminator's stages.

Perceptual L1 over VGG19: Johnson et al. 2016, arXiv:1603.08155, in the form of SPADE (Park et al. 2019,
arXiv:1903.07291); feature matching: Wang et al. 2018 (pix2pixHD), arXiv:1711.11585.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .objective import Views
from .pixel import difference

SPADE_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)


def l1(query: Tensor, key: Tensor) -> Tensor:
    """mean |query - key| over tensors of the same shape -> scalar, float32 at least; the key is detached.

    Raises: ValueError where the shapes differ.
    """
    return difference(query, key.detach())


class L1(nn.Module):
    """mean |query - key| of whole maps; with encoder=pixel the difference of the images themselves."""

    on = "maps"

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, C, H, W) each -> scalar; gradients flow to the query only."""
        return l1(query, key)


class Perceptual(L1):
    """L1 between features, deeper layers weighted up; the weights are applied by the term that holds the loss.

    Args:
        layer_weights: of the deepest layers, the last number for the last layer.
    """

    def __init__(self, layer_weights: Sequence[float] = SPADE_WEIGHTS) -> None:
        super().__init__()
        self.layer_weights = [float(weight) for weight in layer_weights]


class FeatureMatching(nn.Module):
    """Sum over stages, mean over scales, of mean |stage(fake) - stage(real)|.

    SPADE's feature matching without its factor lambda = 10, the weight of the term; with its two scales the mean is the
    factor 1/2. Gradients flow to the first view only.
    Args:
        pair: views of the activations of generated and real images, each a list over scales of lists over stages.
    """

    def __init__(self, pair: Sequence[str] = ("fake_stages", "real_stages")) -> None:
        super().__init__()
        self.fake, self.real = pair
        self.reads = frozenset({self.fake, self.real})

    def forward(self, views: Views) -> Tensor:
        """Views -> scalar, float32 at least."""
        scales = list(zip(views[self.fake], views[self.real], strict=True))
        differences = [l1(fake, real) for fakes, reals in scales for fake, real in zip(fakes, reals, strict=True)]
        return torch.stack(differences).sum() / len(scales)
