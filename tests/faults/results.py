"""What the harnesses found, as JSON: between the processes that look and the tests that judge, and for the tables.

`make soak` keeps these files in .soak/, prints their tables, and docs/promises.md takes its numbers from them.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SOAK = ROOT / ".soak"
FUZZ = ("read", "refused", "traceback", "memory", "hung", "executed", "silent")
TRIALS = ("healed", "set aside", "refused", "lost", "silent")


def harness(module: str, out: Path, *words: str, seconds: float = 1800) -> Any:
    """Run `python -m tests.faults.MODULE WORDS json=OUT` in a process of its own, warm and single-threaded."""
    out.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", f"tests.faults{'.' if module else ''}{module}", *words, f"json={out}"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=seconds)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


def write(out: str, found: Any) -> None:
    """JSON, where a file was asked for."""
    if out:
        Path(out).write_text(json.dumps(found, indent=1) + "\n")


def collected(kind: str, folder: Path = SOAK) -> list[dict[str, Any]]:
    """The rows of all parts of a kind: trials, fuzz, corpus or wrong."""
    return [row for file in sorted(folder.glob(f"{kind}-*.json")) for row in json.loads(file.read_text())]


def columns(rows: Sequence[Sequence[Any]]) -> str:
    """Lines of aligned cells: the first to the left, numbers to the right."""
    widths = [max(len(str(row[at])) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [str(cell).rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([str(row[0]).ljust(widths[0]), *cells[1:]]))
    return "\n".join(lines)


def trials_table(rows: list[dict[str, Any]]) -> str:
    """Kinds of faults by outcome; then kinds by settings, with ! at a cell where a promise was broken."""
    kinds, settings = (list(dict.fromkeys(row[key] for row in rows)) for key in ("kind", "setting"))
    by_outcome: list[list[Any]] = [["fault", "trials", *TRIALS, "tracebacks"]]
    by_setting: list[list[Any]] = [["fault", *(chr(65 + at) for at in range(len(settings)))]]
    for kind in [*sorted(kinds), "all"]:
        mine = [row for row in rows if kind in (row["kind"], "all")]
        counts = Counter(row["outcome"] for row in mine)
        tracebacks = sum(row["traceback"] for row in mine)
        by_outcome.append([kind, len(mine), *(counts[outcome] for outcome in TRIALS), tracebacks])
        cells = []
        for setting in settings:
            there = [row for row in mine if row["setting"] == setting]
            cells.append(f"{len(there) or '.'}{'' if all(row['good'] for row in there) else '!'}")
        by_setting.append([kind, *cells])
    legend = [f"{chr(65 + at)}: {setting}" for at, setting in enumerate(settings)]
    bad = [row["line"] for row in rows if not row["good"]]
    return "\n".join([columns(by_outcome), "", columns(by_setting), *legend, *bad])


def fuzz_table(rows: list[dict[str, Any]]) -> str:
    """Readers by outcome."""
    table: list[list[Any]] = [["reader", "cases", *FUZZ]]
    total: Counter = Counter()
    for row in rows:
        total += Counter(row["counts"])
        table.append([row["reader"], sum(row["counts"].values()), *(row["counts"].get(name, 0) for name in FUZZ)])
    table.append(["all", sum(total.values()), *(total[name] for name in FUZZ)])
    bad = [f"{row['reader']}, case {case}: {what}" for row in rows for case, what in row["bad"].items()]
    bound = f"each case in {rows[0]['memory'] >> 20} MiB beside the interpreter, and {rows[0]['seconds']} s"
    return "\n".join([columns(table), bound, *bad])


def named_table(rows: list[dict[str, Any]]) -> str:
    """Numbers of cases, and those that were not answered as they should be."""
    bad = [f"{row['name']}: {row['found']}" for row in rows if not row["good"]]
    return "\n".join([f"{len(rows)} cases, {len(bad)} answered wrongly", *bad])


TABLES = {
    "trials": ("faults in real trainings", trials_table),
    "fuzz": ("mutated files into every reader", fuzz_table),
    "corpus": ("broken files that have failed once", named_table),
    "wrong": ("wrong uses of every command", named_table),
}


def tables(folder: Path = SOAK) -> str:
    """All tables for which there are results."""
    parts = []
    for kind, (title, table) in TABLES.items():
        rows = collected(kind, folder)
        if rows:
            parts.append(f"== {title}\n{table(rows)}")
    return "\n\n".join(parts) or "no results: make soak makes them"
