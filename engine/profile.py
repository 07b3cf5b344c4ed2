"""`train.profile=20`: where the time of a step goes, as a table, and as a trace for https://ui.perfetto.dev.

A step is divided into named parts, of which one may lie in another. The host's time of a part is what it took to get
through it; a GPU works on later, and its time is that between the marks which the host leaves in its queue, so that the
parts' times add up to the step's on either.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd import DeviceType
from torch.optim import Optimizer
from torch.profiler import ProfilerActivity, profile, record_function
from tqdm import tqdm

WARM = 3  # steps of a run that are let pass: caches, compilers and data workers start in them
OPERATORS = 30  # rows of the file; the terminal has SHOWN of them
SHOWN = 10


class Span(NamedTuple):
    """One passage through a part: its name behind those it lies in, seconds of the host, marks in the GPU's queue."""

    path: tuple[str, ...]
    seconds: float
    marks: "tuple[torch.cuda.Event, torch.cuda.Event] | None"


class Profile:
    """Some steps of a run under torch's profiler; nothing where `steps` is 0, and before and after them.

    It only watches: the run's numbers do not change. profile/trace.json.gz and profile/table.txt are written once the
    steps are over, or the run is.
    Args:
        folder: of the run. steps: how many. device: that the run computes on.
    """

    def __init__(self, folder: Path, steps: int, device: torch.device) -> None:
        self.folder, self.steps, self.device = folder / "profile", steps, device
        self.first = self.done = 0
        self.profiler: Any = None
        self.spans: list[Span] = []
        self.open: list[Any] = []  # parts that a watched object is in
        self.path: tuple[str, ...] = ()
        self.hooks: list[Any] = []

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self.profiler is not None:
            self._stop(write=kind is None)

    def choose(self, left: int) -> None:
        """Take the steps after the first `WARM` of the `left` that are to come, or earlier ones where these are few."""
        self.steps = min(self.steps, left)
        self.first = min(WARM, left - self.steps)

    def watch(self, name: str, watched: Iterable[nn.Module | Optimizer]) -> None:
        """Make a part of every forward pass of these modules and every step of these optimizers."""
        for one in watched if self.steps else ():
            if isinstance(one, nn.Module):
                self.hooks.append(one.register_forward_pre_hook(lambda *_: self._enter(name)))
                self.hooks.append(one.register_forward_hook(lambda *_: self._leave(), always_call=True))
            else:
                self.hooks.append(one.register_step_pre_hook(lambda *_: self._enter(name)))
                self.hooks.append(one.register_step_post_hook(lambda *_: self._leave()))

    def step(self) -> None:
        """A step begins."""
        if self.profiler is not None and self.done == self.first + self.steps:
            self._stop()
        elif self.steps and self.done == self.first:
            self._start()
        self.done += 1

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """The block, or as a decorator the function, is a part of the step."""
        if self.profiler is None:
            yield
            return
        outside, self.path = self.path, (*self.path, name)
        with record_function(name):
            begun, first = time.perf_counter(), self._mark()
            try:
                yield
            finally:
                last = self._mark()
                marks = None if first is None or last is None else (first, last)
                self.spans.append(Span(self.path, time.perf_counter() - begun, marks))
                self.path = outside

    def _enter(self, name: str) -> None:
        self.open.append(self.part(name))
        self.open[-1].__enter__()

    def _leave(self) -> None:
        self.open.pop().__exit__(None, None, None)

    def _mark(self) -> torch.cuda.Event | None:
        if self.device.type != "cuda":
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _start(self) -> None:
        cuda = self.device.type == "cuda"
        if not cuda:
            os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # it would complain that there is no GPU
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        self.profiler = profile(activities=activities, profile_memory=cuda)
        self.profiler.start()
        self._wait()
        self.begun, self.start = time.perf_counter(), self._mark()

    def _stop(self, write: bool = True) -> None:
        end = self._mark()
        self._wait()
        seconds = time.perf_counter() - self.begun
        self.profiler.stop()
        finished, self.profiler = self.profiler, None
        for hook in self.hooks:
            hook.remove()
        if write:
            marks = None if self.start is None or end is None else (self.start, end)
            self._write(finished, Span((), seconds, marks))

    def _write(self, finished: Any, whole: Span) -> None:
        steps = self.done - self.first
        self.folder.mkdir(parents=True, exist_ok=True)
        trace, file = self.folder / "trace.json.gz", self.folder / "table.txt"
        finished.export_chrome_trace(str(trace))
        title = f"steps {self.first + 1} to {self.first + steps} of this run on {self.device}, profiler's cost included"
        parts, operators = part_rows([*self.spans, whole], steps), operator_rows(finished, steps)
        memory = ""
        if self.device.type == "cuda":
            memory = f"GPU memory: {torch.cuda.max_memory_allocated(self.device) / 2**20:.0f} MB at most\n"
        file.write_text(f"{title}\n\n{text(parts)}\n{memory}\n{text(operators[: OPERATORS + 1])}")
        tqdm.write(f"profile: {trace} (for ui.perfetto.dev), {file}")
        tqdm.write(f"{text(parts)}{memory}{text(operators[: SHOWN + 1])}")


def part_rows(spans: Iterable[Span], steps: int) -> list[list[str]]:
    """Title and one row for each part, those inside it below it, then the rest and the whole, which is the last span.

    Columns: name, passages a step, milliseconds of host (and GPU) a step, share of the step on the slower of the two.
    """
    *inner, whole = spans
    order: dict[tuple[str, ...], list[Span]] = {}
    for path in sorted({span.path for span in inner}, key=lambda path: _places(path, inner)):
        order[path] = [span for span in inner if span.path == path]
    everything = _milliseconds([whole], steps)
    rows = [["part of a step", "times", *["host ms", "GPU ms"][: len(everything)], "share"]]

    def row(name: str, times: str, found: list[float]) -> None:
        rows.append([name, times, *(f"{value:.2f}" for value in found), f"{found[-1] / everything[-1]:.1%}"])

    rest = list(everything)
    for path, found in order.items():
        took = _milliseconds(found, steps)
        row("  " * (len(path) - 1) + path[-1], f"{len(found) / steps:g}", took)
        if len(path) == 1:
            rest = [a - b for a, b in zip(rest, took, strict=True)]
    row("rest", "", rest)
    row("step", "", everything)
    return rows


def _places(path: tuple[str, ...], spans: list[Span]) -> list[int]:
    """Where each name of a path is first seen: parts are listed as they come, inner ones below their outer one.

    A span is noted as it ends, so that an outer one comes after what it holds."""
    return [
        min(index for index, span in enumerate(spans) if span.path[:depth] == path[:depth])
        for depth in range(1, len(path) + 1)
    ]


def _milliseconds(spans: list[Span], steps: int) -> list[float]:
    """Of the host and, where there are marks, of the GPU, a step."""
    found = [1e3 * sum(span.seconds for span in spans) / steps]
    marks = [span.marks for span in spans if span.marks is not None]
    if marks:
        found.append(sum(first.elapsed_time(last) for first, last in marks) / steps)
    return found


def operator_rows(finished: Any, steps: int) -> list[list[str]]:
    """Title and one row for each operator, the longest first: its own time without that of operators that it calls."""
    found = [
        event
        for event in finished.key_averages()
        if event.device_type == DeviceType.CPU and not event.is_user_annotation
    ]
    cuda = any(event.self_device_time_total for event in found)
    found.sort(key=lambda event: -(event.self_device_time_total if cuda else event.self_cpu_time_total))
    rows = [["operator", "times", "host ms", *(["GPU ms", "GPU MB"] if cuda else [])]]
    for event in found:
        device = [event.self_device_time_total / 1e3 / steps, event.self_device_memory_usage / 2**20 / steps]
        values = [event.self_cpu_time_total / 1e3 / steps, *(device if cuda else [])]
        rows.append([event.key[:48], f"{event.count / steps:g}", *(f"{value:.2f}" for value in values)])
    return rows


def text(rows: list[list[str]]) -> str:
    """Columns side by side, the first to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines) + "\n"
