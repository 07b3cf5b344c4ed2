"""Folders of images as Examples: pairs matched by relative stem, checked before training begins.

    ROOT/{train,val,test}/input/NAME.*     label ids as 8-bit PNGs, coloured labels with a palette file, or images
    ROOT/{train,val,test}/target/NAME.*    images
    ROOT/{train,val,test}/instance/NAME.png    where instance=true: 8- or 16-bit PNGs of instance ids

NAME may contain folders. `val` may be absent: constructing that split raises MissingSplit, which callers may catch.
Names, headers and partners are checked by the constructors; pixels by `verify` and whenever an item is read.
"""

import glob
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from data.example import Example
from data.labels import read_palette, score_map
from data.manifest import check_manifest
from data.reading import SUFFIXES, Header, LabelReader, read_header, read_image, read_instance
from data.transforms import Augment, resize
from errors import UserError

VERIFY_LIMIT = 2000  # items up to which `verify` decodes all
SPLITS = ("train", "val", "test")
T = TypeVar("T")


class MissingSplit(UserError):
    """The root folder exists, this split of it does not."""


def find_images(folder: Path) -> dict[str, Path]:
    """Relative stem -> file of every image under `folder`, sorted by name; links are followed, hidden files left out.

    Raises: UserError for a missing or empty folder, and where two files differ by suffix only.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {_seen(folder.parent)}")
    found: dict[str, Path] = {}
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in sorted(Path(place) / name for name in files if not name.startswith(".")):
            if file.suffix.lower() in SUFFIXES:
                key = file.relative_to(folder).with_suffix("").as_posix()
                if key in found:
                    raise UserError(f"{file}: has the same name as {found[key].name}; remove one of them")
                found[key] = file
    if not found:
        raise UserError(f"{folder}: holds no images; wanted files of {', '.join(sorted(SUFFIXES))}")
    return dict(sorted(found.items()))


def match(sides: dict[str, dict[str, Path]], place: Path) -> list[str]:
    """The names that all sides share. Raises: UserError listing the first names without a partner, side by side."""
    (first, files), *others = sides.items()
    for other, partners in others:
        alone, lost = sorted(files.keys() - partners.keys()), sorted(partners.keys() - files.keys())
        if alone or lost:
            raise UserError(
                f"{place}: {len(alone)} in {first} without {other} ({_first(alone)}), {len(lost)} in {other} without"
                f" {first} ({_first(lost)}); pairs have the same name, apart from the suffix"
            )
    return list(files)


class Sources:
    """How sources are read, the same in training and in use: label ids, or images of a fixed number of channels."""

    def __init__(
        self,
        labels: bool,
        classes: int | None,
        ignore: int | None,
        palette: str | Path | None,
        instance: bool,
        channels: int | None,
    ) -> None:
        self.labels, self.classes, self.ignore, self.instance = labels, classes, ignore, instance
        self.channels = channels
        if not labels:
            if instance:
                raise UserError("dataset.instance adds edges to label maps; set dataset.labels=true or instance=false")
            self.classes = self.ignore = None
        elif classes is None or not 1 <= classes <= 256:
            raise UserError(f"dataset.classes is {classes}; wanted the number of label ids, 1..256, one above the largest")
        else:
            table = None if palette is None else read_palette(palette)
            self.reader = LabelReader(classes, ignore, table)

    def check(self, files: Iterable[Path]) -> list[Header]:
        """Headers of the source files; settles `channels` of images: 1 where all are grey, else 3, or an array's own."""
        files = list(files)
        headers = in_threads(read_header, files)
        for file, header in zip(files, headers, strict=True):
            if self.labels:
                self.reader.check(file, header)
            elif (header.format == "NPY") != (headers[0].format == "NPY") or (
                header.format == "NPY" and header.channels != (self.channels or headers[0].channels)
            ):
                wanted = f"{self.channels or headers[0].channels} channels, {headers[0].format} as {files[0].name}"
                raise UserError(f"{file}: {header.format} of {header.channels} channels; wanted {wanted}")
        if not self.labels and self.channels is None:
            self.channels = max(header.channels for header in headers)
        return headers

    @property
    def source_channels(self) -> int:
        """Channels of the dense map: classes, one for unknown, one for edges; or the image's."""
        if not self.labels:
            assert self.channels is not None
            return self.channels
        assert self.classes is not None
        return self.classes + (self.ignore is not None) + self.instance

    def read(self, name: str, source: Path, instance: Path | None) -> Example:
        """The Example of one source at its own size, without target."""
        pixels: Tensor = self.reader.read(source) if self.labels else read_image(source, self.channels or 3)
        example = Example(name=name, source=pixels)
        if instance is not None:
            example["instance"] = read_instance(instance)
        return example


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
        palette: file of the colours of RGB labels (`labels.read_palette`).
        unscored: ids that metrics leave out. scored: instead, the training id of each id, 255 for none.
        instance: read instance/ as well. channels: of image sources; null takes what the files have.
    Attributes: those, and score_map (256 training ids), source_channels, target_channels, names.
    Raises: MissingSplit; UserError for anything that names, headers or the manifest tell to be wrong.
    """

    target_channels = 3

    def __init__(
        self,
        split: str,
        augment: bool,
        *,
        name: str,
        root: str | Path,
        size: Sequence[int] = (256, 256),
        load_size: Sequence[int] | None = None,
        flip: bool = True,
        labels: bool = True,
        classes: int | None = None,
        ignore: int | None = None,
        palette: str | Path | None = None,
        unscored: Sequence[int] = (),
        scored: Sequence[int] | None = None,
        instance: bool = False,
        channels: int | None = None,
    ) -> None:
        self.split, self.name, self.root = split, name, Path(root)
        self.sources = Sources(labels, classes, ignore, palette, instance, channels)
        self.labels, self.instance = labels, instance
        self.classes, self.ignore, self.unscored = self.sources.classes, self.sources.ignore, tuple(unscored)
        self.score_map = score_map(self.classes or 0, list(unscored), None if scored is None else list(scored))
        self.size = _pair(size, "size")
        load = None if load_size is None else _pair(load_size, "load_size")
        self.augment = Augment(self.size, load, flip, labels) if augment else None

        place = self._place()
        sides = ["input", "target"] + ["instance"] * instance
        files = {side: find_images(place / side) for side in sides}
        self.names = match(files, place)
        self.files = [tuple(files[side][name] for side in sides) for name in self.names]
        check_manifest(self.root, split, self.names, self.classes, self.ignore)
        headers = self.sources.check(files["input"].values())
        for side in sides[1:]:
            for own, partner, file in zip(headers, in_threads(read_header, files[side].values()), self.files, strict=True):
                _check_aspect(file[0], own.size, file[sides.index(side)], partner.size)
        self.source_channels = self.sources.source_channels

    def _place(self) -> Path:
        """The folder of the split."""
        if not self.root.is_dir():
            raise UserError(
                f"{self.root}: no such folder; set dataset.root or DATA_ROOT, or make it: python prepare.py"
                f" dataset={self.name} raw=FOLDER out={self.root}"
            )
        place = self.root / self.split
        if not place.is_dir():
            raise MissingSplit(f"{place}: no such folder; {_seen(self.root)}")
        return place

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Example:
        """Item `index` as it lies on disk, at its own size."""
        source, target, *instance = self.files[index]
        example = self.sources.read(self.names[index], source, instance[0] if instance else None)
        example["target"] = read_image(target)
        return example

    def __getitem__(self, key: int | tuple[int, int]) -> Example:
        """Item `index`, or (index, draw), where `draw` numbers the random crop and flip."""
        index, draw = (key, 0) if isinstance(key, int) else key
        example = self.read(index)
        if self.augment is None:
            return resize(example, self.size, self.labels)
        return self.augment(example, (index, draw))

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
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        labels: bool = True,
        classes: int | None = None,
        ignore: int | None = None,
        palette: str | Path | None = None,
        instance: bool = False,
        channels: int | None = None,
    ) -> None:
        self.sources = Sources(labels, classes, ignore, palette, instance, channels)
        base, files = _inputs(Path(folder))
        self.names = list(files)
        self.files: list[tuple[Path, Path | None]] = [(file, None) for file in files.values()]
        if instance:
            beside = base.parent / "instance"
            if base.name != "input" or not beside.is_dir():
                raise UserError(f"{folder}: this network reads instance maps too; wanted FOLDER/input and FOLDER/instance")
            partners = {key: file for key, file in find_images(beside).items() if key in files}
            match({"input": files, "instance": partners}, base.parent)
            self.files = [(files[name], partners[name]) for name in self.names]
        self.sources.check(files.values())
        self.labels, self.instance = labels, instance
        self.classes, self.ignore = self.sources.classes, self.sources.ignore
        self.source_channels = self.sources.source_channels

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        return self.sources.read(self.names[index], *self.files[index])


def _inputs(path: Path) -> tuple[Path, dict[str, Path]]:
    """The folder that names are relative to, and name -> file, for a folder, a file or a pattern."""
    if path.is_dir():
        base = path / "input" if (path / "input").is_dir() else path
        return base, find_images(base)
    if path.is_file():
        return path.parent, {path.stem: path}
    files = sorted(Path(file) for file in glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute patterns too
    files = [file for file in files if file.is_file() and file.suffix.lower() in SUFFIXES]
    if not files:
        raise UserError(f"{path}: no such folder, file or pattern; set input")
    base = Path(os.path.commonpath([file.parent for file in files]))
    return base, {file.relative_to(base).with_suffix("").as_posix(): file for file in files}


def in_threads(work: Callable[..., T], items: Iterable) -> list[T]:
    """`work` of every item, in order; the first error in that order is raised. Pillow decodes outside the GIL."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(work, items))


def _pair(size: Sequence[int], key: str) -> tuple[int, int]:
    if isinstance(size, int) or len(size) != 2:
        raise UserError(f"dataset.{key} is {size}; wanted [height,width]")
    return int(size[0]), int(size[1])


def _check_aspect(source: Path, own: tuple[int, int], partner: Path, other: tuple[int, int]) -> None:
    """Partners may differ in size, not in shape beyond the rounding of one pixel."""
    (height, width), (high, wide) = own, other
    if abs(wide - width * high / height) > 1 and abs(high - height * wide / width) > 1:
        raise UserError(
            f"{partner}: is {wide}x{high}, but {source.parent.name}/{source.name} is {width}x{height}; partners have"
            " the same ratio of width to height: crop one of them"
        )


def _first(names: list[str]) -> str:
    return (", ".join(names[:10]) + (", ..." if len(names) > 10 else "")) or "none"


def _seen(folder: Path) -> str:
    """What lies in a folder, for errors about what does not."""
    if not folder.is_dir():
        return f"{folder} does not exist either"
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return f"{folder} has the folders {', '.join(names[:10]) or 'none'}"
