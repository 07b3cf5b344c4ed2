"""NYU Depth V2: nyu_depth_v2_labeled.mat, an HDF5 file whose arrays have width before height, and splits.mat.

images (N, 3, W, H) uint8; depths and rawDepths (N, W, H) float32 metres; trainNdxs and testNdxs count from 1.
"""

from pathlib import Path

import numpy as np
from scipy.io import savemat

from data.prepare.synthetic.pixels import photo, regions
from errors import UserError

COUNT, HEIGHT, WIDTH = 15, 48, 64


def write(raw: Path, seed: int = 0) -> None:
    """15 pairs of 64x48. Raises: UserError where h5py is not installed."""
    try:
        import h5py
    except ImportError as error:
        raise UserError("nyu_depth is written with h5py: pip install -r requirements-data.txt") from error
    random = np.random.default_rng(seed)
    raw.mkdir(parents=True, exist_ok=True)
    images = np.empty((COUNT, 3, WIDTH, HEIGHT), np.uint8)
    depths = np.empty((COUNT, WIDTH, HEIGHT), np.float32)
    for index in range(COUNT):
        labels = regions(random, HEIGHT, WIDTH, range(40))
        floor = np.linspace(0.2, -0.2, HEIGHT)[:, None]
        images[index] = photo(random, labels).transpose(2, 1, 0)
        depths[index] = (0.9 + labels / 39 * 8 + floor).T
    missing = random.random(depths.shape) < 0.1
    with h5py.File(raw / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as file:
        file["images"], file["depths"], file["rawDepths"] = images, depths, np.where(missing, 0, depths)
    order = np.arange(1, COUNT + 1)[:, None]
    savemat(raw / "splits.mat", {"trainNdxs": order[::2], "testNdxs": order[1::2]})
