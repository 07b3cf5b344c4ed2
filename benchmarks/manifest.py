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


def one_more(data: Paired | Unpaired) -> Callable[[], object]:
    """A function that reads another item every time."""
    numbers = count(1)
    return lambda: data[next(numbers) * 7919 % len(data), 0]


def items(small: bool) -> Iterator[Item]:
    """Two items a number of names: start and reading."""
    rng = np.random.default_rng(0)
    for number in (10, 100) if small else COUNTS:
        with tempfile.TemporaryDirectory() as place:
            root = Path(place)
            fill(root / "train/input", number, Image.fromarray(ids(SIDE, SIDE, CLASSES, rng)))
            fill(root / "train/target", number, Image.fromarray(noise(SIDE, SIDE, rng)))
            common = {"name": "many", "root": root, "size": (SIDE, SIDE)}
            pairs = partial(Paired, "train", True, **common, classes=CLASSES)
            sides = partial(Unpaired, "train", True, **common, source="input", target="target")
            yield Item(
                f"opening {number:,} pairs",
                {"labels and photos": pairs, "unpaired": sides},
                rounds=1 if number > 10_000 else 2,
                remark="labels and photos, and the same files as an unpaired data set",
            )
            readers = {"labels and photos": one_more(pairs()), "unpaired": one_more(sides())}
            yield Item(f"an item of {number:,} pairs", readers, rounds=2, remark=f"{SIDE}x{SIDE}")


if __name__ == "__main__":
    main(items)
