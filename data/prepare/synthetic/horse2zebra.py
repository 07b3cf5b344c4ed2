"""horse2zebra: trainA trainB testA testB of 256x256 JPEGs, named as in ImageNet."""

from pathlib import Path

import numpy as np

from data.prepare.synthetic.pixels import photo, regions, save

COUNTS = {"trainA": 6, "trainB": 7, "testA": 3, "testB": 4}
SYNSETS = {"A": "n02381460", "B": "n02391049"}


def write(raw: Path, seed: int = 0) -> None:
    """13 training and 7 test images; one of the horses is grey."""
    random = np.random.default_rng(seed)
    for at, (folder, count) in enumerate(COUNTS.items()):
        for number in range(count):
            picture = photo(random, regions(random, 256, 256, range(20)))
            if (folder, number) == ("trainA", 1):
                picture = picture.mean(-1).astype(np.uint8)
            save(raw / folder / f"{SYNSETS[folder[-1]]}_{1000 * at + number}.jpg", picture)
