"""What a run that diverged leaves in RUN/diverged, and how it is made to diverge again.

A run is a function of its config and its last checkpoint, on a CPU to the last bit. The bundle is therefore a run
folder that stands before the bad step: `config.yaml`; `last.pt`, the run's last checkpoint (none: it began from its
seed); `batch.pt`, {"rank": the first rank with a bad value, "batches": its micro-batches of that step, as networks take
them}; and `step.json`, schema 1: `step` (from 1), `rank`, `ranks`, `values` of losses and gradient norms by name on
that rank (a number, or "nan", "inf", "-inf").
"""

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from engine.distributed import rank, world
from engine.trust import Trust, config_of
from errors import Diverged, UserError
from files import atomically, write_text


def keep(run: Path, step: int, values: Mapping[str, float], batches: Sequence[Mapping[str, Any]], culprit: int) -> Path:
    """Write the bundle of a run; every rank calls it. Of a run that is a bundle itself, nothing is written."""
    if (run / "step.json").is_file():
        return run
    bundle = run / "diverged"
    bundle.mkdir(exist_ok=True)
    if rank() == culprit:
        moved = [{name: _host(value) for name, value in batch.items()} for batch in batches]
        with atomically(bundle / "batch.pt") as file:
            torch.save({"rank": culprit, "batches": moved}, file)
    if rank() == 0:
        write_text(bundle / "config.yaml", (run / "config.yaml").read_text(encoding="utf-8"))
        (bundle / "last.pt").unlink(missing_ok=True)
        if (run / "last.pt").is_file():
            try:
                os.link(run / "last.pt", bundle / "last.pt")  # checkpoints are replaced, never changed in place
            except OSError:  # a file system without links
                shutil.copyfile(run / "last.pt", bundle / "last.pt")
        plain = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        record = {"schema": 1, "step": step, "rank": culprit, "ranks": world(), "values": plain}
        write_text(bundle / "step.json", json.dumps(record, indent=1) + "\n")
    return bundle


def reproduce(
    bundle: Path, train: Callable[[DictConfig, Path], int], trust: Trust | None = None
) -> tuple[Diverged, dict[str, float]]:
    """Train from the bundle's checkpoint until it diverges again.

    The step before the bad one is saved as the bundle's last.pt: the next call begins there.
    Args:
        train: train.py's function.
        trust: which constructors the bundle may name beside those of configs/.
    Returns: how it diverged now, and the values that were recorded.
    Raises: UserError for a folder that is no bundle, for another number of ranks, and where nothing diverges.
    """
    try:
        record = json.loads((bundle / "step.json").read_text(encoding="utf-8"))
        step, ranks = int(record["step"]), int(record["ranks"])
        values = {str(name): float(value) for name, value in record["values"].items()}
        text = (bundle / "config.yaml").read_text(encoding="utf-8")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{bundle}: no bundle of a run that diverged ({error}); RUN/diverged is wanted") from error
    if ranks != world():
        raise UserError(
            f"{bundle}: diverged on {ranks} rank(s), here are {world()}; use torchrun --nproc-per-node={ranks}"
        )
    cfg = config_of(text, str(bundle / "config.yaml"), trust or Trust())
    cfg.train.save_every, cfg.train.sample_every = max(1, step - 1), 2**31
    cfg.train.samples = cfg.evaluate.every = cfg.train.keep = 0
    cfg.train.minutes = None
    try:
        reached = train(cfg, bundle)
    except Diverged as error:
        return error, values
    raise UserError(
        f"{bundle}: diverged at step {step}, but now reached step {reached}; are data and machine the same?"
    )


def _host(value: Any) -> Any:
    return value.cpu() if isinstance(value, torch.Tensor) else value
