"""CFL's loss transcribed plainly from its description: what ours is timed against.

Andonian et al. 2021, Contrastive Feature Loss for Image Prediction, Eq. 5: PatchNCE in both directions between VGG19
features of a generated image and of its target, each layer's patches projected by a linear head.
"""

import torch
from torch import Tensor, nn

from benchmarks import plain_nce

TAPS = (1, 6, 11, 20, 29)  # relu1_1, relu2_1, relu3_1, relu4_1, relu5_1
CHANNELS = (64, 128, 256, 512, 512)


def vgg19() -> nn.Sequential:
    """The layers of VGG19 as far as relu5_1."""
    layers: list[nn.Module] = []
    width = 3
    for out, repeat in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 1)):
        for _ in range(repeat):
            layers += [nn.Conv2d(width, out, 3, padding=1), nn.ReLU()]
            width = out
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers[:-1]).requires_grad_(False)


class Loss:
    """Sum over layers of half the sum of both directions; frozen network, trained heads."""

    def __init__(self, patches: int, dim: int = 256) -> None:
        self.network, self.patches = vgg19(), patches
        self.heads = nn.ModuleList(nn.Linear(channels, dim) for channels in CHANNELS)

    def __call__(self, fake: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
        """(B, 3, H, W) each -> scalar."""
        real, ids = self._patches(target, None, generator)
        made, _ = self._patches(fake, ids, generator)
        losses = [plain_nce.cfl(query, key) for query, key in zip(made, real, strict=True)]
        return torch.stack(losses).sum()

    def _patches(
        self, x: Tensor, ids: list[Tensor] | None, generator: torch.Generator
    ) -> tuple[list[Tensor], list[Tensor]]:
        found, drawn = [], []
        for index, layer in enumerate(self.network):
            x = layer(x)
            if index in TAPS:
                flat = x.permute(0, 2, 3, 1).flatten(1, 2)
                order = torch.randperm(flat.shape[1], generator=generator) if ids is None else ids[len(found)]
                drawn.append(order[: self.patches])
                found.append(self.heads[len(found)](flat[:, drawn[-1]]))
        return found, drawn
