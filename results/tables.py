"""Tables as Markdown, CSV and LaTeX: paper / ours, mean +- sd over seeds, selection, steps, commit; blank where nothing
was run."""

import csv
import io
from collections.abc import Iterable, Sequence

from results.rows import Cell, Row
from results.sections import TITLES, Section

ARROWS = {"lower": "↓", "higher": "↑"}
HEADER = (
    "paper", "table", "row", "dataset", "title", "experiment", "overrides", "metric", "better", "paper_value",
    "ours_mean", "ours_sd", "n_seeds", "seeds", "selection", "steps", "floor", "ceiling", "real", "protocol", "commit",
    "notes", "folders",
)  # fmt: skip


def markdown(made: Sequence[Section], title: str, note: str | None, warnings: Iterable[str] = ()) -> str:
    """All tables as one Markdown page."""
    lines = [f"# {title}", ""]
    lines += [f"**{note}**", ""] if note else []
    for section in made:
        grid = [head(section), *body(section)]
        lines += [f"## {section.title}" + (f" ({note})" if note else ""), ""]
        lines += [_bar(grid[0]), _bar(["---"] * len(grid[0])), *map(_bar, grid[1:]), ""]
        lines += [f"- {line}" for line in notes(section)]
        lines += [""] if notes(section) else []
    lines += [LEGEND, ""]
    lines += [f"- warning: {warning}" for warning in warnings]
    return "\n".join(lines).rstrip() + "\n"


LEGEND = (
    "A cell is `paper / ours`: ours is the mean ± sample standard deviation over the seeds listed; one seed has no "
    "spread, and (n of N) stands where only n of them have the number. Blank: nothing was run, or the paper prints "
    "nothing. `selection` says which checkpoint: the last, or the best by which metric on which split. MoNCE and CUT "
    "print the best of their epochs on the test images: their numbers compare with best(..., test); CFL does not say. "
    "Floor: real training images against the real test images; ceiling: the real images themselves."
)


def head(section: Section) -> list[str]:
    """Titles of the columns."""
    metrics = [f"{TITLES.get(name, name)} {ARROWS[section.direction(name)]}" for name in section.metrics()]
    letter = ["protocol"] if any(row.letter for row in section.rows) else []
    return ["row", "data set", "", "experiment (overrides)", *metrics, "seeds", "selection", "steps", *letter, "commit"]


def body(section: Section) -> list[list[str]]:
    """The rows as text, and for each data set and protocol what bounds its numbers."""
    lines = []
    lettered = any(row.letter for row in section.rows)
    metrics = section.metrics()
    for at, row in enumerate(section.rows):
        cells = [paired(row.printed.get(name), row.cells.get(name), name) for name in metrics]
        letter = [row.letter] if lettered else []
        seeds = " ".join(map(str, row.seeds))
        place = row.place[2] if row.place else ""
        ends = [seeds, row.selection, span(row.steps), *letter, " ".join(row.commits)]
        name = row.experiment + (f" ({row.label})" if row.label else "")
        lines.append([place, row.dataset, row.title, name, *cells, *ends])
        for mark, limits in bounds(section, at):
            marks = [mark] if lettered else []
            lines.append(["", row.dataset, "real images", "", *limits, "", "", "", *marks, ""])
    return lines


def bounds(section: Section, at: int) -> list[tuple[str, list[str]]]:
    """After the last row of a data set, for each protocol its letter and what bounds each number; else nothing."""
    dataset = section.rows[at].dataset
    if at + 1 < len(section.rows) and section.rows[at + 1].dataset == dataset:
        return []
    found = [
        (letter, [bound(section, dataset, letter, name) for name in section.metrics()])
        for letter in section.letters(dataset)
    ]
    return [(letter, limits) for letter, limits in found if any(limits)]


def bound(section: Section, dataset: str, letter: str, metric: str) -> str:
    """The floor or ceiling of one number on one data set; empty where no evaluation gave one."""
    for row in section.rows:
        cell = row.cells.get(metric)
        if (row.dataset, row.letter) == (dataset, letter) and cell is not None:
            if cell.ceilings:
                return f"ceiling {number(cell.ceilings[0], metric)}"
            if cell.floors:
                return f"floor {number(cell.floors[0], metric)}"
    return ""


def notes(section: Section) -> list[str]:
    """What stands below a table: protocols that differ, and rows that are not the paper's experiment as it stands."""
    own: dict[str, list[str]] = {}
    for row in section.rows:
        for note in row.notes:
            own.setdefault(note, []).append(
                " ".join(filter(None, (row.place[2] if row.place else row.title, row.dataset)))
            )
    return [*section.notes, *(f"{', '.join(dict.fromkeys(places))}: {note}" for note, places in own.items())]


def paired(printed: float | None, cell: Cell | None, metric: str) -> str:
    """`paper / ours`, either side blank; empty where both are."""
    ours = "" if cell is None else measured(cell, metric)
    if printed is None:
        return ours and f"/ {ours}"
    return f"{number(printed, metric)} / {ours}".rstrip()


def measured(cell: Cell, metric: str) -> str:
    """mean ± sd, and of how many seeds where it is not of all."""
    spread = "" if cell.sd is None else f" ± {number(cell.sd, metric)}"
    some = f" ({len(cell.seeds)} of {len(cell.seeds) + len(cell.missing)})" if cell.missing else ""
    return number(cell.mean, metric) + spread + some


def number(value: float, metric: str) -> str:
    """Two digits after the point; three for rel, four for what is compared with real images."""
    return f"{value:.{ {'rel': 3, 'rel_median': 3}.get(metric, 2 if metric in TITLES else 4) }f}"


def span(steps: Sequence[int]) -> str:
    """40, or 1050-2100 where seeds stopped at different steps; empty for none."""
    if not steps:
        return ""
    return f"{min(steps)}" if min(steps) == max(steps) else f"{min(steps)}-{max(steps)}"


def comma_separated(made: Sequence[Section], note: str | None) -> str:
    """Long form: one line per row and number, with everything that the other tables leave out."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for section in made:
        for row in section.rows:
            names = dict.fromkeys([*section.metrics(), *row.cells])
            for name in names:
                cell = row.cells.get(name)
                if cell is not None or name in row.printed or (row.runs and not row.cells):
                    writer.writerow(_line(section, row, name, cell, note))
    return text.getvalue()


def _line(section: Section, row: Row, name: str, cell: Cell | None, note: str | None) -> list[object]:
    place = row.place or ("", "", "")
    ours = [cell.mean, "" if cell.sd is None else cell.sd] if cell else ["", ""]
    sides = [
        values[0] if values else "" for values in ((cell.floors, cell.ceilings, cell.reals) if cell else ([], [], []))
    ]
    better = cell.better if cell else section.direction(name)
    own = "; ".join([*([note] if note else []), *row.notes])
    seeds = " ".join(map(str, sorted(cell.seeds) if cell else row.seeds))
    return [
        *place, row.dataset, row.title, row.experiment, row.label, name, better, row.printed.get(name, ""),
        *ours, len(cell.values) if cell else 0, seeds, row.selection, span(row.steps), *sides,
        row.letter, " ".join(row.commits), own, " ".join(str(run.folder) for run in row.runs),
    ]  # fmt: skip


def latex(made: Sequence[Section], note: str | None) -> str:
    """One booktabs table a section, to be \\input."""
    parts = ["% needs \\usepackage{booktabs}"]
    for section in made:
        grid = [head(section), *body(section)]
        rows = [" & ".join(map(_escape, line)) + r" \\" for line in grid]
        below = " ".join([*([note] if note else []), *notes(section)])
        parts += [
            r"\begin{table}",
            rf"\caption{{{_escape(section.title)}: paper / ours. {_escape(below)}}}",
            rf"\begin{{tabular}}{{{'llll' + 'r' * (len(grid[0]) - 4)}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    return "\n".join(parts) + "\n"


def _bar(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


TEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "·": r"$\cdot$",
       "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {sign: "\\" + sign for sign in "&%$#_{}"}  # fmt: skip


def _escape(text: str) -> str:
    return "".join(TEX.get(sign, sign) for sign in text)
