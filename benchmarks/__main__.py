"""All benchmarks, a file a process: `python -m benchmarks [NAME ...] [rounds=5] [threads=2] [out=benchmarks.json]`.

Prints the rates of the machine, then the lines of each item, then how many targets are met; writes JSON and, as the
table of docs/performance.md, Markdown beside it.
"""

import json
import os
import pkgutil
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

import benchmarks
from benchmarks import rates
from benchmarks.compare import Found
from engine.record import environment

RANKS = "ranks"  # runs of train.py, which have a table of their own


def names() -> list[str]:
    """The files of this folder that have items."""
    found = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name != "__main__")
    return [name for name in found if hasattr(import_module(f"benchmarks.{name}"), "items")]


def markdown(results: list[Found], machine: dict[str, float]) -> str:
    """The table of docs/performance.md; the last column: the transcription in the older code's time at our rates."""
    lines = [
        "| item | variant | ms | x | asked | extra MB | floor ms | older code here |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for found in results:
        for turn, (variant, milliseconds) in enumerate(found.milliseconds.items()):
            met = found.met(variant)
            asked = "" if met is None else f"{found.asked(variant)} {'met' if met else '**missed**'}"
            floor = "" if found.floor_ms is None or turn != 1 else f"{found.floor_ms:.1f}"
            older = ""
            if turn == 0 and found.official and found.bound:
                share = milliseconds / (found.official * rates.STUDY[found.bound] / machine[found.bound])
                older = f"{100 * share:.0f} %"
            cells = (found.name if turn == 0 else "", variant, f"{milliseconds:.4g}", f"{found.speedup(variant):.2f}")
            cells += (asked, f"{found.extra_mb[variant]:.0f}", floor, older)
            lines.append(f"| {' | '.join(cells)} |")
        if found.remark:
            lines.append(f"| | {found.remark} | | | | | | |")
    return "\n".join(lines)


def write(out: Path, results: list[Found], others: dict[str, Any], machine: dict[str, float]) -> None:
    """JSON, and Markdown beside it."""
    record = {"environment": environment(torch.device("cpu"), 1), "rates": machine, "items": [vars(r) for r in results]}
    record |= others
    out.write_text(json.dumps(record, indent=1) + "\n")
    out.with_suffix(".md").write_text(markdown(results, machine) + "\n")


def main() -> None:
    """Run and print; write what there is after each file."""
    given = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
    options = {"rounds": "5", "threads": "2", "out": "benchmarks.json", **given}
    wanted = [word for word in sys.argv[1:] if "=" not in word] or [*names(), RANKS]
    threads = options["threads"]
    environ = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    begun = time.perf_counter()
    machine = rates.measure(int(threads))
    print("  ".join(f"{name} {value:.0f}" for name, value in machine.items()), "(GFLOP/s; memory GB/s)", flush=True)
    results: list[Found] = []
    others: dict[str, Any] = {}
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rates.json").write_text(json.dumps(machine))
        for name in wanted:
            file = Path(folder) / f"{name}.json"
            print(f"\n{name}", flush=True)
            common = [f"rounds={options['rounds']}", f"threads={threads}", f"rates={folder}/rates.json"]
            words = [f"json={file}"] if name == RANKS else [*common, f"json={file}"]
            started = time.perf_counter()
            done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *words], env=environ)
            print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
            if done.returncode:
                failed.append(name)
            if file.exists() and name == RANKS:
                others[name] = json.loads(file.read_text())
            elif file.exists():
                results += [Found(**found) for found in json.loads(file.read_text())]
            write(Path(options["out"]), results, others, machine)  # now: an early end loses nothing
    met = [found.met(variant) for found in results for variant in found.milliseconds]
    print(
        f"\n{met.count(True)} targets met, {met.count(False)} missed, {(time.perf_counter() - begun) / 60:.1f} minutes"
    )
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
