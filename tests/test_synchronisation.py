"""No step makes the host wait for the device: every setting trains on one whose values cannot be read.

Tensors of torch's meta device have shapes and no values. A step that looks at one (.item(), .cpu(), a boolean index)
raises there, and every branch for other devices than the CPU is taken. What waits for a copy from the host is refused
by the modes below. Left out, because they are no part of a step or made for it: log lines, samples, evaluation and
checkpoints; and the guard, which waits for the copy of the values of the step before (tests/test_gpu.py).
"""

from contextlib import ExitStack

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from engine import distributed
from engine.guard import FiniteGuard
from engine.profile import Profile
from models.resampling import BlurDownsample
from tests.compose import config
from tests.test_ranks import CUT, CYCLE, ROWS, SESIM, SPADE
from train import train

META = torch.device("meta")
STEPS = 3


class Waits(Exception):
    """The host would wait here."""


class Copies(TorchDispatchMode):
    """Refuses a copy to the device that waits; from pinned memory and with non_blocking it does not."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default) and out.is_meta:
            source = args[0] if func == torch.ops.aten._to_copy.default else args[1]
            if not source.is_meta and not kwargs.get("non_blocking", False) and True not in args[2:]:
                raise Waits(f"a copy of {tuple(source.shape)}")
        return out


class Factories(TorchFunctionMode):
    """Refuses tensors that are made of the host's numbers: these are copied, and the copy is waited for."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor) and out.is_meta:
            raise Waits(f"{func.__name__} of {args[-1]}")
        return out


class Over(Exception):
    """Enough steps."""


@pytest.fixture
def unreadable(monkeypatch):
    """Training on the meta device, for STEPS steps, with the modes on in all of them."""
    plain, enabled, adam = torch.autocast, torch.is_autocast_enabled, torch.optim.Adam
    monkeypatch.setattr(distributed, "choose_device", lambda name, key: META)
    monkeypatch.setattr(FiniteGuard, "_read", staticmethod(lambda pending: None))
    # What torch has not for this device: autocast, and the fused kernel of Adam.
    monkeypatch.setattr(torch, "autocast", lambda kind, *args, **options: plain("cpu", enabled=False))
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind="cpu": enabled("cpu"))
    monkeypatch.setattr(torch.optim, "Adam", lambda *args, fused, **options: adam(*args, foreach=False, **options))
    modes, begun = ExitStack(), []

    def step(profile):
        if not begun:
            modes.enter_context(Copies())
            modes.enter_context(Factories())
        if len(begun) == STEPS:
            raise Over
        begun.append(True)

    monkeypatch.setattr(Profile, "step", step)
    with modes:
        yield


MORE = {
    "spade_official": (
        *SPADE, "loss=monce_official_spade", "objective=spade", "train.regenerate_fake=true", "train.ttur=true",
        "train.ema=0.9",
    ),
    "spade_smooth": (
        *SPADE, "loss=patchnce_official", "model.generator.interpolation=bilinear", "model.generator.noise=true",
        "model.generator.padding=replicate", "train.regenerate_fake=true", "train.batch_size=4", "train.accumulate=2",
    ),
    "spade_batch": (*SPADE, "loss=patchnce_batch", "model.generator.padding=reflect", "train.channels_last=true"),
    "spade_exp": (*SPADE, "loss=monce", "loss.cost=exp", "loss.detach_weights=false", "loss.weight_positive=true"),
    "spade_unfrozen": (*SPADE[:-3], "loss=weightnce", "encoder=conv6", "objective.contrast.term.dim=8"),
    "cut_official": (*CUT, "objective=cut", "loss=monce_official_cut", "train.batch_size=4", "train.accumulate=2"),
    "cycle_pools": (*CYCLE, "objective=cycle", "loss=none", "train.ema=0.9"),
    "sesim_queries": (*SESIM, "objective=sesim", "loss=none", "objective.spatial.term.keys=queries"),
    "sesim_small_window": (*SESIM, "objective=lsesim", "loss=patchnce", "objective.spatial.term.window=4"),
}  # fmt: skip


@pytest.mark.parametrize("row", [*ROWS, *MORE])
def test_no_step_reads_the_device(row, unreadable, tmp_path):
    words = (*{**ROWS, **MORE}[row], "train.samples=0", "train.log_every=99", f"train.steps={STEPS + 1}")
    with pytest.raises(Over):
        train(config(*words), tmp_path)


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x.sum().item(),
        lambda x: x.cpu(),
        lambda x: bool((x > 0).all()),
        lambda x: x[x > 0],
        lambda x: x[torch.ones(4).to(x.device).long()],
        lambda x: x + torch.tensor([1.0], device=x.device),
        lambda x: x * x.new_tensor([1.0]),
        lambda x: x.copy_(torch.ones(4)),
    ],
)
def test_what_waits_is_found(waits):
    with pytest.raises((Waits, RuntimeError, NotImplementedError)), Copies(), Factories():
        waits(torch.ones(4, device=META))


def test_what_does_not_wait_is_let_pass():
    x = torch.ones(1, 1, 4, 4, device=META, requires_grad=True)
    with Copies(), Factories():
        moved = torch.ones(4, 4).to(META, non_blocking=True)
        BlurDownsample()(x * moved * 2).sum().backward()
        nn.functional.pad(x, (1, 1, 1, 1)).new_full((), 3.0)
        assert int(torch.randint(2, ())) in (0, 1)  # the host's own numbers
