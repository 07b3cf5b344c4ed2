"""The checkpoints of scripts/train_segmenter.py: which network, trained on what, and its weights."""

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from errors import UserError
from files import atomically

from .adapter import Segmenter
from .drn import BLOCKS, DRN, DRN_MEAN, DRN_STD
from .encoders import IMAGENET_MEAN, IMAGENET_STD
from .lraspp import build_network
from .weights import check_whole

NORMS = {  # mean and standard deviation of RGB in [0, 1]; every other network takes ImageNet's
    "lite2": ((127 / 255,) * 3, (128 / 255,) * 3),  # as EfficientNet-lite was trained: (255 x - 127) / 128
    **dict.fromkeys(BLOCKS, (DRN_MEAN, DRN_STD)),
}


@dataclass(frozen=True)
class SegmenterConfig:
    """What a checkpoint of our own says about itself.

    backbone: of `lraspp.build_network`, or a name of `drn.BLOCKS` for that whole network.
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
    """The segmenter of a config, with fresh weights but for lite2's backbone."""
    mean, std = NORMS.get(config.backbone, (IMAGENET_MEAN, IMAGENET_STD))
    network: nn.Module
    if config.backbone in BLOCKS:
        network = DRN(config.backbone, config.num_classes)
    else:
        network = build_network(config.backbone, config.num_classes, pretrained)
    return Segmenter(network, config.num_classes, mean, std, config.input_size).named(config.backbone)


def save_segmenter(path: Path, segmenter: Segmenter, config: SegmenterConfig) -> None:
    """Write a checkpoint of tensors and JSON text, which appears under its name only when complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = io.BytesIO()  # torch.save into a file hides why a disk refused it
    torch.save({"weights": segmenter.network.state_dict(), "config": json.dumps(asdict(config))}, whole)
    with atomically(path) as file:
        file.write(whole.getbuffer())


def trained_segmenter(found: dict[str, object], path: Path) -> Segmenter:
    """The segmenter of a checkpoint, `found`, which was read from `path`.

    Raises: UserError for a config of another version or weights that do not fit it.
    """
    try:
        config = SegmenterConfig(**json.loads(str(found["config"])))
        if not isinstance(config.num_classes, int) or not 1 <= config.num_classes <= 4096:
            raise ValueError(f"num_classes is {config.num_classes}, not 1 to 4096")
        if config.input_size is not None and not all(1 <= int(side) <= 4096 for side in config.input_size):
            raise ValueError(f"input_size is {config.input_size}, not 1 to 4096 a side")
        weights = cast(dict[str, Tensor], found["weights"])
        check_whole(weights, f"segmenter={path}")
        with torch.device("meta"):  # without memory, as the file's numbers of channels are not to be believed
            shapes = build_segmenter(config, pretrained=False).network.state_dict()
        if wrong := [key for key in shapes if key not in weights or weights[key].shape != shapes[key].shape]:
            raise ValueError(f"its {wrong[0]} is not that of {config.backbone} with {config.num_classes} classes")
        segmenter = build_segmenter(config, pretrained=False)
        segmenter.network.load_state_dict(weights)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"segmenter={path}: cannot be opened ({str(error).splitlines()[0]})") from error
    segmenter.network.eval()
    return segmenter.named(config.backbone, path)
