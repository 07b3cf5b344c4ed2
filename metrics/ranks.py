"""Work shared by the ranks of torchrun, so that no number depends on how many there are.

A rank takes whole batches in turn, not images: each batch then holds the same images on any number of ranks, and its
features come out the same to the last bit. What is computed from all images at once is computed by the first rank and
told to the others, because two machines may round differently and would then decide differently.
"""

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from errors import UserError

Result = TypeVar("Result")
Given = ParamSpec("Given")


def rank() -> int:
    """0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world() -> int:
    """1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def share(count: int, batch_size: int) -> list[int]:
    """The indices below `count` that this rank takes: every world-th batch of `batch_size` consecutive ones."""
    return [index for index in range(count) if index // batch_size % world() == rank()]


def gathered(count: int, batch_size: int, work: Callable[[Sequence[int]], Tensor]) -> Tensor:
    """`work` of all indices below `count`, (count, ...) on the CPU in their order, each rank doing its share.

    Args:
        work: indices to a tensor with a row for each; not called without indices.
    Raises: UserError on every rank where it is raised on one.
    """
    if world() == 1:
        return work(range(count)).cpu()
    mine = share(count, batch_size)
    found, error = None, None
    try:
        found = work(mine).cpu() if mine else None
    except UserError as raised:
        error = str(raised)
    told: list[Any] = [None] * world()
    dist.all_gather_object(told, (mine, found, error))
    for *_, problem in told:
        if problem is not None:
            raise UserError(problem)
    parts = [(indices, rows) for indices, rows, _ in told if rows is not None]
    whole = torch.empty(count, *parts[0][1].shape[1:], dtype=parts[0][1].dtype)
    for indices, rows in parts:
        whole[indices] = rows
    return whole


def once(work: Callable[Given, Result], *args: Given.args, **options: Given.kwargs) -> Result:
    """The result of the first rank, on every rank; the others wait and do nothing.

    Raises: UserError on every rank where the first one raises it.
    """
    if world() == 1:
        return work(*args, **options)
    told: list[Any] = [None, None]
    if rank() == 0:
        try:
            told[0] = work(*args, **options)
        except UserError as raised:
            told[1] = str(raised)
    dist.broadcast_object_list(told)
    if told[1] is not None:
        raise UserError(told[1])
    return told[0]
