"""Two folders of images to one report: metrics by name, each network once over each folder, each value between bounds.

A bare number says little: a distribution metric gets a floor, real training images against the real ones at the same N;
segmentation a ceiling and a floor; appearance the numbers of the real images. What would make a number misleading is a
warning in the report.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from errors import UserError
from metrics import protocol, rows
from metrics.catalogue import METRICS, choose, with_kernels
from metrics.features import FeatureNetwork
from metrics.folders import Images, Sets
from metrics.images import label
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
    score_map: Sequence[int] | None = None,
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
    selection: str | None = None,
) -> protocol.Report:
    """Measure a folder of generated images against a folder of real ones; metrics.protocol describes the report.

    Args:
        metrics: names out of METRICS. A Frechet distance of fewer images than features is biased upwards: its unbiased
            kernel companion is added then, with a warning.
        labels, segmenter, score_map: for segmentation, see metrics.segmentation; labels and real images are matched to
            the generated ones by relative name. segmenter: what models.segmenters can open, or a segmenter.
        train_real: real training images for the floors, see metrics.folders.
        weights_dir, offline: for the feature networks, see models.weights.
        seed: of the floor's sample and of SWD.
        trained_against: name of the weights that the generator was trained against; the same in a metric is a warning.
        real_size: "fake" resizes real images to the size of the generated ones, if these share one; "native" does not.
        swd_count: see metrics.swd. minimum_ceiling: see metrics.segmentation.
        checkpoint, step, selection: where the generated images come from; written to the report as they are.
    Raises: UserError for what the user can mend, before anything is measured where that is possible.
    """
    chosen = choose(metrics)
    if "segmentation" in chosen and (labels is None or segmenter is None):
        raise UserError("metrics=[segmentation] wants labels=FOLDER with id maps and segmenter=FILE")
    sets = Sets.of(Path(fake), Path(real), None if train_real is None else Path(train_real), real_size, seed)
    chosen = with_kernels(chosen, min(len(sets.fake.files), len(sets.real.files)), sets.warnings)
    reading = rows.Reading(batch_size, workers, device)
    # every network before any is used, so that a missing weight file costs no time
    names = dict.fromkeys(METRICS[metric].network for metric in chosen)
    networks = {name: FeatureNetwork(name, weights_dir, offline, device) for name in names if name is not None}
    file = Path(segmenter) if isinstance(segmenter, str | Path) else None
    judge = segmenter if not isinstance(segmenter, str | Path) else None
    if file is not None and "segmentation" in chosen:
        judge = load_segmenter(file, device)

    found: rows.Rows = {}
    blocks: dict[str, rows.Block] = {}
    for name, network in networks.items():
        read_by = [metric for metric in chosen if METRICS[metric].network == name]
        if trained_against is not None and Path(trained_against).name == network.spec.weights:
            sets.warnings.append(
                f"{' and '.join(read_by)}: the run trained against the same weights ({trained_against})"
            )
        distances, block = rows.distances(network, read_by, sets, reading)
        found |= distances
        blocks |= dict.fromkeys(read_by, block)
    if "swd" in chosen:
        swd, blocks["swd"] = rows.swd(sets, seed, swd_count, reading)
        found |= swd
    if "segmentation" in chosen:
        assert labels is not None and judge is not None
        scores, blocks["segmentation"] = rows.segmentation_scores(
            judge, file, Path(labels), score_map, minimum_ceiling, sets, reading
        )
        found |= scores
    if "appearance" in chosen:
        looks, blocks["appearance"] = rows.appearance(sets, reading)
        found |= looks
    entries = {}
    for metric in chosen:
        for row in METRICS[metric].rows:
            entries[row] = {"value": found[row]["value"], "better": METRICS[metric].better, **found[row]}
    subject = {"fake": fake, "real": real, "checkpoint": checkpoint, "step": step, "trained_against": trained_against}
    return {
        "schema": protocol.SCHEMA,
        "subject": {key: str(value) if isinstance(value, Path) else value for key, value in subject.items()},
        "protocol": {**_shared(sets), "selection": selection, "metrics": {metric: blocks[metric] for metric in chosen}},
        "floor": _floor(sets.floor, seed),
        "metrics": entries,
        "warnings": sets.warnings,
    }


def _shared(sets: Sets) -> dict[str, Any]:
    """The part of the protocol that all metrics share."""
    real = sets.real
    return {
        "fake": protocol.folder_block(sets.fake.files, sets.fake.found),
        "real": {
            **protocol.folder_block(real.files, real.found),
            "resize": "none" if real.size is None else f"antialiased bicubic to {label(real.size)}",
            "manifest_sha256": protocol.manifest_sha256(real.folder),
            "content_sha256": protocol.content_sha256(real.folder, real.files),
        },
    }


def _floor(sample: Images | None, seed: int) -> dict[str, Any] | None:
    if sample is None:
        return None
    return {
        "n": len(sample.files),
        "seed": seed,
        "content_sha256": protocol.content_sha256(sample.folder, sample.files),
    }
