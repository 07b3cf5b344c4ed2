"""train.profile: a table and a trace of some steps, and nothing else of the run changes."""

import gzip
import json
import subprocess
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from engine.checks import validate
from engine.config import ConfigError, label
from engine.profile import Profile, Span, part_rows, text
from tests.compose import UNPAIRED, config
from tests.test_train import ROOT, assert_same, command, lines, run, state, without_config
from train import train

CPU = torch.device("cpu")
PARTS = ["data wait", "transfer", "generator forward", "losses", "backward", "optimizer", "discriminators"]


def table(folder):
    """Names in the order of the first table, and the cells of each, those of inner parts under 'outer/inner'."""
    rows, outer = {}, ""
    for line in (folder / "profile" / "table.txt").read_text().split("\n\n")[1].splitlines()[1:]:
        name, *cells = [cell for cell in line.split("  ") if cell.strip()]
        inner = line.startswith("  ")
        rows[f"{outer}/{name.strip()}" if inner else name] = [cell.strip() for cell in cells]
        outer = outer if inner else name
    return rows


def test_a_profiled_run_ends_with_the_same_weights(tmp_path, capsys):
    for name, words in (("without", ()), ("with", ("train.profile=2",))):
        run(tmp_path / name, "train.steps=6", "train.batch_size=4", "train.accumulate=2", "train.save_every=6", *words)
    assert_same(without_config(state(tmp_path / "without")), without_config(state(tmp_path / "with")))
    assert lines(tmp_path / "without") == lines(tmp_path / "with")
    assert not (tmp_path / "without" / "profile").exists()
    printed = capsys.readouterr().out
    place = tmp_path / "with" / "profile"
    assert f"profile: {place / 'trace.json.gz'} (for ui.perfetto.dev), {place / 'table.txt'}" in printed
    assert (place / "table.txt").read_text().startswith("steps 4 to 5 of this run on cpu")
    rows = table(tmp_path / "with")
    assert list(rows) == [*PARTS, "discriminators/backward", "discriminators/optimizer", "rest", "step"]
    assert rows["generator forward"][0] == rows["backward"][0] == "2"  # micro-batches
    assert rows["losses"][0] == "4"  # those of images alone, and those that read the discriminator
    times = {name: float(cells[-2]) for name, cells in rows.items()}
    assert sum(times[name] for name in [*PARTS, "rest"]) == pytest.approx(times["step"], abs=0.1)
    with gzip.open(place / "trace.json.gz", "rt") as file:
        seen = [event.get("name") for event in json.load(file)["traceEvents"]]
    assert seen.count("data wait") == 2 and "aten::convolution_backward" in seen


def test_the_order_of_another_setting(tmp_path):
    """CUT steps its discriminator between the passes of the generator."""
    words = (*UNPAIRED, "setting=unpaired", "objective=cut", "encoder=generator", "objective.contrast.term.dim=8")
    train(config(*words, "train.steps=5", "train.profile=1"), tmp_path)
    names = [name for name in table(tmp_path) if "/" not in name]
    assert names == [*PARTS[:4], "discriminators", "backward", "optimizer", "rest", "step"]


def test_a_resumed_run_profiles_its_own_steps_and_a_finished_one_none(tmp_path, capsys):
    run(tmp_path, "train.steps=3")
    assert run(tmp_path, "train.steps=5", "train.profile=20") == 5
    assert (tmp_path / "profile" / "table.txt").read_text().startswith("steps 1 to 2 of this run")
    capsys.readouterr()
    assert run(tmp_path, "train.steps=5", "train.profile=20") == 5
    assert "profile:" not in capsys.readouterr().out


def test_of_two_ranks_the_first_writes(tmp_path):
    words = command(tmp_path, "train.steps=4", "train.profile=2", "train.workers=0", ranks=2)
    done = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.count("profile: ") == 1
    assert "discriminators" in table(tmp_path)


@pytest.mark.parametrize(("left", "first", "steps"), [(100, 3, 20), (23, 3, 20), (21, 1, 20), (5, 0, 5), (0, 0, 0)])
def test_steps_are_taken_after_the_first_three_where_there_are_enough(tmp_path, left, first, steps):
    profile = Profile(tmp_path, 20, CPU)
    profile.choose(left)
    assert (profile.first, profile.steps) == (first, steps)


def test_an_error_ends_the_profile_without_files(tmp_path):
    for _ in range(2):  # torch allows one profiler at a time
        with pytest.raises(ZeroDivisionError), Profile(tmp_path, 5, CPU) as profile:
            profile.choose(5)
            network = nn.Linear(2, 2)
            profile.watch("forward", [network])
            profile.step()
            network(torch.ones(1, 2))
            raise ZeroDivisionError
        assert not network._forward_hooks and not list(tmp_path.iterdir())


def test_parts_lie_in_each_other_and_add_up():
    gpu = [SimpleNamespace(elapsed_time=lambda last: last), 6.0]
    spans = [
        Span(("a",), 0.010, (gpu[0], 1.0)),
        Span(("b", "c"), 0.004, (gpu[0], 3.0)),
        Span(("b",), 0.010, (gpu[0], 5.0)),
        Span(("a",), 0.010, (gpu[0], 1.0)),
        Span((), 0.040, (gpu[0], 20.0)),
    ]
    assert part_rows(spans, 2) == [
        ["part of a step", "times", "host ms", "GPU ms", "share"],
        ["a", "1", "10.00", "1.00", "10.0%"],
        ["b", "0.5", "5.00", "2.50", "25.0%"],
        ["  c", "0.5", "2.00", "1.50", "15.0%"],
        ["rest", "", "5.00", "6.50", "65.0%"],
        ["step", "", "20.00", "10.00", "100.0%"],
    ]
    assert text([["name", "ms"], ["a", "10.00"]]) == "name     ms\na     10.00\n"


def test_the_key_changes_no_label_and_refuses_less_than_nothing():
    assert label(["train.profile=20"]) == "base"
    with pytest.raises(ConfigError, match=r"train\.profile=-1: must be at least 0"):
        validate(config("train.profile=-1"))


def test_without_a_profile_a_part_is_empty(tmp_path):
    with Profile(tmp_path, 0, CPU) as profile:
        profile.choose(9)
        profile.watch("forward", [network := nn.Linear(1, 1)])
        profile.step()
        with profile.part("a"):
            pass
        assert not profile.spans and not network._forward_hooks
    assert not list(tmp_path.iterdir())
