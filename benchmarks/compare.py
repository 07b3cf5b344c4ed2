"""Benchmarks: items that time our code against a plain transcription of the method, in one process, in turns.

What a shared, noisy machine still measures well is the ratio of two things in one run, so that a target is a ratio too:
the time of the older code in the study that the targets come from, over the time asked for there.
"""

import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch

SHORT = 0.1  # seconds: of less, one call says nothing
Function = Callable[[], object]
Bound = Literal["convolution", "product", "memory"]


@dataclass(frozen=True)
class Item:
    """One line of the table: functions that do the same work.

    Args:
        name: what is done, with its sizes.
        functions: by variant; the first is the transcription, the next is ours, others are ours under a condition.
        check: the largest relative difference between transcription and ours; run before timing.
        tolerance: of the check.
        official: milliseconds of the older code in the study, None where it has no such figure.
        targets: milliseconds asked for in the study, by variant; met where ours is faster than the transcription by
            official / target.
        limit: milliseconds that ours, then the only function, may take where no older code does the same.
        per: pieces that a call works through; times are of one.
        bound: what the older code spends its time on, whose rate scales `official` to this machine.
        floor: seconds below which ours cannot come, from the rates of benchmarks/rates.py; None: not known.
        rounds: how often each function is timed, where the default takes too long; 1 is one call, without a warm one,
            and the default for a function that takes less than SHORT seconds.
        remark: what a reader needs to know.
    """

    name: str
    functions: Mapping[str, Function]
    check: Callable[[], float] | None = None
    tolerance: float = 1e-5
    official: float | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    limit: float | None = None
    per: int = 1
    bound: Bound | None = None
    floor: Callable[[Mapping[str, float]], float] | None = None
    rounds: int | None = None
    remark: str = ""


@dataclass(frozen=True)
class Found:
    """What an item gave: milliseconds and extra memory (MB above the call's start) by variant."""

    name: str
    difference: float | None
    tolerance: float
    milliseconds: dict[str, float]
    extra_mb: dict[str, float]
    official: float | None
    targets: dict[str, float]
    limit: float | None
    bound: str | None
    floor_ms: float | None
    remark: str

    def speedup(self, variant: str) -> float:
        """How many times faster than the transcription."""
        return next(iter(self.milliseconds.values())) / self.milliseconds[variant]

    def met(self, variant: str) -> bool | None:
        """Whether the target or the limit is met; None where there is none."""
        if self.limit is not None:
            return self.milliseconds[variant] <= self.limit
        if self.official is None or variant not in self.targets:
            return None
        return self.speedup(variant) >= self.official / self.targets[variant]

    def asked(self, variant: str) -> str:
        """What was asked for: how many times faster, or at most how many milliseconds; nothing where nothing was."""
        if self.limit is not None:
            return f"{self.limit:.0f} ms"
        return f"{self.official / self.targets[variant]:.2f} x" if self.official and variant in self.targets else ""

    def verdict(self, variant: str) -> str:
        """What came of what was asked for, and whether that is met; nothing where nothing was asked."""
        met = self.met(variant)
        if met is None:
            return ""
        if self.limit is None:
            came = f"{self.speedup(variant):.2f} x of {self.asked(variant)} asked"
        else:
            came = f"{self.milliseconds[variant]:.0f} ms of {self.asked(variant)} allowed"
        return f"{came}, {'met' if met else 'NOT MET'}"


def in_turns(functions: Mapping[str, Function], rounds: int, warm: int = 1, block: float = 0.1) -> dict[str, float]:
    """Median seconds of each function, called one after the other, `rounds` times after `warm` untimed ones.

    A short function is called as often as fills `block` seconds, and the mean is one sample.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    calls = dict.fromkeys(functions, 1)
    for turn in range(warm + rounds):
        for name, function in functions.items():
            begun = time.perf_counter()
            for _ in range(calls[name]):
                function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            each = (time.perf_counter() - begun) / calls[name]
            if turn >= warm:
                times[name].append(each)
            calls[name] = max(1, min(1000, round(block / max(each, 1e-9))))
    return {name: statistics.median(values) for name, values in times.items()}


def extra_memory(function: Function) -> float:
    """MB that a call holds at most, above what the process held when it began: host memory, or CUDA's where there is.

    nan where the system does not tell (not Linux).
    """
    return timed_and_weighed(function)[1]


def timed_and_weighed(function: Function) -> tuple[float, float]:
    """Seconds of one call, and its `extra_memory`."""
    on_device, reset = torch.cuda.is_available(), Path("/proc/self/clear_refs")
    before = 0.0
    if on_device:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**20
    elif reset.exists():
        ctypes.CDLL(None).malloc_trim(0)
        before = resident("VmRSS")
        reset.write_text("5")  # the high-water mark starts anew
    begun = time.perf_counter()
    function()
    if on_device:
        torch.cuda.synchronize()
        return time.perf_counter() - begun, torch.cuda.max_memory_allocated() / 2**20 - before
    seconds = time.perf_counter() - begun
    return seconds, max(0.0, resident("VmHWM") - before) if reset.exists() else float("nan")


def resident(key: Literal["VmRSS", "VmHWM"]) -> float:
    """MB of this process, now or at most (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def bf16_hardware() -> bool:
    """Whether this machine multiplies bfloat16 in hardware; elsewhere such a row would time an emulation."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    found = torch.cpu.get_capabilities()
    return bool(found.get("amx_bf16") or found.get("avx512_bf16") or found.get("bf16"))


def measure(item: Item, rounds: int, rates: Mapping[str, float]) -> Found:
    """Check, then time, then weigh."""
    difference = None if item.check is None else float(item.check())
    if difference is not None and not difference <= item.tolerance:
        raise AssertionError(f"{item.name}: ours differs from the transcription by {difference:.1e}")
    if item.rounds == 1:
        once = {name: timed_and_weighed(function) for name, function in item.functions.items()}
        seconds, memory = ({name: pair[at] for name, pair in once.items()} for at in (0, 1))
        seconds |= in_turns({name: item.functions[name] for name in once if seconds[name] < SHORT}, rounds)
    else:
        seconds = in_turns(item.functions, item.rounds or rounds)
        memory = {name: extra_memory(function) for name, function in item.functions.items()}
    return Found(
        item.name,
        difference,
        item.tolerance,
        {name: 1e3 * value / item.per for name, value in seconds.items()},
        memory,
        item.official,
        dict(item.targets),
        item.limit,
        item.bound,
        None if item.floor is None or not rates else 1e3 * item.floor(rates),
        item.remark,
    )


def table(found: Found, rates: Mapping[str, float]) -> str:
    """The item's lines: milliseconds, times faster than the transcription, the factor asked for, extra memory."""
    head = found.name if found.difference is None else f"{found.name}  (differs by {found.difference:.0e})"
    lines = [head]
    for name, value in found.milliseconds.items():
        faster, extra = found.speedup(name), found.extra_mb[name]
        lines.append(f"  {name:28} {value:10.2f} ms {faster:7.2f} x {extra:8.0f} MB  {found.verdict(name)}".rstrip())
    return "\n".join(lines)


def main(items: Callable[[bool], Iterator[Item]]) -> None:
    """Command line of a benchmark file: `[rounds=5] [threads=2] [small=0] [only=WORD] [rates=FILE] [json=FILE]`."""
    options = {"rounds": "5", "threads": "2", "small": "0", "only": "", "rates": "", "json": ""}
    for word in sys.argv[1:]:
        key, _, value = word.partition("=")
        if key not in options:
            sys.exit(f"{key}: a benchmark takes {', '.join(options)}")
        options[key] = value
    torch.set_num_threads(int(options["threads"]))
    rates = json.loads(Path(options["rates"]).read_text()) if options["rates"] else {}
    results = []
    for item in items(options["small"] == "1"):
        if options["only"] in item.name:
            found = measure(item, int(options["rounds"]), rates)
            results.append(asdict(found))
            print(table(found, rates), flush=True)
            if options["json"]:
                Path(options["json"]).write_text(json.dumps(results, indent=1) + "\n")
