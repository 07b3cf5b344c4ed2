"""A training step against image size and batch: `python -m benchmarks.image_scale [rounds=5] [threads=2] [small=1]
[only=WORD]`.

CUT's and SPADE's networks at a quarter of the papers' width, in float32; ours alone.
"""

from collections.abc import Iterator
from functools import partial

from benchmarks import cut_step, spade_step
from benchmarks.compare import Item, main

WIDTH = 16
SIZES = [(64, 1), (64, 4), (64, 16), (128, 1), (256, 1), (512, 1)]  # side, batch
SMALL = [(64, 1), (64, 2)]


def items(small: bool) -> Iterator[Item]:
    """Each side and batch, CUT, then SPADE."""
    width = 4 if small else WIDTH
    for side, count in SMALL if small else SIZES:
        step, given = cut_step.ours(side, width), cut_step.pair(side, batch=count)
        yield Item(f"CUT step, {side}x{side}, batch {count}, width {width}", {"ours": partial(step, given)}, rounds=2)
    for side, count in SMALL if small else SIZES:
        step, given = spade_step.ours(side, width), spade_step.batch(side, count)
        yield Item(f"SPADE step, {side}x{side}, batch {count}, width {width}", {"ours": partial(step, given)}, rounds=2)


if __name__ == "__main__":
    main(items)
