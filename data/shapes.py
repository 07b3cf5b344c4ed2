"""The embedded default data set: generated scenes, nothing to download, every item a pure function of its index.

Label map to image, with instance map, depth, edges and keypoints of every scene at hand; see data/scenes.py for what
is drawn and why its pixel-wise median is grey.
"""

from collections.abc import Mapping

import torch

from data.example import Example
from data.labels import score_map
from data.scenes import CLASSES, Scene, render
from data.transforms import Augment
from errors import UserError

SPLITS = ("train", "val", "test")


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
    Attributes: name, labels, classes, ignore, unscored, score_map, instance, size, source_channels, target_channels,
        names; as those of `folders.Paired`.
    """

    labels = True
    ignore = None
    target_channels = 3

    def __init__(
        self,
        split: str,
        augment: bool,
        *,
        name: str = "shapes",
        size: tuple[int, int] = (64, 64),
        classes: int = len(CLASSES),
        unscored: tuple[int, ...] = (),
        instance: bool = False,
        flip: bool = True,
        style: str = "a",
        lengths: Mapping[str, int] | None = None,
        seed: int = 0,
    ) -> None:
        lengths = {"train": 2000, "val": 100, "test": 200} if lengths is None else lengths
        if split not in SPLITS or split not in lengths:
            raise UserError(f"shapes: no split '{split}'; it has {', '.join(lengths)}: set dataset.lengths")
        if classes != len(CLASSES):
            raise UserError(f"shapes: dataset.classes is {classes}; the scenes have {len(CLASSES)} classes")
        if style not in ("a", "b"):
            raise UserError(f"shapes: dataset.style is '{style}'; wanted a or b")
        self.split, self.name, self.style, self.seed = split, name, style, int(seed)
        self.size, self.classes, self.instance = (int(size[0]), int(size[1])), classes, instance
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

    def __getitem__(self, key: int | tuple[int, int]) -> Example:
        """Item `index`, or (index, draw), where `draw` numbers the random flip."""
        index, draw = key if isinstance(key, tuple) else (key, 0)
        scene = self.scene(index)
        example = Example(
            name=self.names[index], source=torch.from_numpy(scene.label)[None], target=torch.from_numpy(scene.image)
        )
        if self.instance:
            example["instance"] = torch.from_numpy(scene.instance)[None]
        return example if self.augment is None else self.augment(example, (index, draw))

    def verify(self) -> None:
        """Nothing to check: there are no files."""
