"""What the files of a run folder must look like to be shown: checked once on reading, so that no page has to.

Each check raises a ValueError that says what is wrong; what is not read by any table or page is not looked at.
"""

from collections.abc import Mapping
from typing import Any

from metrics.protocol import SCHEMA
from results.paper import has_table

Shape = type | tuple[Any, ...] | list[Any] | dict[str, Any]
NUMBER = (int, float)
OPTIONAL = (int, float, type(None))

GROUP = (dict, type(None))
CONFIG: dict[str, Shape] = {
    "seed?": int, "dataset": {"name": str, "size?": (list, type(None))}, "setting?": GROUP, "encoder?": GROUP,
    "loss?": GROUP, "objective?": GROUP, "train?": {"steps?": OPTIONAL, "minutes?": OPTIONAL},
    "model?": {"generator?": GROUP}, "deviations?": [str], "deviations_data?": [str],
}  # fmt: skip
ENVIRONMENT: dict[str, Shape] = {"packages?": dict, "commits?": [{}]}
ENTRY: dict[str, Shape] = {
    "value": OPTIONAL, "better": str, "floor?": OPTIONAL, "ceiling?": OPTIONAL, "real?": OPTIONAL,
}  # fmt: skip
REPORT: dict[str, Shape] = {
    "subject": {"fake": str, "step?": (int, type(None))}, "protocol": {"metrics": dict}, "metrics": dict,
    "warnings": [str],
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
        _check(value, CONFIG)
    except ValueError as error:
        raise ValueError(f"no config of train.py ({error})") from error


def check_environment(value: Any) -> None:
    """environment.json."""
    _check(value, ENVIRONMENT)


def check_report(value: Any) -> None:
    """eval/*.json."""
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"schema {schema}; {SCHEMA} was wanted, measure again")
    _check(value, REPORT)
    for name, entry in value["metrics"].items():
        _check(entry, ENTRY, f"metrics.{name}")


def check_analysis(value: Any) -> None:
    """analysis/<step>/similarity.json."""
    _check(value, SIMILARITY)
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


def _check(value: Any, shape: Shape, where: str = "") -> None:
    """A type or types; a list of one shape; or a dictionary of shapes by key, where `key?` may be absent."""
    if isinstance(shape, list):
        _check(value, list, where)
        for at, inner in enumerate(value):
            _check(inner, shape[0], f"{where}[{at}]")
    elif isinstance(shape, dict):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where or 'it'} is no object")
        for key, inner in shape.items():
            name = key.removesuffix("?")
            if name in value:
                _check(value[name], inner, f"{where}.{name}".lstrip("."))
            elif name == key:
                raise ValueError(f"{where or 'it'} has no {name}")
    elif not isinstance(value, shape) or (isinstance(value, bool) and shape is not bool):
        raise ValueError(f"{where or 'it'} is {str(value)[:40]!r}")
