"""Photos and depth as pairs: the target is the depth, in colours (Andonian et al. 2021, CFL, on NYU Depth V2).

ROOT/{train,val,test}/input/NAME.*     photos
ROOT/{train,val,test}/depth/NAME.png   16-bit PNGs of millimetres
"""

from pathlib import Path

from data.depth import FAR, colorize, table
from data.example import Channels, Example, Key, Sides
from data.folders import Paired
from data.reading import read_depth
from errors import UserError


class PairedDepth(Paired):
    """Pairs of photo and coloured depth of one split.

    Depth is resized by nearest neighbour, cropped and flipped with the photo, and coloured then: colours never blend.

    Args:
        split, augment, name, root, size, load_size, flip, channels, cache: as for `folders.Paired`, with photos as
            sources.
        depth: colour map (`depth.COLORMAPS`). far: depth of its last colour, in metres.
    Attributes: those of `folders.Paired`, depth and far. Items also have `depth`, see `example.Example`.
    Raises: as `folders.Paired`.
    """

    target_folder = "depth"

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
        channels: Channels | None = None,
        depth: str = "turbo",
        far: float = FAR,
        cache: str | Path | None = None,
    ) -> None:
        self.depth, self.far = depth, far
        if far <= 0:
            raise UserError(f"dataset.far={far}: must be above 0, the metres of the last colour")
        table(depth)  # refuses an unknown name
        super().__init__(
            split,
            augment,
            name=name,
            root=root,
            size=size,
            load_size=load_size,
            flip=flip,
            labels=False,
            channels=channels,
            cache=cache,
        )

    def read_target(self, example: Example, file: Path) -> None:
        """The depth itself; its colours come last."""
        example["depth"] = read_depth(file)

    def __getitem__(self, key: Key) -> Example:
        """As `folders.Paired`."""
        example = super().__getitem__(key)
        example["target"] = colorize(example["depth"] / 1000, self.depth, self.far)
        return example
