"""How long the experiment of a paper's row trains on a data set, as its files say, for comparison with a run."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@cache
def epochs(paper: str, table: str, row: str, dataset: str) -> tuple[int, int] | None:
    """Epochs at the full rate and of the decay; None where no experiment is of that row, or no config of the data set.

    Args:
        paper, table, row: of the first place that an experiment cites: "cfl", "1", "r4". dataset: name of its config.
    """
    if not (CONFIGS / "dataset" / f"{dataset}.yaml").is_file():
        return None
    for file in sorted((CONFIGS / "experiment" / paper.lower()).rglob("*.yaml")):
        own = _read(file)
        place = own.get("paper") or {}
        if (str(place.get("table")), place.get("row")) == (table, row):
            protocol = next(entry["override /protocol"] for entry in own["defaults"] if "override /protocol" in entry)
            recipe = CONFIGS / "recipe" / f"{protocol}_{dataset}.yaml"
            train: dict[str, Any] = {}
            for layer in (CONFIGS / "train.yaml", CONFIGS / "protocol" / f"{protocol}.yaml", recipe, file):
                train |= _read(layer).get("train") or {}  # in the order of train.yaml's defaults
            return train["epochs"], train["decay_epochs"]
    return None


def _read(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text()) or {} if file.is_file() else {}
