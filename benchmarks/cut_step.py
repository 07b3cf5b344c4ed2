"""A training step of CUT, batch 1: `python -m benchmarks.cut_step [rounds=5] [threads=2] [small=1] [only=WORD]`.

Ours makes one generator pass of source and target, takes the keys' features from it and encodes each generated image
once; the transcription encodes all four images again.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import plain_cut
from benchmarks.compare import Item, main
from benchmarks.steps import TrainingStep, difference, drift, floor, variants
from engine.inputs import Inputs

IMAGES = Inputs(3, 3, False, None, None, False, aligned=False)


def ours(side: int, width: int = 64, *words: str) -> TrainingStep:
    """CUT as train.py runs it, `width` channels in generator and discriminator."""
    sizes = (f"dataset.size=[{side},{side}]", f"model.generator.width={width}", f"model.discriminator.width={width}")
    return TrainingStep(["experiment=cut", *sizes, *words], IMAGES)


def pair(side: int, dtype: torch.dtype = torch.float32, batch: int = 1) -> dict[str, Tensor]:
    """Noise for source and target."""
    source, target = torch.rand(2, batch, 3, side, side, dtype=dtype) * 2 - 1
    return {"source": source, "target": target}


def same_weights(networks: Mapping[nn.Module, nn.Module]) -> None:
    """Copy ours into the transcription's, in the order of their parameters, which is that of the layers."""
    with torch.no_grad():
        for mine, theirs in networks.items():
            for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
                b.copy_(a)


def apart(
    step: TrainingStep, plain: Callable[..., dict[str, Tensor]], networks: Mapping[nn.Module, nn.Module]
) -> float:
    """Largest relative difference of three steps' losses from the same weights, float64, at 32x32; `networks` are ours
    and the transcription's."""
    for module in (*step.parts.modules, *networks.values()):
        module.double()
    same_weights(networks)
    worst = 0.0
    for _ in range(3):
        given = pair(32, torch.float64)
        worst = max(worst, difference(step(given), plain(**given)))
    return worst


def check() -> float:
    """`apart`, with all patches."""
    torch.manual_seed(0)
    step, plain = ours(32, 8, "nce.patches=null"), plain_cut.Step(8, patches=10**9)
    networks = {
        step.parts.generator: plain.generator,
        step.parts.discriminators["discriminator"]: plain.discriminator,
        step.parts.objective: plain.heads,
    }
    return apart(step, plain, networks)


def items(small: bool) -> Iterator[Item]:
    """One step at 256x256."""
    side, width = (32, 8) if small else (256, 64)
    given = pair(side)
    functions = variants(plain_cut.Step(width), partial(ours, side, width), given)
    yield Item(
        f"CUT step, {side}x{side}, batch 1",
        functions,
        check,
        official=4200,
        targets={"ours": 3700, "ours, bf16": 2400},
        bound="convolution",
        floor=floor(functions["ours"]),
        rounds=2,
        remark=drift(partial(ours, 32, 8), pair(32)),
    )


if __name__ == "__main__":
    main(items)
