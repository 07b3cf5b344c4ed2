"""Opening data sets of many names: `python -m benchmarks.manifest [rounds=5] [threads=2] [small=1] [only=WORD]`.

What is timed is the constructor: listing the folders, pairing by name, the header of every file; and one item read
afterwards, which must not depend on the number. Files are hard links to a few small images. A million takes minutes:
`python -c "from benchmarks import manifest as m; m.COUNTS = (10**6,); m.main(m.items)" rounds=1`.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.compare import Item, main
from benchmarks.images import ids, noise
from data.folders import Paired
from data.unpaired import Unpaired

COUNTS = (1000, 10_000, 100_000)
LINKS = 50_000  # of one file: file systems allow 65,000
SIDE, CLASSES = 16, 8


def fill(folder: Path, number: int, image: Image.Image) -> None:
    """`number` files in a new folder, which take the place of a few."""
    folder.mkdir(parents=True)
    for index in range(number):
        file = folder / f"{index:07d}.png"
        if index % LINKS == 0:
            image.save(file)
            first = file
        else:
            os.link(first, file)


class Opened:
    """A data set that `open` opens anew, and `read` reads another item of every time."""

    def __init__(self, make: Callable[[], Paired | Unpaired]) -> None:
        self.make, self.numbers = make, count(1)
        self.data: Paired | Unpaired | None = None

    def open(self) -> None:
        self.data = None  # memory is of one at a time
        self.data = self.make()

    def read(self) -> object:
        if self.data is None:
            self.open()
        assert self.data is not None
        return self.data[next(self.numbers) * 7919 % len(self.data), 0]


def items(small: bool) -> Iterator[Item]:
    """Two items a number of names: start and reading."""
    rng = np.random.default_rng(0)
    for number in (10, 100) if small else COUNTS:
        with tempfile.TemporaryDirectory() as place:
            root = Path(place)
            fill(root / "train/input", number, Image.fromarray(ids(SIDE, SIDE, CLASSES, rng)))
            fill(root / "train/target", number, Image.fromarray(noise(SIDE, SIDE, rng)))
            common: dict[str, Any] = {"name": "many", "root": root, "size": (SIDE, SIDE)}
            kinds = {
                "labels and photos": Opened(partial(Paired, "train", True, **common, classes=CLASSES)),
                "unpaired": Opened(partial(Unpaired, "train", True, **common, source="input", target="target")),
            }
            yield Item(
                f"opening {number:,} pairs",
                {name: kind.open for name, kind in kinds.items()},
                rounds=1 if number > 10_000 else 2,
                remark="labels and photos, and the same files as an unpaired data set",
            )
            reading = {name: kind.read for name, kind in kinds.items()}
            yield Item(f"an item of {number:,} pairs", reading, rounds=2, remark=f"{SIDE}x{SIDE}")


if __name__ == "__main__":
    main(items)
