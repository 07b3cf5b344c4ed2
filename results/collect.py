"""Run folders to what they hold: config, log, reports, environment, analysis; nothing is computed here.

A run folder is one that train.py made: it holds a config.yaml with a `run` and a `dataset`. What is damaged or missing
in it is left out with a warning, so that one broken run does not cost the report of the others.
"""

import glob
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import records
from engine.trust import plain_config
from errors import UserError
from metrics import protocol
from records import one_line
from results.shapes import check_analysis, check_config, check_environment, cited


@dataclass
class Run:
    """One run folder.

    name: short, tells it from the other runs of the collection. config: config.yaml. log: the lines of log.jsonl.
    reports: eval/*.json by file stem (metrics.protocol has the schema), the untrained baseline left out.
    environment: environment.json. analysis: analysis/<largest step>/*.json by file stem. progress: the last
    checkpoint's step and the step at which the run ends; None where the run does not say.
    """

    folder: Path
    config: dict[str, Any]
    log: list[dict[str, Any]] = field(default_factory=list)
    reports: dict[str, protocol.Report] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    analysis: dict[str, dict[str, Any]] = field(default_factory=dict)
    progress: tuple[int, int] | None = None
    name: str = ""

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return str(self.config["dataset"]["name"])

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.config.get("seed", 0))

    @property
    def label(self) -> str:
        """The overrides in the folder's name; empty where there are none or the folder has a name of its own."""
        label = self.folder.parent.name if re.fullmatch(r"seed\d+", self.folder.name) else ""
        return "" if label == "base" else label

    @property
    def paired(self) -> bool:
        """Whether source and target of an item show the same scene."""
        return str((self.config.get("setting") or {}).get("_target_", "")).endswith("Paired")

    @property
    def step(self) -> int:
        """The last step that was saved, logged or measured; 0 where nothing was."""
        seen = [*(row["step"] for row in self.log[-1:]), *(self.progress or ())[:1]]
        return max([*seen, *(int(report["subject"].get("step") or 0) for report in self.reports.values())], default=0)

    @property
    def commits(self) -> list[str]:
        """Of the code that trained it, each once in the order of its starts; empty where unknown."""
        starts = self.environment.get("commits") or [self.environment]
        return list(dict.fromkeys(str(start["commit"]) for start in starts if start.get("commit")))

    def report(self) -> protocol.Report | None:
        """The newest report of the last checkpoint, else of any."""
        found = list(self.reports.values())
        last = [report for report in found if report["protocol"].get("selection") == "last"] or found
        return max(last, key=lambda report: int(report["subject"].get("step") or 0), default=None)

    def images(self) -> Path | None:
        """The folder of images that `report` measured, wherever the run folder lies now; None where they are gone."""
        report = self.report()
        if report is None:
            return None
        folder = self.folder / "eval" / "images" / Path(str(report["subject"]["fake"])).name
        return folder if folder.is_dir() else None

    def places(self) -> list[dict[str, Any]]:
        """The rows of papers that it reproduces: paper, table, row, and x for a point of a figure."""
        return cited(self.config.get("paper"))


@dataclass
class Collection:
    """Runs in the order of their folders, and what could not be read."""

    runs: list[Run]
    warnings: list[str]


def collect(paths: Sequence[str | Path]) -> Collection:
    """All run folders in, under or matching the paths, each once.

    Raises:
        UserError: for a path that is not there or leads to no run folder.
    """
    if not paths:
        raise UserError("runs=[]: names no folder; one made by train.py was wanted, such as checkpoints/demo")
    folders: dict[Path, None] = {}
    for path in paths:
        places = [Path(path).expanduser()]
        if not places[0].exists() and glob.has_magic(str(places[0])):
            places = sorted(map(Path, glob.glob(str(places[0]))))  # noqa: PTH207
        found = [folder for place in places if place.is_dir() for folder in _folders(place)]
        if not found:
            what = "holds no run folder" if any(place.is_dir() for place in places) else "no such folder"
            raise UserError(f"runs={path}: {what}; a folder made by train.py was wanted, such as checkpoints/demo")
        folders |= dict.fromkeys(folder.resolve() for folder in found)
    warnings: list[str] = []
    runs = [run for folder in folders if (run := read_run(folder, warnings)) is not None]
    if not runs:
        raise UserError(f"runs={' '.join(map(str, paths))}: no run could be read; {'; '.join(warnings)}")
    for run, name in zip(runs, short_names(runs), strict=True):
        run.name = name
    return Collection(runs, warnings)


def read_run(folder: Path, warnings: list[str]) -> Run | None:
    """One run folder; None where its config cannot be read. What is wrong is added to `warnings`."""
    try:
        config = plain_config(records.load_yaml(folder / "config.yaml"), str(folder / "config.yaml"))
        check_config(config)
    except UserError as error:
        warnings.append(f"{error}; the run is left out")
        return None
    except (OSError, ValueError) as error:
        warnings.append(f"{folder / 'config.yaml'}: {one_line(error)}; the run is left out")
        return None
    run = Run(folder, config)
    run.log = _log(folder / "log.jsonl", warnings)
    run.environment = _json(folder / "environment.json", check_environment, warnings) or {}
    run.progress = _progress(folder / "progress.txt", warnings)
    if config.get("paper") and not run.places():
        warnings.append(f"{folder / 'config.yaml'}: paper names no table of CFL or MoNCE, and counts as citing none")
    for file in sorted((folder / "eval").glob("*.json")):
        report = _json(file, protocol.check, warnings)
        if report is not None and file.stem != "untrained":
            run.reports[file.stem] = report
    steps = [path for path in (folder / "analysis").glob("*") if path.name.isdecimal()]
    if steps:
        newest = max(steps, key=lambda path: int(path.name))
        found = {file.stem: _json(file, check_analysis, warnings) for file in sorted(newest.glob("similarity.json"))}
        run.analysis = {name: value for name, value in found.items() if value is not None}
    return run


def short_names(runs: Sequence[Run]) -> list[str]:
    """Unique names, made of as few of experiment, seed, data set and overrides as it takes; else parts of the path."""
    labels = [run.label for run in runs]
    parts = [
        (str(run.config.get("run", "")), f"seed {run.seed}", run.dataset, label)
        for run, label in zip(runs, labels, strict=True)
    ]
    for kept in ((0,), (0, 1), (0, 2), (0, 1, 2), (0, 3), (0, 1, 3), (0, 1, 2, 3)):
        names = [" · ".join(part[at] for at in kept if part[at]) for part in parts]
        if len(set(names)) == len(names):
            return names
    paths = [run.folder.parts for run in runs]
    shared = next(at for at in range(len(paths[0]) + 1) if len({path[: at + 1] for path in paths}) > 1)
    return ["/".join(path[shared:]) or path[-1] for path in paths]


def _folders(place: Path) -> list[Path]:
    if (place / "config.yaml").is_file():
        return [place]
    below = sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [folder for path in below for folder in _folders(path)]


def _progress(path: Path, warnings: list[str]) -> tuple[int, int] | None:
    if not path.is_file():
        return None
    try:
        step, steps = path.read_text().split(" of ")
        return int(step), int(steps)
    except (OSError, ValueError) as error:
        warnings.append(f"{path}: {one_line(error)}; left out")
        return None


def _log(path: Path, warnings: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    try:
        lines = path.read_bytes().splitlines() if path.is_file() else []
    except OSError as error:
        warnings.append(f"{path}: {one_line(error)}; left out")
        return rows
    for number, line in enumerate(lines, 1):
        try:
            row = records.parse(line, finite=False)  # a loss may have been infinite
            records.check_shape(row, {"step": int})
        except ValueError:
            warnings.append(f"{path}: line {number} is damaged; it and what follows is left out")
            break
        rows.append(row)
    return rows


def _json(path: Path, check: Callable[[Any], None], warnings: list[str]) -> dict[str, Any] | None:
    """The object in a file whose shape `check` lets pass; None, with a warning where there is a file, for another."""
    if not path.is_file():
        return None
    try:
        value: dict[str, Any] = records.load(path)
        check(value)
        return value
    except (OSError, ValueError) as error:
        warnings.append(f"{path}: {one_line(error)}; left out")
        return None
