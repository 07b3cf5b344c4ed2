"""Print what the last `make soak` found; `python -m tests.faults.table docs` also writes it into docs/promises.md."""

import re
import subprocess
import sys
import time
from collections import Counter

from tests.faults.results import ROOT, SOAK, TRIALS, collected, tables

PROMISES = ROOT / "docs" / "promises.md"
BLOCK = re.compile(r"(<!-- counts: begin -->\n).*?(<!-- counts: end -->)", re.S)


def counts() -> str:
    """The block of docs/promises.md: a line for each harness, with the commit and the day."""
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    newest = max(file.stat().st_mtime for file in SOAK.glob("*.json"))
    lines = [f"`make soak` at commit {commit}, {time.strftime('%Y-%m-%d', time.gmtime(newest))}:", ""]
    trials, fuzz = collected("trials"), collected("fuzz")
    if trials:
        found = Counter(row["outcome"] for row in trials)
        cells = ", ".join(f"{found[outcome]} {outcome}" for outcome in TRIALS)
        tracebacks = sum(row["traceback"] for row in trials)
        kinds, settings = len({row["kind"] for row in trials}), len({row["setting"] for row in trials})
        lines.append(
            f"- {len(trials)} faults of {kinds} kinds in {settings} settings: {cells}; {tracebacks} tracebacks."
        )
    if fuzz:
        total: Counter = Counter()
        for row in fuzz:
            total += Counter(row["counts"])
        bad = {name: total[name] for name in ("traceback", "memory", "hung", "executed", "silent")}
        lines.append(
            f"- {sum(total.values())} mutated files in {len(fuzz)} readers: {total['read']} read, {total['refused']} "
            f"refused with one line, {', '.join(f'{count} {name}' for name, count in bad.items())}; "
            f"{fuzz[0]['memory'] >> 20} MiB and {fuzz[0]['seconds']} s a case."
        )
    for kind, words in (("corpus", "broken files of the corpus"), ("wrong", "wrong uses of the commands")):
        rows = collected(kind)
        if rows:
            lines.append(f"- {len(rows)} {words}: {sum(row['good'] for row in rows)} answered as they should be.")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print, and write where asked."""
    print(tables())
    if "docs" in sys.argv[1:]:
        PROMISES.write_text(BLOCK.sub(lambda found: found[1] + counts() + found[2], PROMISES.read_text()))


if __name__ == "__main__":
    main()
