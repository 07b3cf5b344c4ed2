"""Anyone's segmentation network as a file that holds its program: torch.export, or the older TorchScript.

A JSON file of the same name and suffix .json may give num_classes, mean, std, input_size and output_map of
`adapter.Segmenter`; without it the input is normalised as for ImageNet and the classes are counted.
"""

import inspect
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from errors import UserError

from .adapter import Segmenter


def exported_segmenter(path: Path, kind: str) -> Segmenter:
    """The segmenter of a program. Args: kind: "export" or "torchscript".

    Raises: UserError for a file that cannot be opened, or whose settings are not understood.
    """
    try:
        if kind == "export":
            return with_settings(torch.export.load(path).module(), path).named(kind, *_files(path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated, but such files exist
            network = torch.jit.load(path, map_location="cpu").eval()
            return with_settings(network, path).named(kind, *_files(path))
    except (RuntimeError, KeyError, ValueError, TypeError, OSError) as error:
        raise UserError(f"segmenter={path}: cannot be opened ({str(error).splitlines()[0]})") from error


def _files(path: Path) -> list[Path]:
    return [file for file in (path, path.with_suffix(".json")) if file.is_file()]


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
