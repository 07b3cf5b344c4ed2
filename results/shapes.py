"""What the files of a run folder must look like to be shown: checked once on reading, so that no page has to.

Each check raises a ValueError that says what is wrong; what is not read by any table or page is not looked at.
"""

from typing import Any

from records import NUMBER, OPTIONAL, Shape, check_shape
from results.paper import has_table

GROUP = (dict, type(None))
CONFIG: dict[str, Shape] = {
    "seed?": int, "dataset": {"name": str, "size?": (list, type(None))}, "setting?": GROUP, "encoder?": GROUP,
    "loss?": GROUP, "objective?": GROUP, "train?": {"steps?": OPTIONAL, "minutes?": OPTIONAL},
    "model?": {"generator?": GROUP}, "deviations?": [str], "deviations_data?": [str],
}  # fmt: skip
LOSS: dict[str, Shape] = {"beta?": OPTIONAL, "q?": OPTIONAL, "direction?": (str, type(None))}
ENVIRONMENT: dict[str, Shape] = {
    "packages?": dict, "commits?": [{"commit?": (str, type(None))}], "commit?": (str, type(None)),
}  # fmt: skip
LAYER: dict[str, Shape] = {
    "name": str, "edges": [NUMBER], "positive": [NUMBER], "negative": [NUMBER], "overlap": NUMBER, "rank": NUMBER,
    "positive_mean": NUMBER, "negative_mean": NUMBER,
}  # fmt: skip
SIMILARITY: dict[str, Shape] = {
    "step": int, "query": str, "key": str, "images": int, "features": str, "layers": [LAYER],
}  # fmt: skip


def check_config(value: Any) -> None:
    """config.yaml."""
    try:
        check_shape(value, CONFIG)
        size = value["dataset"].get("size")
        check_shape(size or [], [int], "dataset.size")
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ValueError(f"dataset.size is {str(size)[:40]}")
        check_shape(value.get("loss") or {}, LOSS, "loss")
        check_shape(value.get("objective") or {}, {"*": {"term?": GROUP}}, "objective")
    except ValueError as error:
        raise ValueError(f"no config of train.py ({error})") from error


def check_environment(value: Any) -> None:
    """environment.json."""
    check_shape(value, ENVIRONMENT)


def check_analysis(value: Any) -> None:
    """analysis/<step>/similarity.json."""
    check_shape(value, SIMILARITY)
    for layer in value["layers"]:
        if not len(layer["edges"]) - 1 == len(layer["positive"]) == len(layer["negative"]) > 0:
            raise ValueError(f"layer {layer['name']}: edges and densities do not fit each other")


def cited(paper: Any) -> list[dict[str, Any]]:
    """The places of a config's `paper` whose paper and table there are, each with paper, table, row and x."""
    if not isinstance(paper, dict):
        return []
    also = paper.get("also")
    places = [paper, *(also if isinstance(also, list) else ())]
    whole = [{"paper": paper.get("paper"), **place} for place in places if isinstance(place, dict)]
    return [
        {"x": None, **place}
        for place in whole
        if has_table(str(place["paper"]), str(place.get("table")))
        and isinstance(place.get("row"), str)
        and isinstance(place.get("x"), OPTIONAL)
    ]
