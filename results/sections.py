"""Rows to tables: each beside the paper's numbers, blank where nothing was run; different protocols are told apart."""

import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from results.collect import Collection, Run
from results.paper import paper_row, paper_rows
from results.rows import Row, differences, groups, rows, same
from results.schedule import epochs

TITLES = {  # of the numbers, in the order of all tables
    "fid": "FID", "kid": "KID x 1e3", "fd_lite2": "fd_lite2", "kid_lite2": "kid_lite2", "swd": "SWD x 1e3",
    "miou": "mIoU %", "pixacc": "pixacc %", "pixacc_all": "pixacc_all %", "classacc": "classacc %",
    "rel": "rel", "rms": "rms", "rel_median": "rel, median", "rms_median": "rms, median",
}  # fmt: skip
HIGHER = {"miou", "pixacc", "pixacc_all", "classacc"}
WIDTH = 64  # of the generators in both papers
PAPERS = {"cfl": "CFL", "monce": "MoNCE"}


@dataclass
class Section:
    """One table: of a paper, or of the runs on a data set that cite none. `notes` stand below it."""

    title: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    def metrics(self) -> list[str]:
        """Names of the numbers that any row has, but for those that are only to be near the real images'."""
        there = {name for row in self.rows for name in row.printed}
        there |= {name for row in self.rows for name, cell in row.cells.items() if cell.better != "real"}
        return [*(name for name in TITLES if name in there), *sorted(there - TITLES.keys())]

    def direction(self, metric: str) -> str:
        """lower or higher, as the reports say it, else as known."""
        said = (row.cells[metric].better for row in self.rows if metric in row.cells)
        return next(said, "higher" if metric in HIGHER else "lower")

    def letters(self, dataset: str) -> list[str]:
        """Of the protocols that a data set's rows were measured by; one empty letter where there is one protocol."""
        return list(dict.fromkeys(row.letter for row in self.rows if row.dataset == dataset and row.cells))

    def best(self, metric: str, row: Row) -> bool:
        """Whether no measured row of the same data set, protocol and selection of checkpoints has a better mean, and
        there is another one."""
        if metric not in row.cells:
            return False

        def kind(row: Row) -> tuple[str, str, str]:
            return row.dataset, row.letter, row.selection

        peers = [other for other in self.rows if kind(other) == kind(row)]
        means = [other.cells[metric].mean for other in peers if metric in other.cells]
        chosen = max(means) if self.direction(metric) == "higher" else min(means)
        return len(means) > 1 and row.cells[metric].mean == chosen


def sections(collection: Collection) -> list[Section]:
    """All tables that the runs belong to: the papers' in their order, then runs that cite none, by data set."""
    grouped = groups(collection.runs)
    cited = {(place["paper"].lower(), table_of(place)) for group in grouped for place in group[0].places()}
    found = [_of_paper(paper, table, grouped) for paper, table in sorted(cited)]
    alone = [group for group in grouped if not group[0].places()]
    for dataset in dict.fromkeys(group[0].dataset for group in alone):
        here = [group for group in alone if group[0].dataset == dataset]
        made = [row for group in here for row in rows(group, _title(group, here))]
        found.append(Section(f"Runs on {dataset}", made))
    for section in found:
        _tell_protocols_apart(section)
    return found


def table_of(place: dict[str, Any]) -> str:
    """1, ..., text or fig3, of a place however it is written."""
    return str(place["table"]).lower().removeprefix("table")


def describe(entry: dict[str, Any]) -> str:
    """A paper's row in words: encoder, loss, and the flags that say something."""
    flags = entry.get("flags") or {}
    pretrained = {True: "pretrained", False: "from scratch", None: None}[flags.get("pretrained")]
    words = [
        " ".join(str(entry[key]) for key in ("encoder", "loss") if entry.get(key) not in (None, "none")),
        entry.get("weighting"),
        entry.get("variant"),
        "bidirectional" if flags.get("bidirectional") else None,
        pretrained,
        "trained" if flags.get("frozen") is False and pretrained else None,
        "GAN" if flags.get("gan") else None,
    ]
    return ", ".join(str(word) for word in words if word)


def departures(run: Run, entry: dict[str, Any]) -> list[str]:
    """What makes a run that cites a paper's row another experiment than that row, as far as its config shows."""
    train, encoder = run.config.get("train") or {}, run.config.get("encoder") or {}
    generator = (run.config.get("model") or {}).get("generator") or {}
    words = []
    used = str(encoder.get("_target_", "")).rpartition(".")[2]
    wanted = str(entry.get("encoder") or "")
    if used and wanted not in ("", "none") and wanted.partition("_")[0] not in used.lower():
        words.append(f"encoder {used} in place of {wanted}")
    elif (entry.get("flags") or {}).get("pretrained") and encoder.get("pretrained") is False:
        words.append(f"{used} without its pretrained weights")
    if generator.get("width") not in (None, WIDTH):
        words.append(f"generator width {generator['width']} in place of {WIDTH}")
    if train.get("steps") is not None:
        words.append(f"ended by train.steps={train['steps']}, not by the paper's schedule")
    else:
        words += _other_epochs(run)
    if train.get("minutes") is not None and run.progress is None:
        words.append(f"train.minutes={train['minutes']:g} may have cut it")
    return words


def _other_epochs(run: Run) -> list[str]:
    first, train = run.places()[0], run.config.get("train") or {}
    wanted = epochs(str(first["paper"]), table_of(first), str(first["row"]), run.dataset)
    own = (train.get("epochs"), train.get("decay_epochs"))
    if wanted is None or None in own or own == wanted:
        return []
    return [f"{own[0]} + {own[1]} epochs in place of {wanted[0]} + {wanted[1]}"]


def _title(group: list[Run], others: list[list[Run]]) -> str:
    name = str(group[0].config.get("run", ""))
    alike = [other for other in others if other[0].config.get("run") == name]
    return name if len(alike) == 1 else group[0].name.removesuffix(f" · seed {group[0].seed}")


def _of_paper(paper: str, table: str, grouped: list[list[Run]]) -> Section:
    """A table with all rows of the paper if any run is on one of its data sets, those with runs first; then our runs on
    other ones."""
    printed = paper_rows(paper, table)
    ours = [
        (group, str(place["row"]), place.get("x"))
        for group in grouped
        for place in group[0].places()
        if (place["paper"].lower(), table_of(place)) == (paper, table)
    ]
    entries = {str(entry["row"]): entry for entry in printed}
    names = {row: describe(entry) for row, entry in entries.items()}
    cells = {(entry["dataset"], str(entry["row"])): entry["metrics"] for entry in printed if entry["metrics"]}
    made: list[Row] = []
    if any((group[0].dataset, row) in cells for group, row, _ in ours):
        touched = {group[0].dataset for group, _, _ in ours}
        names_of_sets = list(dict.fromkeys(dataset for dataset, _ in cells))
        order = {dataset: (dataset not in touched, at) for at, dataset in enumerate(names_of_sets)}
        for (dataset, row), numbers in sorted(cells.items(), key=lambda cell: order[cell[0][0]]):
            mine = [group for group, at, _ in ours if (group[0].dataset, at) == (dataset, row)]
            lines = [
                line
                for group in mine
                for line in rows(group, names[row], (paper, table, row), numbers, departures(group[0], entries[row]))
            ]
            made += lines or [Row(dataset, names[row], (paper, table, row), numbers)]
    for group, row, x in sorted(ours, key=lambda item: (item[0][0].dataset, item[1], float(item[2] or 0))):
        dataset = group[0].dataset
        if (dataset, row) not in cells:
            title = names.get(row, row) + ("" if x is None else f", x = {x:g}")
            entry = paper_row(paper, table, row, dataset, x)
            numbers = entry["metrics"] if entry else {}
            made += rows(group, title, (paper, table, row), numbers, departures(group[0], entries.get(row, {})))
    where = f"Figure {table[3:]}" if table.startswith("fig") else "prose" if table == "text" else f"Table {table}"
    return Section(f"{PAPERS[paper]} {where}", made)


def _tell_protocols_apart(section: Section) -> None:
    """Letter the protocols among the rows of each data set, and note how they differ."""
    for dataset in dict.fromkeys(row.dataset for row in section.rows):
        kinds: list[Any] = []
        measured = [(row, row.report) for row in section.rows if row.dataset == dataset and row.report is not None]
        letters = []
        for _, report in measured:
            at = next((at for at, kind in enumerate(kinds) if same(kind, report)), len(kinds))
            letters.append(_letter(at))
            if at == len(kinds):
                kinds.append(report)
                if at:
                    section.notes.append(_note(dataset, _letter(at), differences(kinds[0], report)))
        if len(kinds) > 1:
            for (row, _), letter in zip(measured, letters, strict=True):
                row.letter = letter


def _note(dataset: str, letter: str, differing: dict[str, tuple[Any, Any]]) -> str:
    shown = [f"{key} ({_short(a)} in A, {_short(b)} in {letter})" for key, (a, b) in differing.items()]
    more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    return f"{dataset}: protocols A and {letter} differ and their numbers do not compare: {', '.join(shown[:4])}{more}"


def _letter(at: int) -> str:
    return string.ascii_uppercase[at % 26] * (1 + at // 26)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:21]}..."


def warnings_of(made: Sequence[Section]) -> list[str]:
    """What the evaluations warned of, each once."""
    reports = (row.report for section in made for row in section.rows if row.report is not None)
    return list(dict.fromkeys(warning for report in reports for warning in report["warnings"]))
