"""How long a user waits at the start: `python -m benchmarks.start [rounds=5] [threads=2] [small=1] [only=WORD]`.

Both are commands in a process of their own: `train.py --help`, and the default run until its first step is in the log.
No older code is their like, so that the targets are milliseconds. Importing PyTorch is most of the second.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.compare import Item, main

ROOT = Path(__file__).resolve().parents[1]
TINY = ("train.workers=0", "train.samples=0", "model.generator.width=2", "model.discriminator.width=2")


def help_text() -> int:
    """`train.py --help`; the number of bytes that it prints."""
    return len(subprocess.run([sys.executable, "train.py", "--help"], cwd=ROOT, capture_output=True, check=True).stdout)


def first_step(*words: str) -> str:
    """Start the default run, wait for the first line of its log, end it; that line."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "run" / "log.jsonl"
        command = [sys.executable, "train.py", f"hydra.run.dir={folder}/run", "train.log_every=1", *words]
        with (Path(folder) / "printed").open("w+") as printed:
            process = subprocess.Popen(command, cwd=ROOT, stdout=printed, stderr=subprocess.STDOUT)
            try:
                while not (log.exists() and log.stat().st_size):
                    if process.poll() is not None:
                        printed.seek(0)
                        raise RuntimeError(f"the run ended before its first step: {printed.read()[-500:]}")
                    time.sleep(0.01)
                return log.read_text()
            finally:
                process.terminate()
                process.wait()


def items(small: bool) -> Iterator[Item]:
    """Help, and the first step; small, of a small network."""
    words = TINY if small else ()
    yield Item("train.py --help", {"ours": help_text}, limit=1500, remark="extra memory is not of the other process")
    yield Item("default run to its first step", {"ours": lambda: first_step(*words)}, limit=8000, rounds=2)


if __name__ == "__main__":
    main(items)
