"""Dilated residual networks of type D for segmentation: DRN-D-22 and DRN-D-105 (Yu et al. 2017, arXiv:1705.09914).

Eight groups of layers end at an eighth of the image: the last two strides of a residual network are replaced by
dilations 2 and 4, which two groups of plain convolutions with falling dilation (2, then 1) smooth again. A 1x1
convolution gives the classes, a fixed bilinear kernel brings them to the size of the image. Modules are named as in the
official segmentation checkpoints, so that these load as they are.

Legend: N images, K classes, H rows, W columns.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from errors import UserError

STRIDE = 8  # of the features
# Mean and standard deviation of RGB in [0, 1], as the official Cityscapes networks were trained.
DRN_MEAN, DRN_STD = (0.290101, 0.328081, 0.286964), (0.182954, 0.186566, 0.184475)


class Basic(nn.Module):
    """Two 3x3 convolutions around a shortcut; dilations of the first and of the second."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, dilations: tuple[int, int]) -> None:
        super().__init__()
        first, second = dilations
        self.conv1 = nn.Conv2d(channels, width, 3, stride, first, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, second, second, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut; the 3x3 one takes the second of the dilations."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int, dilations: tuple[int, int]) -> None:
        super().__init__()
        out, dilation = width * self.expansion, dilations[1]
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def shortcut(channels: int, out: int, stride: int) -> nn.Module | None:
    """The projection of a residual block; None where the block changes neither size nor channels."""
    if stride == 1 and channels == out:
        return None
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))


def plain(channels: int, out: int, stride: int = 1, dilation: int = 1, kernel: int = 3) -> nn.Sequential:
    """A group of one convolution without a shortcut."""
    conv = nn.Conv2d(channels, out, kernel, stride, dilation * (kernel // 2), dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU(inplace=True))


def residual(
    block: type[Basic] | type[Bottleneck], channels: int, width: int, blocks: int, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """A group of residual blocks, the first of which changes size and channels."""
    first = block(channels, width, stride, (dilation, dilation))
    out = width * block.expansion
    return nn.Sequential(first, *[block(out, width, 1, (dilation, dilation)) for _ in range(blocks - 1)])


BLOCKS: dict[str, tuple[type[Basic] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "drn_d_22": (Basic, (2, 2, 2, 2)),
    "drn_d_105": (Bottleneck, (3, 4, 23, 3)),
}


class DRN(nn.Module):
    """Normalised images (N, 3, H, W) to logits (N, classes, H, W).

    15,890,499 parameters as drn_d_22, 54,298,051 as drn_d_105 with 19 classes, and 256 fixed weights a class in `up`.
    An image whose size is no multiple of 8 is padded by its features; what lies beyond the image is cut off.

    Args:
        name: a key of BLOCKS.
    """

    def __init__(self, name: str, classes: int = 19) -> None:
        super().__init__()
        if name not in BLOCKS:
            raise ValueError(f"no DRN '{name}'; there are {', '.join(BLOCKS)}")
        block, blocks = BLOCKS[name]
        wide = block.expansion
        self.base = nn.Sequential(
            plain(3, 16, kernel=7),
            plain(16, 16),
            plain(16, 32, stride=2),
            residual(block, 32, 64, blocks[0], stride=2),
            residual(block, 64 * wide, 128, blocks[1], stride=2),
            residual(block, 128 * wide, 256, blocks[2], dilation=2),
            residual(block, 256 * wide, 512, blocks[3], dilation=4),
            plain(512 * wide, 512, dilation=2),
            plain(512, 512),
        )
        self.seg = nn.Conv2d(512, classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.up = nn.ConvTranspose2d(classes, classes, 2 * STRIDE, STRIDE, STRIDE // 2, groups=classes, bias=False)
        self.up.weight = nn.Parameter(bilinear_kernel(2 * STRIDE).repeat(classes, 1, 1, 1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.seg(self.base(x)))[..., : x.shape[2], : x.shape[3]]


def bilinear_kernel(size: int) -> Tensor:
    """(size, size) weights with which a transposed convolution of stride size / 2 interpolates bilinearly."""
    line = 1 - (2 * torch.arange(size) + 1 - size).abs() / size  # tent over the centres of the fine pixels
    return line.outer(line)


def drn_from_state(state: Mapping[str, Tensor]) -> tuple[str, DRN]:
    """The name and the network, in eval mode, of an official segmentation checkpoint.

    Args:
        state: base.0.0.weight ... seg.bias, up.weight, perhaps under "state_dict" and with "module." before each name;
            files of old versions of PyTorch lack the counters num_batches_tracked.
    Raises: UserError for a state dict of another network, with keys that differ.
    """
    if isinstance(inner := state.get("state_dict"), Mapping):
        state = inner
    state = {name.removeprefix("module."): value for name, value in state.items()}
    name = "drn_d_105" if any(key.endswith("conv3.weight") for key in state) else "drn_d_22"
    head = state.get("seg.weight")
    network = DRN(name, 19 if head is None else len(head))
    wanted = network.state_dict()
    wrong = [key for key in wanted.keys() - state.keys() if not key.endswith("num_batches_tracked")]
    wrong += state.keys() - wanted.keys()
    wrong += [key for key in wanted.keys() & state.keys() if wanted[key].shape != state[key].shape]
    if wrong:
        raise UserError(f"no state dict of {name}: {len(wrong)} keys differ, such as {', '.join(sorted(wrong)[:3])}")
    network.load_state_dict(state)
    return name, network.eval()
