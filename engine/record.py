"""What a run leaves behind while it trains: log.jsonl, TensorBoard events, sample grids, a progress bar. Rank 0 only.

log.jsonl, schema 1: one JSON object a log step, keys `step`, `images` (seen so far), one mean since the previous line
for each weighted term under its YAML name, `<term>_own` of a term that trains parts, `discriminator` (and with
setting=cycle `discriminator_source`; their losses), `norm/<network>` (gradient norm), `lr`; with train.log_layers also
`<term>/<query>-<key>/<layer>`, before all weights, for every layer (0, 1, ...) and direction; and what may differ
between two equal runs: `images_per_second`, `data_wait`, `memory_mb` (peak), `time`.

Speed and `data_wait` are of the steps alone: sample grids, checkpoints and evaluations are left out. `data_wait` is the
share of that time in which rank 0 had no batch: with workers=0 all that reading takes, else what it waits for them. On
a GPU it is an upper bound of what is lost, as the device still works off what was queued.
"""

import json
import os
import platform
import resource
import subprocess
import threading
import time
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from files import atomically, write_text

TIMING = ("images_per_second", "data_wait", "memory_mb", "time")


class Recorder:
    """Sums of the logged values stay on the device; the host reads them once a log step."""

    def __init__(
        self, folder: Path, first: bool, start: int, stop: int, batch: int, state: dict[str, Tensor] | None
    ) -> None:
        self.folder, self.first, self.batch = folder, first, batch
        self.sums = {name: value.clone() for name, value in (state or {}).items() if name not in ("count", "log")}
        self.count = int(state["count"]) if state else 0
        self.started, self.waited, self.since = time.perf_counter(), 0.0, 0
        self.bar: tqdm | None = None
        self.board: Board | None = None
        if not first:
            return
        (folder / "samples").mkdir(exist_ok=True)
        self.log = folder / "log.jsonl"
        self.logged = restore_log(self.log, start, (state or {}).get("log"))
        self.board = Board(folder / "tensorboard", start)
        self.bar = tqdm(
            total=stop, initial=start, unit="step", dynamic_ncols=True, smoothing=0.1, mininterval=1.0, disable=None
        )

    def add(self, values: dict[str, Tensor], waited: float) -> None:
        """Take one step's values in; no host synchronisation."""
        for name, value in values.items():
            value = value.detach().double()
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
        self.count += 1
        self.since += 1
        self.waited += waited
        if self.bar is not None:
            self.bar.update()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What is done within is no part of the steps' time."""
        begun = time.perf_counter()
        yield
        self.started += time.perf_counter() - begun

    def means(self) -> dict[str, Tensor]:
        """Mean of every value since the last line, still on the device."""
        return {name: total / max(1, self.count) for name, total in self.sums.items()}

    def line(self, step: int, means: dict[str, float], lr: float, device: torch.device) -> None:
        """Write one log line and reset the sums."""
        elapsed = time.perf_counter() - self.started
        speed = self.since * self.batch / elapsed
        peak = (
            torch.cuda.max_memory_allocated(device) / 2**20
            if device.type == "cuda"
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        )
        if self.first:
            row = {
                "step": step,
                "images": step * self.batch,
                **{n: float(f"{v:.9g}") for n, v in means.items()},
                "lr": lr,
            }
            timing = (round(speed, 2), round(self.waited / elapsed, 4), round(peak), round(time.time(), 1))
            with self.log.open("a") as file:
                file.write(json.dumps(row | dict(zip(TIMING, timing, strict=True))) + "\n")
            self.logged = _digest(row, self.logged)
            assert self.board is not None
            self.board.scalars({**means, "speed/images_per_second": speed, "lr": lr}, step)
            if self.bar is not None:
                shown = {n: f"{v:.3g}" for n, v in means.items() if "/" not in n}
                self.bar.set_postfix({**shown, "img/s": f"{speed:.1f}"})
                if self.bar.disable:  # no terminal: the file of a batch job gets a line a log step
                    losses = ", ".join(f"{name} {value}" for name, value in shown.items())
                    print(f"step {step} of {self.bar.total}: {losses}; {speed:.1f} images/s", flush=True)
        self.sums, self.count = {}, 0
        self.started, self.waited, self.since = time.perf_counter(), 0.0, 0

    def sync(self) -> None:
        """Flush log.jsonl to disk: before a checkpoint, so that no crash keeps the checkpoint and loses its lines."""
        if self.first:
            with self.log.open("ab") as file:
                os.fsync(file.fileno())

    def samples(self, step: int, rows: list[list[np.ndarray]]) -> None:
        """Write samples/<step>.png: one row an input, source | fake | target, uint8 (H, W, 3) each."""
        if self.first:
            picture = grid(rows)
            save_image(picture, self.folder / "samples" / f"{step:08d}.png")
            assert self.board is not None
            self.board.image("samples", picture, step)

    def evaluated(self, step: int, values: dict[str, float], best: bool) -> None:
        """What an evaluation gave: TensorBoard's evaluate/<metric>, and a line above the progress bar."""
        if not self.first:
            return
        assert self.board is not None
        self.board.scalars({f"evaluate/{name}": value for name, value in values.items()}, step)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        tqdm.write(f"step {step}: {shown}{', the best so far' if best else ''}")

    def state_dict(self) -> dict[str, Any]:
        """Sums since the last log line, so that a resumed run writes the same lines; of rank 0, also a digest of the
        lines, so that it notices where they have changed."""
        log = {"log": self.logged} if self.first else {}
        return {**{name: value.cpu() for name, value in self.sums.items()}, "count": self.count, **log}

    def close(self) -> None:
        """Flush what is buffered."""
        if self.bar is not None:
            self.bar.close()
        if self.board is not None:
            self.board.close()


class Board:
    """TensorBoard's events. On a full disk it says so once and keeps quiet: log.jsonl holds the same numbers."""

    def __init__(self, folder: Path, start: int) -> None:
        self.folder = folder
        self.writer: Any = None
        quiet_writer()
        from torch.utils.tensorboard import SummaryWriter

        self._try(lambda: setattr(self, "writer", SummaryWriter(str(folder), purge_step=start + 1)))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """A point of each curve."""
        for name, value in values.items():
            self._write("add_scalar", name, value, step)

    def image(self, name: str, picture: np.ndarray, step: int) -> None:
        """uint8 (H, W, 3)."""
        self._write("add_image", name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Flush what is buffered."""
        self._write("close")

    def _write(self, what: str, *args: Any, **options: Any) -> None:
        if self.writer is not None:
            self._try(lambda: getattr(self.writer, what)(*args, **options))

    def _try(self, work: Callable[[], object]) -> None:
        try:
            work()
        except OSError as error:  # a writer's thread failed, and this call is told
            self.writer = None
            reason = error.strerror or error
            tqdm.write(f"{self.folder}: cannot be written ({reason}); training goes on without TensorBoard")


@cache
def quiet_writer() -> None:
    """Let TensorBoard's thread print no traceback of its own: `Board` says what it failed of."""
    before = threading.excepthook

    def hook(what: threading.ExceptHookArgs) -> None:
        writer = type(what.thread).__name__ == "_AsyncWriterThread" and issubclass(what.exc_type, OSError)
        if not writer:
            before(what)

    threading.excepthook = hook


def restore_log(log: Path, step: int, wanted: Any = None) -> list[int]:
    """Drop the lines after `step` and a half-written last one, which a killed run logged beyond its checkpoint.

    Other damage costs the damaged lines only: what is readable stays, the file as it was is put aside, and one line on
    the terminal says so. So it does where lines are gone or changed: then the digest of what stays is not `wanted`,
    which the checkpoint holds.

    Returns: number and checksum of the lines that stay, without what may differ between equal runs.
    """
    try:
        whole = log.read_bytes()
    except FileNotFoundError:
        whole = b""
    *lines, tail = whole.split(b"\n")
    steps = dict(enumerate(map(_step_of, [*lines, tail])))
    held = {number: found for number, found in steps.items() if found is not None and found <= step}
    chosen = _increasing(held)
    # A half-written last line is no damage, nor is what was logged beyond the checkpoint, which stands at the end.
    last = max(chosen, default=-1)
    expected = {number for number, found in steps.items() if number > last and found is not None and found > step}
    damaged = [number + 1 for number in range(len(lines)) if number not in chosen and number not in expected]
    kept = [[*lines, tail][number] + b"\n" for number in sorted(chosen)]
    stays = [0, 0]
    for line in kept:
        stays = _digest(json.loads(line), stays)
    changed = not damaged and isinstance(wanted, list) and len(wanted) == 2 and stays != wanted
    if changed and not whole:
        print(f"{log}: is gone or empty; the {wanted[0]} lines up to step {step} are lost")
    elif damaged or changed:
        aside = _unused(log.with_name(f"{log.stem}.damaged{log.suffix}"))
        with atomically(aside) as file:
            file.write(whole)
        numbers = ", ".join(map(str, damaged[:5])) + (", ..." if len(damaged) > 5 else "")
        what = f"{len(damaged)} damaged lines ({numbers}) are left out"
        if changed:
            what = f"its {stays[0]} lines up to step {step} are not the {wanted[0]} that were written; it is kept so"
        print(f"{log}: {what}; the file as it was is {aside.name}")
    with atomically(log) as file:
        file.write(b"".join(kept))
    return stays


def _digest(row: dict[str, Any], before: list[int]) -> list[int]:
    """Number and checksum of the lines of a log, with one more."""
    own = json.dumps({key: value for key, value in row.items() if key not in TIMING})
    return [before[0] + 1, zlib.crc32(own.encode(), before[1])]


def _step_of(line: bytes) -> int | None:
    """The step of a line of log.jsonl, or None for a damaged one."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # no JSON, or no UTF-8
        return None
    step = row.get("step") if isinstance(row, dict) else None
    return step if type(step) is int and step >= 0 else None


def _increasing(values: dict[int, int]) -> set[int]:
    """Keys of the longest subsequence that strictly increases: of lines with one wrong step, all others."""
    smallest, ends, before = list[int](), list[int](), dict[int, int]()  # by length: last value, its key; predecessor
    for key, value in values.items():
        at = bisect_left(smallest, value)
        if at:
            before[key] = ends[at - 1]
        smallest[at : at + 1], ends[at : at + 1] = [value], [key]
    chain = ends[-1:]
    while chain and chain[-1] in before:
        chain.append(before[chain[-1]])
    return set(chain)


def _unused(path: Path) -> Path:
    """`path`, or with a number before its suffix the first that is not taken."""
    found, number = path, 1
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}{number}{path.suffix}")
    return found


def grid(rows: list[list[np.ndarray]], gap: int = 2) -> np.ndarray:
    """Rows of equally many uint8 (H, W, 3) images to one picture with white gaps."""
    height, width = rows[0][0].shape[:2]
    across = len(rows[0])
    picture = np.full((len(rows) * (height + gap) - gap, across * (width + gap) - gap, 3), 255, np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            picture[r * (height + gap) : r * (height + gap) + height, c * (width + gap) : c * (width + gap) + width] = (
                image
            )
    return picture


def save_image(image: np.ndarray, path: Path) -> None:
    """PNG, atomically."""
    with atomically(path, durable=False) as file:
        Image.fromarray(image).save(file, format="PNG")


def note_start(folder: Path, step: int, device: torch.device, world: int) -> None:
    """Write environment.json as of this start at `step`.

    `commits` keeps those of earlier starts at earlier steps, which the weights come from too; a later start at the same
    or an earlier step takes their place.
    """
    path = folder / "environment.json"
    try:
        old = json.loads(path.read_text())
        earlier = old.get("commits") or [{"step": 0, "commit": old.get("commit")}]
        kept = [entry for entry in earlier if entry["step"] < step]
    except (OSError, ValueError, AttributeError, KeyError, TypeError):  # none, or damaged: its history is lost
        kept = []
    found = environment(device, world)
    found["commits"] = [*kept, {"step": step, "commit": found["commit"]}]
    write_text(path, json.dumps(found, indent=1) + "\n")


def note_progress(folder: Path, step: int, steps: int) -> None:
    """Write progress.txt: the last checkpoint's step and the step at which the run ends, as `60 of 120`."""
    write_text(folder / "progress.txt", f"{step} of {steps}\n")


def environment(device: torch.device, world: int) -> dict[str, Any]:
    """Versions, commit and device of a run, for environment.json."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    packages = ("torch", "torchvision", "numpy", "scipy", "pillow", "hydra-core", "omegaconf")
    return {
        "commit": commit.stdout.strip() or None,
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"cpu, {torch.get_num_threads()} threads",
        "ranks": world,
    }
