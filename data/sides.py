"""Two sides that are no pairs: an item is an image of each, chosen and augmented apart from one another.

The data rule of CycleGAN and CUT (Zhu et al. 2017, arXiv:1703.10593; Park et al. 2020, arXiv:2007.15651): an epoch has
as many items as the larger side has images; sources are cycled, targets drawn at random, and each gets a crop and a
flip of its own. Here all of that is a pure function of the item's key.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from data.example import Example, Key, unpack
from data.labels import colorize
from data.store import ImageStore
from data.transforms import Augment, resize, seed_of

CROP_SOURCE, CROP_TARGET, CHOOSE = 1, 2, 3  # last number of a random key: what the random numbers are for


class Side:
    """One side of a data set as items in order: what is translated, or what translations are compared with.

    Args:
        names: of the items. read: gives item `index`, at the data set's size.
        labels: the source is a label map: items repeat it as `label`.
    """

    def __init__(self, names: Sequence[str], read: Callable[[int], Example], labels: bool = False) -> None:
        self.names, self.read, self.labels = list(names), read, labels

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        example = self.read(index)
        return {**example, "label": example["source"]} if self.labels else example


class TwoSides(ABC):
    """What the unpaired data sets share; a subclass reads one image of either side.

    Args:
        names, real_names: of the sources and of the targets.
        size, load_size, flip: as for `transforms.Augment`. augment: random crops and flips (train); else a resize.
        colors: palette name (`labels.colors`): `read_source` gives label ids, which items show as RGB; None: images.
        scored_labels: whether `read_source` can give the `label` of a source.
    """

    labels = instance = aligned = False
    ignore = None
    stores: tuple[ImageStore, ImageStore] | None = None  # of sources and targets, where a subclass keeps them

    def __init__(
        self,
        names: Sequence[str],
        real_names: Sequence[str],
        size: tuple[int, int],
        augment: bool,
        *,
        load_size: tuple[int, int] | None = None,
        flip: bool = True,
        colors: str | None = None,
        scored_labels: bool = False,
    ) -> None:
        self.names, self.real_names, self.size = list(names), list(real_names), size
        self.colors, self.scored_labels = colors, scored_labels
        self.augment = (
            (Augment(size, load_size, flip, colors is not None), Augment(size, load_size, flip)) if augment else None
        )

    @abstractmethod
    def read_source(self, index: int, label: bool = False) -> Example:
        """Source `index` at its own size: name, source and, if asked for, label."""

    @abstractmethod
    def read_real(self, index: int) -> Example:
        """Target `index` at its own size: name, target."""

    def __len__(self) -> int:
        return max(len(self.names), len(self.real_names))

    def __getitem__(self, key: Key) -> Example:
        """Item index, (index, draw) or (index, draw, plain), see `example.unpack`; its name is the source's.

        `draw` also chooses the target. Without augmentation targets are cycled as the sources are.
        """
        index, draw, plain = unpack(key)
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        at, chosen = index % len(self.names), index % len(self.real_names)
        if self.augment is None:
            source, real = self._source(at), self._real(chosen)
        else:
            chosen = seed_of((index, draw, CHOOSE)) % len(self.real_names)
            of_source, of_target = self.augment
            if self.stores is None:
                source, real = self.read_source(at), self.read_real(chosen)
            else:
                source, real = (
                    store.get(item, of_source.resized(plain))
                    for store, item in zip(self.stores, (at, chosen), strict=True)
                )
            source = self._painted(of_source(source, (index, draw, CROP_SOURCE), plain))
            real = of_target(real, (index, draw, CROP_TARGET), plain)
        return Example(name=source["name"], source=source["source"], target=real["target"])

    def sources(self) -> Side:
        """Every source once, at `size` without augmentation: name, source and, where there are labels, label."""
        return Side(self.names, self._source)

    def reals(self) -> Side:
        """Every target once, at `size` without augmentation: name, target."""
        return Side(self.real_names, self._real)

    def _source(self, index: int) -> Example:
        example = self.read_source(index, label=self.scored_labels)
        return self._painted(resize(example, self.size, self.colors is not None))

    def _real(self, index: int) -> Example:
        return resize(self.read_real(index), self.size)

    def _painted(self, example: Example) -> Example:
        """Ids become colours after resizing and cropping, so that no two colours ever blend."""
        return example if self.colors is None else {**example, "source": colorize(example["source"], self.colors)}
