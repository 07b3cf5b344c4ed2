"""F-LSeSim's fixed form transcribed plainly from its description, on CUT's networks: what we are timed against.

Self-similarity of VGG16's features (Zheng et al. 2021, arXiv:2104.00854): every drawn place against the 64x64 places
around it, the quarter most alike in the generated image compared, found by sorting.
"""

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from benchmarks.plain_cut import Generator, discriminator

TAPPED = (11, 18, 22)  # relu3_1, relu4_1, relu4_3 of VGG16
WINDOW = 64


class VGG(nn.Module):
    """Random weights, the input normalised as ImageNet's."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torchvision.models.vgg16(weights=None).features[: TAPPED[-1] + 1].requires_grad_(False)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> list[Tensor]:
        x, found = ((image + 1) / 2 - self.mean) / self.std, []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in TAPPED:
                found.append(x)
        return found


def maps(features: Tensor, places: Tensor) -> Tensor:
    """(B, C, H, W) and (P) places to their (B, P, K) similarities to the places of a window around each."""
    channels, height, width = features.shape[1:]
    features = (features - features.mean((2, 3), keepdim=True)) / channels**0.5
    flat = features.flatten(2)
    queries = flat.permute(0, 2, 1)[:, places]
    if height > WINDOW or width > WINDOW:
        raise ValueError(f"features of {height}x{width}: windows smaller than the map are not transcribed")
    return torch.tanh(torch.bmm(queries, flat) / 10)


def map_loss(source: Tensor, fake: Tensor) -> Tensor:
    """Scalar; 1 against the cosine of the rows, of which the keys below a quarter's rank in `fake` are zero."""
    rank = fake.shape[-1] // 4
    low = fake < fake.sort(-1, descending=True).values[..., rank : rank + 1]
    cosine = F.cosine_similarity(torch.where(low, 0 * source, source), torch.where(low, 0 * fake, fake), dim=-1)
    return F.smooth_l1_loss(cosine, torch.ones_like(cosine))


class Pool:
    """The last 50 generated images, half of the time one of them in place of a new one."""

    def __init__(self, size: int = 50) -> None:
        self.size, self.images = size, []

    def query(self, images: Tensor) -> Tensor:
        out = []
        for image in images.detach():
            if len(self.images) < self.size:
                self.images.append(image.clone())
            elif torch.rand(()) < 0.5:
                at = int(torch.randint(self.size, ()))
                image, self.images[at] = self.images[at], image.clone()
            out.append(image)
        return torch.stack(out)


class Step:
    """D on the pool's image, then G: least squares and 10 times the maps' difference."""

    def __init__(self, width: int = 64, blocks: int = 9, patches: int = 256) -> None:
        self.generator, self.discriminator, self.vgg = Generator(width, blocks), discriminator(width), VGG()
        self.adam = torch.optim.Adam(self.generator.parameters(), 1e-4, betas=(0.5, 0.999))
        self.adam_d = torch.optim.Adam(self.discriminator.parameters(), 1e-4, betas=(0.5, 0.999))
        self.patches, self.pool = patches, Pool()

    def spatial(self, source: Tensor, fake: Tensor) -> Tensor:
        total = 0.0
        for a, b in zip(self.vgg(source), self.vgg(fake), strict=True):
            places = torch.randperm(a.shape[2] * a.shape[3])[: self.patches]
            total = total + map_loss(maps(a, places), maps(b, places))
        return total / len(TAPPED)

    def __call__(self, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        fake = self.generator(source)
        self.discriminator.requires_grad_(True)
        self.adam_d.zero_grad()
        pooled = self.discriminator(self.pool.query(fake))
        loss_d = ((pooled**2).mean() + ((self.discriminator(target) - 1) ** 2).mean()) / 2
        loss_d.backward()
        self.adam_d.step()
        self.discriminator.requires_grad_(False)
        self.adam.zero_grad()
        losses = {"gan": ((self.discriminator(fake) - 1) ** 2).mean(), "spatial": 10 * self.spatial(source, fake)}
        sum(losses.values()).backward()
        self.adam.step()
        return {name: loss.detach() for name, loss in {**losses, "discriminator": loss_d}.items()}
