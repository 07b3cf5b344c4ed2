"""Folders of images as Examples: pairs matched by relative stem, checked before training begins.

    ROOT/{train,val,test}/input/NAME.*     label ids as 8-bit PNGs, coloured labels with a palette file, or images
    ROOT/{train,val,test}/target/NAME.*    images
    ROOT/{train,val,test}/instance/NAME.png    where instance=true: 8- or 16-bit PNGs of instance ids

NAME may contain folders. `val` may be absent: constructing that split raises MissingSplit, which callers may catch.
Names, headers and partners are checked by the constructors; pixels by `verify` and whenever an item is read.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from data.example import PIXELS, Channels, Classes, Example, Ids, Key, Sides, unpack
from data.files import check_aspect, find_inputs, in_threads, match, read_headers
from data.labels import Palette, score_map
from data.manifest import check_manifest
from data.reading import check_images, read_image
from data.sides import Side
from data.sources import Sources
from data.store import ImageStore
from data.transforms import Augment, resize
from errors import UserError
from listing import find_images, seen

VERIFY_LIMIT = 2000  # items up to which `verify` decodes all
SPLITS = ("train", "val", "test")


class MissingSplit(UserError):
    """The root folder exists, this split of it does not."""


class Paired:
    """Pairs of source and target image of one split.

    Args:
        split: train, val or test.
        augment: random crop and flip (train); else a resize to `size` alone.
        name: of the data set, for reports and colours. root: the folder that holds the splits.
        size: (height, width) of items. load_size: (height, width) before the random crop, null for no crop.
        flip: whether augmentation mirrors half of the items.
        labels: true reads sources as label ids, false as images.
        classes: number of label ids, 0..classes-1. ignore: the id of unknown pixels, which become an extra class.
        palette: colours of RGB labels, a file of them or a list (`labels.read_palette`).
        unscored: ids that metrics leave out. scored: instead, the training id of each id, 255 for none.
        instance: read instance/ as well. channels: of image sources; null takes what the files have.
        cache: folder that keeps resized images for later epochs and runs (`store.ImageStore`), where `augment` is set;
            null keeps none. Items are the same with it.
    Attributes: those, and score_map (256 training ids), scored_labels, source_channels, target_channels, names.
    Raises: MissingSplit; UserError for anything that names, headers or the manifest tell to be wrong.
    """

    target_channels = 3
    target_folder = "target"  # of a split; PairedDepth reads another
    aligned = True  # source and target of an item show the same scene

    def __init__(
        self,
        split: str,
        augment: bool,
        *,
        name: str,
        root: str | Path,
        size: Sides = (256, 256),
        load_size: Sides | None = None,
        flip: bool = True,
        labels: bool = True,
        classes: Classes | None = None,
        ignore: Annotated[int, range(256)] | None = None,
        palette: Palette | None = None,
        unscored: Ids = (),
        scored: Ids | None = None,
        instance: bool = False,
        channels: Channels | None = None,
        cache: str | Path | None = None,
    ) -> None:
        self.split, self.name, self.root = split, name, Path(root).expanduser()
        self.reader = Sources(labels, classes, ignore, palette, instance, channels)
        self.labels, self.scored_labels, self.instance = labels, labels, instance
        self.classes, self.ignore, self.unscored = self.reader.classes, self.reader.ignore, tuple(unscored or ())
        self.score_map = score_map(self.classes or 0, list(unscored or ()), None if scored is None else list(scored))
        self.size = extent(size, "size")
        load = None if load_size is None else extent(load_size, "load_size")
        self.augment = Augment(self.size, load, flip, labels) if augment else None

        place = self._place()
        sides = ["input", self.target_folder] + ["instance"] * instance
        self.files = files = {side: find_images(place / side) for side in sides}
        self.keys = match(files, place)  # names in NFC
        check_manifest(self.root, split, self.keys, self.classes, self.ignore)
        self.names = files["input"].own_names()
        headers = self.reader.check(files["input"])
        for side in sides[1:]:
            others = read_headers(files[side], self.keys)
            if side == "target":
                check_images(files[side], others)
            for name, own, other in zip(self.keys, headers, others, strict=True):
                if own.size != other.size:
                    check_aspect(files["input"][name], own.size, files[side][name], other.size)
        self.source_channels = self.reader.source_channels
        self.store = self._store(cache) if cache is not None and augment else None

    def _store(self, cache: str | Path) -> ImageStore:
        return ImageStore(
            cache,
            f"{self.name}-{self.split}",
            {"root": str(self.root.resolve()), "sides": list(self.files), **self.reader.settings},
            names=self.names,
            files=self._files_of,
            read=self.read,
            labels=self.labels,
        )

    def _files_of(self, index: int) -> list[Path]:
        return [files[self.keys[index]] for files in self.files.values()]

    def _place(self) -> Path:
        """The folder of the split."""
        if not self.root.is_dir():
            raise UserError(
                f"{self.root}: no such folder; set dataset.root or DATA_ROOT, or make it: python prepare.py"
                f" dataset={self.name} raw=FOLDER out={self.root}"
            )
        place = self.root / self.split
        if not place.is_dir():
            raise MissingSplit(f"{place}: no such folder; {seen(self.root)}")
        return place

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Example:
        """Item `index` as it lies on disk, at its own size."""
        source, target, *instance = self._files_of(index)
        example = self.reader.read(self.names[index], source, instance[0] if instance else None)
        self.read_target(example, target)
        return example

    def read_target(self, example: Example, file: Path) -> None:
        """Puts the image of one target file into `example`."""
        example["target"] = read_image(file)

    def __getitem__(self, key: Key) -> Example:
        """Item index, (index, draw) or (index, draw, plain): see `example.unpack`."""
        index, draw, plain = unpack(key)
        if self.augment is None:
            return resize(self.read(index), self.size, self.labels)
        example = self.read(index) if self.store is None else self.store.get(index, self.augment.resized(plain))
        return self.augment(example, (index, draw), plain)

    def sources(self) -> Side:
        """The items in order, with `label` where the sources are labels; meant for a data set without augmentation."""
        return Side(self.names, self.__getitem__, self.labels)

    def reals(self) -> "Paired":
        """The items whose targets are the real images: the data set itself."""
        return self

    def content(self) -> Mapping[str, Mapping[str, Path]]:
        """Name -> file, by folder: all that the items are read from."""
        return self.files

    def verify(self, limit: int = VERIFY_LIMIT) -> None:
        """Decodes every file and checks every id, once before training; nothing for more than `limit` items.

        Raises: UserError of the first bad file in order of names.
        """
        if len(self) <= limit:
            in_threads(self._decode, range(len(self)))

    def _decode(self, index: int) -> None:
        self.read(index)


class Inputs:
    """Sources alone, at their own size: what test.py reads.

    Args:
        folder: a folder of sources, or of input/ and instance/; a file; or a pattern such as "photos/*.png".
        labels, classes, ignore, palette, instance, channels: as for `Paired`.
    Attributes: files, and sizes, (height, width) of the sources, in order.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        labels: bool = True,
        classes: int | None = None,
        ignore: int | None = None,
        palette: Palette | None = None,
        instance: bool = False,
        channels: int | None = None,
    ) -> None:
        self.reader = Sources(labels, classes, ignore, palette, instance, channels)
        base, files = find_inputs(Path(folder).expanduser())
        self.names = files.own_names()
        self.files: list[tuple[Path, Path | None]] = [(file, None) for file in files.values()]
        if instance:
            beside = base.parent / "instance"
            if base.name != "input" or not beside.is_dir():
                raise UserError(f"{folder}: the network reads instance maps; wanted FOLDER/input and FOLDER/instance")
            partners = {key: file for key, file in find_images(beside).items() if key in files}
            match({"input": files, "instance": partners}, base.parent)
            self.files = [(files[name], partners[name]) for name in files]
        self.sizes = [header.size for header in self.reader.check(files)]
        self.labels, self.instance = labels, instance
        self.classes, self.ignore = self.reader.classes, self.reader.ignore
        self.source_channels = self.reader.source_channels

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        return self.reader.read(self.names[index], *self.files[index])


def extent(size: Sequence[int], key: str) -> tuple[int, int]:
    """(height, width) of the setting dataset.`key`. Raises: UserError for anything but two numbers."""
    if isinstance(size, int) or len(size) != 2:
        raise UserError(f"dataset.{key} is {size}; wanted [height,width]")
    if size[0] * size[1] > PIXELS:
        raise UserError(f"dataset.{key}={list(size)}: is {size[0] * size[1]:,} pixels an item; at most {PIXELS:,} fit")
    return int(size[0]), int(size[1])
