"""Feature encoders of contrastive and perceptual losses: a network and the names of its layers that are tapped.

Pixel patches and the six-layer encoder follow CFL (Andonian et al. 2021, Contrastive Feature Loss for Image
Prediction); ImageNet backbones are in `models/backbones.py`.
"""

import itertools
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from errors import UserError

from .blocks import SpectralConv2d, instance_norm

NO_LAYER = "encoder.layers=[]: names no layer, so there are no features to compare; give one or more"

Side = Annotated[int, range(1, 1025)]  # that an image is resized to
Size = Side | tuple[Side, Side] | None
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Encoder(nn.Module):
    """Image (B, 3, H, W) in [-1, 1] to a list of feature maps (B, C_l, H_l, W_l), one per name in `layers`.

    A grey image (B, 1, H, W) is repeated over the channels; any other number of channels is a ValueError.

    Args:
        network: what `features` runs.
        layers: names of the maps, in the order of the output; channels: of each.
        frozen: no gradient to the weights, and always eval mode; gradients still reach the image.
        weights: identity of the weights for reports: a file name, "random" or "none".
        size: side or [height, width] that the image is resized to first, bilinear; None keeps it.
        align_corners: of that resize.
        mean, std: of RGB in [0, 1]; the network sees ((image + 1) / 2 - mean) / std. None: the image as it is.
        image_channels: that the network takes.

    Attributes: layers, channels (per layer), map_channels (of `maps`), frozen, weights.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str],
        channels: Sequence[int],
        *,
        frozen: bool,
        weights: str,
        size: int | Sequence[int] | None = None,
        align_corners: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        self.image_channels = image_channels
        self.network, self.layers, self.channels = network, list(layers), list(channels)
        self.map_channels = self.channels
        self.frozen, self.weights, self.align_corners = frozen, weights, align_corners
        self.size = None if size is None else (size, size) if isinstance(size, int) else (size[0], size[1])
        self.register_buffer("mean", None if mean is None else torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", None if std is None else torch.tensor(std).view(3, 1, 1), persistent=False)
        if frozen:
            self.requires_grad_(False)
            self.eval()

    def train(self, mode: bool = True) -> "Encoder":
        """As nn.Module.train, except that a frozen encoder stays in eval mode."""
        return super().train(mode and not self.frozen)

    def prepare(self, image: Tensor) -> Tensor:
        """What the network sees."""
        if image.shape[1] not in (1, self.image_channels):
            raise ValueError(
                f"image {tuple(image.shape)} has {image.shape[1]} channels, where the encoder takes "
                f"{self.image_channels} and repeats a grey one; encoder=pixel takes encoder.image_channels="
                f"{image.shape[1]}"
            )
        if self.size is not None and image.shape[2:] != self.size:
            image = F.interpolate(image, self.size, mode="bilinear", align_corners=self.align_corners)
        image = image.expand(-1, self.image_channels, -1, -1)
        if self.mean is not None and self.std is not None:
            image = ((image + 1) / 2 - self.mean) / self.std
        return image

    def features(self, x: Tensor) -> list[Tensor]:
        """The maps of the prepared image."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.features(self.prepare(image))

    def maps(self, image: Tensor) -> list[Tensor]:
        """Feature maps to be compared place by place: those of `forward`, except for pixels."""
        return self(image)


class Tap(Encoder):
    """Outputs of named children of a sequential network, which is run as far as the last of them.

    Args:
        network: later children than the last tapped one take no gradient.
        channels: layer name to channels, in order; `layers` may also name "image", the network's input.
        layers, settings: as `Encoder`.

    Raises UserError for an unknown layer.
    """

    def __init__(
        self, network: nn.Sequential, channels: Mapping[str, int], layers: Sequence[str], **settings: Any
    ) -> None:
        check_layers(layers, channels)
        super().__init__(network, layers, [{"image": 3, **channels}[name] for name in layers], **settings)
        names = [name for name, _ in network.named_children()]
        self.depth = max((names.index(name) + 1 for name in layers if name != "image"), default=0)
        for child in list(network)[self.depth :]:
            child.requires_grad_(False)

    def features(self, x: Tensor) -> list[Tensor]:
        found = {"image": x}
        for name, layer in list(self.network.named_children())[: self.depth]:
            found[name] = x = layer(x)
        return [found[name] for name in self.layers]


class Pixel(Encoder):
    """No network: every patch of the image is its own feature, flattened in the order channel, row, column."""

    def __init__(self, scales: Sequence[int], image_channels: int) -> None:
        channels = {f"patch{side}": image_channels * side * side for side in scales}
        settings: dict[str, Any] = {"frozen": True, "weights": "none", "image_channels": image_channels}
        super().__init__(nn.Identity(), list(channels), list(channels.values()), **settings)
        self.scales = list(scales)
        self.map_channels = [image_channels]

    def features(self, x: Tensor) -> list[Tensor]:
        """Patches of each scale at a stride of half its side: (B, image_channels side^2, h, w)."""
        found = []
        for side in self.scales:
            height, width = ((extent - side) // (side // 2) + 1 for extent in x.shape[2:])
            if height < 1 or width < 1:
                raise ValueError(f"image {tuple(x.shape)} is smaller than the pixel patches of side {side}")
            found.append(F.unfold(x, side, stride=side // 2).unflatten(2, (height, width)))
        return found

    def maps(self, image: Tensor) -> list[Tensor]:
        """The image itself, of any number of channels."""
        return [image]


class GeneratorEncoder(nn.Module):
    """CUT's encoder: layers of the generator itself (Park et al. 2020, arXiv:2007.15651), with `Encoder`'s interface.

    It does not own the generator: it has no parameters and no state, its gradients go to the generator's weights, and
    train() and eval() leave the generator alone.

    Args:
        generator: with `encode(image, layers)` and `feature_channels(layers)`, such as ResnetGenerator.
        layers: positions in the generator.

    Raises UserError for a generator without layers to tap, for an unknown layer, and where source and target differ in
    their channels, since both go through the same first layer.
    """

    def __init__(self, generator: nn.Module, layers: Sequence[int]) -> None:
        super().__init__()
        name = type(generator).__name__
        if not hasattr(generator, "encode"):
            raise UserError(f"encoder=generator: {name} has no layers to tap; choose model=cut, or another encoder")
        if generator.channels != generator.output_channels:
            raise UserError(
                f"encoder=generator: {name} takes {generator.channels} channels and gives "
                f"{generator.output_channels}, so it cannot encode both source and fake; choose another encoder"
            )
        if not layers:
            raise UserError(NO_LAYER)
        self.owner = (generator,)  # in a tuple, where nn.Module does not register it
        self.layers = list(layers)
        self.channels: list[int] = generator.feature_channels(self.layers)  # type: ignore[operator]
        self.map_channels = self.channels
        self.frozen, self.weights = False, "generator"

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (B, C, H, W) in [-1, 1] -> feature maps, one per layer."""
        return self.owner[0].encode(image, self.layers)  # type: ignore[operator]

    def maps(self, image: Tensor) -> list[Tensor]:
        """Those of `forward`."""
        return self(image)


class SpectralStage(nn.Module):
    """3x3 convolution of stride 2 without bias under spectral norm, instance norm, leaky ReLU 0.2."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = SpectralConv2d(channels, out, 3, 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(instance_norm(self.conv(x)), 0.2, inplace=True)


class Embedding(nn.Module):
    """Average pooling to 4x4, then a linear layer to 256: in CFL's encoder, but not in its loss."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(16 * channels, 256)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.adaptive_avg_pool2d(x, 4).flatten(1))


def pixel(
    scales: Sequence[Annotated[int, range(2, 257)]] = (4, 8, 16, 32),
    image_channels: Annotated[int, range(1, 1025)] = 3,
) -> Encoder:
    """Pixel patches of CFL, sides `scales` at a stride of half the side; `maps` gives the image."""
    odd = [side for side in scales if side < 2 or side % 2]
    if odd:
        raise UserError(f"encoder.scales: {odd[0]} is not an even side of at least 2")
    return Pixel(scales, image_channels)


def conv6(
    layers: Sequence[str] = ("image", "conv0", "conv1", "conv2", "conv3", "conv4"),
    size: Size = 256,
    frozen: bool = False,
) -> Encoder:
    """CFL's six-layer encoder without pretraining, 8,366,016 parameters, PyTorch's default initialisation.

    Args:
        layers: of image, conv0..conv5 (after the leaky ReLU); the embedding is no map and cannot be tapped.
        size: side or [height, width] that the image is resized to; 256 in CFL, null keeps the image's own.
        frozen: keep the random weights.
    """
    widths = [3, 64, 128, 256, 512, 512, 512]
    stages = [SpectralStage(*pair) for pair in itertools.pairwise(widths)]
    network = OrderedDict((f"conv{index}", stage) for index, stage in enumerate(stages))
    return Tap(
        nn.Sequential(OrderedDict(**network, embedding=Embedding(512))),
        dict(zip(network, widths[1:], strict=True)),
        layers,
        frozen=frozen,
        weights="random",
        size=size,
    )


def check_layers(layers: Sequence[str], known: Iterable[str]) -> None:
    """UserError for no layer at all, and for one that is neither known nor "image"."""
    if not layers:
        raise UserError(NO_LAYER)
    for name in layers:
        if name not in {"image", *known}:
            raise UserError(f"encoder.layers: no layer '{name}'; known: image, {', '.join(known)}")
