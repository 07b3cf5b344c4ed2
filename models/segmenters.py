"""Segmentation networks for evaluation, behind one adapter: images in, class ids out.

Three kinds of file are read: a torch.export program (.pt2), TorchScript, and the checkpoints of
scripts/train_segmenter.py, whose network is in `models/lraspp.py`.
"""

import inspect
import json
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from errors import UserError

from .encoders import IMAGENET_MEAN, IMAGENET_STD
from .lraspp import build_network

# RGB in [0, 1] as EfficientNet-lite was trained: (255 x - 127) / 128.
NATURAL = {"mean": [127 / 255] * 3, "std": [128 / 255] * 3}


class Segmenter:
    """A network and what it takes to feed it. No module itself: an exported program refuses train() and eval().

    Args:
        network: normalised (N, 3, h, w) images to logits (N, K, h', w'), or a dict or tuple that holds them under "out"
            or first. It must be in eval mode.
        num_classes: of the ids that `predict` gives.
        mean, std: of RGB in [0, 1].
        input_size: (height, width) that images are resized to, bilinear with antialiasing; None keeps their own.
        output_map: evaluation id of each of the network's K classes; None keeps them.
    """

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        input_size: Sequence[int] | None = None,
        output_map: Sequence[int] | None = None,
    ) -> None:
        self.network, self.num_classes = network, num_classes
        self.input_size = None if input_size is None else (int(input_size[0]), int(input_size[1]))
        self.mean, self.std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
        self.output_map = None if output_map is None else torch.tensor(output_map)

    def to(self, device: torch.device | str) -> "Segmenter":
        """Move everything to a device; returns self."""
        self.network.to(device)
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        self.output_map = None if self.output_map is None else self.output_map.to(device)
        return self

    def logits(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) float RGB in [0, 1] to the network's (N, K, H, W), resized bilinearly to the images' size."""
        x = images
        if self.input_size is not None and images.shape[2:] != self.input_size:
            x = F.interpolate(x, self.input_size, mode="bilinear", antialias=True)
        found = self.network((x - self.mean) / self.std)
        if isinstance(found, dict):
            found = found["out"]
        elif isinstance(found, tuple | list):
            found = found[0]
        return F.interpolate(found.float(), images.shape[2:], mode="bilinear")

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) float RGB in [0, 1] to (N, H, W) int64 ids in 0..num_classes-1, at the images' size."""
        ids = self.logits(images).argmax(1)
        return ids if self.output_map is None else self.output_map[ids]


@dataclass(frozen=True)
class SegmenterConfig:
    """What a checkpoint of our own says about itself.

    size: (height, width) it was trained at; input_size: what its images are resized to, or None; miou: in percent, on
    the validation split after training.
    """

    backbone: str
    num_classes: int
    size: tuple[int, int]
    input_size: tuple[int, int] | None
    dataset: str
    seed: int
    steps: int
    miou: float | None = None


def build_segmenter(config: SegmenterConfig, pretrained: bool = True) -> Segmenter:
    """The segmenter of a config, with fresh weights but for the backbone's."""
    norm = NATURAL if config.backbone == "lite2" else {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    network = build_network(config.backbone, config.num_classes, pretrained)
    return Segmenter(network, config.num_classes, input_size=config.input_size, **norm)


def save_segmenter(path: Path, segmenter: Segmenter, config: SegmenterConfig) -> None:
    """Write a checkpoint of tensors and JSON text, which appears under its name only when complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    torch.save({"weights": segmenter.network.state_dict(), "config": json.dumps(asdict(config))}, part)
    part.replace(path)


def load_segmenter(path: str | Path, device: torch.device | str = "cpu") -> Segmenter:
    """Open a file by its content: a torch.export program, TorchScript, or a checkpoint of train_segmenter.

    For the first two a JSON file of the same name and suffix .json may give num_classes, mean, std, input_size and
    output_map of `Segmenter`; without it the input is normalised as for ImageNet and the classes are counted.

    Raises: UserError for a file that is missing or none of these, or whose settings are not understood.
    """
    path = Path(path).expanduser()
    kind = kind_of(path)
    try:
        if kind == "own":
            return load_own(path).to(device)
        if kind == "export":
            network = torch.export.load(path).module()
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TorchScript is deprecated, but such files exist
                network = torch.jit.load(path, map_location="cpu").eval()
    except (RuntimeError, KeyError, ValueError, TypeError, OSError) as error:
        raise UserError(f"segmenter={path}: cannot be opened ({str(error).splitlines()[0]})") from error
    return with_settings(network, path).to(device)


def kind_of(path: Path) -> str:
    """What a file holds: "own", "export" or "torchscript"."""
    wanted = "a torch.export .pt2, a TorchScript file or a checkpoint of scripts/train_segmenter.py was wanted"
    if path.is_dir() or not path.exists():
        raise UserError(f"segmenter={path}: {'is a folder' if path.is_dir() else 'no such file'}; {wanted}")
    if not zipfile.is_zipfile(path):
        raise UserError(f"segmenter={path}: not a file of PyTorch; {wanted}")
    with zipfile.ZipFile(path) as archive:
        names = ["/" + name for name in archive.namelist()]
    if any("/code/" in name for name in names):
        return "torchscript"
    return "own" if any(name.endswith("/data.pkl") for name in names) else "export"


def load_own(path: Path) -> Segmenter:
    """A checkpoint of scripts/train_segmenter.py."""
    found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, dict) or not {"weights", "config"} <= found.keys():
        raise UserError(
            f"segmenter={path}: a checkpoint, but not one of scripts/train_segmenter.py; export other networks with "
            f"torch.export.save"
        )
    segmenter = build_segmenter(SegmenterConfig(**json.loads(found["config"])), pretrained=False)
    segmenter.network.load_state_dict(found["weights"])
    segmenter.network.eval()
    return segmenter


def with_settings(network: nn.Module, path: Path) -> Segmenter:
    """The adapter for a foreign network, settings from the JSON file beside it."""
    beside = path.with_suffix(".json")
    settings: dict[str, Any] = json.loads(beside.read_text()) if beside.is_file() else {}
    known = [name for name in inspect.signature(Segmenter).parameters if name != "network"]
    for key in settings:
        if key not in known:
            raise UserError(f"{beside}: no setting '{key}'; known: {', '.join(known)}")
    classes = settings.pop("num_classes", None)
    segmenter = Segmenter(network, classes or 0, **settings)
    if classes is None:
        height, width = segmenter.input_size or (64, 64)
        with torch.no_grad():
            counted = segmenter.logits(torch.zeros(2, 3, height, width)).shape[1]
        segmenter.num_classes = counted if segmenter.output_map is None else int(segmenter.output_map.max()) + 1
    return segmenter
