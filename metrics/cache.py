"""Features of real images, kept between evaluations: they are the same for every checkpoint of every run.

A file is found by a hash of all that its numbers depend on: names and bytes of the images in their order, the size they
are resized to, network, weights, resize rule, kind of device and package versions. So nothing has to be invalidated:
when anything of it changes, another file is made. Old ones may be deleted at any time; a damaged one is made again.
"""

import hashlib
import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SCHEMA = 2  # 2: images upright and over white
Key = dict[str, Any]


def default_folder() -> Path:
    """$PATCHWISE_CACHE, else patchwise in $XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get("PATCHWISE_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "patchwise"


class FeatureCache:
    """Float32 features (N, C) by their key, a dict of JSON values, in a folder; None keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def path(self, key: Key) -> Path | None:
        """The file of a key."""
        if self.folder is None:
            return None
        return self.folder / f"features-{hashlib.sha256(_text(key).encode()).hexdigest()[:32]}.npz"

    def get(self, key: Key) -> Tensor | None:
        """The features of a key; None where they are not there, are damaged or belong to another key."""
        path = self.path(key)
        if path is None or not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as held:
                if str(held["key"]) != _text(key):
                    return None
                return torch.from_numpy(held["features"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def put(self, key: Key, features: Tensor) -> None:
        """Keep features, whole or not at all; a folder that cannot be written keeps nothing."""
        path = self.path(key)
        if path is None:
            return
        part = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
            with os.fdopen(handle, "wb") as stream:
                np.savez(stream, key=np.array(_text(key)), features=features.cpu().numpy())
            Path(part).replace(path)
        except OSError:
            if part is not None:
                Path(part).unlink(missing_ok=True)


def _text(key: Key) -> str:
    return json.dumps({"schema": SCHEMA, **key}, sort_keys=True)
