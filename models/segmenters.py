"""Segmentation networks for evaluation: one way to open all of them, by what a file or folder holds.

FILE      a torch.export program (.pt2) or TorchScript, with settings in a JSON file beside it
FILE      a state dict of DRN-D-22 or DRN-D-105, or a checkpoint of scripts/train_segmenter.py
FOLDER    of transformers (config.json and weights), or UperNet-101 of mit-semseg (encoder_*.pth, decoder_*.pth)
hf:NAME   on the Hugging Face hub
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

from errors import UserError

from .adapter import Segmenter
from .exported_segmenters import exported_segmenter
from .published_segmenters import (
    ENCODER,
    HUB,
    drn_segmenter,
    hub_segmenter,
    transformer_segmenter,
    upernet_segmenter,
)
from .trained_segmenter import SegmenterConfig, build_segmenter, save_segmenter, trained_segmenter
from .weights import read_state

__all__ = ["Segmenter", "SegmenterConfig", "build_segmenter", "load_segmenter", "save_segmenter"]

WANTED = (
    "a torch.export .pt2, a TorchScript file, a state dict of DRN, a checkpoint of scripts/train_segmenter.py, a "
    "folder of transformers or of UperNet (encoder_*.pth, decoder_*.pth), or hf:NAME was wanted"
)


def load_segmenter(
    path: str | Path, device: torch.device | str = "cpu", offline: bool = False, trust: bool = False
) -> Segmenter:
    """Open a segmenter, see above; in eval mode, on the device.

    Args:
        offline: never open a connection; concerns hf:NAME alone.
        trust: open programs as well. torch.export.load falls back to unpickling, and TorchScript is code: both can run
            anything that their maker put into them.
    Raises: UserError for what is missing or none of these, or whose settings are not understood.
    """
    if str(path).startswith(HUB):
        return hub_segmenter(str(path).removeprefix(HUB), offline).to(device)
    path = Path(path).expanduser()
    kind = kind_of(path)
    if kind in ("export", "torchscript"):
        if not trust:
            raise UserError(
                f"segmenter={path}: is a program ({'torch.export' if kind == 'export' else 'TorchScript'}), which can "
                "run any code on this machine when it is opened; trust=true opens it, if you trust its maker"
            )
        return exported_segmenter(path, kind).to(device)
    if kind == "transformers":
        return transformer_segmenter(path).to(device)
    if kind == "upernet":
        return upernet_segmenter(path).to(device)
    found = read_state(path, "segmenter")
    if not isinstance(found, Mapping):
        raise UserError(f"segmenter={path}: holds a {type(found).__name__}; {WANTED}")
    if {"weights", "config"} <= found.keys():
        return trained_segmenter(dict(found), path).to(device)
    return drn_segmenter(found, path).to(device)


def kind_of(path: Path) -> str:
    """What lies at a path: "export", "torchscript", "weights", "transformers" or "upernet"."""
    if not path.exists():
        raise UserError(f"segmenter={path}: no such file; {WANTED}")
    if path.is_dir():
        if (path / "config.json").is_file():
            return "transformers"
        if any(path.glob(ENCODER)):
            return "upernet"
        raise UserError(f"segmenter={path}: is a folder without config.json and {ENCODER}; {WANTED}")
    if not zipfile.is_zipfile(path):
        return "weights"  # as PyTorch wrote them before version 1.6
    with zipfile.ZipFile(path) as archive:
        names = ["/" + name for name in archive.namelist()]
    if any("/code/" in name for name in names):
        return "torchscript"
    return "weights" if any(name.endswith("/data.pkl") for name in names) else "export"
