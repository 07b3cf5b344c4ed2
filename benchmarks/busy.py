"""How OpenMP's idle threads should wait, on a quiet and on a busy machine: `python -m benchmarks.busy [OPTION ...]`.

Options: `values=default,passive,1000,10000,100000` of GOMP_SPINCOUNT (`default`: the library's own, `passive`:
OMP_WAIT_POLICY=passive, `one`: a single thread), `neighbours=0,2` busy processes beside, `steps=60` of training,
`rounds=3`, `json=FILE`. Prints the medians: images/s of training the demo, from its log, and the seconds of test.py and
evaluate.py on what it trained. Values take turns in each round, so that a change of the machine meets all of them.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEUTRAL = {"OMP_DISPLAY_ENV": "false"}  # a variable of OpenMP's that changes nothing: then openmp.py sets none
WORK = ("train", "test", "evaluate")


def variables(value: str) -> dict[str, str]:
    """The environment of one row, without what the caller has set of OpenMP's."""
    own = {"default": NEUTRAL, "passive": {"OMP_WAIT_POLICY": "passive"}, "one": {"OMP_NUM_THREADS": "1"}}
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    return kept | own.get(value, {"GOMP_SPINCOUNT": value})


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that never wait."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def call(environ: dict[str, str], *words: str) -> float:
    """Seconds of a command."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=ROOT, env=environ, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def measure(environ: dict[str, str], folder: Path, steps: int) -> dict[str, float]:
    """Images/s of training; seconds of test and evaluate."""
    run = folder / "run"
    every = max(1, steps // 6)
    words = (f"train.steps={steps}", f"train.log_every={every}", "train.samples=0", "train.device=cpu")
    call(environ, "train.py", *words, f"hydra.run.dir={run}")
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    seconds = [1 / row["images_per_second"] for row in rows[1:]]  # the first line holds the start
    return {
        "train": len(seconds) / sum(seconds),
        "test": call(environ, "test.py", f"checkpoint={run}", f"output={folder / 'images'}", "device=cpu"),
        "evaluate": call(environ, "evaluate.py", f"checkpoint={run}", "images=16", "device=cpu"),
    }


def table(found: dict[int, dict[str, dict[str, list[float]]]]) -> str:
    """Markdown: a row a value, for each number of neighbours the medians of the three."""
    heads = [f"{work}, {count} busy" for count in found for work in WORK]
    lines = [f"| GOMP_SPINCOUNT | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for value in next(iter(found.values())):
        cells = [f"{statistics.median(found[count][value][work]):.3g}" for count in found for work in WORK]
        lines.append(f"| {value} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\ntrain: images/s; test and evaluate: seconds, medians of all rounds"


def main() -> None:
    """Measure and print; write JSON where asked."""
    options = {"values": "default,passive,1000,10000,100000", "neighbours": "0,2", "steps": "60", "rounds": "3"}
    options |= {"json": "", **dict(word.split("=", 1) for word in sys.argv[1:])}
    values, counts = options["values"].split(","), [int(count) for count in options["neighbours"].split(",")]
    found = {count: {value: {work: [] for work in WORK} for value in values} for count in counts}
    for number in range(int(options["rounds"])):
        for count in counts:
            for value in values:
                with busy(count), tempfile.TemporaryDirectory() as folder:
                    seen = measure(variables(value), Path(folder), int(options["steps"]))
                for work in WORK:
                    found[count][value][work].append(seen[work])
                shown = ", ".join(f"{work} {seen[work]:.3g}" for work in WORK)
                print(f"round {number + 1}, {count} busy neighbours, {value}: {shown}", flush=True)
    print(f"\n{table(found)}")
    if options["json"]:
        Path(options["json"]).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
