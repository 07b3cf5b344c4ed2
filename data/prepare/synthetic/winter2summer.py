"""summer2winter_yosemite: trainA trainB testA testB of 256x256 JPEGs, named by the date of the photo, with a blank."""

from pathlib import Path

import numpy as np

from data.prepare.synthetic.pixels import photo, regions, save

COUNTS = {"trainA": 6, "trainB": 5, "testA": 4, "testB": 3}


def write(raw: Path, seed: int = 0) -> None:
    """11 training and 7 test images, summer in A and winter in B."""
    random = np.random.default_rng(seed)
    for month, (folder, count) in enumerate(COUNTS.items(), 1):
        for day in range(1, count + 1):
            picture = photo(random, regions(random, 256, 256, range(20)))
            save(raw / folder / f"2011-{month:02d}-{day:02d} 12_30_{day:02d}.jpg", picture)
