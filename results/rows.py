"""Runs to rows: mean and spread over seeds.

Runs whose settings are equal but for the seed make one row for each selection of a checkpoint. Numbers that were
measured by different protocols are never averaged: they make rows of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import nan, sqrt
from typing import Any

from metrics import protocol
from results.collect import Run
from results.configs import settings

Place = tuple[str, str, str]  # paper, table, row


@dataclass
class Cell:
    """One number of a row: a value for each of `seeds`, and the bounds that the evaluations gave with it.

    missing: the row's seeds without this number.
    """

    better: str  # lower, higher, or real: the nearer to the real images'
    values: list[float] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    floors: list[float] = field(default_factory=list)
    ceilings: list[float] = field(default_factory=list)
    reals: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Over seeds."""
        return sum(self.values) / len(self.values) if self.values else nan

    @property
    def sd(self) -> float | None:
        """Sample standard deviation over seeds; None for one."""
        n = len(self.values)
        return sqrt(sum((value - self.mean) ** 2 for value in self.values) / (n - 1)) if n > 1 else None


@dataclass
class Row:
    """One line of a table; without `runs` nothing was run.

    title: what the paper's row is, or what the runs are called. printed: the paper's numbers under this project's
    names. report: of its first run, whose protocol all its numbers share. letter: of that protocol among its table's.
    """

    dataset: str
    title: str
    place: Place | None = None
    printed: dict[str, float] = field(default_factory=dict)
    cells: dict[str, Cell] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    selection: str = ""
    steps: list[int] = field(default_factory=list)
    report: protocol.Report | None = None
    letter: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def experiment(self) -> str:
        """What the runs are called; empty where nothing was run."""
        return str(self.runs[0].config.get("run", "")) if self.runs else ""

    @property
    def label(self) -> str:
        """The overrides in the run folder's name; empty where there are none."""
        return self.runs[0].label if self.runs else ""

    @property
    def seeds(self) -> list[int]:
        """Of the runs, in order."""
        return sorted(run.seed for run in self.runs)

    @property
    def commits(self) -> list[str]:
        """Of the code that trained the runs, each once."""
        return sorted({commit for run in self.runs for commit in run.commits})


def groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ in nothing but the seed."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(repr((run.config.get("run"), sorted(settings(run).items()))), []).append(run)
    return [sorted(group, key=lambda run: run.seed) for group in found.values()]


def rows(
    group: list[Run],
    title: str,
    place: Place | None = None,
    printed: dict[str, float] | None = None,
    notes: Sequence[str] = (),
) -> list[Row]:
    """A row for each selection and protocol that a group was measured by; one without numbers where it was by none."""
    made: list[Row] = []
    for run in group:
        for selection, report in newest(run).items():
            row = next((row for row in made if row.selection == selection and same(row.report, report)), None)
            if row is None:
                row = Row(run.dataset, title, place, printed or {}, selection=selection, report=report)
                row.notes = list(notes)
                made.append(row)
            row.runs.append(run)
            row.steps.append(step_of(report))
            _add(row, run.seed, report)
    for row in made:
        row.notes += [*_incomplete(row), *_unfinished(row)]
    if not made:
        made = [Row(group[0].dataset, title, place, printed or {}, runs=group, steps=[run.step for run in group])]
        made[0].notes = list(notes)
    bare: dict[str, list[str]] = {}
    for run in group:
        if not run.reports:
            bare.setdefault(_state(run), []).append(str(run.seed))
    for state, seeds in bare.items():
        made[0].notes.append(state if len(group) == 1 else f"seed {' and '.join(seeds)} {state}")
    return made


def _incomplete(row: Row) -> list[str]:
    """Notes on the numbers that not all seeds have, which are marked as missing there."""
    found: dict[str, list[str]] = {}
    for name, cell in row.cells.items():
        cell.missing = [seed for seed in row.seeds if seed not in cell.seeds]
        if cell.missing:
            found.setdefault(" and ".join(map(str, cell.missing)), []).append(name)
    return [f"{', '.join(names)} without seed {seeds}" for seeds, names in found.items()]


def _unfinished(row: Row) -> list[str]:
    """Notes on measured checkpoints that are not of the end of their training."""
    found = []
    for run, step in zip(row.runs, row.steps, strict=True):
        if run.progress is not None:
            reached = step if row.selection == "last" else run.progress[0]
            if reached < run.progress[1]:
                found.append(f"seed {run.seed}: step {reached} of {run.progress[1]}")
    return found


def _state(run: Run) -> str:
    """Of a run without numbers, in words; one that does not say where it ends has trained if it logged anything."""
    if run.progress is not None and run.progress[0] < run.progress[1]:
        return f"not finished, not evaluated (step {run.progress[0]} of {run.progress[1]})"
    return "trained, not evaluated" if run.progress or run.step else "not finished, not evaluated"


def newest(run: Run) -> dict[str, protocol.Report]:
    """The latest report of each selection."""
    found: dict[str, protocol.Report] = {}
    for report in sorted(run.reports.values(), key=step_of):
        found[str(report["protocol"].get("selection") or "last")] = report
    return found


def differences(a: protocol.Report, b: protocol.Report) -> dict[str, tuple[Any, Any]]:
    """How two protocols differ, but for the selection, which rows state."""
    return {key: pair for key, pair in protocol.differences(a, b).items() if key != "selection"}


def same(a: protocol.Report | None, b: protocol.Report) -> bool:
    """Whether two reports can be compared."""
    return a is not None and not differences(a, b)


def step_of(report: protocol.Report) -> int:
    """Of the checkpoint that a report measured."""
    return int(report["subject"].get("step") or 0)


def _add(row: Row, seed: int, report: protocol.Report) -> None:
    for name, entry in report["metrics"].items():
        if entry["value"] is not None:
            cell = row.cells.setdefault(name, Cell(entry["better"]))
            cell.seeds.append(seed)
            kinds = {"value": cell.values, "floor": cell.floors, "ceiling": cell.ceilings, "real": cell.reals}
            for key, values in kinds.items():
                if entry.get(key) is not None:
                    values.append(float(entry[key]))
