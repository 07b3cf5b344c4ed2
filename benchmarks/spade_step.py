"""A training step of SPADE, ADE20K's 151 labels and edges: `python -m benchmarks.spade_step [rounds=5] [threads=2]
[small=1] [only=WORD]`.

Hinge GAN, feature matching and VGG19's perceptual loss. The transcription follows the released order: generator, then
discriminator on an image that is made anew; so does ours, with protocol=monce.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import plain_spade
from benchmarks.compare import Item, main
from benchmarks.cut_step import same_weights
from benchmarks.steps import TrainingStep, difference, drift, floor, variants
from engine.inputs import Inputs
from models.official import official_name


def labels(classes: int) -> Inputs:
    """That many classes, one more for unknown pixels, and edges."""
    return Inputs(classes + 2, 3, True, classes, 255, True)


PERCEPTUAL = ("experiment=monce/table3/perceptual", "encoder.pretrained=false")
LABELS = labels(150)


def ours(side: int, width: int, *words: str, classes: int = 150) -> TrainingStep:
    """SPADE as train.py runs it; `hidden` is the paper's, whatever the width."""
    sizes = (f"dataset.size=[{side},{side}]", f"model.generator.width={width}", f"model.discriminator.width={width}")
    return TrainingStep([*PERCEPTUAL, *sizes, "model.generator.hidden=128", *words], labels(classes))


def batch(side: int, size: int, classes: int = 150, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Ids in blocks of four pixels, sparse edges, and noise for images."""
    ids = torch.randint(classes + 1, (size, 1, side // 4, side // 4)).repeat_interleave(4, 2).repeat_interleave(4, 3)
    edges = (torch.rand(size, 1, side, side) < 0.1).long()
    source = torch.cat([ids, edges], 1).to(torch.uint8)
    return {"source": source, "target": torch.rand(size, 3, side, side, dtype=dtype) * 2 - 1}


def load(plain: nn.Module, network: nn.Module) -> None:
    """Copy our weights under their official names."""
    plain.load_state_dict({official_name(name): value for name, value in network.state_dict().items()})


def load_step(plain: plain_spade.Step, step: TrainingStep) -> None:
    """Copy our networks."""
    load(plain.generator, step.parts.generator)
    load(plain.discriminator, step.parts.discriminators["discriminator"])
    same_weights({step.parts.encoder: plain.perceptual})


def gradient_difference(network: nn.Module, plain: nn.Module) -> float:
    """Of the gradients of all weights together, relative."""
    mine = {official_name(name): parameter.grad for name, parameter in network.named_parameters()}
    pairs = [(mine[name], parameter.grad) for name, parameter in plain.named_parameters()]
    distance = sum(((a - b) ** 2).sum() for a, b in pairs) / sum((b**2).sum() for _, b in pairs)
    return distance.sqrt().item()


def check() -> float:
    """Largest relative difference of losses and of each network's gradient, one step in float64 at 32x32."""
    torch.manual_seed(0)
    step, plain = ours(32, 4, classes=60), plain_spade.Step(labels(60).source_channels, 4)
    for module in (*step.parts.modules, plain.generator, plain.discriminator, plain.perceptual):
        module.double()
    load_step(plain, step)
    given = batch(32, 3, 60, torch.float64)
    losses = difference(step(given), plain(**given))
    discriminator = step.parts.discriminators["discriminator"]
    gradients = (
        gradient_difference(step.parts.generator, plain.generator),
        gradient_difference(discriminator, plain.discriminator),
    )
    return max(losses, *gradients)


def item(side: int, size: int, width: int, rounds: int, official: float | None, targets: dict[str, float]) -> Item:
    """One step on a batch of `size`."""
    given = batch(side, size)
    functions = variants(plain_spade.Step(LABELS.source_channels, width), partial(ours, side, width), given)
    return Item(
        f"SPADE step, ADE20K {side}x{side}, batch {size}, width {width}",
        functions,
        check,
        official=official,
        targets=targets,
        bound="convolution",
        floor=floor(functions["ours"]),
        rounds=rounds,
        remark=drift(partial(ours, 64, 4, classes=60), batch(64, 2, 60)),
    )


def items(small: bool) -> Iterator[Item]:
    """Small networks at 64x64, the paper's at 256x256."""
    if small:
        yield item(64, 1, 4, 1, None, {})
        return
    yield item(64, 4, 16, 5, 810, {"ours": 480})
    yield item(256, 1, 64, 2, 6100, {"ours": 4400, "ours, bf16": 2900})


if __name__ == "__main__":
    main(items)
