"""One item of a raw tree, checked and brought into the layout: a file appears complete or not at all."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.prepare.plan import REPLACE, Item, Plan
from data.reading import Header, LabelReader, read_header, read_image, read_instance
from data.transforms import resize_ids, resize_image
from errors import UserError

Size = tuple[int, int]
IMAGES = ("target", "A", "B")  # folders of images; input and labels hold label maps


class Part(NamedTuple):
    """One file to make: from where, to where, how to read it back, and how to convert (None: copy the bytes)."""

    source: Path
    made: Path
    read: Callable[[Path], Tensor]
    convert: Callable[[Path, Size], Image.Image | None]


class Writer:
    """Checks and writes one item after another; safe to call from many threads."""

    def __init__(self, out: Path, plan: Plan, size: Size | None) -> None:
        self.out, self.size, self.table = out, size, plan.table
        raw_range = (plan.classes, plan.ignore) if plan.table is None else (len(plan.table), None)
        self.raw_labels = LabelReader(*raw_range, cure=REPLACE)
        self.labels = LabelReader(plan.classes, plan.ignore)

    def __call__(self, item: Item) -> Size:
        """(height, width) of the files written. Raises: UserError naming the bad file and the cure."""
        headers = {side: read_header(file) for side, file in item.files.items()}
        own = next(iter(headers.values())).size
        for side, header in headers.items():
            if header.size != own:
                (height, width), (high, wide) = header.size, own
                raise UserError(f"{item.files[side]}: is {width}x{height}, its label map {wide}x{high}; {REPLACE}")
        size = self.size or own
        parts = [self._part(item, side, header, size) for side, header in headers.items()]
        todo = [part for part in parts if not self._sound(part, size)]
        images = [part.convert(part.source, size) for part in todo]  # all of an item is checked before any is written
        for part, image in zip(todo, images, strict=True):
            part.made.parent.mkdir(parents=True, exist_ok=True)
            hidden = part.made.with_name(f".{part.made.name}.tmp")  # a name that no reader takes for an image
            if image is None:
                shutil.copyfile(part.source, hidden)
            else:
                image.save(hidden, format="PNG")
            hidden.replace(part.made)
        return size

    def _part(self, item: Item, side: str, header: Header, size: Size) -> Part:
        """What is to be done for the file of one folder."""
        file, made = item.files[side], self.out / item.split / side / f"{item.name}.png"
        if side == "instance":
            return Part(file, made, read_instance, self._instance)
        if side not in IMAGES:
            return Part(file, made, self.labels.read, self._label)
        copied = header.mode == "RGB" and size == header.size
        suffix = file.suffix.lower() if copied else ".png"
        return Part(file, made.with_name(f"{made.stem}{suffix}"), read_image, self._image)

    def _sound(self, part: Part, size: Size) -> bool:
        """Whether a file is there already, not older than its source, and reads well at the right size."""
        try:
            newer = part.made.stat().st_mtime >= part.source.stat().st_mtime
            return newer and tuple(part.read(part.made).shape[-2:]) == size
        except (UserError, FileNotFoundError):
            return False

    def _label(self, source: Path, size: Size) -> Image.Image | None:
        """The label map as 8-bit ids; None where the raw file is just that."""
        ids = self.raw_labels.read(source)
        header = read_header(source)
        if self.table is None and header.mode == "L" and header.format == "PNG" and size == header.size:
            return None
        if self.table is not None:
            ids = torch.tensor(self.table, dtype=torch.uint8)[ids.long()]
        return Image.fromarray(resize_ids(ids, size)[0].numpy())

    def _image(self, source: Path, size: Size) -> Image.Image | None:
        """The photo in RGB; None where the raw file will do."""
        pixels = read_image(source)
        if (pixels == pixels[:, :1, :1]).all():
            raise UserError(f"{source}: has one colour all over; {REPLACE}")
        header = read_header(source)
        if header.mode == "RGB" and size == header.size:
            return None
        return Image.fromarray(resize_image(pixels, size).movedim(0, -1).numpy())

    def _instance(self, source: Path, size: Size) -> Image.Image | None:
        """The instance map as 16-bit ids; None where the raw file will do."""
        ids = read_instance(source)
        if size == ids.shape[-2:] and read_header(source).format == "PNG":
            return None
        if ids.min() < 0 or ids.max() > 65535:
            raise UserError(f"{source}: instance ids {ids.min()}..{ids.max()} do not fit into 16 bits; {REPLACE}")
        return Image.fromarray(resize_ids(ids, size)[0].numpy().astype(np.uint16))
