"""SPADE transcribed plainly from its description, with PyTorch's own modules: what we are timed against.

Generator, two-scale discriminator and step of Park et al. 2019 (arXiv:1903.07291): label maps are made one-hot and
resized for every layer, scale and shift are two convolutions, spectral norm is PyTorch's hook, the image is joined to
the one-hot map before the discriminator, whose weights take gradients in the generator's step too, and its own step
makes the image anew. Parameters have the names of the official checkpoints.
"""

import warnings

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from benchmarks.plain_norm import instance_norm

LAYER_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
TAPPED = (1, 6, 11, 20, 29)  # relu1_1, relu2_1, relu3_1, relu4_1, relu5_1 of VGG19


def spectral(conv: nn.Conv2d) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch has a newer form; the older code has this one
        return nn.utils.spectral_norm(conv)


class SPADE(nn.Module):
    def __init__(self, channels: int, features: int, hidden: int) -> None:
        super().__init__()
        self.param_free_norm = nn.BatchNorm2d(features, affine=False)
        self.mlp_shared = nn.Sequential(nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(hidden, features, 3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, features, 3, padding=1)

    def forward(self, x: Tensor, dense: Tensor) -> Tensor:
        hidden = self.mlp_shared(F.interpolate(dense, x.shape[2:], mode="nearest"))
        return self.param_free_norm(x) * (1 + self.mlp_gamma(hidden)) + self.mlp_beta(hidden)


class Block(nn.Module):
    def __init__(self, channels: int, features: int, out: int, hidden: int) -> None:
        super().__init__()
        middle = min(features, out)
        self.conv_0 = spectral(nn.Conv2d(features, middle, 3, padding=1))
        self.conv_1 = spectral(nn.Conv2d(middle, out, 3, padding=1))
        self.norm_0, self.norm_1 = SPADE(channels, features, hidden), SPADE(channels, middle, hidden)
        self.learned = features != out
        if self.learned:
            self.conv_s = spectral(nn.Conv2d(features, out, 1, bias=False))
            self.norm_s = SPADE(channels, features, hidden)

    def forward(self, x: Tensor, dense: Tensor) -> Tensor:
        shortcut = self.conv_s(self.norm_s(x, dense)) if self.learned else x
        x = self.conv_0(F.leaky_relu(self.norm_0(x, dense), 0.2))
        return shortcut + self.conv_1(F.leaky_relu(self.norm_1(x, dense), 0.2))


class Generator(nn.Module):
    """Five doublings of the side from a 32nd of the map's."""

    def __init__(self, channels: int, width: int = 64, hidden: int = 128) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, 16 * width, 3, padding=1)
        widths = {"head_0": (16, 16), "G_middle_0": (16, 16), "G_middle_1": (16, 16)}
        widths |= {"up_0": (16, 8), "up_1": (8, 4), "up_2": (4, 2), "up_3": (2, 1)}
        for name, (features, out) in widths.items():
            setattr(self, name, Block(channels, features * width, out * width, hidden))
        self.blocks = [getattr(self, name) for name in widths]
        self.conv_img = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, dense: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, 3, H, W)."""
        height, width = dense.shape[2:]
        x = self.fc(F.interpolate(dense, (height // 32, width // 32), mode="nearest"))
        for index, block in enumerate(self.blocks):
            x = block(F.interpolate(x, scale_factor=2) if index not in (0, 2) else x, dense)
        return torch.tanh(self.conv_img(F.leaky_relu(x, 0.2)))


def one_hot(semantic: Tensor, channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(B, 2, H, W) ids and edges to (B, channels, H, W)."""
    dense = torch.zeros(len(semantic), channels - 1, *semantic.shape[2:], dtype=dtype)
    return torch.cat([dense.scatter_(1, semantic[:, :1].long(), 1.0), semantic[:, 1:].to(dtype)], 1)


class Scale(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.model0 = nn.Sequential(nn.Conv2d(channels, width, 4, 2, 2), nn.LeakyReLU(0.2))
        for stage in (1, 2, 3):
            conv = spectral(nn.Conv2d(width, min(2 * width, 512), 4, 1 if stage == 3 else 2, 2, bias=False))
            width = min(2 * width, 512)
            layers = nn.Sequential(nn.Sequential(conv, instance_norm(width)), nn.LeakyReLU(0.2))
            setattr(self, f"model{stage}", layers)
        self.model4 = nn.Sequential(nn.Conv2d(width, 1, 4, 1, 2))

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for stage in range(5):
            x = getattr(self, f"model{stage}")(x)
            found.append(x)
        return found


class Discriminator(nn.Module):
    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        self.discriminator_0, self.discriminator_1 = Scale(channels, width), Scale(channels, width)

    def forward(self, dense: Tensor, fake: Tensor, real: Tensor) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """Stages of both scales, of fake and real."""
        x = torch.cat([torch.cat([dense, fake], 1), torch.cat([dense, real], 1)])
        small = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        scales = (self.discriminator_0(x), self.discriminator_1(small))
        both = [[stage.chunk(2) for stage in stages] for stages in scales]
        fakes, reals = ([[stage[side] for stage in stages] for stages in both] for side in (0, 1))
        return fakes, reals


class Perceptual(nn.Module):
    """L1 of VGG19's features, random weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torchvision.models.vgg19(weights=None).features[: TAPPED[-1] + 1].requires_grad_(False)

    def features(self, x: Tensor) -> list[Tensor]:
        found = []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in TAPPED:
                found.append(x)
        return found

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        pairs = zip(LAYER_WEIGHTS, self.features(fake), self.features(real), strict=True)
        return sum(weight * F.l1_loss(a, b.detach()) for weight, a, b in pairs)


class Step:
    """Generator, then discriminator on an image made anew: hinge, 10 feature matching, 10 perceptual; TTUR."""

    def __init__(self, channels: int, width: int = 64, hidden: int = 128) -> None:
        self.channels, self.generator = channels, Generator(channels, width, hidden)
        self.discriminator, self.perceptual = Discriminator(channels + 3, width), Perceptual()
        self.adam = torch.optim.Adam(self.generator.parameters(), 1e-4, betas=(0.0, 0.9))
        self.adam_d = torch.optim.Adam(self.discriminator.parameters(), 4e-4, betas=(0.0, 0.9))

    def __call__(self, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        dense = one_hot(source, self.channels, target.dtype)
        self.adam.zero_grad()
        fake = self.generator(dense)
        fakes, reals = self.discriminator(dense, fake, target)
        losses = {"gan": sum(-stages[-1].mean() for stages in fakes) / 2, "features": matching(fakes, reals)}
        losses["contrast"] = 10 * self.perceptual(fake, target)
        sum(losses.values()).backward()
        self.adam.step()
        self.adam_d.zero_grad()
        with torch.no_grad():
            fake = self.generator(dense)
        fakes, reals = self.discriminator(dense, fake.requires_grad_(), target)
        loss_d = sum(F.relu(1 + stages[-1]).mean() for stages in fakes) / 2
        loss_d = loss_d + sum(F.relu(1 - stages[-1]).mean() for stages in reals) / 2
        loss_d.backward()
        self.adam_d.step()
        return {name: loss.detach() for name, loss in {**losses, "discriminator": loss_d}.items()}


def matching(fakes: list[list[Tensor]], reals: list[list[Tensor]]) -> Tensor:
    scales = zip(fakes, reals, strict=True)
    pairs = [pair for fake, real in scales for pair in zip(fake[:-1], real[:-1], strict=True)]
    return 10 / 2 * sum(F.l1_loss(fake, real.detach()) for fake, real in pairs)
