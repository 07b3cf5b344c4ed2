"""ADE20K, scene parsing: images/{training,validation}/ADE_{train,val}_%08d.jpg, annotations/ likewise in PNG.

Id 0 is other, 1..150 the classes. One photo of the release's few grey ones is here too.
"""

from pathlib import Path

import numpy as np

from data.prepare.synthetic.pixels import photo, regions, save

COUNTS = {"training": ("train", 8), "validation": ("val", 4)}


def write(raw: Path, seed: int = 0) -> None:
    """8 training and 4 validation pairs of 80x64, under the folder of the zip."""
    random = np.random.default_rng(seed)
    top = raw / "ADEChallengeData2016"
    for folder, (short, count) in COUNTS.items():
        for number in range(1, count + 1):
            name = f"ADE_{short}_{number:08d}"
            labels = regions(random, 64, 80, range(151))
            picture = photo(random, labels)
            save(top / "annotations" / folder / f"{name}.png", labels)
            save(top / "images" / folder / f"{name}.jpg", picture.mean(-1).astype(np.uint8) if number == 2 else picture)
