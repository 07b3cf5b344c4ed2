"""A report as a plain aligned table for the console; columns that would be empty are left out."""

from collections.abc import Mapping
from typing import Any

ARROWS = {"lower": "lower", "higher": "higher", "real": "as real"}


def table(report: Mapping[str, Any], paper_row: Mapping[str, Any] | None = None) -> str:
    """One line per number: value, spread, floor, ceiling, the real images' and the paper's, and what is better.

    Args:
        report: see metrics.protocol.
        paper_row: what a paper prints, either {metric: value} or an entry with such a dict under "metrics"
            (results.paper.paper_row gives one).
    """
    printed = (paper_row or {}).get("metrics", paper_row or {})
    titles = ["metric", "value", "+-", "floor", "constant", "ceiling", "real", "paper", "better"]
    lines = []
    for name, entry in report["metrics"].items():
        spread = entry.get("standard_error", entry.get("sd"))
        numbers = [
            entry["value"],
            spread,
            entry.get("floor"),
            entry.get("constant"),
            entry.get("ceiling"),
            entry.get("real"),
            printed.get(name),
        ]
        digits = 4 if entry["better"] == "real" else 3 if name.startswith(("rel", "rms")) else 2
        lines.append([name, *(_number(value, digits) for value in numbers), ARROWS[entry["better"]]])
    kept = [column for column in range(len(titles)) if any(line[column] for line in lines)]
    grid = [[line[column] for column in kept] for line in [titles, *lines]]
    widths = [max(len(line[index]) for line in grid) for index in range(len(kept))]
    text = []
    for line in grid:
        cells = [
            cell.ljust(w) if i in (0, len(kept) - 1) else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(cells).rstrip())
    fake, real = report["protocol"]["fake"]["n"], report["protocol"]["real"]["n"]
    text.append(f"{fake} generated against {real} real images")
    return "\n".join([*text, *(f"warning: {warning}" for warning in report["warnings"])])


def _number(value: float | None, digits: int) -> str:
    return "" if value is None or value != value else f"{value:.{digits}f}"
