"""NYU Depth V2 (Silberman et al. 2012), the 1,449 labelled pairs: photo to depth, 640x480, by Kinect, in-painted.

depth/ gets 16-bit PNGs of millimetres, which are coloured when they are read (data/depth.py). split=random, the
default, draws CFL's 80 and 20 percent, 1,159 and 290 pairs, once and for all: the paper does not say which;
split=official is that of splits.mat, 795 and 654. There is no `val`. The white frame of the photos stays.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.files import first_names
from data.prepare.lists import read_lists
from data.prepare.plan import REPLACE, Download, Drawn, Item, Plan, Size, drawn_apart
from data.transforms import resize_ids, resize_image
from errors import UserError
from records import one_line

FILE = "nyu_depth_v2_labeled.mat"
DOWNLOAD = Download(
    f"{FILE} from cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html (no registration); for split=official also splits.mat"
    " from there; raw= is the folder of both; pip install -r requirements-data.txt",
    "2.8 GB",
    "none stated; cite Silberman et al. 2012, research use",
)
COUNT = 1449
BROKEN = (OSError, KeyError, RuntimeError, TypeError, ValueError, MemoryError)  # what h5py raises of damaged files
NEAR, FAR = 0.5, 10.0  # metres between which all depths of the release lie


def find(raw: Path, allow_partial: bool = False, split: str = "random") -> Plan:
    """The pairs of a raw NYU folder. Raises: UserError naming the file and what it lacks."""
    if split not in ("random", "official"):
        raise UserError(f"split={split}: nyu_depth has random and official")
    file = raw / FILE
    if not file.is_file():
        raise UserError(f"{raw}: lacks {FILE}; raw= wants the folder that holds it")
    images, depths, size = _shapes(file)
    if images != depths and not allow_partial:
        raise UserError(f"{file}: {images} images and {depths} depth maps; {REPLACE}, or set allow_partial=true")
    names = [_name(index) for index in range(min(images, depths))]
    lost = [
        (_name(i), "no depth map" if depths < images else "no image") for i in range(len(names), max(images, depths))
    ]
    if split == "random":
        test = drawn_apart(names, len(names) - round(0.8 * len(names)), "nyu_depth")
        places = {name: "test" if name in test else "train" for name in names}
        plan = Plan([], {"all": len(names)}, {"all": COUNT}, dropped=lost)
    else:
        lists = _official(raw / "splits.mat", names, allow_partial)
        places = {name: place for place, listed in lists.items() for name in listed}
        plan = Plan(
            [], {place: len(listed) for place, listed in lists.items()}, {"train": 795, "test": 654}, dropped=lost
        )
    plan.items = [
        Item(
            places[name],
            name,
            {
                "input": Drawn((file,), partial(_photo, file, index), size),
                "depth": Drawn((file,), partial(_depth, file, index), size),
            },
        )
        for index, name in enumerate(names)
        if name in places
    ]
    return plan


def _name(index: int) -> str:
    """The number that splits.mat gives a pair."""
    return f"{index + 1:04d}"


def _read(file: Path, key: str, index: int) -> np.ndarray:
    """One image of an HDF5 file; never all of it, which would be several GB."""
    import h5py

    try:
        with h5py.File(file) as stored:
            return np.array(stored[key][index])
    except BROKEN as error:
        raise UserError(
            f"{file}: {key} of pair {_name(index)} cannot be read ({one_line(error)}); {REPLACE}"
        ) from error


def _photo(file: Path, index: int, size: Size) -> Tensor:
    """(3, *size) uint8; stored as (3, W, H)."""
    return resize_image(torch.from_numpy(_read(file, "images", index)).mT.contiguous(), size)


def _depth(file: Path, index: int, size: Size) -> Tensor:
    """(1, *size) int32 millimetres by nearest neighbour; stored as (W, H) metres."""
    metres = torch.from_numpy(_read(file, "depths", index)).mT[None]
    if not (metres.isfinite().all() and metres.min() > NEAR and metres.max() <= FAR):
        raise UserError(
            f"{file}: depth of pair {_name(index)} goes from {metres.min():.4g} to {metres.max():.4g} m, the official"
            f" release lies between {NEAR} and {FAR:.0f}; {REPLACE}"
        )
    return resize_ids((metres.double() * 1000).round().to(torch.int32), size)


def _shapes(file: Path) -> tuple[int, int, Size]:
    """Numbers of images and of depth maps, and their (height, width). Raises: UserError for anything else."""
    try:
        import h5py
    except ImportError as error:
        raise UserError("dataset=nyu_depth reads HDF5: pip install -r requirements-data.txt") from error
    try:
        with h5py.File(file) as stored:
            images, depths = (_described(stored, key) for key in ("images", "depths"))
    except BROKEN as error:
        raise UserError(f"{file}: cannot be decoded ({one_line(error)}); {REPLACE}") from error
    fits = (
        images is not None
        and depths is not None
        and (len(images[0]), len(depths[0])) == (4, 3)
        and images[0][1] == 3
        and (images[1], depths[1]) == ("uint8", "float32")
        and all(images[0][2:])
    )
    if images is None or depths is None or not fits:
        said = ", ".join(f"{key} {what}" for key, what in (("images", images), ("depths", depths)))
        raise UserError(
            f"{file}: holds {said}; wanted images (N, 3, W, H) uint8 and depths (N, W, H) float32; {REPLACE}"
        )
    (count, _, wide, high), (maps, *other) = images[0], depths[0]
    if [wide, high] != other:
        raise UserError(f"{file}: images are {wide}x{high}, depth maps {other[0]}x{other[1]}; {REPLACE}")
    return count, maps, (high, wide)


def _described(stored: Any, key: str) -> tuple[tuple[int, ...], str] | None:
    held = stored.get(key)
    return None if held is None else (getattr(held, "shape", ()), str(getattr(held, "dtype", "a group")))


def _official(file: Path, names: list[str], allow_partial: bool) -> dict[str, list[str]]:
    """Names of train and test. Raises: UserError for a missing or damaged file, or lists that do not fit."""
    if not file.is_file():
        raise UserError(f"{file}: no such file; split=official needs it, or set split=random")
    numbers = read_lists(file, {"train": "trainNdxs", "test": "testNdxs"}, REPLACE)
    lists = {place: [_name(number - 1) for number in listed] for place, listed in numbers.items()}
    strange = set(lists["train"] + lists["test"]) ^ set(names)
    if strange and not allow_partial:
        raise UserError(f"{file}: pairs in it or in {FILE} only: {first_names(sorted(strange))}; {REPLACE}")
    return {place: [name for name in listed if name in names] for place, listed in lists.items()}
