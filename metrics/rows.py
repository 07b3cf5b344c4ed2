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
from metrics import depth_images, segmentation
from metrics import labels as label_maps
from metrics.appearance import Appearance
from metrics.catalogue import METRICS
from metrics.folders import Sets
from metrics.images import image_files, label, load_all
from metrics.protocol import content_sha256, versions
from metrics.rules import Rule
from metrics.swd import DIRECTIONS, REPEATS, SMALLEST, WINDOW, WINDOWS, sliced_wasserstein

Rows = dict[str, dict[str, Any]]
Block = dict[str, Any]
COMMON = ("torch", "numpy", "pillow")
OFF_MAP = 10  # mean RGB distance of real images from their colour map above which it is another map, or was blended


@dataclass(frozen=True)
class Reading:
    """How images are read and where networks run; without influence on any value."""

    batch_size: int
    workers: int
    device: torch.device | str


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
    else:
        sets.warnings.append(
            f"swd: no floor was measured (train_real=FOLDER gives one), and 0 is out of reach: even two sets of "
            f"{min(found.counts)} images of one distribution are apart, by more the fewer they are"
        )
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
    rule: Rule,
    labels: Path,
    score_map: Sequence[int] | None,
    minimum_ceiling: float,
    sets: Sets,
    reading: Reading,
) -> tuple[Rows, Block]:
    """Scores of the generated images with those of the real ones (ceiling) and of shuffled ones (floor)."""
    weights, settings = identity(segmenter)
    score_map = rule.class_map if rule.class_map is not None else score_map
    folders = {images.key: (images.folder, images.files) for images in (sets.fake, sets.real)}
    files = label_maps.pair({**folders, "labels": (labels, image_files(labels, "labels"))})
    found = segmentation.evaluate(
        segmenter,
        files["fake"],
        files["real"],
        files["labels"],
        score_map=score_map,
        real_size=sets.real.size,
        size=rule.size,
        interpolation=rule.interpolation,
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
        "segmenter": getattr(segmenter, "kind", type(segmenter).__name__),
        "weights": weights[0],
        "weights_sha256": weights[1],
        "settings_sha256": settings[1],
        **rule.block(),
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


def identity(segmenter: segmentation.Segmenter) -> tuple[tuple[str | None, str | None], ...]:
    """Names and SHA-256 of a segmenter's weights, and of its settings; of several files over names and contents."""
    files: tuple[Path, ...] = getattr(segmenter, "files", ())
    parts = [file for file in files if file.suffix != ".json"], [file for file in files if file.suffix == ".json"]
    return tuple((" ".join(file.name for file in part) or None, _sha256(part)) for part in parts)


def _sha256(files: list[Path]) -> str | None:
    if len(files) > 1:
        return content_sha256(files[0].parent, files)
    return hashlib.sha256(files[0].read_bytes()).hexdigest() if files else None


def depth_errors(truth: depth_images.Truth, names: Sequence[str], sets: Sets, reading: Reading) -> tuple[Rows, Block]:
    """Errors of the generated images' depth, with those of the coloured truth (floor) and of a constant."""
    files = label_maps.pair(
        {
            "fake": (sets.fake.folder, sets.fake.files),
            "depth": (truth.folder, image_files(truth.folder, "depth")),
        }
    )
    train = [] if truth.train is None else image_files(truth.train, "train_depth")
    if not train:
        sets.warnings.append("depth: no train_depth=, so that no constant prediction stands beside the errors")
    found = depth_images.evaluate(
        files["fake"],
        sets.real.files,
        files["depth"],
        train,
        colormap=truth.colormap,
        far=truth.far,
        pooled=truth.pooled,
        batch_size=reading.batch_size,
        workers=reading.workers,
        device=reading.device,
    )
    if found.real_off_map > OFF_MAP:
        sets.warnings.append(
            f"depth: the colours of the real images are {found.real_off_map:.0f} off {truth.colormap} in RGB: another "
            "colormap=, or colours that were resized or compressed"
        )
    rows: Rows = {}
    for name in [row for metric in names for row in METRICS[metric].rows]:
        rows[name] = {"value": found.fake[name], "floor": found.floor[name], "off_map": found.off_map}
        if found.constant is not None:
            rows[name] |= {"constant": found.constant[name], "constant_metres": found.mean}
    block = {
        "colormap": truth.colormap,
        "far": truth.far,
        "mean": "pixels" if truth.pooled else "images",
        "inversion": "nearest colour in RGB",
        "truth": "nearest to the size of the image, unknown where 0",
        "least": depth_images.NEAR,
        "depth_sha256": content_sha256(truth.folder, files["depth"]),
        "train_depth_sha256": content_sha256(truth.train, train) if truth.train is not None else None,
        "versions": versions(*COMMON),
    }
    return rows, block
