"""Depth errors of folders: coloured images against true depth in 16-bit PNGs, between a floor and a constant.

The floor is the true depth, coloured and read back; the constant, the mean depth of the training images everywhere, is
what any useful generator must beat.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from data.reading import read_depth
from errors import UserError
from metrics.depth import FAR, NEAR, Errors, align_median, colorize, decolorize, known, nearest
from metrics.images import Size, batches


@dataclass(frozen=True)
class Truth:
    """Where true depth lies, 16-bit PNGs of millimetres, and how the images show it.

    folder: of the images' depth, matched by name. train: of training depth, for the constant; None for none.
    colormap, far: of `colorize`. pooled: see `Errors`.
    """

    folder: Path
    train: Path | None = None
    colormap: str = "turbo"
    far: float = FAR
    pooled: bool = False


@dataclass(frozen=True)
class Depths:
    """{rel, rms, rel_median, rms_median} of generated images, of the round trip (floor) and of the constant.

    off_map: mean distance of the generated colours from the map, real_off_map: of the real ones, in steps of 8-bit RGB.
    mean: the constant, in metres.
    """

    fake: dict[str, float]
    floor: dict[str, float]
    constant: dict[str, float] | None
    mean: float | None
    off_map: float
    real_off_map: float


def evaluate(
    fake: Sequence[Path],
    real: Sequence[Path],
    truth: Sequence[Path],
    train: Sequence[Path],
    *,
    colormap: str = "turbo",
    far: float = FAR,
    pooled: bool = False,
    batch_size: int = 8,
    workers: int = 2,
    device: torch.device | str = "cpu",
) -> Depths:
    """Errors of coloured images against their true depth, which is brought to their size by nearest neighbour.

    Args:
        fake, truth: N files each, in one order. real: coloured true depth, of which only the colours are checked.
        train: depth files whose mean is the constant; none for none.
    Raises: UserError for unreadable files and for truth without a known depth.
    """
    mean = mean_depth(train) if train else None
    kinds = ["fake", "floor"] + ["constant"] * (mean is not None)
    errors = {kind: (Errors(pooled), Errors(pooled)) for kind in kinds}  # as it is, and aligned by the median
    off, done = 0.0, 0
    for batch in batches(fake, batch_size, workers):
        size = batch.shape[2], batch.shape[3]
        found = torch.stack([depth_map(file, size) for file in truth[done : done + len(batch)]]).to(device)
        index, distance = nearest(batch.to(device), colormap)
        off += distance.mean((1, 2, 3)).double().sum().item()
        done += len(batch)
        predictions = {
            "fake": index * (far / 255),
            "floor": decolorize(colorize(found, colormap, far), colormap, far),
        }
        if mean is not None:
            predictions["constant"] = torch.full_like(found, mean)
        for kind, predicted in predictions.items():
            predicted = predicted.clamp(min=NEAR)
            errors[kind][0].update(predicted, found)
            errors[kind][1].update(align_median(predicted, found), found)
    try:
        scores = {kind: _rows(*pair) for kind, pair in errors.items()}
    except ValueError as error:
        raise UserError(f"{truth[0].parent}: {error}") from error
    shown = [nearest(batch.to(device), colormap)[1].mean().item() for batch in batches(real[:16], 1, workers)]
    return Depths(
        scores["fake"], scores["floor"], scores.get("constant"), mean, off / done, sum(shown) / max(len(shown), 1)
    )


def _rows(plain: Errors, aligned: Errors) -> dict[str, float]:
    return {**plain.compute(), **{f"{name}_median": value for name, value in aligned.compute().items()}}


def depth_map(path: Path, size: Size | None = None) -> Tensor:
    """(1, H, W) float32 metres of a 16-bit PNG of millimetres, brought to `size` by nearest neighbour; 0 is unknown."""
    millimetres = read_depth(path).float()  # (1, H, W)
    if size is not None and millimetres.shape[1:] != size:
        millimetres = F.interpolate(millimetres[None], size, mode="nearest-exact")[0]
    return millimetres / 1000


def mean_depth(files: Sequence[Path]) -> float:
    """Mean over all pixels of known depth of all files, in metres."""
    total, pixels = 0.0, 0
    for file in files:
        depth = depth_map(file)
        seen = known(depth)
        total += depth[seen].double().sum().item()
        pixels += int(seen.sum())
    if pixels == 0:
        raise UserError(f"{files[0].parent}: no pixel has a known depth")
    return total / pixels
