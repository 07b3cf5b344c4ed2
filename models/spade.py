"""SPADE generator: Park et al. 2019, Semantic Image Synthesis with Spatially-Adaptive Normalization, arXiv:1903.07291.

(B, C, H, W) throughout; S = channels of the dense semantic map. Parameter names map one to one to those of the official
checkpoints (`models/official.py`).
"""

from typing import Annotated, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import BatchNorm, SpectralConv2d
from .layout import Layout
from .resampling import check_size

Interpolation = Literal["nearest", "bilinear"]
Padding = Literal["zeros", "replicate", "reflect"]
SLOPE = 0.2  # of every leaky ReLU
HALVINGS = {"normal": 5, "more": 6, "most": 7}  # output side over start side, as a power of two


class LayoutConv2d(nn.Conv2d):
    """3x3 convolution, padding 1, of a semantic map in either form."""

    def __init__(self, channels: int, out: int, padding: Padding = "zeros") -> None:
        super().__init__(channels, out, 3, padding=1, padding_mode=padding)

    def forward(self, layout: Layout) -> Tensor:  # type: ignore[override]
        return layout.conv(self.weight, self.bias, 1, 1, self.padding_mode)


class Noise(nn.Module):
    """x + scale * n, n standard normal, one value a place for all channels (Karras et al. 2019, arXiv:1812.04948)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.1))

    def forward(self, x: Tensor, sources: list[torch.Generator] | None) -> Tensor:
        """(B, C, H, W) -> same; `sources`: a CPU generator for each image, None for torch's global one."""
        if sources is None:
            noise = torch.randn(len(x), 1, *x.shape[2:], device=x.device, dtype=x.dtype)
        else:
            noise = torch.stack([torch.randn(1, *x.shape[2:], generator=source) for source in sources]).to(x)
        return torch.addcmul(x, self.scale.to(x.dtype), noise)


class SPADE(nn.Module):
    """Batch norm whose scale and shift are maps computed from the layout: xn * (1 + gamma) + beta.

    Args: channels: S; features: C of the normalised maps; hidden: filters between layout and modulation.
    """

    def __init__(
        self, channels: int, features: int, hidden: int = 128, sync: bool = True, padding: Padding = "zeros"
    ) -> None:
        super().__init__()
        self.norm = BatchNorm(features, sync)
        self.shared = LayoutConv2d(channels, hidden, padding)
        self.gamma = nn.Conv2d(hidden, features, 3, padding=1, padding_mode=padding)
        self.beta = nn.Conv2d(hidden, features, 3, padding=1, padding_mode=padding)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """x (B, C, H, W) and the layout of the same size -> (B, C, H, W)."""
        hidden = F.relu(self.shared(layout), inplace=not torch.is_grad_enabled())
        assert self.gamma.bias is not None and self.beta.bias is not None
        weight = torch.cat([self.gamma.weight, self.beta.weight])  # one convolution reads `hidden` once
        bias = torch.cat([1 + self.gamma.bias, self.beta.bias])
        scale, shift = self.gamma._conv_forward(hidden, weight, bias).chunk(2, 1)  # with its padding
        return torch.addcmul(shift, self.norm(x), scale)


class SPADEBlock(nn.Module):
    """Residual block of two SPADE, leaky ReLU, 3x3 convolution each; a learned shortcut where the width changes."""

    def __init__(
        self,
        channels: int,
        features: int,
        out: int,
        hidden: int = 128,
        sync: bool = True,
        padding: Padding = "zeros",
        noise: bool = False,
    ) -> None:
        super().__init__()
        middle = min(features, out)
        self.norm_0 = SPADE(channels, features, hidden, sync, padding)
        self.conv_0 = SpectralConv2d(features, middle, 3, padding=1, padding_mode=padding)
        self.norm_1 = SPADE(channels, middle, hidden, sync, padding)
        self.conv_1 = SpectralConv2d(middle, out, 3, padding=1, padding_mode=padding)
        self.learned = features != out
        if self.learned:
            self.norm_s = SPADE(channels, features, hidden, sync, padding)
            self.conv_s = SpectralConv2d(features, out, 1, bias=False)
        self.noise = Noise(out) if noise else None

    def forward(self, x: Tensor, layout: Layout, sources: list[torch.Generator] | None = None) -> Tensor:
        """x (B, features, H, W) and the layout of the same size -> (B, out, H, W); `sources` of noise as `Noise`."""
        shortcut = self.conv_s(self.norm_s(x, layout)) if self.learned else x
        x = self.conv_0(F.leaky_relu(self.norm_0(x, layout), SLOPE, inplace=True))  # nothing else reads the norm's maps
        x = self.conv_1(F.leaky_relu(self.norm_1(x, layout), SLOPE, inplace=True))
        return shortcut + x if self.noise is None else self.noise(shortcut + x, sources)


class SPADEGenerator(nn.Module):
    """Semantic map to image; without noise unless asked for.

    Args:
        channels: S of the dense semantic map.
        output_channels: of the image.
        width: channels of the last block before the output; 64 in the paper.
        upsampling: "normal" doubles 5 times, "more" 6, "most" 7 (one block more).
        hidden: filters inside each SPADE; None: twice the width.
        sync: batch statistics over all ranks.
        interpolation: of the doublings; "nearest" in the paper, "bilinear".
        padding: of every 3x3 convolution; "zeros" in the paper, "replicate", "reflect".
        noise: add normal noise, scaled per channel, after every block. In training it is drawn from torch's global
            generator; in eval mode it is a function of the image's own semantic map, the same every time.

    The paper's choices give the network two codes of position, distance from the zeros at the border and parity within
    the copied blocks of four; where a loss asks for texture inside a region of one label, they show as streaks along
    rows and columns. Bilinear doubling, replicated borders and noise are the cure (docs/camvid.md).

    The start size follows the input: H and W over `size_multiple`, equal to the official one at the trained size.
    Weights start as PyTorch's own; `blocks.init_weights` gives the paper's.
    """

    def __init__(
        self,
        channels: int,
        output_channels: int = 3,
        width: Annotated[int, range(1, 4097)] = 64,
        upsampling: str = "normal",
        hidden: Annotated[int, range(1, 8193)] | None = 128,
        sync: bool = True,
        interpolation: Interpolation = "nearest",
        padding: Padding = "zeros",
        noise: bool = False,
    ) -> None:
        super().__init__()
        for name, value, words in (("interpolation", interpolation, Interpolation), ("padding", padding, Padding)):
            if value not in get_args(words):
                raise ValueError(f"{name} {value!r} is none of {', '.join(get_args(words))}")
        if upsampling not in HALVINGS:
            raise ValueError(f"upsampling {upsampling!r} is none of {', '.join(HALVINGS)}")
        self.channels, self.upsampling = channels, upsampling
        self.size_multiple = 2 ** HALVINGS[upsampling]
        self.interpolation, self.noise = interpolation, noise
        filters = 2 * width if hidden is None else hidden

        def block(features: int, out: int) -> SPADEBlock:
            return SPADEBlock(channels, features * width, out * width, filters, sync, padding, noise)

        self.fc = LayoutConv2d(channels, 16 * width, padding)
        self.head_0 = block(16, 16)
        self.middle_0 = block(16, 16)
        self.middle_1 = block(16, 16)
        self.up_0 = block(16, 8)
        self.up_1 = block(8, 4)
        self.up_2 = block(4, 2)
        self.up_3 = block(2, 1)
        last = width
        if upsampling == "most":
            self.up_4 = SPADEBlock(channels, width, width // 2, filters, sync, padding, noise)
            last = width // 2
        self.output = nn.Conv2d(last, output_channels, 3, padding=1, padding_mode=padding)

    def forward(self, semantic: Tensor) -> Tensor:
        """(B, 1 + E, H, W) integer ids and edges, or (B, S, H, W) dense -> image (B, output_channels, H, W) in [-1, 1].

        Raises ValueError when H or W is no multiple of `size_multiple`.
        """
        self.check_size(*semantic.shape[-2:])
        layout = Layout(semantic, self.channels, self.fc.weight)
        noise = sources(semantic) if self.noise and not self.training else None
        factor = self.size_multiple  # not read off x: sizes are symbols where the network is exported
        x = self.fc(layout.reduced(factor))
        for block, doubled in self.blocks():
            if doubled:
                x, factor = self.up(x), factor // 2
            x = block(x, layout.reduced(factor), noise)
        return torch.tanh(self.output(F.leaky_relu(x, SLOPE)))

    def blocks(self) -> list[tuple[SPADEBlock, bool]]:
        """In order, each with whether the maps are doubled before it."""
        middle_1 = (self.middle_1, self.upsampling != "normal")
        ups = [self.up_0, self.up_1, self.up_2, self.up_3] + ([self.up_4] if self.upsampling == "most" else [])
        return [(self.head_0, False), (self.middle_0, True), middle_1, *((up, True) for up in ups)]

    def check_size(self, height: int, width: int, images: int | None = None) -> None:
        """Raise ValueError with the nearest legal sizes unless both sides are multiples of `size_multiple`.

        Args:
            images: in training, the number of them in a batch of batch norm: it needs two values of a channel at least,
                also in the smallest maps.
        """
        multiple, fewest = self.size_multiple, 2 if images == 1 else 1
        check_size(height, width, multiple, f"upsampling={self.upsampling!r}", positions=fewest)
        if height * width < fewest * multiple**2:
            raise ValueError(
                f"size {height}x{width} (height x width): with one image in a training batch, batch norm has a single"
                f" value of a channel; take {multiple}x{2 * multiple} or larger, or more images (train.batch_size)"
            )

    def up(self, x: Tensor) -> Tensor:
        """Twice the sides."""
        return F.interpolate(x, scale_factor=2, mode=self.interpolation)


def sources(semantic: Tensor) -> list[torch.Generator]:
    """A CPU generator for each image of a batch, seeded by what its map (B, C, H, W) shows."""
    flat = semantic.detach().flatten(1).double().cpu()
    weight = 1 + torch.arange(flat.shape[1], dtype=torch.float64) % 8191
    return [torch.Generator().manual_seed(int(total) % 2**63) for total in (flat * weight).sum(1).tolist()]
