"""One 256x256 image from SPADE's and CUT's generator: `python -m benchmarks.inference [rounds=5] [threads=2] [small=1]
[only=WORD]`.

Ours is what test.py does between reading a source and writing an image, with a generator that it made ready.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import plain_cut, plain_spade
from benchmarks.compare import Function, Item, bf16_hardware, main
from benchmarks.cut_step import IMAGES, pair, same_weights
from benchmarks.spade_step import LABELS, batch, load
from benchmarks.steps import floor
from engine.build import build_generator
from engine.checkpoint import Loaded
from engine.inputs import Inputs
from engine.render import translate, untrained_generator
from tests.compose import config


def ready(words: Sequence[str], inputs: Inputs) -> Any:
    """A generator with its initial weights, as test.py makes one ready."""
    cfg = config(*words)
    state = {"networks": {"generator": build_generator(cfg, inputs).state_dict()}}
    return untrained_generator(Loaded(Path(), 0, cfg, inputs, state), torch.device("cpu"))


@torch.no_grad()
def distance(found: Tensor, wanted: Tensor) -> float:
    """Of two images, relative."""
    return ((found - wanted).norm() / wanted.norm()).item()


def item(
    name: str,
    plain: nn.Module,
    read: Callable[[Tensor], Tensor],
    generator: nn.Module,
    source: Tensor,
    official: float,
    targets: dict[str, float],
) -> Item:
    """Transcription, which takes `read(source)`, and ours, both in eval mode and without gradient."""

    @torch.no_grad()
    def transcribed() -> Tensor:
        return plain(read(source))

    def made(bf16: bool = False) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return translate(generator, source)

    @torch.no_grad()
    def check() -> float:
        """In float64, of a piece of 64x64."""
        piece = source[..., :64, :64]
        exact = piece.double() if piece.is_floating_point() else piece
        wanted = copy.deepcopy(plain).double()(read(piece).double())
        return distance(copy.deepcopy(generator).double()(exact), wanted)

    functions: dict[str, Function] = {"transcription": transcribed, "ours": made}
    remark = ""
    if bf16_hardware():
        functions["ours, bf16"] = lambda: made(bf16=True)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            rough = generator(source).float()
        remark = f"bf16 differs by {distance(rough, transcribed()):.0e}"
    return Item(
        name,
        functions,
        check,
        official=official,
        targets=targets,
        bound="convolution",
        floor=floor(made),
        remark=remark,
    )


def spade(side: int, width: int) -> Item:
    """On ids of ADE20K and edges, which the transcription makes one-hot."""
    widths = ("model.generator.hidden=128", f"model.generator.width={width}", "train.init=pytorch")
    generator = ready(("experiment=monce/table3/perceptual", *widths), LABELS)
    plain = plain_spade.Generator(LABELS.source_channels, width).eval()
    load(plain, generator)
    source = batch(side, 1)["source"]
    targets = {"ours": 950.0, "ours, bf16": 470.0}
    read = partial(plain_spade.one_hot, channels=LABELS.source_channels)
    return item(f"SPADE inference, {side}x{side}", plain, read, generator, source, 1656, targets)


def cut(side: int, width: int) -> Item:
    """On an image."""
    generator = ready(("experiment=cut", f"model.generator.width={width}", "train.init=pytorch"), IMAGES)
    plain = plain_cut.Generator(width).eval()
    same_weights({generator: plain})
    targets = {"ours": 350.0, "ours, bf16": 250.0}
    return item(f"CUT inference, {side}x{side}", plain, torch.clone, generator, pair(side)["source"], 393, targets)


def items(small: bool) -> Iterator[Item]:
    """Batch 1."""
    torch.manual_seed(0)
    side, width = (64, 4) if small else (256, 64)
    yield spade(side, width)
    yield cut(side, width)


if __name__ == "__main__":
    main(items)
