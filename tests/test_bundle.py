"""A run that diverges leaves what makes it diverge again, at the same step with the same values."""

import json
import sys

import pytest
import torch

from engine.bundle import reproduce
from engine.guard import FiniteGuard
from errors import Diverged, UserError
from scripts import reproduce as script
from tests.compose import TINY, UNPAIRED, config
from train import train

WORDS = {
    "spade": (*TINY, "train.regenerate_fake=true", "objective=spade"),
    "cut": (
        *UNPAIRED, "setting=unpaired", "objective=cut", "encoder=generator", "objective.contrast.term.dim=8",
        "train.batch_size=4", "train.accumulate=2", "train.ema=0.9",
    ),
    "cycle": (*UNPAIRED, "setting=cycle", "objective=cycle", "loss=none", "train.pool=3"),
}  # fmt: skip


def diverge(folder, *words):
    with pytest.raises(Diverged) as caught:
        train(config(*words), folder)
    return caught.value


@pytest.mark.parametrize("name", WORDS)
def test_the_bundle_gives_the_same_bad_value(tmp_path, name, monkeypatch):
    watch, at = FiniteGuard.watch, 6

    def from_then_on(self, step, values, batches=()):
        self.limit = 1e-3 if step == at else None
        watch(self, step, values, batches)

    monkeypatch.setattr(FiniteGuard, "watch", from_then_on)
    run = tmp_path / "run"
    error = diverge(run, *WORDS[name], "train.steps=8", "train.save_every=3")
    assert error.step == at and f"{run / 'diverged'}" in str(error) and "\n" not in str(error)
    bundle = run / "diverged"
    record = json.loads((bundle / "step.json").read_text())
    assert (record["step"], record["rank"], record["ranks"]) == (at, 0, 1)
    assert torch.load(bundle / "last.pt", weights_only=True)["step"] == 3
    batches = torch.load(bundle / "batch.pt", weights_only=True)["batches"]
    assert len(batches) == (2 if name == "cut" else 1) and all("target" in batch for batch in batches)

    before = (run / "last.pt").read_bytes()
    for _ in range(2):  # the second time from the step before
        again, wanted = reproduce(bundle, train)
        assert again.step == at
        assert again.values == wanted == error.values
        assert torch.load(bundle / "last.pt", weights_only=True)["step"] == at - 1
    assert (run / "last.pt").read_bytes() == before and not (bundle / "diverged").exists()


def test_a_run_that_diverges_before_its_first_checkpoint_begins_again_from_its_seed(tmp_path, capsys, monkeypatch):
    error = diverge(tmp_path, *TINY, "train.lr=1e6", "train.steps=20")
    assert not (tmp_path / "diverged" / "last.pt").exists()
    monkeypatch.setattr(sys, "argv", ["reproduce.py", str(tmp_path / "diverged")])
    script.main()
    lines = capsys.readouterr().out.splitlines()
    told = lines[lines.index(f"step {error.step} again:") + 1 :]
    assert len(told) == len(error.values) and all(line.endswith(", as recorded") for line in told)


def test_what_is_no_bundle_is_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match="no bundle of a run that diverged"):
        reproduce(tmp_path, train)
    diverge(tmp_path, *TINY, "train.lr=1e6", "train.steps=20")
    file = tmp_path / "diverged" / "step.json"
    text = file.read_text()
    file.write_text(text.replace('"ranks": 1', '"ranks": 2'))
    with pytest.raises(UserError, match=r"diverged on 2 rank\(s\), here are 1; use torchrun"):
        reproduce(tmp_path / "diverged", train)
    file.write_text("[1]")
    monkeypatch.setattr(sys, "argv", ["reproduce.py", str(tmp_path / "diverged")])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        script.main()
    assert capsys.readouterr().err.count("\n") == 1
    file.write_text(text)
    config_file = tmp_path / "diverged" / "config.yaml"
    config_file.write_text(config_file.read_text().replace("lr: 1000000.0", "lr: 0.0002"))
    with pytest.raises(UserError, match="but now reached step 20"):
        reproduce(tmp_path / "diverged", train)
