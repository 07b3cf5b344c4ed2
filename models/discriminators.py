"""PatchGAN discriminators: Isola et al. 2017, arXiv:1611.07004. Several scales as in pix2pixHD (Wang et al. 2018,
arXiv:1711.11585) with the spectral and instance norms of SPADE (Park et al. 2019, arXiv:1903.07291); or one scale as in
CycleGAN (Zhu et al. 2017, arXiv:1703.10593) and, antialiased, CUT (Park et al. 2020, arXiv:2007.15651).

Both judge images under a condition, or alone: `channels` counts condition and image.
"""

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import InstanceNorm, SpectralConv2d, instance_norm
from .layout import Layout, pool
from .resampling import BlurDownsample

SLOPE = 0.2  # of every leaky ReLU


def layout_of(condition: Tensor | None, channels: int, like: Tensor) -> Layout | None:
    """The condition of a discriminator that takes `channels` channels of it; None where that is 0.

    Raises ValueError for a condition that is missing, unwanted or of other channels.
    """
    if condition is None and channels:
        raise ValueError(f"no condition, where the discriminator takes one of {channels} channels")
    if condition is not None and not channels:
        raise ValueError(f"condition {tuple(condition.shape)}, where the discriminator takes the image alone")
    return None if condition is None else Layout(condition, channels, like)


def first_convolution(conv: nn.Conv2d, condition: Layout | None, image: Tensor, stride: int, padding: int) -> Tensor:
    """`conv` over the channels of the condition and then of the image, (B, ...) and (k B, ...) -> (k B, O, h, w).

    Two convolutions in place of one over concatenated channels: the condition takes no gradient and, where the images
    are several stacked batches (fake and real), is worked out once.
    """
    if condition is None:
        return conv(image)
    known = condition.conv(conv.weight[:, : condition.channels], conv.bias, stride, padding)
    x = F.conv2d(image, conv.weight[:, condition.channels :], None, stride, padding)
    return (x.unflatten(0, (-1, known.shape[0])) + known).flatten(0, 1)


class PatchStages(nn.Module):
    """One scale: 4x4 convolutions, padding 2; stride 2 except in the last stage and in the prediction.

    The first has a bias and no norm, the others spectral and instance norm and no bias; leaky ReLU after each; then the
    prediction, a plain convolution to one channel. Widths double from `width` up to 512.
    """

    def __init__(self, channels: int, width: int, stages: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 4, 2, 2)
        self.stages = nn.ModuleList()
        for stage in range(1, stages):
            out = min(2 * width, 512)
            self.stages.append(SpectralConv2d(width, out, 4, 2 if stage < stages - 1 else 1, 2, bias=False))
            width = out
        self.prediction = nn.Conv2d(width, 1, 4, 1, 2)

    def forward(self, condition: Layout | None, image: Tensor) -> list[Tensor]:
        """The activations of every stage, then the prediction (B, 1, h, w)."""
        found = [F.leaky_relu(first_convolution(self.first, condition, image, 2, 2), SLOPE)]
        for conv in self.stages:
            found.append(F.leaky_relu(instance_norm(conv(found[-1])), SLOPE, inplace=True))
        return [*found, self.prediction(found[-1])]


class MultiscaleDiscriminator(nn.Module):
    """Discriminators of one architecture and separate weights, each judging half the size of the one before.

    Args:
        channels: of the dense condition plus those of the image.
        width: channels of the first stage, 64 in the paper.
        scales: number of sizes.
        stages: convolutions with an activation, before the prediction.
        image_channels: of the judged image, the last ones of the input.

    Weights start as PyTorch's own; `blocks.init_weights` gives the paper's.
    """

    def __init__(
        self,
        channels: int,
        width: Annotated[int, range(1, 4097)] = 64,
        scales: Annotated[int, range(1, 9)] = 2,
        stages: Annotated[int, range(1, 13)] = 4,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        self.channels, self.image_channels = channels, image_channels
        self.smallest = 2 ** (scales - 1) + 1  # leaves two values a side to the instance norms of the last scale
        self.scales = nn.ModuleList(PatchStages(channels, width, stages) for _ in range(scales))

    def forward(self, condition: Tensor | None, image: Tensor) -> list[list[Tensor]]:
        """Judge images under a condition.

        Args:
            condition: (B, 1 + E, H, W) integer ids and edges, or a dense (B, channels - image_channels, H, W) map, no
                gradient; None where `channels` are the image's alone.
            image: (k B, image_channels, H, W) in [-1, 1], k batches in a row that share the condition, such as fakes
                then reals.

        Returns: per scale the list of `stages` activations, then the prediction, each of k B items.
        """
        like = next(self.parameters())
        layout = layout_of(condition, self.channels - self.image_channels, like)
        found = []
        for index, scale in enumerate(self.scales):
            if index:
                layout = None if layout is None else Layout(layout.pooled(), layout.channels, like)
                image = pool(image)
            found.append(scale(layout, image))
        return found


class PatchDiscriminator(nn.Module):
    """One scale of 4x4 convolutions with padding 1 and biases, as CUT and CycleGAN judge images without a condition.

    Args:
        channels, width, image_channels: as `MultiscaleDiscriminator`; widths double from `width` up to 8 `width`.
        stages: halvings; one more convolution of stride 1 follows, then the prediction.
        antialias: convolutions of stride 1, each blurred and halved after its activation (CUT), else of stride 2.

    Instance norm after every convolution but the first and the prediction; leaky ReLU; no spectral norm.
    Weights start as PyTorch's own; `blocks.init_weights` gives the papers'.
    """

    def __init__(
        self,
        channels: int,
        width: Annotated[int, range(1, 4097)] = 64,
        stages: Annotated[int, range(1, 13)] = 3,
        antialias: bool = True,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        self.channels, self.image_channels = channels, image_channels
        self.stride = 1 if antialias else 2
        self.smallest = 3 * 2**stages  # leaves one place of prediction
        layers: list[nn.Module] = []
        widths = [channels] + [width * min(2**stage, 8) for stage in range(stages + 1)]
        for stage, out in enumerate(widths[1:]):
            halving = stage < stages
            layers.append(nn.Conv2d(widths[stage], out, 4, self.stride if halving else 1, 1))
            layers += [InstanceNorm()] if stage else []
            layers.append(nn.LeakyReLU(SLOPE, inplace=stage > 0))  # of a norm's map, which nothing else reads
            layers += [BlurDownsample()] if halving and antialias else []
        self.model = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))

    def forward(self, condition: Tensor | None, image: Tensor) -> list[list[Tensor]]:
        """As `MultiscaleDiscriminator`: one scale, its `stages` + 1 activations (what the next convolution reads), then
        the prediction.

        Raises ValueError for an image smaller than `smallest`.
        """
        if min(image.shape[2:]) < self.smallest:
            raise ValueError(
                f"image {tuple(image.shape)}: {type(self).__name__} needs sides of at least {self.smallest}"
            )
        first, *others = self.model
        assert isinstance(first, nn.Conv2d)
        layout = layout_of(condition, self.channels - self.image_channels, first.weight)
        x = first_convolution(first, layout, image, self.stride, 1)
        found = []
        for layer in others:
            if isinstance(layer, nn.Conv2d):
                found.append(x)
            x = layer(x)
        return [[*found, x]]
