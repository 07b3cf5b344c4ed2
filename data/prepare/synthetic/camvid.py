"""CamVid as distributed with SegNet, folders as {train,val}/{images,labels}: 12 ids, names open with the recording."""

from pathlib import Path

import numpy as np

from data.prepare.synthetic.pixels import photo, regions, save

FRAMES = {"train": {"0001TP_{:06d}": 24, "0006R0_f{:05d}": 4, "0016E5_{:05d}": 8}, "val": {"0016E5_08{:03d}": 4}}


def write(raw: Path, seed: int = 0) -> None:
    """36 training and 4 validation pairs of 64x48."""
    random = np.random.default_rng(seed)
    for split, recordings in FRAMES.items():
        for name, count in recordings.items():
            for number in range(count):
                labels = regions(random, 48, 64, range(12))
                save(raw / split / "labels" / f"{name.format(number)}.png", labels)
                save(raw / split / "images" / f"{name.format(number)}.png", photo(random, labels))
