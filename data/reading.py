"""One file to one tensor: images as uint8 pixels, label maps as ids, each checked on the way in.

A wrong id in a label map otherwise surfaces as a crash inside a CUDA kernel, far from its file: here every mistake is a
UserError of one line with the file, what it holds, what was wanted and the key to change.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from errors import UserError
from listing import ImageFiles
from pixels import DEEP, Header, a, colors_of, ids_of, load, load_array, note, opened, refuse_deep

IDS = ("L", "P", "1", "I", "I;16")  # modes whose values are ids
SHOWN = 5  # offending values that an error lists


def read_image(file: Path, channels: int = 3) -> Tensor:
    """(channels, H, W) uint8. Grey becomes RGB or RGB grey as `channels` asks; an array must have that many channels.

    Raises: UserError for a damaged file, an image of more than 8 bits a channel, or another number of channels.
    """
    if file.suffix.lower() == ".npy":
        array = np.array(load_array(file))
        if array.shape[2] != channels:
            raise UserError(f"{file}: has {array.shape[2]} channels, wanted {channels}; set dataset.channels")
        return torch.from_numpy(array).movedim(-1, 0).contiguous()
    if channels not in (1, 3):
        raise UserError(f"{file}: an image has 1 or 3 channels, wanted {channels}; use .npy of (H, W, {channels})")
    pixels = np.array(load(file, channels))
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).movedim(-1, 0).contiguous()


def read_instance(file: Path) -> Tensor:
    """(1, H, W) int32 instance ids of an 8- or 16-bit PNG. Raises: UserError for a damaged file or colours."""
    with opened(file) as image:
        if image.mode not in IDS:
            raise UserError(f"{file}: is {a(image.mode)} image; an instance map is an 8- or 16-bit PNG of ids")
        return torch.from_numpy(ids_of(file, image).astype(np.int32))[None]


def read_depth(file: Path) -> Tensor:
    """(1, H, W) int32 millimetres of a 16-bit PNG. Raises: UserError for a damaged file, colours or 8 bits."""
    with opened(file) as image:
        if image.mode not in ("I", "I;16", "I;16B"):
            raise UserError(f"{file}: is {a(image.mode)} image; a depth map is a 16-bit PNG of millimetres")
        return torch.from_numpy(ids_of(file, image).astype(np.int32))[None]


def check_images(files: ImageFiles, headers: Sequence[Header]) -> dict[Header, str]:
    """The kinds of headers, each with its first name; one line says what reading does to such images.

    Raises: UserError where a header tells that the file has more than 8 bits a channel.
    """
    kinds = _kinds(files, headers)
    for header, name in kinds.items():
        if header.format != "NPY":
            refuse_deep(files[name], header.mode, header.bits)
    note(files.folder, Counter(headers))
    return kinds


def _kinds(files: ImageFiles, headers: Sequence[Header]) -> dict[Header, str]:
    kinds: dict[Header, str] = {}
    for name, header in zip(files, headers, strict=True):
        kinds.setdefault(header, name)
    return kinds


@dataclass(frozen=True)
class LabelReader:
    """Reads label maps as ids in 0..classes-1 or `ignore`.

    palette: colour -> id (`labels.read_palette`) for RGB files, and for palette PNGs, whose indices are the ids
        otherwise; None takes ids only.
    cure: what the error about an id out of range advises. others: what errors about files without ids advise.
    """

    classes: int
    ignore: int | None = None
    palette: dict[tuple[int, int, int], int] | None = None
    cure: str = "set dataset.classes, or dataset.ignore for the id of unknown pixels"
    others: str = "set dataset.palette=FILE for colours, or dataset.labels=false for an image as input"

    def check(self, file: Path, form: str, mode: str) -> None:
        """Raises UserError where a header's format and mode tell that the file cannot hold these labels."""
        if form in ("JPEG", "MPO"):
            raise UserError(f"{file}: is a JPEG, whose compression changes label ids; wanted a PNG of ids")
        if form == "NPY":
            raise UserError(f"{file}: is an array; wanted a PNG of ids: {self.others}")
        if mode not in IDS and (self.palette is None or mode in DEEP):
            raise UserError(f"{file}: is {a(mode)} image; wanted one 8-bit id a pixel: {self.others}")

    def check_all(self, files: ImageFiles, headers: Sequence[Header]) -> None:
        """`check` of every file of a folder, by its header."""
        for header, name in _kinds(files, headers).items():
            self.check(files[name], header.format, header.mode)
        note(files.folder, Counter(headers), ids=True)

    def read(self, file: Path) -> Tensor:
        """(1, H, W) uint8 ids. Raises: UserError for a damaged file, an unknown colour or an id out of range."""
        with opened(file) as image:
            self.check(file, image.format or "", image.mode)
            colored = self.palette is not None and image.mode not in ("L", "1", "I", "I;16")
            pixels = colors_of(file, image) if colored else ids_of(file, image)
        ids = self._from_colors(file, pixels) if colored else pixels
        if ids.dtype == bool:
            ids = ids.astype(np.uint8)
        self._check_range(file, ids)
        return torch.from_numpy(ids.astype(np.uint8, copy=False))[None]

    def _from_colors(self, file: Path, pixels: np.ndarray) -> np.ndarray:
        """(H, W, 3) colours to (H, W) ids."""
        assert self.palette is not None
        items = sorted(((red << 16) + (green << 8) + blue, label) for (red, green, blue), label in self.palette.items())
        known = np.array([code for code, _ in items], np.int32)
        codes = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
        at = np.searchsorted(known, codes).clip(max=len(known) - 1)
        unknown = codes[known[at] != codes]
        if unknown.size:
            values, counts = np.unique(unknown, return_counts=True)
            names = [f"{code >> 16},{code >> 8 & 255},{code & 255}" for code in values.tolist()]
            raise UserError(
                f"{file}: colours {_listed(names, counts.tolist())} are not in the palette of {len(known)} colours;"
                " add them to the file of dataset.palette"
            )
        return np.array([label for _, label in items])[at]

    def _check_range(self, file: Path, ids: np.ndarray) -> None:
        values, counts = np.unique(ids, return_counts=True) if ids.itemsize > 1 else _counted(ids)
        wrong = (values < 0) | (values >= self.classes)
        if self.ignore is not None:
            wrong &= values != self.ignore
        if not wrong.any():
            return
        allowed = f"0..{self.classes - 1}" + ("" if self.ignore is None else f" and {self.ignore}")
        cure = self.cure
        if set(values.tolist()) <= {0, 255}:
            cure = f"this is a 0/255 mask: make its ids 0 and 1, or {self.others}"
        found = _listed(values[wrong].tolist(), counts[wrong].tolist())
        raise UserError(f"{file}: label ids {found} are outside {allowed} (dataset.classes={self.classes}); {cure}")


def _counted(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and counts of 8-bit ids, faster than np.unique by far."""
    counts = np.bincount(ids.ravel(), minlength=256)
    values = counts.nonzero()[0]
    return values, counts[values]


def _listed(values: list, counts: list[int]) -> str:
    """`12 (34 px), 13 (1 px) and 3 more`."""
    shown = ", ".join(f"{value} ({count} px)" for value, count in zip(values[:SHOWN], counts, strict=False))
    return shown + (f" and {len(values) - SHOWN} more" if len(values) > SHOWN else "")
