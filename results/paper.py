"""The numbers printed in the CFL and MoNCE papers (paper_results.yaml), under this project's names.

Andonian et al. 2021, "Contrastive Feature Loss for Image Prediction"; Zhan et al. 2022, "Modulated Contrast for
Versatile Image Synthesis". Their "mAP" is the mean IoU. Their accuracies are not one quantity: CFL's Acc on Cityscapes
and GTA is on the scale where unlabelled pixels count as wrong (`pixacc_all`); its Acc on ADE20K, 79.9 at a mean IoU of
38.5, and MoNCE's Acc and pixAcc are on that where they are left out (`pixacc`).
"""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

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
VOID_WRONG = {("cfl", "cityscapes"), ("cfl", "gta")}  # where "Acc" counts pixels without a class as wrong


def paper_row(paper: str, table: str | int, row: str, dataset: str, x: float | None = None) -> dict[str, Any] | None:
    """What a paper prints for one row of one table on one data set; None where that cell is empty, or there is none.

    Args:
        paper: cfl or monce, in any case.
        table: 1 or "table1", "text", "fig3", "fig7".
        row: "r1", ... as in paper_results.yaml; a curve of a figure, such as horse_hard of fig3.
        dataset: this project's name of it, such as celebahq_semantic or cityscapes_unpaired.
        x: the point of a curve, beta or Q; None takes a curve that is constant.
    Returns: the entry of paper_results.yaml with `dataset` and the keys of `metrics` in this project's names (fid, swd,
        miou, pixacc, pixacc_all, classacc, rel, rms); the keys as printed are under `printed`.
    """
    for entry in _of_table(paper, table):
        if entry["row"] == row and our_dataset(entry) == dataset:
            printed = _point(entry["series"], x) if "series" in entry else dict(entry["metrics"])
            if not printed:
                return None
            return {**entry, "dataset": dataset, "metrics": _ours(printed, entry), "printed": printed}
    return None


def paper_rows(paper: str, table: str | int) -> list[dict[str, Any]]:
    """All entries of one table or figure in the paper's order, in the form of `paper_row`; curves have no metrics.

    Empty for a paper or a table that there is none of.
    """
    return [
        {**entry, "dataset": our_dataset(entry), "metrics": _ours(entry["metrics"], entry)}
        for entry in _of_table(paper, table)
    ]


def _point(series: dict[str, Any], x: float | None) -> dict[str, float]:
    """The numbers of a curve at x; empty where it has no such point."""
    found = {}
    for name, values in series.items():
        if name in ("x", "x_values"):
            continue
        points = dict(zip(series["x_values"], values, strict=True))
        if x in points:
            found[name] = points[x]
        elif x is None and len(set(values)) == 1:
            found[name] = values[0]
    return found


def our_dataset(entry: dict[str, Any]) -> str:
    """This project's name of an entry's data set: unpaired Cityscapes is another one than paired."""
    name = str(entry["dataset"])
    if name == "cityscapes" and str(entry["task"]).startswith("unpaired"):
        return "cityscapes_unpaired"
    return DATASETS.get(name, name)


def has_table(paper: str, table: str | int) -> bool:
    """Whether there is such a table or figure of such a paper."""
    return bool(_of_table(paper, table))


def _of_table(paper: str, table: str | int) -> list[dict[str, Any]]:
    wanted = (paper.lower(), str(table).lower().removeprefix("table"))
    return [entry for entry in _entries() if (entry["paper"].lower(), str(entry["table"])) == wanted]


def _ours(printed: dict[str, float], entry: dict[str, Any]) -> dict[str, float]:
    accuracy = "pixacc_all" if (entry["paper"].lower(), our_dataset(entry)) in VOID_WRONG else "pixacc"
    return {accuracy if name == "Acc" else METRICS[name]: value for name, value in printed.items()}


@cache
def _entries() -> tuple[dict[str, Any], ...]:
    return tuple(yaml.safe_load(FILE.read_text()))
