"""From image sets to the numbers of a report: one function per kind of metric.

Each gives its rows, {row: entry}, and its protocol block; what they mean is said in metrics.protocol.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from errors import UserError
from metrics import labels as label_maps
from metrics import segmentation
from metrics.appearance import Appearance
from metrics.features import FeatureNetwork
from metrics.folders import Sets
from metrics.frechet import frechet_from_features
from metrics.images import image_files, label, load_all
from metrics.kid import kid
from metrics.protocol import content_sha256, versions
from metrics.swd import DIRECTIONS, REPEATS, SMALLEST, WINDOW, WINDOWS, sliced_wasserstein

Rows = dict[str, dict[str, Any]]
Block = dict[str, Any]
COMMON = ("torch", "numpy", "pillow")
KERNELS = ("kid", "kid_lite2")


@dataclass(frozen=True)
class Reading:
    """How images are read and where networks run; without influence on any value."""

    batch_size: int
    workers: int
    device: torch.device | str


def distances(network: FeatureNetwork, names: Sequence[str], sets: Sets, reading: Reading) -> tuple[Rows, Block]:
    """Frechet and kernel distances (those of KERNELS, times 1000) on one network's features, computed once for all."""
    for images in sets.all:
        if len(images.files) < 2:
            raise UserError(f"{images.key}={images.folder}: one image; {' and '.join(names)} want two at least")
    features = {
        images.key: network.extract(images.batches(reading.batch_size, reading.workers, network.name))
        for images in sets.all
    }
    rows: Rows = {}
    for name in names:
        if name in KERNELS:
            value, error = kid(features["fake"], features["real"])
            rows[name] = {"value": 1000 * value, "standard_error": 1000 * error}
        else:
            rows[name] = {"value": frechet_from_features(features["fake"], features["real"])}
        if sets.floor is not None:
            a, b = features[sets.floor.key], features["real"]
            rows[name]["floor"] = 1000 * kid(a, b)[0] if name in KERNELS else frechet_from_features(a, b)
    block = {
        "network": network.name,
        "weights": network.spec.weights,
        "weights_sha256": network.sha256,
        "resize": network.spec.resize,
        "versions": versions(*COMMON, *network.spec.packages),
    }
    return rows, block


def swd(sets: Sets, seed: int, count: str, reading: Reading) -> tuple[Rows, Block]:
    """Sliced Wasserstein distance of the generated and of the floor's images."""
    if count not in ("paper", "all"):
        raise UserError(f"swd_count={count}: paper or all was wanted")
    sizes = {images.key: images.read_size for images in sets.all}
    if len(set(sizes.values())) > 1 or None in sizes.values():
        told = ", ".join(f"{key} {label(size) if size else 'mixed'}" for key, size in sizes.items())
        raise UserError(f"swd wants one image size in all folders ({told}); real_size=fake resizes the real images")
    size = sets.fake.read_size
    assert size is not None
    if min(size) < SMALLEST:
        raise UserError(f"swd wants images of {SMALLEST}x{SMALLEST} at least, {label(size)} came")
    real = load_all(sets.real.files, reading.workers, sets.real.size)
    seeds = 3
    found = sliced_wasserstein(load_all(sets.fake.files, reading.workers, sets.fake.size), real, seed, seeds, count)
    row: dict[str, Any] = {"value": found.mean, "sd": found.sd, "levels": found.levels, "n": list(found.counts)}
    sets.warnings.extend(found.warnings)
    if sets.floor is not None:
        sample = load_all(sets.floor.files, reading.workers, sets.floor.size)
        row["floor"] = sliced_wasserstein(sample, real, seed, seeds, count).mean
    block = {
        "seeds": [seed + index for index in range(seeds)],
        "count": count,
        "levels": list(found.levels),
        "scale": 1000,
        "windows": f"{WINDOWS} of {WINDOW}x{WINDOW}",
        "directions": f"{REPEATS} x {DIRECTIONS}",
        "versions": versions("numpy", "pillow"),
    }
    return {"swd": row}, block


def segmentation_scores(
    segmenter: segmentation.Segmenter,
    file: Path | None,
    labels: Path,
    score_map: Sequence[int] | None,
    minimum_ceiling: float,
    sets: Sets,
    reading: Reading,
) -> tuple[Rows, Block]:
    """Scores of the generated images with those of the real ones (ceiling) and of shuffled ones (floor)."""
    folders = {images.key: (images.folder, images.files) for images in (sets.fake, sets.real)}
    files = label_maps.pair({**folders, "labels": (labels, image_files(labels, "labels"))})
    found = segmentation.evaluate(
        segmenter,
        files["fake"],
        files["real"],
        files["labels"],
        score_map=score_map,
        real_size=sets.real.size,
        batch_size=reading.batch_size,
        workers=reading.workers,
        device=reading.device,
        minimum_ceiling=minimum_ceiling,
    )
    rows: Rows = {}
    for name in ("miou", "pixacc", "pixacc_all", "classacc"):
        rows[name] = {"value": found.fake[name], "ceiling": found.ceiling[name]}
        if found.floor is not None:
            rows[name]["floor"] = found.floor[name]
    rows["miou"] |= {"iou": found.fake["iou"], "absent": found.fake["absent"], "iou_ceiling": found.ceiling["iou"]}
    block = {
        "segmenter": type(segmenter).__name__,
        "weights": file and file.name,
        "weights_sha256": _sha256(file),
        "settings_sha256": _sha256(file and file.with_suffix(".json")),
        "classes": segmenter.num_classes,
        "score_map": None if score_map is None else list(score_map),
        "void": label_maps.VOID,
        "labels": "nearest to the size of the image",
        "labels_sha256": content_sha256(labels, files["labels"]),
        "versions": versions(*COMMON),
    }
    return rows, block


def appearance(sets: Sets, reading: Reading) -> tuple[Rows, Block]:
    """Channel range, second difference and fixed pattern of generated and of real images."""
    found = []
    for images in (sets.fake, sets.real):
        sums = Appearance()
        for batch in images.batches(reading.batch_size, reading.workers, "appearance"):
            sums.update(batch)
        found.append(sums.compute())
    rows = {name: {"value": value, "real": found[1][name]} for name, value in found[0].items()}
    return rows, {"versions": versions(*COMMON)}


def _sha256(path: Path | None) -> str | None:
    return None if path is None or not path.is_file() else hashlib.sha256(path.read_bytes()).hexdigest()
