"""Training as a function: it resumes exactly, ranks equal one process, and it stops where it must."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.build import build, build_dataset
from engine.checkpoint import Loaded
from engine.inputs import Inputs
from engine.preempt import EXIT_CODE
from engine.record import TIMING
from engine.render import untrained_generator
from errors import Diverged, UserError
from tests.compose import TINY, UNPAIRED, config
from train import train

ROOT = Path(__file__).resolve().parents[1]
SMALL = ("train.save_every=5", "train.sample_every=1000")


def run(folder, *overrides):
    return train(config(*TINY, *SMALL, *overrides), folder)


def state(folder):
    return torch.load(folder / "last.pt", weights_only=True)


def lines(folder):
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMING} for row in rows]


def assert_same(one, other, path="state"):
    """Bit-equal tensors and equal values, through nested containers."""
    assert type(one) is type(other), path
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{path}[{index}]")
    else:
        assert one == other, path


CUT = (*UNPAIRED, "setting=unpaired", "objective=cut", "encoder=generator", "objective.contrast.term.dim=8")
SESIM = (*UNPAIRED, "setting=unpaired", "encoder=vgg16", "encoder.pretrained=false", "encoder.layers=[relu1_1,relu2_1]")


def without_config(checkpoint):
    return {key: value for key, value in checkpoint.items() if key != "config"}


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("train.batch_size=4", "train.accumulate=2", "train.ema=0.9", "train.regenerate_fake=true"),
        ("train.precision=bf16", "train.log_every=3", "train.steps=10"),
        ("encoder=pixel", "encoder.scales=[4,8]", "loss=monce", "objective=contrast"),
        ("objective=spade", "loss=perceptual", "train.ttur=true"),
    ],
    ids=["default", "accumulate", "bf16", "monce", "spade"],
)
def test_ten_steps_equal_seven_and_the_rest(tmp_path, options):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, *options, "train.steps=10")
    run(parts, *options, "train.steps=7")
    run(parts, *options, "train.steps=10")
    assert_same(without_config(state(whole)), without_config(state(parts)))
    assert lines(whole) == lines(parts)


@pytest.mark.parametrize(
    "options",
    [
        (*CUT, "loss=monce"),
        (*CUT, "train.batch_size=4", "train.accumulate=2", "train.pool=3"),
        (*CUT, "objective=fastcut", "setting.flip_equivariance=true"),
        (*UNPAIRED, "setting=cycle", "objective=cycle", "loss=none", "train.pool=3", "train.ema=0.9"),
        (*SESIM, "objective=lsesim", "train.pool=3"),
    ],
    ids=["cut", "accumulate", "fastcut", "cycle", "lsesim"],
)
def test_unpaired_runs_resume_with_their_pools(tmp_path, options):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = (*options, "train.save_every=5", "train.sample_every=1000")
    for folder, steps in ((whole, 10), (parts, 7), (parts, 10)):
        train(config(*options, f"train.steps={steps}"), folder)
    assert_same(without_config(state(whole)), without_config(state(parts)))
    assert lines(whole) == lines(parts)
    pools = state(whole).get("pools", {})
    assert all(len(pool) == 3 for pool in pools.values())
    assert bool(pools) is any("train.pool" in option for option in options)


def test_a_run_out_of_time_stops_at_a_log_step_and_goes_on(tmp_path):
    assert run(tmp_path / "whole", "train.steps=4") == 4
    assert run(tmp_path / "parts", "train.steps=4", "train.minutes=1e-6", "train.log_every=2") == 2
    assert run(tmp_path / "more", "train.steps=4", "train.minutes=60") == 4
    assert state(tmp_path / "parts")["step"] == 2
    assert_same(without_config(state(tmp_path / "whole")), without_config(state(tmp_path / "more")))


def test_a_run_says_how_far_it_is_and_which_code_trained_it(tmp_path, monkeypatch):
    def start(commit, *words):
        monkeypatch.setattr("engine.record.environment", lambda device, world: {"commit": commit})
        run(tmp_path, *words)
        found = json.loads((tmp_path / "environment.json").read_text())["commits"]
        return (tmp_path / "progress.txt").read_text(), [(entry["step"], entry["commit"]) for entry in found]

    assert start("a", "train.steps=4", "train.minutes=1e-6", "train.log_every=2") == ("2 of 4\n", [(0, "a")])
    assert start("b", "train.steps=4") == ("4 of 4\n", [(0, "a"), (2, "b")])
    assert start("c", "train.steps=4") == ("4 of 4\n", [(0, "a"), (2, "b")])  # nothing was left to train
    assert start("d", "train.steps=6") == ("6 of 6\n", [(0, "a"), (2, "b"), (4, "d")])


def test_training_changes_every_network_and_leaves_its_records(tmp_path):
    run(tmp_path, "train.steps=1")
    before = state(tmp_path)
    run(tmp_path, "train.steps=6", "train.keep=1")
    after = state(tmp_path)
    assert set(after["networks"]) == {"generator", "discriminator", "objective", "encoder"}
    for name, network in after["networks"].items():
        assert any(not torch.equal(value, before["networks"][name][key]) for key, value in network.items()), name
    assert {path.name for path in tmp_path.iterdir()} >= {
        "config.yaml",
        "environment.json",
        "log.jsonl",
        "samples",
        "tensorboard",
    }
    assert [path.name for path in tmp_path.glob("step_*.pt")] == ["step_00000006.pt"]
    assert set(lines(tmp_path)[0]) == {
        "step",
        "images",
        "gan",
        "contrast",
        "discriminator",
        "norm/generator",
        "norm/encoder",
        "norm/objective",
        "norm/discriminator",
        "lr",
    }


def test_micro_batches_are_averaged_not_summed(tmp_path):
    """Equal but for batch norm, which sees half the batch: a sum would double both values."""
    options = ("train.precision=float64", "train.steps=1", "objective=contrast", "train.batch_size=8")
    run(tmp_path / "a", *options)
    run(tmp_path / "b", *options, "train.accumulate=2")
    one, two = lines(tmp_path / "a")[0], lines(tmp_path / "b")[0]
    assert one["contrast"] == pytest.approx(two["contrast"], rel=0.05)
    assert one["norm/generator"] == pytest.approx(two["norm/generator"], rel=0.5)


def test_a_folder_of_another_config_is_refused_with_the_difference(tmp_path):
    run(tmp_path)
    with pytest.raises(UserError, match=r"made with another config \(loss\.temperature: 0\.07 there, 0\.1 here"):
        run(tmp_path, "loss.temperature=0.1")
    with pytest.raises(UserError, match=r"made with another config \(seed: 0 there, 1 here\)"):
        run(tmp_path, "seed=1")


def test_a_new_run_starts_from_given_weights_and_refuses_another_architecture(tmp_path):
    run(tmp_path / "old")
    run(tmp_path / "new", f"checkpoint={tmp_path / 'old'}", "train.steps=0")
    assert_same(state(tmp_path / "old")["networks"]["generator"], state(tmp_path / "new")["networks"]["generator"])
    with pytest.raises(UserError, match=r"made with another config \(checkpoint: None there"):
        run(tmp_path / "old", f"checkpoint={tmp_path / 'new'}", "train.steps=4")
    with pytest.raises(UserError, match=r"generator is of another architecture: its \S+ is \("):
        run(tmp_path / "wide", f"checkpoint={tmp_path / 'old'}", "model.generator.width=4")
    (tmp_path / "foreign.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        run(tmp_path / "x", f"checkpoint={tmp_path / 'foreign.pt'}")


def test_a_run_goes_on_without_the_weights_it_began_with(tmp_path):
    run(tmp_path / "old")
    words = (f"checkpoint={tmp_path / 'old'}", "train.save_every=1")
    run(tmp_path / "new", *words, "train.steps=1")
    (tmp_path / "old" / "last.pt").unlink()
    assert run(tmp_path / "new", *words, "train.steps=2") == 2


def test_other_splits_are_read_with_the_channels_of_the_training_images(tmp_path):
    """A split of grey images only is not a split of one channel."""
    rng = np.random.default_rng(0)
    for split, shape in (("train", (64, 64, 3)), ("val", (64, 64)), ("test", (64, 64))):
        for side, size in (("input", shape), ("target", (64, 64, 3))):
            (tmp_path / "data" / split / side).mkdir(parents=True)
            for index in range(2):
                image = Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8))
                image.save(tmp_path / "data" / split / side / f"{index}.png")
    words = ("dataset=folder", f"dataset.root={tmp_path / 'data'}", "dataset.labels=false")
    train(config(*(word for word in (*TINY, *SMALL) if "lengths" not in word), *words), tmp_path / "run")
    loaded = Loaded.open(str(tmp_path / "run"))
    assert loaded.inputs.source_channels == 3
    assert build_dataset(loaded.cfg, "test", augment=False).source_channels == 3


def test_the_untrained_baseline_is_what_the_run_began_with(tmp_path):
    for init in ("xavier", "pytorch"):
        run(tmp_path / init, "train.steps=0", f"train.init={init}")
        loaded = Loaded.open(str(tmp_path / init))
        untrained = untrained_generator(loaded, torch.device("cpu"))
        assert_same(dict(untrained.state_dict()), dict(state(tmp_path / init)["networks"]["generator"]))


def test_a_nan_stops_within_one_step_naming_term_and_network(tmp_path, monkeypatch):
    run(tmp_path, "train.steps=3", "train.save_every=1")
    monkeypatch.setattr("engine.checkpoint._problem", lambda state: None)  # reading refuses it: see test_runs.py
    broken = state(tmp_path)
    broken["networks"]["generator"]["output.bias"][0] = float("nan")
    torch.save(broken, tmp_path / "last.pt")
    with pytest.raises(Diverged, match=r"step 4: not finite: .*gan = nan.*norm/generator = nan"):
        run(tmp_path, "train.steps=6")
    assert state(tmp_path)["step"] == 3


def test_a_full_disk_leaves_the_previous_checkpoint_intact(tmp_path, monkeypatch):
    run(tmp_path, "train.steps=5")
    kept = state(tmp_path)
    real = torch.save

    def full(state, file):
        real(state, file)
        file.truncate(100)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        UserError, match=r"last\.pt: cannot be written \(\[Errno 28\].*the previous checkpoint is intact"
    ):
        run(tmp_path, "train.steps=8")
    monkeypatch.undo()
    assert_same(state(tmp_path), kept)
    assert not list(tmp_path.glob(".*.tmp"))


def test_without_a_compiler_training_goes_on_with_one_line(tmp_path, monkeypatch, capsys):
    def broken(_):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", broken)
    assert run(tmp_path, "train.compile=true", "train.steps=1") == 1
    assert "train.compile: no working compiler here (RuntimeError), going on uncompiled" in capsys.readouterr().out


def test_an_output_below_a_regular_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be made, \S+file is in the way"):
        run(tmp_path / "file" / "run")


def command(folder, *overrides, ranks=1):
    launcher = (
        [sys.executable] if ranks == 1 else [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}"]
    )
    if ranks > 1:
        launcher += ["--master-port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    return [*launcher, "train.py", *TINY, *SMALL, f"hydra.run.dir={folder}", *overrides]


def processes(folder):
    """Environment by number of every process whose command names a folder, this one aside."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                found[int(entry.name)] = (entry / "environ").read_bytes().split(b"\0")
    return found


def kill_all(folder):
    """kill -9 of every process that works on a folder: torchrun's workers have sessions of their own."""
    for number in processes(folder):
        with contextlib.suppress(OSError):
            os.kill(number, signal.SIGKILL)


def terminate(folder):
    """SIGTERM to the last rank alone, but to all of its loader's workers, as schedulers do."""
    found = processes(folder)
    last = max((item for environment in found.values() for item in environment if item[:5] == b"RANK="), default=None)
    for number, environment in found.items():
        if last is None or last in environment:
            os.kill(number, signal.SIGTERM)


def terminate_torchrun(folder):
    """SIGTERM to torchrun alone, which passes it on to its ranks."""
    (torchrun,) = (number for number, environment in processes(folder).items() if not any(
        item.startswith((b"RANK=", b"GROUP_RANK=")) for item in environment))  # fmt: skip
    os.kill(torchrun, signal.SIGTERM)


@pytest.mark.parametrize(
    ("stop", "ranks", "workers", "every"),
    [
        (kill_all, 1, 0, 3),
        (kill_all, 1, 2, 4),
        (kill_all, 2, 0, 4),
        (kill_all, 2, 2, 3),
        (terminate, 1, 2, 100000),
        (terminate, 2, 2, 100000),
        pytest.param(terminate_torchrun, 2, 2, 100000, marks=pytest.mark.slow),
    ],
)
def test_stopped_and_started_again_it_ends_where_it_would_have(tmp_path, stop, ranks, workers, every):
    """Stopped between two saves, in the middle or at the boundary of an epoch (4 steps), then the same command.

    kill -9 loses the steps since the last save; a signal, here to one of the ranks, loses none.
    """
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    options = ("train.steps=11", f"train.save_every={every}", f"train.workers={workers}")
    quiet = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    words = command(stopped, *options, "train.steps=200000", ranks=ranks)
    process = subprocess.Popen(words, **quiet)
    log = stopped / "log.jsonl"
    while not log.is_file() or len(log.read_text().splitlines()) < 8:
        assert process.poll() is None
        time.sleep(0.05)
    stop(stopped)
    code = process.wait()
    reached = state(stopped)["step"]
    if stop is not kill_all:
        assert code == (EXIT_CODE if ranks == 1 else 1)  # torchrun has its own
        assert reached == lines(stopped)[-1]["step"]
    target = max(11, reached + 2)  # the machine may have been fast
    subprocess.run(command(stopped, *options, f"train.steps={target}", ranks=ranks), check=True, **quiet)
    if ranks == 1:
        run(whole, *options, f"train.steps={target}")
    else:
        subprocess.run(command(whole, *options, f"train.steps={target}", ranks=ranks), check=True, **quiet)
    assert_same(without_config(state(whole)), without_config(state(stopped)))
    assert lines(whole) == lines(stopped)
    assert [row["step"] for row in lines(stopped)] == list(range(1, target + 1))


def test_after_an_error_its_workers_end_too(tmp_path):
    """They ignore the signal by which the interpreter's exit ends processes, and it waits for them."""
    words = command(tmp_path / "run", "train.lr=1e6", "train.steps=100", "train.workers=2", ranks=1)
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if not line.startswith("warning: step")]
    assert re.fullmatch(r"error: step \d+: above train\.limit=1e\+06: .*; `python scripts/reproduce\.py .*", line)


def test_layers_and_directions_are_logged_and_change_nothing(tmp_path):
    options = ("train.steps=3", "train.batch_size=4", "train.accumulate=2", "nce.bidirectional=true")
    weight = config(*TINY).objective.contrast.weight
    run(tmp_path / "plain", *options)
    run(tmp_path / "logged", *options, "train.log_layers=true")
    plain_state, logged_state = (without_config(state(tmp_path / name)) for name in ("plain", "logged"))
    for found in (plain_state, logged_state):
        del found["record"]["log"]  # the digest of the log's lines, which have more values here
    assert_same(plain_state, logged_state)
    for plain, row in zip(lines(tmp_path / "plain"), lines(tmp_path / "logged"), strict=True):
        parts = {name: row.pop(name) for name in list(row) if name.startswith("contrast/")}
        assert row == plain
        assert len(parts) == 12 and {name.split("/")[1] for name in parts} == {"fake-target", "target-fake"}
        assert weight * sum(parts.values()) / 2 == pytest.approx(row["contrast"], rel=1e-5)


def assert_close_runs(one, two):
    """Weights and logged values of two run folders, in float64."""
    first, second = state(one)["networks"], state(two)["networks"]
    for name, network in first.items():
        for key, value in network.items():
            torch.testing.assert_close(
                second[name][key], value, rtol=1e-5, atol=1e-5, msg=lambda m, at=f"{name}.{key}": f"{at}: {m}"
            )
    for row, other in zip(lines(one), lines(two), strict=True):
        assert row == pytest.approx(other, rel=1e-6)


def test_two_ranks_equal_one_in_float64(tmp_path):
    options = ("train.precision=float64", "train.steps=3", "train.batch_size=4", "train.workers=0")
    run(tmp_path / "one", *options)
    subprocess.run(command(tmp_path / "two", *options, ranks=2), cwd=ROOT, check=True, capture_output=True)
    assert_close_runs(tmp_path / "one", tmp_path / "two")


def test_two_ranks_have_the_gradients_of_one_in_float32(tmp_path):
    """After one step Adam's first moment is (1 - beta1) times the gradient.

    With L1 and a GAN: float32 itself is 1e-6 from float64 there, but 1e-5 to 1e-3 for contrast at the start, where unit
    vectors are made of tiny features; test_two_ranks_equal_one_in_float64 holds that loss.
    """
    options = ("loss=l1", "encoder=pixel", "train.init=pytorch", "train.steps=1", "train.batch_size=4")
    run(tmp_path / "one", *options)
    words = command(tmp_path / "two", *options, ranks=2)
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    one, two = state(tmp_path / "one")["optimizers"], state(tmp_path / "two")["optimizers"]
    cfg = config(*TINY, *options)
    parts = build(cfg, Inputs.of(build_dataset(cfg, "test", augment=False)))
    modules = [module for module in (parts.generator, parts.objective, parts.encoder) if module is not None]
    sizes = [sum(p.requires_grad for p in module.parameters()) for module in modules]
    networks = {"generator": torch.arange(sum(sizes)).split(sizes)}
    networks["discriminator"] = [torch.arange(len(one["discriminator"]["state"]))]
    for name, groups in networks.items():
        for group in (group for group in groups if len(group)):
            pairs = [(one[name]["state"][int(i)]["exp_avg"], two[name]["state"][int(i)]["exp_avg"]) for i in group]
            largest = max(a.abs().max() for a, _ in pairs)
            off = max((a - b).abs().max() for a, b in pairs)
            assert off <= 1e-5 * largest, f"{name}: {off} of {largest}"
