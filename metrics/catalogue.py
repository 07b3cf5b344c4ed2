"""The metrics by name: which numbers each gives, which way is better, and which network it reads.

Nothing here needs torch, so that a mistyped name is told before anything is loaded.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from errors import UserError


@dataclass(frozen=True)
class Metric:
    """What is known of a metric without measuring it.

    rows: the numbers that it adds to a report, the main one first. better: lower, higher, or real (nearest to real).
    network: key of metrics.features, where it reads one. channels: of that network's features.
    kernel: for a Frechet distance, the unbiased metric on the same features.
    """

    rows: tuple[str, ...]
    better: str
    network: str | None = None
    channels: int = 0
    kernel: str | None = None


METRICS = {
    "fid": Metric(("fid",), "lower", "inception", 2048, "kid"),
    "kid": Metric(("kid",), "lower", "inception", 2048),
    "fd_lite2": Metric(("fd_lite2",), "lower", "lite2", 1280, "kid_lite2"),
    "kid_lite2": Metric(("kid_lite2",), "lower", "lite2", 1280),
    "swd": Metric(("swd",), "lower"),
    "segmentation": Metric(("miou", "pixacc", "pixacc_all", "classacc"), "higher"),
    "depth": Metric(("rel", "rms"), "lower"),
    "depth_median": Metric(("rel_median", "rms_median"), "lower"),
    "appearance": Metric(("channel_range", "second_difference", "fixed_pattern"), "real"),
}


def choose(metrics: Sequence[str]) -> list[str]:
    """The names, each once, in their order. Raises: UserError for an unknown one, listing all, and for no name."""
    for name in metrics:
        if name not in METRICS:
            close = get_close_matches(str(name), METRICS, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise UserError(f"metrics: no metric '{name}'; {hint}there are {', '.join(METRICS)}")
    if not metrics:
        raise UserError(f"metrics=[]: nothing to measure; there are {', '.join(METRICS)}")
    return list(dict.fromkeys(metrics))


def merit(entry: Mapping[str, Any]) -> float:
    """A number of a report as one that is the larger the better, to choose checkpoints by; minus infinity for none."""
    value = entry["value"]
    if value is None or not math.isfinite(value):
        return -math.inf
    return {"higher": value, "lower": -value, "real": -abs(value - entry.get("real", value))}[entry["better"]]


def with_kernels(chosen: Sequence[str], images: int, warnings: list[str]) -> list[str]:
    """The metrics with the unbiased companion after each Frechet distance of fewer images than features.

    Such a distance is biased upwards, by an amount that depends on the number of images; it is said in `warnings`.
    """
    out: list[str] = []
    for name in chosen:
        out.append(name)
        metric = METRICS[name]
        if metric.kernel is not None and images < metric.channels:
            warnings.append(
                f"{name} of {images} images is biased upwards, comparable at equal numbers only; {metric.kernel} is not"
            )
            out.append(metric.kernel)
    return list(dict.fromkeys(out))
