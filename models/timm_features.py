"""Any timm backbone that gives feature maps, as an encoder. timm is optional: requirements-timm.txt."""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from errors import UserError

from . import weights
from .encoders import IMAGENET_MEAN, IMAGENET_STD, Encoder, Size

HUB = "https://huggingface.co"


class Features(Encoder):
    """A network that returns its list of feature maps itself, channels first or last as its `output_fmt` says."""

    def features(self, x: Tensor) -> list[Tensor]:
        last = str(getattr(self.network, "output_fmt", "NCHW")).endswith("NHWC")
        return [found.movedim(-1, 1) if last else found for found in self.network(x)]


def forbid_downloads() -> None:
    """Keep timm and the hub below it from opening a connection, in this process from here on."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's package is first imported
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]


def timm(
    name: str = "resnet18",
    layers: Sequence[str] | None = None,
    pretrained: bool = True,
    frozen: bool = True,
    mean_std: bool = True,
    size: Size = None,
    file: str | None = None,
    offline: bool = False,
) -> Encoder:
    """Any backbone of timm that gives feature maps.

    Args:
        name: as timm.create_model takes it, with or without a weights tag.
        layers: of the backbone's own names (an unknown one is answered with the list); null taps all.
        pretrained: timm's weights, from its cache or by download.
        mean_std: normalise the input as the backbone was trained.
        file: weights on disk to take in place of the download.
        offline: never download.
    """
    if file is not None and not file.endswith(".safetensors"):
        weights.read_state(Path(file), "encoder.file")  # refuses a pickle of code, which older versions of timm run
    if pretrained and file is None and (offline or not weights.reachable(HUB)):  # timm's own retries take a minute
        forbid_downloads()
    try:
        library = importlib.import_module("timm")
    except ImportError:
        raise UserError("encoder=timm needs the package timm: pip install -r requirements-timm.txt") from None
    if not library.is_model(name):
        near = difflib.get_close_matches(name.split(".")[0], library.list_models(), n=3, cutoff=0.4)
        raise UserError(f"encoder.name: timm knows no '{name}'; did you mean {', '.join(near) or 'another'}?")
    overlay = {} if file is None else {"pretrained_cfg_overlay": {"file": file}}

    def create(**choice: Sequence[int]) -> Any:
        try:
            return library.create_model(name, pretrained=pretrained, features_only=True, **overlay, **choice)
        except Exception as error:  # timm, its hub and the network each raise their own
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(
                f"encoder.name: timm cannot give features of '{name}' ({reason}); put its weights on disk and set "
                f"encoder.file=, or set encoder.pretrained=false for random weights, or take another backbone"
            ) from error

    network = create()
    known = network.feature_info.module_name()
    if layers is not None:
        for layer in layers:
            if layer not in known:
                raise UserError(f"encoder.layers: no layer '{layer}' in timm's {name}; known: {', '.join(known)}")
        network = create(out_indices=sorted(known.index(layer) for layer in layers))
    config: dict[str, Any] = library.get_pretrained_cfg(name).to_dict()
    return Features(
        network,
        network.feature_info.module_name(),
        network.feature_info.channels(),
        frozen=frozen,
        weights=(file and Path(file).name) or f"timm/{name}" if pretrained else "random",
        size=size,
        mean=config.get("mean", IMAGENET_MEAN) if mean_std else None,
        std=config.get("std", IMAGENET_STD) if mean_std else None,
    )
