"""CUT's ResNet generator, also CycleGAN's: Park et al. 2020, arXiv:2007.15651; Zhu et al. 2017, arXiv:1703.10593.

Its own layers are the encoder of CUT's contrastive loss, so any of them can be tapped on the way. (B, C, H, W)
throughout.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import torch.nn.functional as F
from torch import Tensor, nn

from errors import UserError

from .blocks import InstanceNorm, instance_norm
from .layout import Layout
from .resampling import BlurDownsample, Upsample, check_size

LAYERS = {True: [0, 4, 8, 12, 16], False: [0, 4, 7, 10, 14]}  # that CUT compares, with and without antialiasing


class ResidualBlock(nn.Module):
    """x + f(x); f is twice reflection padding, 3x3 convolution and instance norm, with a ReLU between.

    ReLUs here and below are in place: a norm's own backward reads what it was given, not what it gave.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3)
        self.second = nn.Conv2d(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = instance_norm(self.first(F.pad(x, (1, 1, 1, 1), mode="reflect"))).relu_()
        return x + instance_norm(self.second(F.pad(y, (1, 1, 1, 1), mode="reflect")))


class ResnetGenerator(nn.Module):
    """Image or semantic map to image.

    Args:
        channels: of the source, S of a dense semantic map.
        output_channels: of the image.
        width: channels of the first convolution; 64 in the papers.
        blocks: residual blocks at a quarter of the size; 9, or 6 for small images.
        antialias: blurred halving and bilinear doubling (CUT), else strided and transposed convolutions (CycleGAN).

    `model` is one sequence; its positions name the layers that can be tapped. Antialiased: 0 padded source, 1-3 and 4-6
    convolution, norm, ReLU, 7 halving, 8-10, 11 halving, 12 onwards residual blocks. CUT taps 0, 4, 8, 12 and 16: the
    padded source, two convolutions before norm and ReLU, residual blocks 1 and 5. Without antialiasing the same layers
    are 0, 4, 7, 10 and 14. Nothing works in place, so that a tapped map stays as it was.
    Weights start as PyTorch's own; `blocks.init_weights` gives the papers'.
    """

    size_multiple = 4
    smallest = 8  # a quarter of it can still be padded by reflection

    def __init__(
        self,
        channels: int,
        output_channels: int = 3,
        width: Annotated[int, range(1, 4097)] = 64,
        blocks: Annotated[int, range(1025)] = 9,
        antialias: bool = True,
    ) -> None:
        super().__init__()
        self.channels, self.output_channels, self.antialias = channels, output_channels, antialias
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(channels, width, 7),
            InstanceNorm(),
            nn.ReLU(inplace=True),
        ]
        for out in (2 * width, 4 * width):
            layers += [nn.Conv2d(out // 2, out, 3, 1 if antialias else 2, 1), InstanceNorm(), nn.ReLU(inplace=True)]
            layers += [BlurDownsample()] if antialias else []
        layers += [ResidualBlock(4 * width) for _ in range(blocks)]
        for out in (2 * width, width):
            layers += [Upsample(), nn.Conv2d(2 * out, out, 3, padding=1)] if antialias else [_transposed(out)]
            layers += [InstanceNorm(), nn.ReLU(inplace=True)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, output_channels, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def tapped(self, source: Tensor, layers: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """The image and, from the same pass, the maps at these positions of `model`, in their order."""
        return self(source, layers)

    def encode(self, source: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """The maps at these positions alone; the layers after the last of them do not run."""
        return self(source, layers, no_further=True)[1]

    def forward(self, source: Tensor, layers: Sequence[int] | None = None, no_further: bool = False) -> Any:
        """Source -> image (B, output_channels, H, W) in [-1, 1]; given `layers`, (image, maps) as `tapped` says.

        Args:
            source: (B, channels, H, W) image in [-1, 1] or dense map, or integer (B, 1 + E, H, W) ids and edges.
            no_further: stop after the last of the layers; the first of the pair is that map then.
        Raises: ValueError for a size that `check_size` refuses.
        """
        taps = [] if layers is None else list(layers)
        self.feature_channels(taps)
        self.check_size(*source.shape[-2:])
        layout = Layout(source, self.channels, next(self.parameters()))
        x = layout.dense() if layout.ids else source  # an image keeps its precision: its pixels may be tapped
        stop = max(taps, default=-1) + 1 if no_further else len(self.model)
        found = {}
        for position, layer in enumerate(self.model[:stop]):
            x = layer(x)
            if position in taps:
                found[position] = x
        return x if layers is None else (x, [found[position] for position in taps])

    def feature_channels(self, layers: Sequence[int]) -> list[int]:
        """Channels of the maps at these positions.

        Raises UserError for a position that is none, and for a norm or an activation: the features of CUT are the
        padded source, convolutions before their norm, and residual blocks.
        """
        usual = [p for p, layer in enumerate(self.model) if not isinstance(layer, InstanceNorm | nn.ReLU | nn.Tanh)]
        for position in layers:
            if position not in usual:
                raise UserError(
                    f"encoder.layers: no layer {position!r} to tap; this generator has {', '.join(map(str, usual))}, "
                    f"CUT's own five being {', '.join(map(str, LAYERS[self.antialias]))}"
                )
        widths = [self.channels]
        for layer in self.model:
            widths.append(layer.out_channels if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) else widths[-1])
        return [widths[position + 1] for position in layers]

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError with the nearest legal sizes unless both sides are multiples of 4 from 8 on."""
        check_size(height, width, self.size_multiple, type(self).__name__, self.smallest)


def _transposed(out: int) -> nn.Module:
    return nn.ConvTranspose2d(2 * out, out, 3, 2, 1, output_padding=1)
