"""The embedded default data set: generated scenes, nothing to download, every item a pure function of its index.

Label map to image, with instance map, depth, edges and keypoints of every scene at hand; see data/scenes.py for what
is drawn and why its pixel-wise median is grey.
"""

from pathlib import Path
from typing import Annotated

import torch

from data.example import Example, Ids, Key, Lengths, Sides, unpack
from data.folders import extent
from data.labels import score_map
from data.scenes import CLASSES, Scene, render
from data.sides import Side, TwoSides
from data.transforms import Augment
from errors import UserError

SPLITS = ("train", "val", "test")
LENGTHS = {"train": 2000, "val": 100, "test": 200}
STYLES = ("a", "b")


class Shapes:
    """Pairs of label map and image, drawn when asked for.

    Args:
        split: train, val or test; their scenes are disjoint.
        augment: flip at random (train); the scenes are endless anyway, so there is no crop.
        size: (height, width) in pixels; the same index shows the same scene at any size.
        classes: 8, sky ground hill disc box triangle stripes figure; fixed, and a key so that commands read alike.
        instance: whether items hold the instance map.
        style: "a", shaded and textured, or "b", a drawing of the same scenes.
        lengths: number of items of each split.
        seed: another seed, another data set.
    Attributes: name, labels, classes, ignore, unscored, score_map, scored_labels, instance, size, source_channels,
        target_channels, names; as those of `folders.Paired`.
    """

    labels = scored_labels = aligned = True
    ignore = None
    target_channels = 3

    def __init__(
        self,
        split: str,
        augment: bool,
        *,
        name: str = "shapes",
        size: Sides = (64, 64),
        classes: int = len(CLASSES),
        unscored: Ids = (),
        instance: bool = False,
        flip: bool = True,
        style: str = "a",
        lengths: Lengths | None = None,
        seed: Annotated[int, range(2**62)] = 0,
    ) -> None:
        lengths = LENGTHS if lengths is None else lengths
        if split not in SPLITS or split not in lengths:
            raise UserError(f"shapes: no split '{split}'; it has {', '.join(lengths)}: set dataset.lengths")
        if classes != len(CLASSES):
            raise UserError(f"shapes: dataset.classes is {classes}; the scenes have {len(CLASSES)} classes")
        if style not in STYLES:
            raise UserError(f"shapes: dataset.style is '{style}'; wanted a or b")
        self.split, self.name, self.style, self.seed = split, name, style, int(seed)
        self.size, self.classes, self.instance = extent(size, "size"), classes, instance
        self.unscored = tuple(unscored or ())
        self.score_map = score_map(classes, list(unscored or ()))
        self.source_channels = classes + instance
        self.names = [f"{split}_{index:05d}" for index in range(lengths[split])]
        self.augment = Augment(self.size, flip=flip) if augment else None

    def __len__(self) -> int:
        return len(self.names)

    def scene(self, index: int, style: str | None = None) -> Scene:
        """All of scene `index` as numpy arrays: image, label, instance, depth, edges, keypoints."""
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        return render((self.seed, SPLITS.index(self.split), index), *self.size, style or self.style)

    def __getitem__(self, key: Key) -> Example:
        """Item index, (index, draw) or (index, draw, plain), where `draw` numbers the random flip; `plain` is idle."""
        index, draw, plain = unpack(key)
        scene = self.scene(index)
        example = Example(
            name=self.names[index], source=torch.from_numpy(scene.label)[None], target=torch.from_numpy(scene.image)
        )
        if self.instance:
            example["instance"] = torch.from_numpy(scene.instance)[None]
        return example if self.augment is None else self.augment(example, (index, draw), plain)

    def sources(self) -> Side:
        """The items in order, with `label`; meant for a data set without augmentation."""
        return Side(self.names, self.__getitem__, labels=True)

    def reals(self) -> "Shapes":
        """The items whose targets are the real images: the data set itself."""
        return self

    def content(self) -> dict[str, dict[str, Path]]:
        """No files: the settings alone decide what the scenes are."""
        return {}

    def verify(self) -> None:
        """Nothing to check: there are no files."""


class UnpairedShapes(TwoSides):
    """Images of scenes in one style, and of other scenes in the other: nothing is paired, everything has labels.

    Args:
        split, augment, size, flip, classes, seed: as for `Shapes`. unscored: ids that metrics leave out.
        source, target: styles, "a" shaded and textured, "b" a drawing; swapped for the other direction.
        lengths: number of images of either side, by split.
    Attributes: as those of `unpaired.Unpaired`.
    """

    source_channels = target_channels = 3

    def __init__(
        self,
        split: str,
        augment: bool,
        *,
        name: str = "shapes_unpaired",
        size: Sides = (64, 64),
        classes: int = len(CLASSES),
        unscored: Ids = (),
        flip: bool = True,
        source: str = "a",
        target: str = "b",
        lengths: Lengths | None = None,
        seed: Annotated[int, range(2**62)] = 0,
    ) -> None:
        for key, style in (("source", source), ("target", target)):
            if style not in STYLES:
                raise UserError(f"shapes: dataset.{key} is '{style}'; wanted a or b")
        lengths = LENGTHS if lengths is None else lengths
        twice = {split: 2 * count for split, count in lengths.items()}
        self.shapes = Shapes(
            split, False, name=name, size=size, classes=classes, unscored=unscored, lengths=twice, seed=seed
        )
        self.split, self.name, self.styles = split, name, (source, target)
        self.classes, self.unscored = classes, self.shapes.unscored
        self.score_map = self.shapes.score_map
        names = self.shapes.names
        super().__init__(names[::2], names[1::2], self.shapes.size, augment, flip=flip, scored_labels=True)

    def read_source(self, index: int, label: bool = False) -> Example:
        """The even scenes, as an image of the first style; with the label map if asked for."""
        scene = self.shapes.scene(2 * index, self.styles[0])
        example = Example(name=self.names[index], source=torch.from_numpy(scene.image))
        if label:
            example["label"] = torch.from_numpy(scene.label)[None]
        return example

    def read_real(self, index: int) -> Example:
        """The odd scenes, as an image of the second style."""
        scene = self.shapes.scene(2 * index + 1, self.styles[1])
        return Example(name=self.real_names[index], target=torch.from_numpy(scene.image))

    def content(self) -> dict[str, dict[str, Path]]:
        """No files: the settings alone decide what the scenes are."""
        return {}

    def verify(self) -> None:
        """Nothing to check: there are no files."""
