"""One item of a raw tree, checked and brought into the layout: a file appears complete or not at all."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.prepare.plan import REPLACE, Drawn, Item, Plan, Size, sources
from data.reading import LabelReader, read_depth, read_image, read_instance
from data.transforms import resize_ids, resize_image
from errors import UserError
from files import atomically
from pixels import Header, read_header

IMAGES = ("target", "A", "B")  # folders of images; input may hold images too
DEEP = {"instance": read_instance, "depth": read_depth}  # folders of 16-bit integers, and how to read them


class OneColour(UserError):
    """A photo that shows nothing."""


class Written(NamedTuple):
    """(height, width) of an item's files, None where they differ, and whether one of its photos was grey."""

    size: Size | None
    grey: bool


class Part(NamedTuple):
    """One file to make: from what, to where, its size, how to read it back, its pixels (None: copy the raw file)."""

    sources: tuple[Path, ...]
    made: Path
    size: Size
    read: Callable[[Path], Tensor]
    convert: Callable[[], Tensor | None]


class Writer:
    """Checks and writes one item after another; safe to call from many threads."""

    def __init__(self, out: Path, plan: Plan, size: Size | None) -> None:
        self.out, self.plan, self.size = out, plan, size
        classes = plan.classes or 1  # no label map is read where there are no classes
        raw_range = (classes, plan.ignore) if plan.table is None else (len(plan.table), None)
        self.raw_labels = LabelReader(*raw_range, cure=REPLACE)
        self.labels = LabelReader(classes, plan.ignore)

    def __call__(self, item: Item) -> Written:
        """Writes what is not there yet. Raises: UserError naming the bad file and the cure."""
        headers = {side: read_header(file) for side, file in item.files.items() if isinstance(file, Path)}
        own = self._own_size(item, headers)
        parts = [self._part(item, side, headers.get(side), own) for side in item.files]
        todo = [part for part in parts if not self._sound(part)]
        images = [part.convert() for part in todo]  # all of an item is checked before any is written
        for part, image in zip(todo, images, strict=True):
            part.made.parent.mkdir(parents=True, exist_ok=True)
            # under a name of its own: another prepare.py may write the same file
            with atomically(part.made, durable=False) as file:
                if image is None:
                    with part.sources[0].open("rb") as source:
                        shutil.copyfileobj(source, file)
                else:
                    _save(image, file, part.made.suffix)
        sizes = {part.size for part in parts}
        size = sizes.pop() if len(sizes) == 1 else None
        return Written(size, any(headers[side].mode in ("L", "LA", "1") for side in IMAGES if side in headers))

    def _own_size(self, item: Item, headers: dict[str, Header]) -> Size:
        """The size that the files of an item share. Raises: UserError where they do not."""
        sizes = {side: headers[side].size if isinstance(file, Path) else file.size for side, file in item.files.items()}
        known = {side: size for side, size in sizes.items() if size is not None and not _is_loose(item.files[side])}
        if not known and self.size is not None:  # all of it is drawn, at any size
            return self.size
        first, own = next(iter(known.items()))
        (high, wide), kind = own, "label map" if self._holds_labels(first) else "photo"
        for side, (height, width) in known.items():
            file = sources(item.files[side])[0]
            if (height, width) != own:
                raise UserError(f"{file}: is {width}x{height}, its {kind} {wide}x{high}; {REPLACE}")
            if side in IMAGES and self.plan.photo_size not in (None, (height, width)):
                high, wide = self.plan.photo_size or own
                raise UserError(f"{file}: is {width}x{height}, the official release has {wide}x{high}; {REPLACE}")
        return own

    def _holds_labels(self, side: str) -> bool:
        return side == "labels" or (side == "input" and self.plan.classes is not None)

    def _part(self, item: Item, side: str, header: Header | None, own: Size) -> Part:
        """What is to be done for the file of one folder; `own` is the size that the item's files share."""
        file, suffix = item.files[side], ".png"
        size = self.size or own
        if self.size is None and isinstance(file, Drawn) and file.loose:
            size = file.size or own
        channels = 3 if side in IMAGES else self.plan.channels
        read: Callable[[Path], Tensor] = partial(read_image, channels=channels)
        if side in DEEP:
            read = DEEP[side]
        elif self._holds_labels(side):
            read = self.labels.read
        elif channels not in (1, 3):
            suffix = ".npy"
        folder = self.out / item.split / side
        if isinstance(file, Drawn):
            made = folder / f"{item.name}{suffix}"
            return Part(file.sources, made, size, read, partial(self._drawn, file, side, size))
        assert header is not None
        convert: Callable[[Path, Header, Size], Tensor | None] = self._image
        if side in DEEP:
            convert = self._instance
        elif self._holds_labels(side):
            convert = self._label
        elif header.mode == "RGB" and size == header.size:
            suffix = file.suffix.lower()
        return Part((file,), folder / f"{item.name}{suffix}", size, read, partial(convert, file, header, size))

    def _sound(self, part: Part) -> bool:
        """Whether a file is there already, not older than its sources, and reads well at the right size."""
        try:
            newer = part.made.stat().st_mtime >= max(source.stat().st_mtime for source in part.sources)
            return newer and tuple(part.read(part.made).shape[-2:]) == part.size
        except (UserError, FileNotFoundError):
            return False

    def _drawn(self, drawn: Drawn, side: str, size: Size) -> Tensor:
        """What is computed, checked as files are."""
        pixels = drawn.draw(size)
        if tuple(pixels.shape[-2:]) != size:
            raise ValueError(f"{drawn.sources[0]}: {side} was drawn at {tuple(pixels.shape)}, not at {size}")
        if side in IMAGES or (side == "input" and self.plan.classes is None and len(pixels) == 3):
            _refuse_one_colour(drawn.sources[0], pixels)
        return pixels if side not in DEEP else _sixteen_bits(drawn.sources[0], pixels)

    def _label(self, source: Path, header: Header, size: Size) -> Tensor | None:
        """The label map as 8-bit ids; None where the raw file is just that."""
        ids = self.raw_labels.read(source)
        if self.plan.table is None and header.mode == "L" and header.format == "PNG" and size == header.size:
            return None
        if self.plan.table is not None:
            ids = torch.tensor(self.plan.table, dtype=torch.uint8)[ids.long()]
        return resize_ids(ids, size)

    def _image(self, source: Path, header: Header, size: Size) -> Tensor | None:
        """The photo in RGB; None where the raw file will do."""
        pixels = read_image(source)
        _refuse_one_colour(source, pixels)
        if header.mode == "RGB" and size == header.size:
            return None
        return resize_image(pixels, size)

    def _instance(self, source: Path, header: Header, size: Size) -> Tensor | None:
        """The instance map as 16-bit ids; None where the raw file will do."""
        ids = read_instance(source)
        if size == ids.shape[-2:] and header.format == "PNG":
            return None
        return _sixteen_bits(source, resize_ids(ids, size))


def _is_loose(file: Path | Drawn) -> bool:
    return isinstance(file, Drawn) and file.loose


def _refuse_one_colour(source: Path, pixels: Tensor) -> None:
    if (pixels == pixels[:, :1, :1]).all():
        raise OneColour(f"{source}: has one colour all over; {REPLACE}")


def _sixteen_bits(source: Path, values: Tensor) -> Tensor:
    """int32 values that fit into a 16-bit PNG. Raises: UserError for others."""
    if values.min() < 0 or values.max() > 65535:
        raise UserError(f"{source}: values {values.min()}..{values.max()} do not fit into 16 bits; {REPLACE}")
    return values.to(torch.int32)


def _save(pixels: Tensor, file: IO[bytes], suffix: str) -> None:
    """(C, H, W) to a PNG of 8 bits, or 16 of int32, or to an array of (H, W, C)."""
    array = pixels.movedim(0, -1).contiguous().numpy()
    if suffix == ".npy":
        np.save(file, array)
        return
    array = array[..., 0] if array.shape[2] == 1 else array
    Image.fromarray(array.astype(np.uint16) if array.dtype == np.int32 else array).save(file, format="PNG")
