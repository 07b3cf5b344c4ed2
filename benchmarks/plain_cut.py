"""CUT transcribed plainly from its description, layer by layer with PyTorch's own modules: what we are timed against.

Antialiased ResNet generator and PatchGAN (Park et al. 2020, arXiv:2007.15651): blurs as depthwise convolutions,
doubling as a depthwise transposed convolution; every image that a loss reads goes through the encoder again.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain_norm import instance_norm

LAYERS = (0, 4, 8, 12, 16)


class Down(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("filt", (line.outer(line) / 16).expand(channels, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), self.filt, stride=2, groups=x.shape[1])


class Up(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("filt", (line.outer(line) / 16).expand(channels, 1, 4, 4).clone())

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (1, 1, 1, 1), "replicate")
        return F.conv_transpose2d(x, self.filt, stride=2, padding=3, groups=x.shape[1])


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), instance_norm(width), nn.ReLU(True),
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), instance_norm(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Generator(nn.Module):
    def __init__(self, width: int = 64, blocks: int = 9) -> None:
        super().__init__()

        def stage(channels: int, out: int, kernel: int, padding: int) -> list[nn.Module]:
            return [nn.Conv2d(channels, out, kernel, padding=padding), instance_norm(out), nn.ReLU()]

        layers = [nn.ReflectionPad2d(3), *stage(3, width, 7, 0)]
        layers += [*stage(width, 2 * width, 3, 1), Down(2 * width), *stage(2 * width, 4 * width, 3, 1), Down(4 * width)]
        layers += [Block(4 * width) for _ in range(blocks)]
        layers += [Up(4 * width), *stage(4 * width, 2 * width, 3, 1), Up(2 * width), *stage(2 * width, width, 3, 1)]
        self.model = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def encode(self, x: Tensor) -> list[Tensor]:
        found = []
        for index, layer in enumerate(self.model):
            x = layer(x)
            if index in LAYERS:
                found.append(x)
            if index == LAYERS[-1]:
                break
        return found


def discriminator(width: int = 64) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, padding=1), nn.LeakyReLU(0.2, True), Down(width)]
    for factor in (1, 2):
        out = 2 * factor * width
        layers += [nn.Conv2d(factor * width, out, 4, padding=1), instance_norm(out)]
        layers += [nn.LeakyReLU(0.2, True), Down(out)]
    layers += [nn.Conv2d(4 * width, 8 * width, 4, padding=1), instance_norm(8 * width), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, padding=1))


class Heads(nn.Module):
    def __init__(self, channels: list[int], patches: int) -> None:
        super().__init__()
        self.patches = patches
        self.mlps = nn.ModuleList(nn.Sequential(nn.Linear(c, 256), nn.ReLU(), nn.Linear(256, 256)) for c in channels)

    def forward(self, features: list[Tensor], ids: list[Tensor] | None = None) -> tuple[list[Tensor], list[Tensor]]:
        out, drawn = [], []
        for index, (mlp, layer) in enumerate(zip(self.mlps, features, strict=True)):
            flat = layer.permute(0, 2, 3, 1).flatten(1, 2)
            at = torch.randperm(flat.shape[1])[: self.patches] if ids is None else ids[index]
            x = mlp(flat[:, at].flatten(0, 1))
            out.append(x / (x.norm(dim=1, keepdim=True) + 1e-7))
            drawn.append(at)
        return out, drawn


def nce(query: Tensor, key: Tensor, batch: int) -> Tensor:
    key = key.detach()
    positive = (query * key).sum(1, keepdim=True)
    q, k = query.view(batch, -1, 256), key.view(batch, -1, 256)
    negative = torch.bmm(q, k.transpose(1, 2))
    negative = negative.masked_fill(torch.eye(negative.shape[1], dtype=torch.bool)[None], -10.0)
    logits = torch.cat([positive, negative.flatten(0, 1)], 1) / 0.07
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))


class Step:
    """One training step with identity NCE: D on the fake, then G and heads."""

    def __init__(self, width: int = 64, blocks: int = 9, patches: int = 256) -> None:
        self.generator, self.discriminator = Generator(width, blocks), discriminator(width)
        self.heads = Heads([3, 2 * width, 4 * width, 4 * width, 4 * width], patches)
        self.adam = torch.optim.Adam(self.generator.parameters(), 2e-4, betas=(0.5, 0.999))
        self.adam_heads = torch.optim.Adam(self.heads.parameters(), 2e-4, betas=(0.5, 0.999))
        self.adam_d = torch.optim.Adam(self.discriminator.parameters(), 2e-4, betas=(0.5, 0.999))

    def contrast(self, source: Tensor, made: Tensor) -> Tensor:
        queries, keys = self.generator.encode(made), self.generator.encode(source)
        keys, ids = self.heads(keys)
        queries, _ = self.heads(queries, ids)
        return sum(nce(q, k, len(source)) for q, k in zip(queries, keys, strict=True)) / len(LAYERS)

    def __call__(self, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        fake, identity = self.generator(torch.cat([source, target])).chunk(2)
        self.discriminator.requires_grad_(True)
        self.adam_d.zero_grad()
        loss_d = (self.discriminator(fake.detach()) ** 2).mean() + ((self.discriminator(target) - 1) ** 2).mean()
        (loss_d / 2).backward()
        self.adam_d.step()
        self.discriminator.requires_grad_(False)
        self.adam.zero_grad()
        self.adam_heads.zero_grad()
        gan = ((self.discriminator(fake) - 1) ** 2).mean()
        contrast = (self.contrast(source, fake) + self.contrast(target, identity)) / 2
        (gan + contrast).backward()
        self.adam.step()
        self.adam_heads.step()
        return {"gan": gan.detach(), "contrast": contrast.detach(), "discriminator": loss_d.detach() / 2}
