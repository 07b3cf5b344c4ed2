"""One training step of ours: what `train.py` runs between taking a batch and logging, on live objects of a config."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.compare import Function, bf16_hardware
from engine.build import Rates, build, memory_format
from engine.guard import FiniteGuard, gradient_norm
from engine.inputs import Inputs
from losses.objective import Views
from tests.compose import config


class TrainingStep:
    """The networks, terms and optimizers of a command line, and a call that makes one step with them, on the CPU.

    Args:
        words: of the command line of train.py, such as experiment=cut. train.channels_last counts; of precision the
            call decides.
        inputs: what the networks read and make; no data set is opened.
    """

    def __init__(self, words: Sequence[str], inputs: Inputs) -> None:
        self.cfg = config(*words)
        self.parts = build(self.cfg, inputs)
        self.layout = memory_format(self.cfg, torch.device("cpu"))
        for module in self.parts.modules:
            module.to(memory_format=self.layout)
        self.optimizers = Rates.of(self.cfg, self.parts).optimizers
        self.with_generator, self.beside = self.parts.stepped(False), self.parts.stepped(True)
        self.guard = FiniteGuard(torch.device("cpu"))
        self.steps = 0
        self.parts.train_others(False)

    def __call__(self, batch: Mapping[str, Tensor], bf16: bool = False) -> dict[str, Tensor]:
        """The losses and gradient norms of one step on `source` and `target`, as `Inputs.to` gives them, by name."""
        moved = {name: x.to(memory_format=self.layout) if x.is_floating_point() else x for name, x in batch.items()}
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
        parts, first = self.parts, self.parts.setting.discriminator_first
        self.optimizers["generator"].zero_grad(set_to_none=True)
        with autocast:
            losses, views = parts.generator_step(moved, self.steps)
        values = self._step_others(views, autocast) if first else {}
        if parts.late is not None:
            with autocast:
                losses |= parts.late(views)
        sum(losses.values()).backward()
        kept = views.detached()
        del views
        for name, network in self.with_generator.items():
            values[f"norm/{name}"] = gradient_norm(network)
        self.optimizers["generator"].step()
        if not first:
            if self.cfg.train.regenerate_fake and self.parts.discriminators:
                with autocast:
                    kept = parts.generator_step.fakes(moved, self.steps)
            values |= self._step_others(kept, autocast)
        values |= {name: loss.detach() for name, loss in losses.items()}
        self.guard.watch(self.steps, values)
        self.steps += 1
        return values

    def _step_others(self, views: Views, autocast: Any) -> dict[str, Tensor]:
        """Terms' own parts, then the discriminators."""
        values = {}
        self.parts.train_others(True)
        for name, module in self.parts.other_steps.items():
            self.optimizers[name].zero_grad(set_to_none=True)
            with autocast:
                losses = module(*module.inputs(views, self.steps))
            sum(losses.values()).backward()
            self.optimizers[name].step()
            values |= {key: loss.detach() for key, loss in losses.items()}
        for name, network in self.beside.items():
            values[f"norm/{name}"] = gradient_norm(network)
        self.parts.train_others(False)
        return values


def variants(
    plain: Callable[..., object], make: Callable[..., TrainingStep], batch: Mapping[str, Tensor]
) -> dict[str, Function]:
    """Steps on a batch: the transcription's, ours, and ours in bf16, where the hardware has it."""
    step = make()
    found: dict[str, Function] = {"transcription": lambda: plain(**batch), "ours": lambda: step(batch)}
    return found | ({"ours, bf16": lambda: step(batch, bf16=True)} if bf16_hardware() else {})


def drift(make: Callable[..., TrainingStep], batch: Mapping[str, Tensor]) -> str:
    """How far bf16's losses and gradient norms are from float32's in a first step, for the remark."""
    if not bf16_hardware():
        return "no bf16 instructions here"
    changed = difference(make()(batch, bf16=True), make()(batch))
    return f"bf16 changes losses and gradient norms by up to {changed:.0e}"


def difference(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """The largest relative difference of what both name as `wanted` does."""
    return max(abs(found[name] / value - 1).item() for name, value in wanted.items())


def floor(function: Function) -> Callable[[Mapping[str, float]], float]:
    """Seconds of a call's multiplications and additions, backward passes included, at the rate of convolutions."""

    def seconds(rates: Mapping[str, float]) -> float:
        with FlopCounterMode(display=False) as counter:
            function()
        return counter.get_total_flops() / rates["convolution"] / 1e9

    return seconds
