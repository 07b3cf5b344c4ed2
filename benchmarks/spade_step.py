"""A training step of SPADE, ADE20K's 151 labels and edges: `python -m benchmarks.spade_step [rounds=5] [threads=2]
[small=1] [only=WORD]`.

Hinge GAN, feature matching and VGG19's perceptual loss. The transcription follows the released order: generator, then
discriminator on an image that is made anew. Ours does so too (protocol=monce), or keeps the image of the generator's
step (train.regenerate_fake=false), which is other mathematics: the discriminator sees it as it was before that step.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from benchmarks import plain_spade
from benchmarks.compare import Item, bf16_hardware, main
from benchmarks.steps import TrainingStep, difference, drift, floor
from engine.inputs import Inputs
from models.blocks import SpectralConv2d
from models.official import official_name


def labels(classes: int) -> Inputs:
    """That many classes, one more for unknown pixels, and edges."""
    return Inputs(classes + 2, 3, True, classes, 255, True)


PERCEPTUAL = ("experiment=monce/table3/perceptual", "encoder.pretrained=false")
LABELS = labels(150)
FLOAT = ("ours", "ours, channels_last", "ours, channels_last, kept")  # variants in float32


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
    """Our networks, their spectral norms settled: a step of ours makes another number of power iterations in D."""
    for network in (step.parts.generator, step.parts.discriminators["discriminator"]):
        for layer in network.modules():
            if isinstance(layer, SpectralConv2d):
                layer.iterate(1000)
    load(plain.generator, step.parts.generator)
    load(plain.discriminator, step.parts.discriminators["discriminator"])
    mine = [layer for layer in step.parts.encoder.modules() if isinstance(layer, nn.Conv2d)]
    theirs = [layer for layer in plain.perceptual.modules() if isinstance(layer, nn.Conv2d)]
    for a, b in zip(mine, theirs, strict=True):
        b.load_state_dict(a.state_dict())


def gradient_difference(network: nn.Module, plain: nn.Module) -> float:
    """Of the gradients of all weights together, relative."""
    mine = {official_name(name): parameter.grad for name, parameter in network.named_parameters()}
    pairs = [(mine[name], parameter.grad) for name, parameter in plain.named_parameters()]
    distance = sum(((a - b) ** 2).sum() for a, b in pairs) / sum((b**2).sum() for _, b in pairs)
    return distance.sqrt().item()


def check() -> float:
    """Largest relative difference of losses and of each network's gradient, one step in float64 at 64x64."""
    torch.manual_seed(0)
    step, plain = ours(64, 4, classes=60), plain_spade.Step(62, 4)
    for module in (*step.parts.modules, plain.generator, plain.discriminator, plain.perceptual):
        module.double()
    load_step(plain, step)
    given = batch(64, 2, 60, torch.float64)
    losses = difference(step(given), plain(**given))
    networks = (
        (step.parts.generator, plain.generator),
        (step.parts.discriminators["discriminator"], plain.discriminator),
    )
    return max(losses, *(gradient_difference(a, b) for a, b in networks))


def item(side: int, size: int, width: int, official: float | None, targets: dict[str, float]) -> Item:
    """One step on a batch of `size`."""
    given, last, kept = batch(side, size), "train.channels_last=true", "train.regenerate_fake=false"
    plain, step = plain_spade.Step(LABELS.source_channels, width), ours(side, width)
    step_last, step_kept = ours(side, width, last), ours(side, width, last, kept)
    functions = {
        "transcription": lambda: plain(**given),
        "ours": lambda: step(given),
        "ours, channels_last": lambda: step_last(given),
        "ours, channels_last, kept": lambda: step_kept(given),
    }
    remark = "kept: the discriminator sees the image from before the generator's step; checked with one made anew"
    if bf16_hardware():
        functions["ours, channels_last, bf16"] = lambda: step_last(given, bf16=True)
        changed = drift(lambda: ours(64, 4, last, classes=60), batch(64, 2, 60))
        remark += f"; bf16 changes losses and gradient norms by up to {changed:.0e}"
    return Item(
        f"SPADE step, ADE20K {side}x{side}, batch {size}, width {width}",
        functions,
        check,
        official=official,
        targets=targets,
        bound="convolution",
        floor=floor(lambda: step(given)),
        rounds=2,
        remark=remark,
    )


def items(small: bool) -> Iterator[Item]:
    """The paper's networks at 256x256, small ones at 64x64."""
    if small:
        yield item(64, 1, 4, None, {})
        return
    yield item(256, 1, 64, 6100, dict.fromkeys(FLOAT, 4400) | {"ours, channels_last, bf16": 2900})
    yield item(64, 4, 16, 810, dict.fromkeys(FLOAT, 480))


if __name__ == "__main__":
    main(items)
