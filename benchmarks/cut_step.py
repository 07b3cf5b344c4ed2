"""A training step of CUT, batch 1: `python -m benchmarks.cut_step [side=256] [rounds=5] [threads=2]`.

Ours makes one generator pass of source and target, takes the keys' features from it and encodes each generated image
once; the transcription encodes all four images again. Before timing, both give the same losses from the same weights.
"""

import sys
from typing import Any

import torch

from benchmarks import plain_cut
from benchmarks.compare import in_turns, table
from engine.build import Rates, build
from engine.inputs import Inputs
from tests.compose import config


def ours(channels_last: bool, *words: str, side: int = 256) -> tuple[Any, Any]:
    """The live objects and a function of (source, target) that makes one step, as train.py does; float32 or bf16."""
    words = ("experiment=cut", f"dataset.size=[{side},{side}]", *words)
    parts = build(config(*words), Inputs(3, 3, False, None, None, False, aligned=False))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for module in parts.modules:
        module.to(memory_format=layout)
    rates = Rates.of(config(*words), parts)
    step_d = parts.other_steps["discriminator"]
    parts.train_others(False)

    def step(source: torch.Tensor, target: torch.Tensor, bf16: bool = False) -> dict[str, torch.Tensor]:
        batch = {name: x.to(memory_format=layout) for name, x in (("source", source), ("target", target))}
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
        rates.optimizers["generator"].zero_grad(set_to_none=True)
        with autocast:
            losses, views = parts.generator_step(batch, 0)
        parts.train_others(True)
        rates.optimizers["discriminator"].zero_grad(set_to_none=True)
        with autocast:
            judged = step_d(*step_d.inputs(views, 0))
        judged["discriminator"].backward()
        rates.optimizers["discriminator"].step()
        parts.train_others(False)
        with autocast:
            losses |= parts.late(views)
        sum(losses.values()).backward()
        rates.optimizers["generator"].step()
        return {name: value.detach() for name, value in {**losses, **judged}.items()}

    return parts, step


def same_weights(parts: Any, plain: plain_cut.Step) -> None:
    """Copy our networks into the transcription, in the order of their parameters, which is that of the layers."""
    pairs = [
        (parts.generator, plain.generator),
        (parts.discriminators["discriminator"], plain.discriminator),
        (parts.objective, plain.heads),
    ]
    with torch.no_grad():
        for mine, theirs in pairs:
            for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
                b.copy_(a)


def check() -> float:
    """Largest relative difference of three steps' losses from the same weights, all patches, float64, at 32x32."""
    torch.manual_seed(0)
    parts, step = ours(False, "model.generator.width=8", "model.discriminator.width=8", "nce.patches=null", side=32)
    plain = plain_cut.Step(8, patches=10**9)
    for module in (*parts.modules, plain.generator, plain.discriminator, plain.heads):
        module.double()
    same_weights(parts, plain)
    worst = 0.0
    for _ in range(3):
        source, target = torch.rand(2, 1, 3, 32, 32, dtype=torch.float64) * 2 - 1
        a, b = step(source, target), plain(source, target)
        worst = max(worst, *(abs(a[name] / b[name] - 1).item() for name in b))
    return worst


def main() -> None:
    """Print the table."""
    options = {"side": 256, "rounds": 5, "threads": 2, **{k: int(v) for k, v in (w.split("=") for w in sys.argv[1:])}}
    torch.set_num_threads(options["threads"])
    print(f"largest relative difference of losses over three steps: {check():.1e}")
    side = options["side"]
    source, target = torch.rand(2, 1, 3, side, side) * 2 - 1
    plain, (_, step), (_, step_last) = plain_cut.Step(), ours(False, side=side), ours(True, side=side)
    functions = {
        "transcription": lambda: plain(source, target),
        "ours": lambda: step(source, target),
        "ours, channels_last": lambda: step_last(source, target),
        "ours, channels_last, bf16": lambda: step_last(source, target, bf16=True),
    }
    print(table(in_turns(functions, options["rounds"]), "transcription"))


if __name__ == "__main__":
    main()
