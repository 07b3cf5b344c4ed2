"""The numbers printed in the CFL and MoNCE papers (paper_results.yaml), under this project's names.

Andonian et al. 2021, "Contrastive Feature Loss for Image Prediction"; Zhan et al. 2022, "Modulated Contrast for
Versatile Image Synthesis". Their "mAP" is the mean IoU. Their accuracies are not one quantity: CFL's Acc is on the
scale where unlabelled pixels count as wrong (`pixacc_all`), MoNCE's Acc and pixAcc on that where they are left out
(`pixacc`).
"""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from errors import UserError

FILE = Path(__file__).with_name("paper_results.yaml")
DATASETS = {
    "nyu_depth_v2": "nyu_depth",
    "winter2summer_yosemite": "winter2summer",
    "celeba_hq_semantic": "celebahq_semantic",
    "celeba_hq_edge": "celebahq_edge",
}
METRICS = {
    "FID": "fid",
    "SWD": "swd",
    "mAP": "miou",
    "mIoU": "miou",
    "pixAcc": "pixacc",
    "classAcc": "classacc",
    "rel": "rel",
    "rms": "rms",
}
ACCURACY = {"cfl": "pixacc_all", "monce": "pixacc"}  # what each paper means by "Acc"


def paper_row(paper: str, table: str | int, row: str, dataset: str) -> dict[str, Any] | None:
    """What a paper prints for one row of one table on one data set; None where that cell is empty.

    Args:
        paper: cfl or monce, in any case.
        table: 1 or "table1", "text", "fig3", "fig7".
        row: "r1", ... as in paper_results.yaml.
        dataset: this project's name of it, such as celebahq_semantic or cityscapes_unpaired.
    Returns: the entry of paper_results.yaml with `dataset` and the keys of `metrics` in this project's names (fid, swd,
        miou, pixacc, pixacc_all, classacc, rel, rms); the keys as printed are under `printed`.
    Raises: UserError for a paper or a table of it that there is none of, naming those there are.
    """
    entries = [entry for entry in _entries() if entry["paper"].lower() == paper.lower()]
    if not entries:
        raise UserError(
            f"paper '{paper}': there are {', '.join(sorted({entry['paper'].lower() for entry in _entries()}))}"
        )
    wanted = str(table).lower().removeprefix("table")
    tables = dict.fromkeys(str(entry["table"]) for entry in entries)
    if wanted not in tables:
        raise UserError(f"table '{table}' of {paper}: there are {', '.join(tables)}")
    for entry in entries:
        if str(entry["table"]) == wanted and entry["row"] == row and our_dataset(entry) == dataset:
            metrics = {_metric(name, entry["paper"]): value for name, value in entry["metrics"].items()}
            return {**entry, "dataset": dataset, "metrics": metrics, "printed": dict(entry["metrics"])}
    return None


def our_dataset(entry: dict[str, Any]) -> str:
    """This project's name of an entry's data set: unpaired Cityscapes is another one than paired."""
    name = str(entry["dataset"])
    if name == "cityscapes" and str(entry["task"]).startswith("unpaired"):
        return "cityscapes_unpaired"
    return DATASETS.get(name, name)


def _metric(printed: str, paper: str) -> str:
    return ACCURACY[paper.lower()] if printed == "Acc" else METRICS[printed]


@cache
def _entries() -> tuple[dict[str, Any], ...]:
    return tuple(yaml.safe_load(FILE.read_text()))
