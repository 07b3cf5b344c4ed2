"""GTA5: images/%05d.png, labels/%05d.png with a palette whose indices are Cityscapes' ids, split.mat of frame numbers.

Of the release's own faults there is one each: frame 15188, whose label map has another size, and a black photo.
"""

from pathlib import Path

import numpy as np
from scipy.io import savemat

from data.prepare.synthetic.pixels import photo, regions, save

FRAMES = {"train": [1, 2, 3, 4, 5, 6, 15188], "val": [7, 8, 9], "test": [10, 11, 12, 13]}
BLACK = 9


def write(raw: Path, seed: int = 0) -> None:
    """7 training, 3 validation and 4 test frames of 96x52."""
    random = np.random.default_rng(seed)
    palette = np.random.default_rng(3).integers(0, 256, (256, 3))
    for numbers in FRAMES.values():
        for number in numbers:
            labels = regions(random, 52, 96, range(35))
            picture = photo(random, labels)
            save(raw / "images" / f"{number:05d}.png", np.zeros_like(picture) if number == BLACK else picture)
            save(raw / "labels" / f"{number:05d}.png", labels[:-2] if number == 15188 else labels, palette)
    savemat(raw / "split.mat", {f"{split}Ids": np.array(numbers)[:, None] for split, numbers in FRAMES.items()})
