"""Timing in turns: what a shared, noisy machine still measures well is the ratio of two things in one run."""

import statistics
import time
from collections.abc import Callable

import torch


def in_turns(functions: dict[str, Callable[[], object]], rounds: int, warm: int = 1) -> dict[str, float]:
    """Median seconds of each function, called one after the other, `rounds` times after `warm` untimed ones."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(warm + rounds):
        for name, function in functions.items():
            begun = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= warm:
                times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(values) for name, values in times.items()}


def table(medians: dict[str, float], reference: str) -> str:
    """One line a function: milliseconds, and how many times faster than the reference."""
    width = max(map(len, medians))
    lines = [f"{'':{width}}  {'ms':>8}  {'x':>5}"]
    lines += [
        f"{name:{width}}  {1e3 * value:8.0f}  {medians[reference] / value:5.2f}" for name, value in medians.items()
    ]
    return "\n".join(lines)
