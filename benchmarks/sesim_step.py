"""A training step of F-LSeSim's fixed form, batch 1: `python -m benchmarks.sesim_step [rounds=5] [threads=2] [small=1]
[only=WORD]`.

Maps of self-similarity in three layers of a fixed VGG16 (random weights here), 64x64 keys a query, nothing learned.
"""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks import plain_sesim
from benchmarks.compare import Item, main
from benchmarks.cut_step import IMAGES, apart, pair
from benchmarks.steps import TrainingStep, drift, floor, variants


def ours(side: int, width: int = 64, *words: str) -> TrainingStep:
    """F-LSeSim as train.py runs it, `width` channels in generator and discriminator."""
    sizes = (f"dataset.size=[{side},{side}]", f"model.generator.width={width}", f"model.discriminator.width={width}")
    return TrainingStep(["experiment=monce/table2/fsesim", "encoder.pretrained=false", *sizes, *words], IMAGES)


def check() -> float:
    """`apart`, with all places."""
    torch.manual_seed(0)
    step, plain = ours(32, 8, "nce.patches=null"), plain_sesim.Step(8, patches=10**9)
    networks = {
        step.parts.generator: plain.generator,
        step.parts.discriminators["discriminator"]: plain.discriminator,
        step.parts.encoder: plain.vgg,
    }
    return apart(step, plain, networks)


def items(small: bool) -> Iterator[Item]:
    """One step at 256x256."""
    side, width = (32, 8) if small else (256, 64)
    given = pair(side)
    functions = variants(plain_sesim.Step(width), partial(ours, side, width), given)
    yield Item(
        f"F/LSeSim step, fixed VGG16, {side}x{side}, batch 1",
        functions,
        check,
        official=2000,
        targets={"ours": 1800},
        bound="convolution",
        floor=floor(functions["ours"]),
        rounds=2,
        remark=drift(partial(ours, 32, 8), pair(32)),
    )


if __name__ == "__main__":
    main(items)
