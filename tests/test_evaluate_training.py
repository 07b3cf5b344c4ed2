"""Evaluation during training: the numbers of evaluate.py, the best kept, and nothing else changed."""

import json

import pytest
import torch
from omegaconf import OmegaConf

from engine.checkpoint import Loaded
from errors import UserError
from evaluate import evaluate
from metrics.catalogue import merit
from results.collect import collect
from results.sections import sections
from tests.compose import TINY, config
from tests.test_evaluate import config as evaluation
from tests.test_train import assert_same, lines, state
from train import train

JUDGED = (
    *TINY,
    "train.save_every=5",
    "train.sample_every=1000",
    "dataset.lengths={train:8,val:5,test:4}",
    "evaluate.every=2",
    "evaluate.images=3",
    "evaluate.metrics=[swd,appearance]",
)


def run(folder, *overrides):
    return train(config(*JUDGED, *overrides), folder)


def reports(folder, place="val-3"):
    files = sorted((folder / "eval" / place).glob("*.json"), key=lambda path: int(path.stem))
    return {int(path.stem): json.loads(path.read_text()) for path in files}


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged")
    run(folder, "train.steps=6", "train.ema=0.5")
    return folder


def test_the_same_subset_gives_the_same_number(judged):
    kept = reports(judged)
    assert list(kept) == [0, 2, 4, 6]
    again = evaluate(evaluation(checkpoint=str(judged), split="val", images=3, metrics=["swd", "appearance"]))
    for row, entry in kept[6]["metrics"].items():
        assert again["metrics"][row]["value"] == entry["value"]
    assert again["protocol"] == kept[6]["protocol"] and again["protocol"]["selection"] == "last"
    assert again["subject"]["split"] == "val" and again["protocol"]["fake"]["n"] == 3
    assert len({report["metrics"]["swd"]["value"] for report in kept.values()}) == 4
    assert all(row["selection"] == "last" and row["split"] == "val" for row in kept[2]["rows"])


def test_best_is_the_lowest_and_is_measured_again_as_such(judged):
    kept = {step: report["metrics"]["swd"]["value"] for step, report in reports(judged).items()}
    step = min(kept, key=kept.get)
    best = torch.load(judged / "best.pt", weights_only=True)
    assert best["step"] == step
    assert best["best"] == {
        "metric": "swd", "split": "val", "images": 3, "step": step, "value": kept[step], "merit": -kept[step],
    }  # fmt: skip
    assert state(judged)["best"] == best["best"]
    found = evaluate(evaluation(checkpoint=str(judged), which="best", split="val", images=3, metrics=["swd"]))
    assert found["metrics"]["swd"]["value"] == kept[step]
    assert found["protocol"]["selection"] == "best(swd, val)" == found["rows"][0]["selection"]
    assert (judged / "eval" / "val-3" / f"{step}-best.json").is_file()
    assert Loaded.open(str(judged)).selection == "last"


def test_evaluation_changes_no_weight_and_no_line(judged, tmp_path):
    run(tmp_path, "train.steps=6", "train.ema=0.5", "evaluate.every=0")
    plain, watched = state(tmp_path), state(judged)
    for key in plain.keys() - {"config"}:
        assert_same(plain[key], watched[key], key)
    assert lines(tmp_path) == lines(judged) and not (tmp_path / "best.pt").exists()


def test_a_resumed_run_has_the_same_best(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, "train.steps=10")
    run(parts, "train.steps=7")
    run(parts, "train.steps=10")
    for name in ("last.pt", "best.pt"):
        one, two = (torch.load(folder / name, weights_only=True) for folder in (whole, parts))
        assert_same({**one, "config": ""}, {**two, "config": ""}, name)
    assert reports(whole).keys() == reports(parts).keys()
    for step, report in reports(whole).items():
        assert report["metrics"] == reports(parts)[step]["metrics"]


def test_another_question_begins_anew_and_test_is_labelled(tmp_path):
    run(tmp_path, "train.steps=2")
    run(tmp_path, "train.steps=4", "evaluate.split=test", "evaluate.images=null", "evaluate.metrics=[appearance]")
    best = state(tmp_path)["best"]
    assert (best["metric"], best["split"], best["step"]) == ("channel_range", "test", 4)
    assert Loaded.open(str(tmp_path), "best").selection == "best(channel_range, test)"
    assert list(reports(tmp_path, ".")) == [4]
    run(tmp_path, "train.steps=5", "evaluate.every=0")
    assert state(tmp_path)["best"] == best


def test_what_cannot_be_measured_is_told_at_the_start(tmp_path):
    with pytest.raises(UserError, match="no metric 'sdw'; did you mean swd"):
        run(tmp_path / "a", "evaluate.metrics=[sdw]")
    with pytest.raises(UserError, match=r"evaluate\.split=train: must be one of val, test"):
        run(tmp_path / "b", "evaluate.split=train")
    with pytest.raises(UserError, match=r"evaluate\.images=1: must be at least 2"):
        run(tmp_path / "c", "evaluate.images=1")
    with pytest.raises(UserError, match="segmenter=FILE"):
        run(tmp_path / "d", "evaluate.metrics=[segmentation]")
    assert not list(tmp_path.rglob("last.pt"))


def test_which_best_needs_one(tmp_path):
    run(tmp_path, "train.steps=1", "evaluate.every=0")
    for word, message in (
        ("best", "holds no best.pt; train with evaluate.every"),
        ("first", "last or best was wanted"),
        ("kept", r"holds no step_\*.pt; give a run folder, trained with train.keep=K"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate(evaluation(checkpoint=str(tmp_path), which=word))
    with pytest.raises(UserError, match="give the run's folder"):
        evaluate(evaluation(checkpoint=str(tmp_path / "last.pt"), which="best"))


def test_the_best_of_the_kept_is_labelled_and_stands_beside_the_last(tmp_path, capsys):
    run(tmp_path, "train.steps=6", "evaluate.every=0", "train.keep=9", "train.save_every=2")
    asked = evaluation(checkpoint=str(tmp_path), metrics=["swd", "appearance"], floor=False)
    evaluate(asked)
    found = evaluate(OmegaConf.merge(asked, {"which": "kept"}))
    values = {step: report["metrics"]["swd"]["value"] for step, report in reports(tmp_path, "kept").items()}
    assert list(values) == [2, 4, 6]
    step = min(values, key=values.get)
    assert found["metrics"]["swd"]["value"] == values[step] and found["subject"]["step"] == step
    assert found["protocol"]["selection"] == "best(swd, test)"
    assert f"step 4: swd {values[4]:.4f}" in capsys.readouterr().out
    evaluate(OmegaConf.merge(asked, {"which": "kept", "metrics": ["appearance"]}))  # another choice takes its place
    assert len(list((tmp_path / "eval").glob("*-best-test.json"))) == 1
    (section,) = sections(collect([tmp_path]))
    assert {row.selection for row in section.rows} == {"last", "best(channel_range, test)"}
    (tmp_path / "step_00000004.pt").write_bytes(b"half")
    with pytest.raises(UserError, match=r"step_00000004\.pt"):
        evaluate(OmegaConf.merge(asked, {"which": "kept"}))


def test_merit_follows_the_direction():
    def entry(value, better, **more):
        return {"value": value, "better": better, **more}

    assert merit(entry(3.0, "lower")) > merit(entry(4.0, "lower")) > merit(entry(None, "lower"))
    assert merit(entry(3.0, "higher")) < merit(entry(4.0, "higher"))
    assert merit(entry(0.9, "real", real=1.0)) > merit(entry(1.2, "real", real=1.0))
    assert merit(entry(float("nan"), "higher")) == merit(entry(None, "real", real=1.0))
