"""Numbers over something, for the charts of a page: losses over training (CFL, Fig. 8), similarities of patches (MoNCE,
Fig. 2), and scores over beta and Q (MoNCE, Figs. 3 and 7)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from results.collect import Run
from results.configs import settings
from results.paper import paper_rows
from results.rows import Row, groups, rows

Chart = dict[str, Any]  # title, x, y, series: [{name, points: [[x, y, sd]], run (index) or null, paper (bool)}]
NOT_TERMS = {"step", "images", "lr", "images_per_second", "data_wait", "memory_mb", "time"}
POINTS = 400  # of a curve; longer ones are averaged over equal stretches
SWEPT = {"beta": "beta", "q": "Q"}


def losses(runs: Sequence[Run]) -> list[Chart]:
    """A chart for each logged value: the objective's terms, discriminators, terms' layers, gradient norms."""
    names = dict.fromkeys(name for run in runs for row in run.log for name in row if name not in NOT_TERMS)
    kinds = {name: (name.startswith("norm/"), "/" in name, name.startswith("discriminator")) for name in names}
    charts = []
    for name in sorted(names, key=lambda name: kinds[name]):
        series = []
        for index, run in enumerate(runs):
            points = [
                [row["step"], row[name], row["images"] if _number(row.get("images")) else None]
                for row in run.log
                if _number(row.get(name))
            ]
            if points:
                thinned = thin(points)
                series.append(
                    {
                        "name": run.name,
                        "run": index,
                        "points": [point[:2] for point in thinned],
                        "images": [point[2] for point in thinned],
                    }
                )
        if series:
            charts.append({"title": name, "x": "step", "y": name, "norm": kinds[name][0], "series": series})
    return charts


def thin(points: list[list[Any]], count: int = POINTS) -> list[list[Any]]:
    """At most `count` points: means over equal stretches, at the last place of each."""
    if len(points) <= count:
        return points
    edges = [at * len(points) // count for at in range(count + 1)]
    stretches = [points[a:b] for a, b in pairwise(edges)]
    return [[part[-1][0], sum(point[1] for point in part) / len(part), *part[-1][2:]] for part in stretches]


def similarities(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The histograms that scripts/analyze.py left in run folders: run (index), name, and the file's content."""
    return [
        {"run": index, "name": run.name, **run.analysis["similarity"]}
        for index, run in enumerate(runs)
        if "similarity" in run.analysis
    ]


def sweeps(runs: Sequence[Run]) -> list[Chart]:
    """Charts of every measured number over beta and over Q, of runs that are equal in all but their loss.

    A loss without beta is a level line in a chart over beta, if it agrees with the curves in Q. FID over beta is drawn
    beside the paper's curves, where it has one for the data set and loss; its numbers over Q are no target.
    """
    by_rest: dict[str, list[Row]] = {}
    for group in groups(runs):
        if not isinstance(group[0].config.get("loss"), dict):
            continue
        rest = {key: value for key, value in settings(group[0]).items() if not key.startswith("loss.")}
        measured = [row for row in rows(group, "") if row.cells]
        chosen = [row for row in measured if row.selection == "last"] or measured
        by_rest.setdefault(repr(sorted(rest.items())), []).extend(chosen[:1])
    return [chart for alike in by_rest.values() for key in SWEPT for chart in _charts(alike, key)]


def _charts(alike: list[Row], key: str) -> list[Chart]:
    by_loss: dict[str, list[Row]] = {}
    for row in alike:
        own = {name: value for name, value in _loss(row).items() if name != key}
        by_loss.setdefault(repr((_loss(row).get(key) is None, sorted(own.items(), key=str))), []).append(row)
    swept = [found for found in by_loss.values() if len({_loss(row).get(key) for row in found}) > 1]
    if not swept:
        return []
    totals = {_loss(found[0]).get("q") for found in swept}
    without = [found for found in by_loss.values() if key == "beta" and _loss(found[0]).get(key) is None]
    level = [found for found in without if _loss(found[0]).get("q") in {None, *totals}]
    places = sorted({float(_loss(row)[key]) for found in swept for row in found})
    charts = []
    for metric in dict.fromkeys(name for row in alike for name, cell in row.cells.items() if cell.better != "real"):
        series = []
        for found in swept:
            points = [(float(_loss(row)[key]), row.cells[metric]) for row in found if metric in row.cells]
            drawn = [[x, cell.mean, cell.sd or 0] for x, cell in sorted(points, key=lambda point: point[0])]
            series.append({"name": loss_name(found[0], key), "points": drawn})
        for found in level:
            if metric in found[0].cells:
                y = found[0].cells[metric].mean
                series.append({"name": loss_name(found[0], key), "points": [[x, y, 0] for x in places]})
        if metric == "fid" and key == "beta":
            series += _printed(alike[0].dataset)
        title = f"{metric} over {SWEPT[key]}, {alike[0].dataset}"
        charts.append({"title": title, "x": SWEPT[key], "y": metric, "log": True, "series": series})
    return charts


def loss_name(row: Row, key: str) -> str:
    """MoNCE hard, beta 0.1: the loss without the key that is swept."""
    loss = _loss(row)
    words = [str(loss.get("_target_")).rpartition(".")[2], *([loss["direction"]] if loss.get("direction") else [])]
    others = [f"{SWEPT[name]} {loss[name]:g}" for name in SWEPT if name != key and loss.get(name) is not None]
    return ", ".join([" ".join(words), *others])


def _loss(row: Row) -> dict[str, Any]:
    return dict(row.runs[0].config["loss"])


def _printed(dataset: str) -> list[dict[str, Any]]:
    """The paper's curves over beta."""
    found = []
    for figure in ("fig3", "fig7"):
        for entry in paper_rows("monce", figure):
            curve = entry["series"]
            if (entry["dataset"], curve["x"]) == (dataset, "beta"):
                words = [str(entry["loss"]), *([entry["weighting"]] if entry.get("weighting") else [])]
                points = [[x, y, 0] for x, y in zip(curve["x_values"], curve["FID"], strict=True)]
                found.append({"name": f"paper: {' '.join(words)}", "points": points, "paper": True})
    return [curve for at, curve in enumerate(found) if curve not in found[:at]]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and value == value and abs(value) != float("inf")
