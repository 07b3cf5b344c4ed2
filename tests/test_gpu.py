"""What needs a GPU, or two: `make gpu`. Numbers equal the CPU's, ranks equal one, and no step waits for the device."""

import json
import os
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import engine.inputs
from engine import distributed
from engine.build import build, build_dataset
from engine.guard import FiniteGuard
from engine.inputs import Inputs
from engine.profile import Profile
from engine.sampling import StepSampler, loader
from errors import Diverged
from evaluate import evaluate
from losses.transport import sinkhorn
from tests.compose import TINY, config
from tests.test_evaluate import config as evaluation
from tests.test_ranks import CUT, CYCLE, ROWS, SESIM, SPADE, assert_same_networks, train_rows
from tests.test_synchronisation import MORE
from tests.test_train import ROOT, SMALL, assert_close_runs, assert_same, command, lines, state, without_config
from tests.test_unpaired_runs import render
from train import train

pytestmark = pytest.mark.gpu
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for deterministic products, read when CUDA starts
NEEDS = "needs a CUDA device (two for nccl), and make gpu"
HOSTS = {
    "spade": (*SPADE, "loss=monce", "loss.detach_weights=false", "objective=spade", "train.ttur=true"),
    "smooth": (*SPADE, "loss=patchnce", "model.generator.interpolation=bilinear", "model.generator.padding=replicate"),
    "cut": (*CUT, "objective=cut", "loss=weightnce"),
    "fastcut": (*CUT, "objective=fastcut", "setting.flip_equivariance=true"),
    "cycle": (*CYCLE, "objective=cycle", "loss=none"),
    "sesim": (*SESIM, "objective=lsesim", "loss=patchnce"),
}


@pytest.fixture
def device():
    if not torch.cuda.is_available():
        pytest.skip(NEEDS)
    return torch.device("cuda:0")


@pytest.fixture
def two_devices():
    if torch.cuda.device_count() < 2:
        pytest.skip(NEEDS)


@pytest.fixture(autouse=True)
def whole_float32():
    """Convolutions without TF32, which keeps ten bits."""
    torch.backends.fp32_precision = "ieee"
    yield
    torch.backends.fp32_precision = "none"


@pytest.fixture
def same_images(monkeypatch):
    """A GPU divides a float32 by 127.5 by multiplying: one bit of the images, which float64 would show."""
    monkeypatch.setattr(engine.inputs, "to_float", lambda image: image.double() / 127.5 - 1)


def trained(folder, device, *words):
    train(config(*words, "train.samples=0", "train.log_every=1", f"train.device={device}"), folder)
    return SimpleNamespace(values=lines(folder), state=state(folder), folder=folder)


def gradients(run):
    """Of every optimizer's parameters after one step: Adam's first moment is (1 - beta1) times the gradient."""
    return {
        name: torch.cat([moments["exp_avg"].double().flatten() for moments in optimizer["state"].values()])
        for name, optimizer in run.state["optimizers"].items()
    }


def assert_same_step(one, other, tolerance):
    """Losses and norms, and gradients against the largest of their network."""
    for row, wanted in zip(one.values, other.values, strict=True):
        assert row == pytest.approx(wanted, rel=tolerance, abs=tolerance)
    expected = gradients(other)
    for name, gradient in gradients(one).items():
        off = ((gradient - expected[name]).abs().max() / expected[name].abs().max()).item()
        assert off <= tolerance, f"{name}: {off:.1e}"


# Equal to the CPU


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-7), ("float32", 1e-2)])
def test_a_step_equals_the_cpus(host, precision, tolerance, device, tmp_path, same_images):
    words = (*HOSTS[host], "train.steps=1", f"train.precision={precision}")
    assert_same_step(trained(tmp_path / "gpu", device, *words), trained(tmp_path / "cpu", "cpu", *words), tolerance)


@pytest.mark.parametrize("host", HOSTS)
def test_a_step_in_bf16_is_finite_and_near(host, device, tmp_path):
    words = (*HOSTS[host], "train.steps=1", "train.channels_last=true")
    half = trained(tmp_path / "half", device, *words, "train.precision=bf16").values[0]
    whole = trained(tmp_path / "whole", device, *words).values[0]
    for name, value in whole.items():
        assert half[name] == pytest.approx(value, rel=0.5 if name.startswith("norm/") else 0.1), name


@pytest.mark.parametrize("beta", [1.0, 0.1, 0.01, 0.001])
def test_transport_equals_the_cpus(beta, device):
    """All images in one product, and scalings that are absorbed before the host has seen them."""
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(2, 3, 100, 16, generator=generator), dim=-1)
    diagonal = torch.eye(100, dtype=torch.bool)
    log_kernel = (features[0] @ features[1].mT / beta).masked_fill(diagonal, -float("inf"))
    direction = torch.randn(3, 100, 100, generator=generator, dtype=torch.float64)
    found = []
    for place in (device, torch.device("cpu")):
        leaf = log_kernel.to(place).requires_grad_()
        plan = sinkhorn(leaf, 50).masked_fill(diagonal.to(place), 0)
        (gradient,) = torch.autograd.grad((plan * direction.to(place)).sum(), leaf)
        found.append((plan.detach().cpu(), gradient.cpu()))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-5, atol=1e-5)


def test_pictures_and_metrics_equal_the_cpus(device, tmp_path):
    """What test.py and evaluate.py give for one checkpoint on either device."""
    first = tmp_path / "cpu"
    trained(first, "cpu", *TINY)
    second = shutil.copytree(first, tmp_path / "gpu")
    reports, pictures = [], []
    for folder, place in ((first, "cpu"), (second, device)):
        asked = {"checkpoint": str(folder), "device": str(place), "batch_size": 2}
        output = render(config(*(f"{key}={value}" for key, value in asked.items()), name="test"))
        pictures.append([np.asarray(Image.open(path)).astype(int) for path in sorted(output.glob("**/*.png"))])
        reports.append(evaluate(evaluation(**asked, metrics=["swd", "appearance", "fd_lite2"]))["metrics"])
    for one, other in zip(*pictures, strict=True):
        assert np.abs(one - other).max() <= 1
    for name, entry in reports[0].items():
        assert reports[1][name]["value"] == pytest.approx(entry["value"], rel=1e-2), name


# Equal to itself


@pytest.mark.parametrize("host", ["spade", "cycle"])
def test_compiled_equals_eager(host, device, tmp_path, capsys):
    words = (*HOSTS[host], "train.steps=2", "train.precision=float64")
    eager = trained(tmp_path / "eager", device, *words)
    compiled = trained(tmp_path / "compiled", device, *words, "train.compile=true")
    assert "going on uncompiled" not in capsys.readouterr().out
    assert_same_step(compiled, eager, 1e-6)


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True, warn_only=True)  # sums of equal shares need no order
    yield
    torch.use_deterministic_algorithms(False)


def test_convolutions_are_chosen_by_time_but_where_numbers_must_repeat(device, deterministic):
    for asked in (True, False):
        torch.use_deterministic_algorithms(asked, warn_only=True)
        with distributed.ranks(device):
            assert torch.backends.cudnn.benchmark is not asked
            assert torch.cuda.current_device() == device.index


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_six_steps_equal_four_and_the_rest(precision, device, tmp_path, deterministic):
    words = (*TINY, *SMALL, f"train.precision={precision}", "train.ema=0.9")
    whole = trained(tmp_path / "whole", device, *words, "train.steps=6")
    for steps in (4, 6):
        parts = trained(tmp_path / "parts", device, *words, f"train.steps={steps}")
    assert_same(without_config(whole.state), without_config(parts.state))
    assert whole.values == parts.values


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_fused_adam_equals_the_plain_one(layout, device):
    cfg = config(*TINY)
    inputs = Inputs.of(build_dataset(cfg, "train", augment=False))
    weights = []
    for options in ({"fused": True}, {"foreach": False, "fused": False}):
        parts = build(cfg, inputs)
        for module in parts.modules:
            module.to(device=device, memory_format=layout)
        random = torch.Generator().manual_seed(1)
        adam = torch.optim.Adam(parts.trained(), lr=1e-2, betas=(0.5, 0.999), **options)
        for _ in range(3):
            for parameter in parts.trained():
                drawn = torch.randn(parameter.shape, generator=random).to(device)
                parameter.grad = torch.empty_like(parameter).copy_(drawn)
            adam.step()
        weights.append([parameter.detach().cpu() for parameter in parts.trained()])
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)


# Nobody waits


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_lie_in_pinned_memory_and_arrive_whole(workers, device):
    cfg = config(*TINY)
    data = build_dataset(cfg, "train", augment=True)
    batch = next(iter(loader(data, StepSampler(len(data), 4, 1, 0, 0, 1, 0, 1), workers, device)))
    tensors = [value for value in batch.values() if isinstance(value, torch.Tensor)]
    assert tensors and all(tensor.is_pinned() is (device.type == "cuda") for tensor in tensors)
    assert all(tensor.dtype == torch.uint8 for tensor in tensors)
    here, there = (Inputs.of(data).to(batch, place, torch.float32) for place in (torch.device("cpu"), device))
    for name in ("source", "target"):
        assert there[name].device == device
        torch.testing.assert_close(there[name].cpu(), here[name], rtol=0, atol=1e-6)


class Over(Exception):
    """Enough steps."""


@pytest.mark.parametrize("row", [*ROWS, *MORE])
def test_no_step_waits_for_the_device(row, device, tmp_path, monkeypatch):
    """From the third step on, when caches are warm; the guard reads the step before, which has its own copy."""
    begun = []

    def step(profile):
        torch.cuda.set_sync_debug_mode("error" if 2 <= len(begun) < 5 else "default")
        if len(begun) == 5:
            raise Over
        begun.append(True)

    monkeypatch.setattr(Profile, "step", step)
    words = (*{**ROWS, **MORE}[row], "train.samples=0", "train.log_every=99", "train.steps=9")
    try:
        with pytest.raises(Over):
            train(config(*words, f"train.device={device}"), tmp_path)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_guard_tells_of_the_step_before(device):
    def values(number):
        return {"gan": torch.full((), number, device=device)}

    guard = FiniteGuard(device)
    with pytest.raises(Diverged, match=r"step 1: not finite: gan = nan"):
        guard.watch(1, values(float("nan")))
        guard.watch(2, values(1.0))
    guard = FiniteGuard(device)
    for step in range(3):
        guard.watch(step, values(float(step)))
    with pytest.raises(Diverged, match=r"step 3: not finite: gan = inf"):
        guard.watch(3, values(float("inf")))
        guard.settle()


def test_a_profile_has_the_devices_time(device, tmp_path):
    profiled = trained(tmp_path / "with", device, *TINY, *SMALL, "train.steps=5", "train.profile=2")
    plain = trained(tmp_path / "without", device, *TINY, *SMALL, "train.steps=5")
    title, parts, operators = (profiled.folder / "profile" / "table.txt").read_text().split("\n\n")
    assert f"on {device}" in title
    columns = ["host ms", "GPU ms", "share"] if device.type == "cuda" else ["host ms", "share"]
    assert all(column in parts.splitlines()[0] for column in columns)
    assert "convolution" in operators
    if device.type == "cuda":
        assert "GPU memory: " in parts and "GPU ms" in operators.splitlines()[0]
        row = next(line.split("  ") for line in parts.splitlines() if line.startswith("backward"))
        assert float([cell for cell in row if cell.strip()][3]) > 0
    assert [row["step"] for row in profiled.values] == [row["step"] for row in plain.values]


# Two GPUs


def test_two_nccl_ranks_equal_one(two_devices, tmp_path):
    words = ("train.precision=float64", "train.steps=3", "train.batch_size=4", "train.workers=0", "train.device=cuda")
    trained(tmp_path / "one", "cuda", *TINY, *SMALL, *words)
    subprocess.run(command(tmp_path / "two", *words, ranks=2), cwd=ROOT, check=True, capture_output=True)
    assert json.loads((tmp_path / "two" / "environment.json").read_text())["ranks"] == 2
    assert_close_runs(tmp_path / "one", tmp_path / "two")


def test_both_nccl_ranks_end_with_the_same_networks(two_devices, tmp_path):
    folder = train_rows(tmp_path, "nccl")
    for row in ROWS:
        assert_same_networks(folder, row)
