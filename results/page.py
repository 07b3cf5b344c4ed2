"""One page of a collection of runs: everything inside one file, nothing loaded from anywhere."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from engine.trust import Trust
from results import tables
from results.collect import Collection, Run
from results.configs import config_differences, flatten
from results.curves import losses, similarities, sweeps
from results.gallery import SCORES, galleries
from results.pictures import strips, uri
from results.sections import TITLES, Section, warnings_of

HERE = Path(__file__).parent
COLOURS = 8  # of runs; further ones are drawn dashed


def page(
    collection: Collection,
    made: Sequence[Section],
    *,
    out: Path,
    title: str,
    note: str | None = None,
    images: int | None = 24,
    columns: int = 8,
    quality: int | None = None,
    trust: Trust | None = None,
) -> str:
    """The page as HTML text; what could not be shown is added to the collection's warnings.

    Args:
        out: the page's folder, to name run folders from.
        images, columns, quality, trust: see results.gallery.galleries.
    """
    runs = collection.runs
    shown = galleries(runs, images, columns, quality, collection.warnings, trust)
    datasets = dict.fromkeys(run.dataset for run in runs)
    by_dataset = {name: [run for run in runs if run.dataset == name] for name in datasets}
    at = {id(run): index for index, run in enumerate(runs)}
    charts = {
        name: _with_runs(losses(members), [at[id(run)] for run in members]) for name, members in by_dataset.items()
    }
    data: dict[str, Any] = {
        "runs": [
            {"name": run.name, "colour": index % COLOURS, "dash": index // COLOURS} for index, run in enumerate(runs)
        ],
        "losses": charts,
        "sweeps": sweeps(runs),
        "similarities": similarities(runs),
        "galleries": [
            [{"scores": {key: [_rounded(v) for v in vs] for key, vs in item.scores.items()}} for item in gallery.items]
            for gallery in shown
        ],
    }
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2").render(
        title=title,
        note=note,
        style=Markup((HERE / "page.css").read_text()),
        script=Markup("\n".join((HERE / name).read_text() for name in ("charts.js", "page.js"))),
        data=Markup(_script_json(data)),
        runs=runs,
        at=lambda run: at[id(run)],
        colours=COLOURS,
        sections=made,
        tables=tables,
        titles=TITLES,
        galleries=shown,
        scores=SCORES,
        charts=charts,
        sweeps=data["sweeps"],
        similarities=data["similarities"],
        weights=[(run, picture) for run in runs if (picture := _weights(run)) is not None],
        strips=[(run, cut) for run in runs if (cut := strips(run, quality))],
        differences={
            name: (members, config_differences(members)) for name, members in by_dataset.items() if len(members) > 1
        },
        protocols={name: found for name, members in by_dataset.items() if (found := protocol_table(members))},
        places=[os.path.relpath(run.folder, out) for run in runs],
        yaml=lambda run: yaml.safe_dump(run.config, sort_keys=False),
        show=show,
        warnings=[*dict.fromkeys([*collection.warnings, *warnings_of(made)])],
    )


def protocol_table(runs: Sequence[Run]) -> dict[str, Any]:
    """The protocols of the runs' newest reports: `same`, fields that all share, and `differing`, one value a run."""
    measured = [(run, report) for run in runs if (report := run.report()) is not None]
    flats = [flatten(report["protocol"]) for _, report in measured]
    keys = list(dict.fromkeys(key for flat in flats for key in flat))
    values = {key: [flat.get(key) for flat in flats] for key in keys}
    if not measured:
        return {}
    return {
        "runs": [run for run, _ in measured],
        "same": {key: found[0] for key, found in values.items() if all(value == found[0] for value in found)},
        "differing": {key: found for key, found in values.items() if any(value != found[0] for value in found)},
    }


def show(value: Any) -> str:
    """A config value for a reader: long lists and hashes are cut."""
    if value is None:
        return "-"
    text = f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _with_runs(charts: list[dict[str, Any]], at: list[int]) -> list[dict[str, Any]]:
    """Charts of some runs with the runs' numbers among all."""
    for chart in charts:
        for series in chart["series"]:
            series["run"] = at[series["run"]]
            series["points"] = [[x, _rounded(y)] for x, y in series["points"]]
    return charts


def _weights(run: Run) -> str | None:
    """The picture of weights that scripts/analyze.py left."""
    steps = [path for path in (run.folder / "analysis").glob("*") if path.name.isdecimal()]
    file = max(steps, key=lambda path: int(path.name)) / "weights.png" if steps else None
    return uri(file.read_bytes(), "image/png") if file is not None and file.is_file() else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _script_json(data: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
