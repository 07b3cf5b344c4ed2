"""Which images a step sees: a pure function of (seed, step), so that a resumed run goes on exactly."""

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader

from engine.preempt import leave_signals_to_parent
from errors import UserError

# More workers than cores are the user's choice, within the range of train.workers; every rank would repeat this.
warnings.filterwarnings("ignore", "This DataLoader will create .* worker processes", UserWarning)


def mix(*numbers: int) -> int:
    """A 63-bit seed out of integers; splitmix64 steps, so that neighbours give unrelated seeds."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


class StepSampler:
    """Batches of (index, draw, plain) for one rank, from `start` to `stop` micro-batches.

    An epoch is a fresh permutation of the data set, cut into global batches, the incomplete last one dropped. Of each
    global batch every micro-step takes its part, and of that every rank its contiguous share; so one rank sees in
    order what many ranks see side by side. `draw` seeds the augmentation of that item in that epoch; `plain` asks for
    an item without its random crop, which is so from step `plain_from` on (None: never).

    Args:
        length: of the data set; batch: global batch size; accumulate: micro-batches of a step.
        start, stop: steps; rank, world: of this process.
    Raises:
        UserError: when an epoch would hold no batch.
    """

    def __init__(
        self, length: int, batch: int, accumulate: int, seed: int, start: int, stop: int, rank: int, world: int
    ) -> None:
        if length < batch:
            raise UserError(
                f"train.batch_size={batch}: the data set has {length} training images only; choose a smaller batch"
            )
        self.length, self.batch, self.accumulate, self.seed = length, batch, accumulate, seed
        self.start, self.stop, self.rank, self.world = start, stop, rank, world
        self.per_epoch = length // batch
        self.plain_from: int | None = None

    def __len__(self) -> int:
        return (self.stop - self.start) * self.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int, bool]]]:
        share = self.batch // self.accumulate // self.world
        epoch, order = -1, []
        for step in range(self.start, self.stop):
            if step // self.per_epoch != epoch:
                epoch = step // self.per_epoch
                order = torch.randperm(
                    self.length, generator=torch.Generator().manual_seed(mix(self.seed, 1, epoch))
                ).tolist()
            first = (step % self.per_epoch) * self.batch
            plain = self.plain_from is not None and step >= self.plain_from
            for micro in range(self.accumulate):
                low = first + (micro * self.world + self.rank) * share
                yield [(index, mix(self.seed, 2, epoch, index), plain) for index in order[low : low + share]]


@contextmanager
def batches(dataset: Any, sampler: StepSampler, workers: int, device: torch.device) -> Iterator[Iterator[Any]]:
    """What `loader` gives, by workers that schedulers' signals do not stop and that end with the context.

    Left to the interpreter's exit, which terminates them by a signal, they would never end after an error.
    """
    iterator = iter(loader(dataset, sampler, workers, device, leave_signals_to_parent))
    try:
        with explained_workers("train.workers"):
            yield iterator
    finally:
        if workers:
            iterator._shutdown_workers()  # type: ignore[attr-defined]  # there is no public way


@contextmanager
def explained_workers(key: str) -> Iterator[None]:
    """One line where a worker of a data loader was killed, mostly by the system for want of memory.

    Args: key: of the config, that sets their number.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        signal = re.search(r"killed by signal: (\w[\w ]*)", str(error))
        how = f"was killed ({signal[1].strip()})" if signal else "ended"
        raise UserError(
            f"a worker of the data loader {how}, mostly for want of memory: the last checkpoint is whole, and the same "
            f"command goes on from it; fewer workers need less ({key}=0: none)"
        ) from error


def loader(
    dataset: Any, sampler: StepSampler, workers: int, device: torch.device, begin: Callable[[int], None] | None = None
) -> DataLoader:
    """Batches of uint8 tensors in the sampler's order; pinned where they go to a GPU, fetched ahead by workers, each of
    which calls `begin` first."""
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        worker_init_fn=begin,
    )
