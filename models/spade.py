"""SPADE generator: Park et al. 2019, Semantic Image Synthesis with Spatially-Adaptive Normalization, arXiv:1903.07291.

(B, C, H, W) throughout; S = channels of the dense semantic map. Parameter names map one to one to those of the official
checkpoints (`models/official.py`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import BatchNorm, SpectralConv2d
from .layout import Layout

SLOPE = 0.2  # of every leaky ReLU
HALVINGS = {"normal": 5, "more": 6, "most": 7}  # output side over start side, as a power of two


class LayoutConv2d(nn.Conv2d):
    """3x3 convolution, padding 1, of a semantic map in either form."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, 3, padding=1)

    def forward(self, layout: Layout) -> Tensor:  # type: ignore[override]
        return layout.conv(self.weight, self.bias, 1, 1)


class SPADE(nn.Module):
    """Batch norm whose scale and shift are maps computed from the layout: xn * (1 + gamma) + beta.

    Args: channels: S; features: C of the normalised maps; hidden: filters between layout and modulation.
    """

    def __init__(self, channels: int, features: int, hidden: int = 128, sync: bool = True) -> None:
        super().__init__()
        self.norm = BatchNorm(features, sync)
        self.shared = LayoutConv2d(channels, hidden)
        self.gamma = nn.Conv2d(hidden, features, 3, padding=1)
        self.beta = nn.Conv2d(hidden, features, 3, padding=1)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """x (B, C, H, W) and the layout of the same size -> (B, C, H, W)."""
        hidden = self.shared(layout).relu()
        assert self.gamma.bias is not None and self.beta.bias is not None
        weight = torch.cat([self.gamma.weight, self.beta.weight])  # one convolution reads `hidden` once
        bias = torch.cat([self.gamma.bias, self.beta.bias])
        gamma, beta = F.conv2d(hidden, weight, bias, padding=1).chunk(2, 1)
        x = self.norm(x)
        return torch.addcmul(x, x, gamma) + beta


class SPADEBlock(nn.Module):
    """Residual block of two SPADE, leaky ReLU, 3x3 convolution each; a learned shortcut where the width changes."""

    def __init__(self, channels: int, features: int, out: int, hidden: int = 128, sync: bool = True) -> None:
        super().__init__()
        middle = min(features, out)
        self.norm_0 = SPADE(channels, features, hidden, sync)
        self.conv_0 = SpectralConv2d(features, middle, 3, padding=1)
        self.norm_1 = SPADE(channels, middle, hidden, sync)
        self.conv_1 = SpectralConv2d(middle, out, 3, padding=1)
        self.learned = features != out
        if self.learned:
            self.norm_s = SPADE(channels, features, hidden, sync)
            self.conv_s = SpectralConv2d(features, out, 1, bias=False)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """x (B, features, H, W) and the full-size layout -> (B, out, H, W)."""
        layout = layout.reduced(layout.size[0] // x.shape[2])
        shortcut = self.conv_s(self.norm_s(x, layout)) if self.learned else x
        x = self.conv_0(F.leaky_relu(self.norm_0(x, layout), SLOPE))
        x = self.conv_1(F.leaky_relu(self.norm_1(x, layout), SLOPE))
        return shortcut + x


class SPADEGenerator(nn.Module):
    """Semantic map to image; no noise input.

    Args:
        channels: S of the dense semantic map.
        output_channels: of the image.
        width: channels of the last block before the output; 64 in the paper.
        upsampling: "normal" doubles 5 times, "more" 6, "most" 7 (one block more).
        hidden: filters inside each SPADE; does not scale with `width`.
        sync: batch statistics over all ranks.

    The start size follows the input: H and W over `size_multiple`, equal to the official one at the trained size.
    Weights start as PyTorch's own; `blocks.init_weights` gives the paper's.
    """

    def __init__(
        self,
        channels: int,
        output_channels: int = 3,
        width: int = 64,
        upsampling: str = "normal",
        hidden: int = 128,
        sync: bool = True,
    ) -> None:
        super().__init__()
        if upsampling not in HALVINGS:
            raise ValueError(f"upsampling {upsampling!r} is none of {', '.join(HALVINGS)}")
        self.channels, self.upsampling = channels, upsampling
        self.size_multiple = 2 ** HALVINGS[upsampling]

        def block(features: int, out: int) -> SPADEBlock:
            return SPADEBlock(channels, features * width, out * width, hidden, sync)

        self.fc = LayoutConv2d(channels, 16 * width)
        self.head_0 = block(16, 16)
        self.middle_0 = block(16, 16)
        self.middle_1 = block(16, 16)
        self.up_0 = block(16, 8)
        self.up_1 = block(8, 4)
        self.up_2 = block(4, 2)
        self.up_3 = block(2, 1)
        last = width
        if upsampling == "most":
            self.up_4 = SPADEBlock(channels, width, width // 2, hidden, sync)
            last = width // 2
        self.output = nn.Conv2d(last, output_channels, 3, padding=1)

    def forward(self, semantic: Tensor) -> Tensor:
        """(B, 1 + E, H, W) integer ids and edges, or (B, S, H, W) dense -> image (B, output_channels, H, W) in [-1, 1].

        Raises ValueError when H or W is no multiple of `size_multiple`.
        """
        self.check_size(*semantic.shape[-2:])
        layout = Layout(semantic, self.channels, self.fc.weight)
        x = self.fc(layout.reduced(self.size_multiple))
        x = self.head_0(x, layout)
        x = self.middle_0(up(x), layout)
        x = self.middle_1(x if self.upsampling == "normal" else up(x), layout)
        x = self.up_0(up(x), layout)
        x = self.up_1(up(x), layout)
        x = self.up_2(up(x), layout)
        x = self.up_3(up(x), layout)
        if self.upsampling == "most":
            x = self.up_4(up(x), layout)
        return torch.tanh(self.output(F.leaky_relu(x, SLOPE)))

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError with the nearest legal sizes unless both sides are multiples of `size_multiple`."""
        unit = self.size_multiple
        if height % unit or width % unit or not height or not width:
            floor = [max(side // unit, 1) * unit for side in (height, width)]
            ceil = [-(-max(side, 1) // unit) * unit for side in (height, width)]
            near = f"{floor[0]}x{floor[1]}" + (f" or {ceil[0]}x{ceil[1]}" if ceil != floor else "")
            raise ValueError(
                f"size {height}x{width} (height x width): upsampling={self.upsampling!r} needs multiples of {unit}, "
                f"such as {near}"
            )


def up(x: Tensor) -> Tensor:
    """Twice the sides, nearest neighbour."""
    return F.interpolate(x, scale_factor=2, mode="nearest")
