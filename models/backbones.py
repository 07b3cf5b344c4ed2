"""ImageNet backbones as encoders: VGG (Simonyan and Zisserman 2015, arXiv:1409.1556), ResNet-50 (He et al. 2016,
arXiv:1512.03385) and EfficientNet-lite0.

As in CFL and MoNCE the VGG and ResNet see the raw [-1, 1] image unless `mean_std` is set. Each network ends with the
last layer that is tapped.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torchvision
from torch import Tensor, nn

from errors import UserError

from . import weights
from .blocks import init_weights
from .efficientnet import FILES, channels_of, efficientnet_lite, natural
from .encoders import IMAGENET_MEAN, IMAGENET_STD, Encoder, Size, Tap, check_layers

VGG = {
    "vgg16": ([2, 2, 3, 3, 3], "vgg16-397923af.pth"),
    "vgg19": ([2, 2, 4, 4, 4], "vgg19-dcbb9e9d.pth"),
}
RESNET50 = "resnet50-0676ba61.pth"


def vgg19(
    layers: Sequence[str] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
    pretrained: bool = True,
    frozen: bool = True,
    mean_std: bool = False,
    size: Size = None,
    init: str = "pytorch",
    weights_dir: str | None = None,
    offline: bool = False,
) -> Encoder:
    """VGG19; layers conv1_1, relu1_1, ..., relu5_4 and pool1..pool5.

    CFL taps relu1_1..relu5_1 (its starred rows without relu1_1), MoNCE's paper relu1_2..relu5_2.

    Args:
        pretrained: ImageNet weights of torchvision; else `init` "pytorch" (torchvision's own Kaiming initialisation) or
            "official" (Xavier 0.02, the released code of CFL, under which the deep layers start almost constant).
        frozen: train neither weights nor statistics.
        mean_std: ImageNet normalisation of the input.
        size: side or [height, width] to resize to; null keeps the image's own.
    """
    return vgg("vgg19", layers, pretrained, frozen, mean_std, size, init, weights_dir, offline)


def vgg16(
    layers: Sequence[str] = ("relu3_1", "relu4_1", "relu4_3"),
    pretrained: bool = True,
    frozen: bool = True,
    mean_std: bool = True,
    size: Size = None,
    init: str = "pytorch",
    weights_dir: str | None = None,
    offline: bool = False,
) -> Encoder:
    """VGG16 with the layers and the input normalisation of F/LSeSim (Zheng et al. 2021); arguments as `vgg19`."""
    return vgg("vgg16", layers, pretrained, frozen, mean_std, size, init, weights_dir, offline)


def vgg(
    name: str,
    layers: Sequence[str],
    pretrained: bool,
    frozen: bool,
    mean_std: bool,
    size: Size,
    init: str,
    weights_dir: str | None,
    offline: bool,
) -> Encoder:
    """The convolutions of a VGG as far as the last tapped layer, loaded from torchvision's file."""
    if init not in ("pytorch", "official"):
        raise UserError(f"encoder.init: '{init}' is neither pytorch nor official")
    repeats, file = VGG[name]
    network: OrderedDict[str, nn.Module] = OrderedDict()
    channels: dict[str, int] = {}
    width = 3
    for stage, repeat in enumerate(repeats, 1):
        out = min(64 * 2 ** (stage - 1), 512)
        for index in range(1, repeat + 1):
            conv, relu = f"conv{stage}_{index}", f"relu{stage}_{index}"
            network[conv] = nn.Conv2d(width, out, 3, padding=1)
            network[relu] = nn.ReLU(inplace=conv not in layers)  # saves a map; a tapped one must stay as it is
            channels[conv] = channels[relu] = width = out
        network[f"pool{stage}"] = nn.MaxPool2d(2)
        channels[f"pool{stage}"] = out
    check_layers(layers, channels)
    position = {layer: index for index, layer in enumerate(network)}  # as in torchvision's `features`
    while network and next(reversed(network)) not in layers:
        network.popitem()
    module = nn.Sequential(network)
    if pretrained:
        state = weights.load(weights.resolve(file, weights_dir, offline))
        for layer_name, child in module.named_children():
            if isinstance(child, nn.Conv2d):
                at = f"features.{position[layer_name]}"
                child.load_state_dict({key: state[f"{at}.{key}"] for key in ("weight", "bias")})
    elif init == "official":
        init_weights(module)
    else:
        for layer in module:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return Tap(
        module,
        channels,
        layers,
        frozen=frozen,
        weights=file if pretrained else "random",
        size=size,
        mean=IMAGENET_MEAN if mean_std else None,
        std=IMAGENET_STD if mean_std else None,
    )


def resnet50(
    layers: Sequence[str] = ("maxpool", "layer1", "layer2", "layer3", "layer4"),
    pretrained: bool = True,
    frozen: bool = True,
    mean_std: bool = False,
    size: Size = 224,
    weights_dir: str | None = None,
    offline: bool = False,
) -> Encoder:
    """ResNet-50 without its classifier, input resized to 224x224 with aligned corners as in CFL; arguments as `vgg19`.

    Frozen, its batch norms use their running statistics (CFL's code left them in training mode).
    """
    channels = {"conv1": 64, "bn1": 64, "relu": 64, "maxpool": 64}
    channels |= {"layer1": 256, "layer2": 512, "layer3": 1024, "layer4": 2048}
    check_layers(layers, channels)
    full = torchvision.models.resnet50(weights=None)
    if pretrained:
        full.load_state_dict(weights.load(weights.resolve(RESNET50, weights_dir, offline)))
    full.relu.inplace = False  # bn1 may be tapped
    network = OrderedDict((name, getattr(full, name)) for name in channels)
    while network and next(reversed(network)) not in layers:
        network.popitem()
    return Tap(
        nn.Sequential(network),
        channels,
        layers,
        frozen=frozen,
        weights=RESNET50 if pretrained else "random",
        size=size,
        align_corners=True,
        mean=IMAGENET_MEAN if mean_std else None,
        std=IMAGENET_STD if mean_std else None,
    )


class NaturalInput(Tap):
    """An encoder whose network wants EfficientNet-lite's own input range."""

    def prepare(self, image: Tensor) -> Tensor:
        return natural(super().prepare(image))


def effnet_lite0(
    layers: Sequence[str] = ("block0", "block2", "block4", "block10"),
    pretrained: bool = True,
    frozen: bool = True,
    size: Size = None,
) -> Encoder:
    """EfficientNet-lite0: real ImageNet features from a pip package, without a download.

    Layers stem, block0..block15, head. The default ones end the resolutions 1/2, 1/4, 1/8, 1/16 and have 16, 24, 40,
    112 channels; blocks are linear (no activation). block15 (1/32, 320 channels) is for images of 256 pixels and more:
    at 64 its four places are almost equal (cosine 0.98), so that a contrastive loss stays near log 4 even between an
    image and itself. The input is (255 x - 127) / 128 of RGB x in [0, 1], which the network was trained on and which is
    almost the [-1, 1] image, so there is no `mean_std`. No drop connect.
    """
    channels = channels_of("lite0")
    check_layers(layers, channels)
    names = [name for name in channels if name in layers]
    network = efficientnet_lite("lite0", pretrained, last=names[-1] if names else "stem")
    return NaturalInput(
        network, channels, layers, frozen=frozen, weights=FILES["lite0"] if pretrained else "random", size=size
    )
