"""Mutated files into every reader, in forked children with bounded memory and time.

`python -m tests.faults.fuzz [cases=330] [seed=0] [reader=NAME] [part=0/2] [json=FILE]` prints the table. A case is
drawn from its reader's name, the seed and its number; `only=NUMBER` repeats one and prints its traceback.
"""

import faulthandler
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch

import torch
from omegaconf.errors import OmegaConfBaseException

from engine import launch
from engine.launch import explain
from errors import UserError
from tests.faults.commands import bound_memory
from tests.faults.mutations import MARK
from tests.faults.readers import READERS, Reader, sample
from tests.faults.results import fuzz_table, write

MEMORY = 1 << 30  # bytes of address space that a case may take beside what the warm interpreter has
SECONDS = 20  # of a case; a busy machine needs its time
FORBIDDEN = (
    "os.system",
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
    "shutil.copyfile",
)


@dataclass
class Found:
    """Outcomes of one reader's cases, and the first bad ones: case number -> what happened."""

    reader: str
    counts: Counter = field(default_factory=Counter)
    bad: dict[int, str] = field(default_factory=dict)
    last: tuple[str, str] = ("", "")


def fuzz_one(it: Reader, folder: Path) -> tuple[str, str]:
    """Outcome and words of a reader whose file is broken already, in a child as all cases."""
    READERS["one"] = it
    found = fuzz("one", 1, 0, folder)
    return found.last


def fuzz(reader: str, cases: int, seed: int, folder: Path, show: bool = False, first: int = 0) -> Found:
    """Run the cases `first`..`first + cases` of one reader."""
    found = Found(reader)
    number = first
    if READERS[reader].mutate is not None:
        sample(reader)  # here, so that all children have it
    while number < first + cases:
        log = folder / "log"
        log.write_text("")
        pid = os.fork()
        if pid == 0:
            try:
                _child(reader, number, first + cases, seed, folder, log, show)
            except BaseException:  # of the harness: a reader must take its own sample
                _note(log, first + cases - 1, "traceback", traceback.format_exc()[-2000:], True)
            finally:
                os._exit(0)
        number = _watch(pid, log, found, number)
    return found


def _watch(pid: int, log: Path, found: Found, number: int) -> int:
    """Read a child's lines until it ends; returns the number of the next case."""
    seen, since = 0, time.monotonic()
    while True:
        ended, _ = os.waitpid(pid, os.WNOHANG)
        rows = [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        for row in rows[seen:]:
            found.counts[row["outcome"]] += 1
            found.last = row["outcome"], row["detail"]
            if row["outcome"] not in ("read", "refused"):
                found.bad[row["case"]] = f"{row['outcome']}: {row['detail']}"
            number, since = row["case"] + 1, time.monotonic()
        seen = len(rows)
        if ended:
            if rows and rows[-1].get("last"):
                return number
            found.counts["traceback"] += 1
            found.bad[number] = "the process died"
            found.last = "traceback", found.bad[number]
            return number + 1
        if time.monotonic() - since > SECONDS:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            found.counts["hung"] += 1
            found.bad[number] = f"hung: more than {SECONDS} s"
            found.last = "hung", found.bad[number]
            return number + 1
        time.sleep(0.002)


def _child(reader: str, first: int, end: int, seed: int, folder: Path, log: Path, show: bool) -> None:
    silence = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2) if not show else (0,):
        os.dup2(silence, handle)
    faulthandler.disable()
    bound_memory(MEMORY)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    it = READERS[reader]
    events: list[str] = []
    watching = [True]

    def audit(event: str, arguments: Any) -> None:
        started = it.starts and event == "subprocess.Popen" and arguments[0] == sys.executable
        reached = event == "import" and arguments[0] == "tests.faults.canary"
        if watching[0] and not started and (event in FORBIDDEN or reached):
            events.append(f"{event} {str(arguments)[:80]}")

    sys.modules.pop("tests.faults.canary", None)
    sys.addaudithook(audit)
    watching[0] = False
    work = folder / "case"
    if it.mutate is not None:
        original, name = sample(reader)
        shutil.copytree(original, work)
        expected = it.read(work / name)
        content = (original / name).read_bytes()
    for case in range(first, end):
        rng = random.Random(f"{reader} {seed} {case}")
        os.chdir(folder)
        shutil.rmtree(work, ignore_errors=True)
        events.clear()
        if it.mutate is None:
            work.mkdir()
            os.chdir(work)
            file = it.make(work)
        else:
            shutil.copytree(original, work)
            os.chdir(work)
            file = work / name
            changed = it.mutate(content, rng)
            file.write_bytes(changed)
        watching[0] = True
        outcome, detail = _one(it.read, file, show)
        watching[0] = False
        if outcome == "read" and it.same is not None and it.mutate is not None and not it.same(expected, detail):
            outcome, detail = "silent", "read without a word, and not what was written"
        marks = [*events, *(str(path) for path in work.rglob(MARK))]
        if marks:
            outcome, detail = "executed", "; ".join(marks[:3])
        _note(log, case, outcome, str(detail)[:300], case == end - 1)


def _note(log: Path, case: int, outcome: str, detail: str, last: bool) -> None:
    with log.open("a") as out:
        out.write(json.dumps({"case": case, "outcome": outcome, "detail": detail, "last": last}) + "\n")


def _one(read: Any, file: Path, show: bool) -> tuple[str, Any]:
    try:
        return "read", read(file)
    except (UserError, OmegaConfBaseException) as error:
        line = explain(error, [])
        if "\n" in line or not line.strip():
            return "traceback", f"a message of {len(line.splitlines())} lines: {line[:100]!r}"
        if show:
            print(line)
        return "refused", line
    except OSError as error:
        if error.errno not in getattr(launch, "OUTSIDE", ()):  # what the commands end in one line
            return _traced(error, show)
        return "refused", str(error)
    except MemoryError as error:
        return "memory", str(error) or "MemoryError"
    except BaseException as error:
        return _traced(error, show)


def _traced(error: BaseException, show: bool) -> tuple[str, str]:
    if show:
        traceback.print_exception(error)
    place = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in place if "site-packages" not in frame.filename]
    own = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in ours]
    kind = "memory" if isinstance(error, RuntimeError) and "memory" in str(error) else "traceback"
    return kind, f"{type(error).__name__}: {str(error)[:120]} at {' '.join(own[-2:])}"


def main() -> None:
    """Print the table and every bad case; write JSON where asked."""
    options = {"cases": "330", "seed": "0", "reader": "", "only": "", "part": "0/1", "json": ""}
    options |= dict(word.split("=", 1) for word in sys.argv[1:])
    torch.set_num_threads(1)
    part, parts = (int(number) for number in options["part"].split("/"))
    whole = sum(it.share for it in READERS.values())
    names = [name for name in READERS if name.startswith(options["reader"])][part::parts]
    rows = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            only, begun = options["only"], time.perf_counter()
            cases = -(-int(options["cases"]) * READERS[name].share // whole)
            seed = int(options["seed"])
            one = fuzz(name, 1 if only else cases, seed, Path(folder), bool(only), int(only or 0))
        rows.append({"reader": name, "counts": one.counts, "bad": one.bad, "memory": MEMORY, "seconds": SECONDS})
        print(f"{name}: {time.perf_counter() - begun:.1f} s", file=sys.stderr, flush=True)
    print(fuzz_table(rows))
    write(options["json"], rows)


if __name__ == "__main__":
    main()
