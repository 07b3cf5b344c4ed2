"""Two folders of images that are no pairs, as Examples: what CUT, CycleGAN and F/LSeSim learn from.

    ROOT/{train,val,test}/{A,B}/NAME.*       or ROOT/{trainA,trainB,testA,testB}/NAME.*, as CycleGAN's archives have it
    ROOT/{train,val,test}/labels/NAME.png    where translations of A are scored: the label ids of A's images

Any two folders may take the place of A and B, without labels/ then. `val` may be absent: constructing that split
raises `MissingSplit`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data.example import Channels, Classes, Example, Ids, Sides
from data.files import check_aspect, in_threads, match, read_headers
from data.folders import VERIFY_LIMIT, MissingSplit, extent
from data.labels import PALETTES, score_map
from data.manifest import check_sides
from data.reading import LabelReader, read_image
from data.sides import TwoSides
from data.sources import Sources
from data.store import ImageStore
from errors import UserError
from listing import ImageFiles, find_images, seen

RANGE = "set dataset.classes"  # the cure where an id is out of range


class Unpaired(TwoSides):
    """Sources and targets of one split; see `sides.TwoSides` for what an item is.

    Args:
        split: train, val or test.
        augment: random crops and flips (train); else a resize to `size` alone.
        name: of the data set, for reports. root: the folder that holds the splits.
        size: (height, width) of items. load_size: (height, width) before the random crop, null for no crop.
        flip: whether augmentation mirrors half of the images.
        source, target: names of the folders: A and B, swapped for the other direction, or input and target of pairs.
        source_channels, target_channels: of the images; null takes what the files have.
        colors: the source files are label ids, shown to the network in the colours of this palette (`PALETTES`).
        classes: number of ids, 0..classes-1, of sources with `colors`, or of labels/ (where 255 is unscored), which is
            read where A is the source and nothing is augmented.
        unscored: ids that metrics leave out. scored: instead, the training id of each id, 255 for none.
        cache: as for `folders.Paired`.
    Attributes: those, and score_map (256 training ids), scored_labels (whether items of `sources()` have a label),
        names (of the sources), real_names, labels, ignore, instance.
    Raises: MissingSplit; UserError for anything that names, headers or the manifest tell to be wrong.
    """

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
        source: str = "A",
        target: str = "B",
        source_channels: Channels | None = None,
        target_channels: Channels | None = None,
        colors: str | None = None,
        classes: Classes | None = None,
        unscored: Ids = (),
        scored: Ids | None = None,
        cache: str | Path | None = None,
    ) -> None:
        self.split, self.name, self.root = split, name, Path(root).expanduser()
        self.classes, self.unscored = classes, tuple(unscored or ())
        self.score_map = score_map(classes or 0, list(unscored or ()), None if scored is None else list(scored))
        _check_settings(source, target, source_channels, colors, classes)
        places = self._places({"source": source, "target": target})
        self.files, self.real_files = (find_images(place) for place in places)
        check_sides(self.root, split, {source: list(self.files), target: list(self.real_files)}, classes)

        self.label_files = ImageFiles(self.root, {})
        if colors is not None:
            assert classes is not None
            self.label_reader = LabelReader(classes, cure=RANGE, others="set dataset.colors=null for images")
            self.label_files, self.source_channels = self.files, 3
            self._check_labels()
        else:
            self.source_reader = Sources(False, None, None, None, False, source_channels)
            self.source_reader.check(self.files)
            self.source_channels = self.source_reader.source_channels
            beside = _folder(self.root, split, "labels")
            if classes is not None and beside is not None and source == "A" and not augment:
                others = "set dataset.classes=null to score nothing"
                self.label_reader = LabelReader(classes, ignore=255, cure=RANGE, others=others)
                self.label_files = find_images(beside)
                match({source: self.files, "labels": self.label_files}, self.root / split)
                self._check_labels()
        target_reader = Sources(False, None, None, None, False, target_channels)
        target_reader.check(self.real_files)
        self.target_channels = target_reader.source_channels
        self.keys, self.real_keys = list(self.files), list(self.real_files)  # names in NFC
        super().__init__(
            self.files.own_names(),
            self.real_files.own_names(),
            extent(size, "size"),
            augment,
            load_size=None if load_size is None else extent(load_size, "load_size"),
            flip=flip,
            colors=colors,
            scored_labels=bool(self.label_files),
        )
        if cache is not None and augment:
            read_as = {"colors": True, "classes": classes} if colors is not None else self.source_reader.settings
            self.stores = (
                self._store(cache, source, self.files, read_as, self.read_source),
                self._store(cache, target, self.real_files, target_reader.settings, self.read_real),
            )

    def _store(
        self,
        cache: str | Path,
        side: str,
        files: Mapping[str, Path],
        settings: dict[str, Any],
        read: Callable[[int], Example],
    ) -> ImageStore:
        names = list(files)
        return ImageStore(
            cache,
            f"{self.name}-{self.split}-{side}",
            {"root": str(self.root.resolve()), "side": side, **settings},
            names=names,
            files=partial(_files_of, files, names),
            read=read,
            labels=bool(settings.get("colors")),
        )

    def _places(self, sides: dict[str, str]) -> list[Path]:
        """The folders of both sides; `sides` gives the name of each by its key."""
        wanted = " and ".join(f"{self.split}/{side} or {self.split}{side}" for side in sides.values())
        if not self.root.is_dir():
            raise UserError(
                f"{self.root}: no such folder; set dataset.root or DATA_ROOT, or make it by prepare.py or by unpacking"
                f" an archive: wanted there are {wanted}"
            )
        found = {key: _folder(self.root, self.split, side) for key, side in sides.items()}
        if not (self.root / self.split).is_dir() and not any(found.values()):
            raise MissingSplit(f"{self.root}: holds no {wanted}; {seen(self.root)}")
        places = []
        for key, place in found.items():
            if place is None:
                where = self.root / self.split
                raise UserError(
                    f"{where / sides[key]}: no such folder; {seen(where if where.is_dir() else self.root)}:"
                    f" set dataset.{key}, or make it"
                )
            places.append(place)
        return places

    def _check_labels(self) -> None:
        """Headers of the label files and, where they lie beside their images, that both have one shape."""
        names = list(self.label_files)
        headers = read_headers(self.label_files, names)
        self.label_reader.check_all(self.label_files, headers)
        if self.label_files is self.files:
            return
        for name, own, image in zip(names, headers, read_headers(self.files, names), strict=True):
            if own.size != image.size:
                check_aspect(self.files[name], image.size, self.label_files[name], own.size)

    def read_source(self, index: int, label: bool = False) -> Example:
        """Source `index` at its own size, label ids where there are `colors`; with its label if asked for."""
        name, key = self.names[index], self.keys[index]
        if self.colors is not None:
            ids = self.label_reader.read(self.label_files[key])
            return Example(name=name, source=ids, label=ids) if label else Example(name=name, source=ids)
        example = self.source_reader.read(name, self.files[key], None)
        if label:
            example["label"] = self.label_reader.read(self.label_files[key])
        return example

    def read_real(self, index: int) -> Example:
        """Target `index` at its own size."""
        file = self.real_files[self.real_keys[index]]
        return Example(name=self.real_names[index], target=read_image(file, self.target_channels))

    def content(self) -> Mapping[str, Mapping[str, Path]]:
        """Name -> file of both sides."""
        return {"source": self.files, "target": self.real_files}

    def verify(self, limit: int = VERIFY_LIMIT) -> None:
        """Decodes every file of a side and checks every id, once before training; skips a side of more than `limit`.

        Raises: UserError of the first bad file, sources first, in order of names.
        """
        if len(self.names) <= limit:
            in_threads(self._decode_source, range(len(self.names)))
        if len(self.real_names) <= limit:
            in_threads(self._decode_real, range(len(self.real_names)))

    def _decode_source(self, index: int) -> None:
        self.read_source(index, label=self.scored_labels)

    def _decode_real(self, index: int) -> None:
        self.read_real(index)


def _files_of(files: Mapping[str, Path], names: Sequence[str], index: int) -> list[Path]:
    return [files[names[index]]]


def _folder(root: Path, split: str, side: str) -> Path | None:
    """ROOT/train/A, or ROOT/trainA of CycleGAN's archives; None where neither is there."""
    places = (root / split / side, root / f"{split}{side}")
    return next((place for place in places if place.is_dir()), None)


def _check_settings(
    source: str, target: str, source_channels: int | None, colors: str | None, classes: int | None
) -> None:
    """What can be refused without looking at a file."""
    if source == target:
        raise UserError(f"dataset.target is {target}, and so is dataset.source; name two folders, such as A and B")
    if classes is not None and not 1 <= classes <= 256:
        raise UserError(f"dataset.classes is {classes}; wanted the number of label ids, 1..256, or null")
    if colors is None:
        return
    if colors not in PALETTES:
        raise UserError(f"dataset.colors is '{colors}'; wanted one of {', '.join(PALETTES)}, or null for images")
    if classes is None:
        raise UserError("dataset.classes is null; dataset.colors needs the number of label ids, 1..256")
    if source_channels not in (None, 3):
        raise UserError(f"dataset.source_channels is {source_channels}; with dataset.colors it is 3 or null")
