"""The segmentation network that the project trains itself: LR-ASPP (Howard et al. 2019, arXiv:1905.02244).

Over an EfficientNet-lite2 with ImageNet weights from a pip package, so that a useful segmenter needs no download, or
over a MobileNetV3-large with random ones.
"""

import torchvision
from torch import Tensor, nn

from errors import UserError

from .efficientnet import channels_of, efficientnet_lite

LOW, HIGH = "block6", "block14"  # of lite2: strides 8 and 16; stride 32 in place of 16 costs 6 points of mIoU


class Lite2Levels(nn.Module):
    """EfficientNet-lite2 as LR-ASPP wants it: a dict of a fine and a coarse map."""

    def __init__(self, pretrained: bool) -> None:
        super().__init__()
        self.network = efficientnet_lite("lite2", pretrained, last=HIGH)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = {}
        for name, layer in self.network.named_children():
            x = layer(x)
            if name in (LOW, HIGH):
                found["low" if name == LOW else "high"] = x
        return found


def build_network(backbone: str, num_classes: int, pretrained: bool = True) -> nn.Module:
    """LR-ASPP, (N, 3, H, W) -> {"out": (N, num_classes, H, W)}.

    Args:
        backbone: "lite2", or "mobilenet_v3_large", whose weights are random.
        pretrained: ImageNet weights of lite2.
    """
    if backbone == "lite2":
        channels = channels_of("lite2")
        levels = Lite2Levels(pretrained)
        return torchvision.models.segmentation.LRASPP(levels, channels[LOW], channels[HIGH], num_classes)
    if backbone == "mobilenet_v3_large":
        return torchvision.models.segmentation.lraspp_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=num_classes
        )
    raise UserError(f"backbone={backbone}: lite2, mobilenet_v3_large, drn_d_22 or drn_d_105 was wanted")
