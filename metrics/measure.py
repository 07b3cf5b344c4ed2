"""Two folders of images to one report: metrics by name, each network once over each folder, each value between bounds.

A bare number says little: a distribution metric gets a floor, real training images against the real ones at the same N;
segmentation a ceiling and a floor; appearance the numbers of the real images. What would make a number misleading is a
warning in the report.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from errors import UserError
from metrics import distances, protocol, ranks, rows
from metrics.cache import FeatureCache
from metrics.catalogue import METRICS, choose, with_kernels
from metrics.depth_images import Truth
from metrics.features import FeatureNetwork
from metrics.folders import Images, Sets
from metrics.images import label
from metrics.rules import Rule
from metrics.segmentation import Segmenter
from metrics.table import table
from models.segmenters import load_segmenter

__all__ = ["METRICS", "measure", "table"]


def measure(
    fake: Path,
    real: Path,
    metrics: Sequence[str],
    *,
    labels: Path | None = None,
    segmenter: Path | Segmenter | None = None,
    trust: bool = False,
    rule: Rule | None = None,
    score_map: Sequence[int] | None = None,
    depth: Truth | None = None,
    train_real: Path | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 16,
    workers: int = 2,
    weights_dir: str | Path | None = None,
    offline: bool = False,
    seed: int = 0,
    trained_against: str | None = None,
    real_size: str = "fake",
    swd_count: str = "paper",
    minimum_ceiling: float = 20.0,
    checkpoint: str | None = None,
    step: int | None = None,
    split: str | None = None,
    selection: str | None = None,
    cache: Path | None = None,
    data_root: Path | None = None,
) -> protocol.Report:
    """Measure a folder of generated images against a folder of real ones; metrics.protocol describes the report.

    Under torchrun every rank calls it and gets the same numbers; metrics.ranks says how the work is shared.

    Args:
        metrics: names out of METRICS. A Frechet distance of fewer images than features is biased upwards: its unbiased
            kernel companion is added then, with a warning.
        labels, segmenter, score_map: for segmentation, see metrics.segmentation; labels and real images are matched to
            the generated ones by relative name. segmenter: what models.segmenters can open, or a segmenter.
        trust: whether the segmenter may be a program, see models.segmenters.load_segmenter.
        rule: protocol of the segmentation; with weights of its own, it stands for segmenter, and for score_map.
        depth: true depth, for depth and depth_median.
        train_real: real training images for the floors, see metrics.folders.
        weights_dir, offline: for the feature networks, see models.weights.
        seed: of the floor's sample and of SWD.
        trained_against: name of the weights that the generator was trained against; the same in a metric is a warning.
        real_size: "fake" resizes real images to the size of the generated ones, if these share one; "native" does not.
        swd_count: see metrics.swd. minimum_ceiling: see metrics.segmentation.
        checkpoint, step, split, selection: where the generated images come from; written to the report as they are.
        cache: folder where features of real images are kept, see metrics.cache; None keeps none.
        data_root: of the data set that the real images were rendered from, whose manifest.json is in the protocol.
    Raises: UserError for what the user can mend, before anything is measured where that is possible.
    """
    chosen = choose(metrics)
    rule = rule or Rule()
    if "segmentation" in chosen and (labels is None or (segmenter is None and not rule.weights)):
        raise UserError(
            "metrics=[segmentation] wants labels=FOLDER with id maps and segmenter=FILE, or in its place a preset such "
            "as segmentation=cityscapes/cfl"
        )
    if score_map is not None and rule.class_map is not None:
        raise UserError(f"score_map= came with segmentation={rule.name}, which fixes it; leave it out")
    of_depth = [name for name in chosen if name in ("depth", "depth_median")]
    if of_depth and depth is None:
        raise UserError(f"metrics=[{of_depth[0]}] wants depth=FOLDER with 16-bit PNGs of millimetres")
    sets = Sets.of(Path(fake), Path(real), None if train_real is None else Path(train_real), real_size, seed)
    chosen = with_kernels(chosen, min(len(sets.fake.files), len(sets.real.files)), sets.warnings)
    reading = rows.Reading(batch_size, workers, device)
    # every network before any is used, so that a missing weight file costs no time
    names = dict.fromkeys(METRICS[metric].network for metric in chosen)
    networks = {name: FeatureNetwork(name, weights_dir, offline, device) for name in names if name is not None}
    judge = segmenter
    if "segmentation" in chosen and (judge is None or isinstance(judge, str | Path)):
        judge = load_segmenter(judge or rule.find(weights_dir, offline), device, offline, trust)
        rule.check(judge, rows.identity(judge)[0][1])

    content = ranks.once(_content, sets)
    found: rows.Rows = {}
    blocks: dict[str, rows.Block] = {}
    for name, network in networks.items():
        read_by = [metric for metric in chosen if METRICS[metric].network == name]
        if trained_against is not None and Path(trained_against).name == network.spec.weights:
            sets.warnings.append(
                f"{' and '.join(read_by)}: the run trained against the same weights ({trained_against})"
            )
        features = distances.extract(network, sets, reading, content, FeatureCache(cache))
        between, block = ranks.once(distances.distances, network, features, read_by, sets)
        found |= between
        blocks |= dict.fromkeys(read_by, block)
    if "swd" in chosen:
        swd, blocks["swd"] = ranks.once(rows.swd, sets, seed, swd_count, reading)
        found |= swd
    if "segmentation" in chosen:
        assert labels is not None and judge is not None and not isinstance(judge, str | Path)
        scores, blocks["segmentation"] = ranks.once(
            rows.segmentation_scores, judge, rule, Path(labels), score_map, minimum_ceiling, sets, reading
        )
        found |= scores
    if of_depth:
        assert depth is not None
        errors, block = ranks.once(rows.depth_errors, depth, of_depth, sets, reading)
        found |= errors
        blocks |= dict.fromkeys(of_depth, block)
    if "appearance" in chosen:
        looks, blocks["appearance"] = ranks.once(rows.appearance, sets, reading)
        found |= looks
    entries = {}
    for metric in chosen:
        for row in METRICS[metric].rows:
            entries[row] = {"value": found[row]["value"], "better": METRICS[metric].better, **found[row]}
    subject = {"fake": fake, "real": real, "checkpoint": checkpoint, "step": step, "split": split}
    subject["trained_against"] = trained_against
    report: protocol.Report = {
        "schema": protocol.SCHEMA,
        "subject": {key: str(value) if isinstance(value, Path) else value for key, value in subject.items()},
        "protocol": {
            **_shared(sets, content, data_root),
            "selection": selection,
            "metrics": {metric: blocks[metric] for metric in chosen},
        },
        "floor": None if sets.floor is None else _floor(sets.floor, seed, content),
        "metrics": entries,
        "warnings": sets.warnings,
    }
    return {**report, "rows": protocol.rows(report)}


def _content(sets: Sets) -> dict[str, str]:
    """Hashes of the files of the real sets, by key."""
    return {images.key: protocol.content_sha256(images.folder, images.files) for images in sets.all[1:]}


def _shared(sets: Sets, content: Mapping[str, str], data_root: Path | None) -> dict[str, Any]:
    """The part of the protocol that all metrics share."""
    real = sets.real
    return {
        "fake": protocol.folder_block(sets.fake.files, sets.fake.found),
        "real": {
            **protocol.folder_block(real.files, real.found),
            "resize": "none" if real.size is None else f"antialiased bicubic to {label(real.size)}",
            "manifest_sha256": protocol.manifest_sha256(real.folder if data_root is None else data_root),
            "content_sha256": content[real.key],
        },
    }


def _floor(sample: Images, seed: int, content: Mapping[str, str]) -> dict[str, Any]:
    return {"n": len(sample.files), "seed": seed, "content_sha256": content[sample.key]}
