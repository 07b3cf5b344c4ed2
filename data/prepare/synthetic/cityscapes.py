"""Cityscapes: {gtFine,leftImg8bit}/{split}/{city}/{city}_{seq}_{frame}_*.png; labels of the test split are blank."""

from pathlib import Path

import numpy as np

from data.prepare.synthetic.pixels import photo, regions, save

CITIES = {"train": ("aachen", "ulm"), "val": ("lindau",), "test": ("bonn",)}
FRAMES = 4  # of each city
THINGS = 24  # first id of classes whose objects are told apart


def write(raw: Path, seed: int = 0) -> None:
    """8 training, 4 validation and 4 blank test frames of 128x64."""
    random = np.random.default_rng(seed)
    palette = np.random.default_rng(3).integers(0, 256, (256, 3)).astype(np.uint8)
    for split, cities in CITIES.items():
        for city in cities:
            for number in range(FRAMES):
                name = f"{split}/{city}/{city}_{number:06d}_000019"
                labels = regions(random, 64, 128, range(34))
                save(raw / "leftImg8bit" / f"{name}_leftImg8bit.png", photo(random, labels))
                if split == "test":
                    labels = np.zeros_like(labels)
                ids = labels.astype(np.uint16)
                instances = np.where(ids < THINGS, ids, ids * 1000 + random.integers(0, 3).astype(np.uint16))
                color = np.concatenate([palette[labels], np.full((64, 128, 1), 255, np.uint8)], -1)
                stem = raw / "gtFine" / f"{name}_gtFine"
                save(stem.with_name(f"{stem.name}_labelIds.png"), labels)
                save(stem.with_name(f"{stem.name}_instanceIds.png"), instances)
                save(stem.with_name(f"{stem.name}_color.png"), color)
