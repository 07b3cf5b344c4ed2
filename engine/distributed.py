"""Ranks: torchrun's environment, one process group, one DDP wrap per step module."""

import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from engine.memory import keep_large_blocks
from errors import UserError

# The memory of 1x1 weights can be written down by two sets of strides, and which of them a gradient gets depends on the
# kernel that made it. DDP warns of that once on every rank, although nothing is wrong; of other shapes it still does.
STRIDES = r"(?s)Grad strides do not match bucket view strides.*grad\.sizes\(\) = \[\d+, \d+, 1, 1\]"
warnings.filterwarnings("ignore", STRIDES, UserWarning)
Result = TypeVar("Result")


def rank() -> int:
    """0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def choose_device(name: str, key: str = "device") -> torch.device:
    """`auto` is the rank's GPU where there is one, else the CPU, whose memory the process keeps from then on."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"{key}={name}: this machine has no CUDA device; use {key}=cpu or auto")
    if name.startswith("cpu"):
        keep_large_blocks()
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return torch.device(name)


@contextmanager
def ranks(device: torch.device) -> Iterator[None]:
    """Process group of the run: nccl on GPUs, gloo on CPU; none with one rank. A GPU becomes the current device.

    There cuDNN tries its algorithms once for each shape and keeps the fastest: a run has few shapes. Not where
    torch.use_deterministic_algorithms was asked for: which one is fastest may change from run to run.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    if world() == 1:
        yield
        return
    backend: dict[str, Any] = {"backend": "nccl", "device_id": device} if device.type == "cuda" else {"backend": "gloo"}
    dist.init_process_group(store=_meeting(), rank=rank(), world_size=world(), **backend)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _meeting() -> dist.Store:
    """The store where ranks find each other, once all have come.

    Raises: UserError where one does not come within PATCHWISE_RENDEZVOUS seconds, by default 30; torch waits longer,
    also for a rank that has ended before.
    """
    seconds = float(os.environ.get("PATCHWISE_RENDEZVOUS", "30"))
    try:
        store, _, _ = next(dist.rendezvous("env://", timeout=timedelta(seconds=seconds)))
    except (dist.DistError, RuntimeError, ValueError) as error:
        raise UserError(
            f"rank {rank()} of WORLD_SIZE={world()}: not all ranks came within {seconds:g} s to "
            f"MASTER_ADDR={os.environ.get('MASTER_ADDR')} MASTER_PORT={os.environ.get('MASTER_PORT')}; start all by "
            "torchrun, look for the first error of another rank, or wait longer by PATCHWISE_RENDEZVOUS=SECONDS"
        ) from error
    store.set_timeout(dist.default_pg_timeout)  # of all that follows; a rank may evaluate while others wait
    return store


def parallel(module: Any, device: torch.device) -> Any:
    """The module itself (or None) with one rank or without trainable parameters, else wrapped in DDP.

    Buffers are not broadcast: power-iteration vectors and synchronised running statistics are equal on every rank
    anyway, and an in-place broadcast between two forwards breaks the backward of the first.
    """
    if module is None or world() == 1 or not any(parameter.requires_grad for parameter in module.parameters()):
        return module
    accepted = inspect.signature(DistributedDataParallel.__init__).parameters
    quiet: dict[str, Any] = (
        {"forward_sync_buffers": False} if "forward_sync_buffers" in accepted else {"broadcast_buffers": False}
    )
    return DistributedDataParallel(
        module, device_ids=[device] if device.type == "cuda" else None, gradient_as_bucket_view=True, **quiet
    )


def mean_over_ranks(values: dict[str, Tensor]) -> dict[str, float]:
    """Averages of scalars over ranks, on the host: the log's one synchronisation."""
    stacked = torch.stack([value.double() for value in values.values()])
    if world() > 1:
        dist.all_reduce(stacked)
        stacked /= world()
    return dict(zip(values, stacked.tolist(), strict=True))


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Rank 0's values to all ranks, in place."""
    if world() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def on_first(work: Callable[[], Result]) -> Result:
    """The result of rank 0, on every rank; the others wait. Where it fails, they end at once, without a word."""
    if world() == 1:
        return work()
    told: list[Any] = [None, False]
    try:
        if rank() == 0:
            told[:] = work(), True
    finally:
        dist.broadcast_object_list(told)
    if not told[1]:
        sys.exit(1)
    return told[0]


def barrier() -> None:
    """Wait for all ranks."""
    if world() > 1:
        dist.barrier()
