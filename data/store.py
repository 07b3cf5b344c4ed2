"""Training images as they are after the resize, kept on disk: decoding large files anew in every epoch takes long.

One file for a data folder, split, side and size, with the items one after another, all of one length:
    16 bytes    hash of the item's files (path, bytes, time of change) and of the versions that decode and resize
     4 bytes    CRC-32 of the pixels
    12 bytes    zero
    the pixels  of the item's images, (C, H, W) each, those of 32 bits first
An item is written when it is first asked for, and read where hash and CRC are right; else it is made again. So nothing
has to be invalidated, several processes may share a file, and any file may be deleted at any time. What is read equals,
byte for byte, what would be computed without.
"""

import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import PIL
import torch
import torchvision

from data.example import Example
from data.transforms import resize
from errors import UserError

SCHEMA = 2  # 2: images upright and over white, ids of 2 and 4 bits as stored
HEADER = 32  # bytes
VERSIONS = f"{SCHEMA} {torch.__version__} {torchvision.__version__} {PIL.__version__}"
Size = tuple[int, int]  # height, width


class ImageStore:
    """The items of one reader at any size, out of files in a folder.

    Args:
        folder: of the cache, dataset.cache; made where it is missing.
        title: data set, split and side, for the names of files.
        settings: what else decides the pixels: JSON values, which become a hash in the names of files.
        names: of the items.
        files: the files that item `index` is read from.
        read: item `index` at its own size.
        labels: whether its source holds ids.
    Raises: UserError where the folder cannot be made or written, or has no room for all items.
    """

    def __init__(
        self,
        folder: str | Path,
        title: str,
        settings: Mapping[str, Any],
        *,
        names: Sequence[str],
        files: Callable[[int], Sequence[Path]],
        read: Callable[[int], Example],
        labels: bool,
    ) -> None:
        self.folder = Path(folder).expanduser()
        digest = hashlib.sha256(json.dumps([SCHEMA, settings], sort_keys=True).encode()).hexdigest()[:12]
        self.title, self.digest = re.sub(r"[^A-Za-z0-9._-]+", "-", title), digest
        self.names, self.files, self.read, self.labels = names, files, read, labels
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._refused(str(error)) from error

    def path(self, size: Size) -> Path:
        """The file of the items at one size."""
        return self.folder / f"{self.title}-{size[1]}x{size[0]}-{self.digest}.bin"

    def get(self, index: int, size: Size) -> Example:
        """Item `index` at `size`. Raises: UserError for a bad image and for a cache that cannot be written."""
        try:
            stamp = self._stamp(index)
        except OSError:  # a file is gone: the reader has the words for that
            return resize(self.read(index), size, self.labels)
        held = self._load(index, size, stamp)
        if held is not None:
            return held
        example = resize(self.read(index), size, self.labels)
        self._keep(index, size, stamp, example)
        return example

    @cached_property
    def layout(self) -> dict[str, tuple[int, np.dtype]]:
        """Channels and kind of number of an item's images by key, in the order of the file."""
        example = cast(Mapping[str, Any], self.read(0))
        images = {key: value.numpy() for key, value in example.items() if key != "name"}
        wide_first = sorted(images, key=lambda key: -images[key].itemsize)
        return {key: (len(images[key]), images[key].dtype) for key in wide_first}

    def _length(self, size: Size) -> int:
        """Bytes of an item."""
        return HEADER + sum(channels * size[0] * size[1] * kind.itemsize for channels, kind in self.layout.values())

    def _stamp(self, index: int) -> bytes:
        found = [(str(file), file.stat()) for file in self.files(index)]
        text = "\n".join(f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in found)
        return hashlib.blake2b(f"{VERSIONS}\n{text}".encode(errors="surrogateescape"), digest_size=16).digest()

    def _load(self, index: int, size: Size, stamp: bytes) -> Example | None:
        buffer = bytearray(self._length(size))
        try:
            with self.path(size).open("rb", buffering=0) as stream:
                stream.seek(index * len(buffer))
                stream.readinto(buffer)
        except OSError:
            return None
        if buffer[:20] != stamp + _checksum(memoryview(buffer)[HEADER:]):
            return None
        images: dict[str, Any] = {"name": self.names[index]}
        at = HEADER
        for key, (channels, kind) in self.layout.items():
            pixels = np.frombuffer(buffer, kind, channels * size[0] * size[1], at)
            images[key] = torch.from_numpy(pixels).view(channels, *size)
            at += pixels.nbytes
        return cast(Example, images)

    def _keep(self, index: int, size: Size, stamp: bytes, example: Example) -> None:
        images = cast(Mapping[str, Any], example)
        pixels = b"".join(images[key].contiguous().numpy().tobytes() for key in self.layout)
        length, path = HEADER + len(pixels), self.path(size)
        try:
            if not path.exists():
                self._check_room(size, length * len(self.names))
            with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as stream:
                stream.seek(index * length)
                stream.write((stamp + _checksum(pixels)).ljust(HEADER, b"\0") + pixels)
        except OSError as error:
            raise self._refused(str(error)) from error

    def _check_room(self, size: Size, wanted: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if wanted > free:
            items = f"{len(self.names)} items of {size[1]}x{size[0]}"
            raise self._refused(f"{items} take {wanted / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")

    def _refused(self, reason: str) -> UserError:
        return UserError(f"dataset.cache={self.folder}: {reason}; choose another folder, or dataset.cache=null")


def _checksum(pixels: bytes | memoryview) -> bytes:
    return zlib.crc32(pixels).to_bytes(4, "little")
