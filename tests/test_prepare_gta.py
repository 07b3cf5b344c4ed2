"""GTA5: lists of frames, and the faults that the official release has itself."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from data.folders import Paired
from data.prepare import gta as reader
from data.prepare.synthetic import gta
from tests.prepared import error_of, run


@pytest.fixture
def raw(tmp_path):
    gta.write(tmp_path / "raw")
    return tmp_path / "raw"


def strict(monkeypatch, **counts):
    """Makes these the counts of the official release."""
    monkeypatch.setattr(reader, "COUNTS", counts)


def lists(raw, **changed):
    stored = loadmat(raw / "split.mat")
    savemat(raw / "split.mat", {key: stored[key] for key in ("trainIds", "valIds", "testIds")} | changed)


def names(manifest):
    return {split: record["names"] for split, record in manifest["splits"].items()}


def test_indices_of_the_palette_are_the_ids(raw, tmp_path):
    run("gta", raw, tmp_path / "out")
    data = Paired("train", False, name="gta", root=tmp_path / "out", size=(52, 96), classes=35)
    stored = Image.open(raw / "labels/00003.png")
    assert stored.mode == "P"
    item = data[data.names.index("00003")]
    assert np.array_equal(item["source"][0].numpy(), np.array(stored)) and item["source"].max() > 20
    assert Image.open(tmp_path / "out/train/input/00003.png").mode == "L"


def test_faults_of_the_release_are_left_out_and_listed(raw, tmp_path, monkeypatch):
    strict(monkeypatch, train=7, val=3, test=4)
    manifest = run("gta", raw, tmp_path / "out", allow_partial="false")
    reasons = {record["name"]: record["reason"] for record in manifest["dropped"]}
    assert set(reasons) == {"00009", "15188"}
    assert "one colour" in reasons["00009"] and "is 96x52, its label map 96x50" in reasons["15188"]
    shutil.copy(raw / "labels/15188.png", raw / "labels/00004.png")  # another frame has no such excuse
    message = error_of("gta", raw, tmp_path / "other", allow_partial="false")
    assert "00004.png: is 96x52, its label map 96x50" in message and "(1 of 14 pairs are bad" in message


def test_frames_that_later_releases_lack_are_no_error(raw, tmp_path, monkeypatch):
    strict(monkeypatch, train=8, val=3, test=4)
    lists(raw, trainIds=np.array([*gta.FRAMES["train"], 2154])[:, None])
    manifest = run("gta", raw, tmp_path / "out", allow_partial="false")
    assert {"name": "02154", "reason": "is not in this release"} in manifest["dropped"]
    lists(raw, trainIds=np.array([*gta.FRAMES["train"], 2159])[:, None])
    message = error_of("gta", raw, tmp_path / "out", allow_partial="false")
    assert "1 frames are wrong: 02159 has neither image nor label map" in message
    run("gta", raw, tmp_path / "out")


def test_the_three_splits(raw, tmp_path):
    usual, official, random = (
        names(run("gta", raw, tmp_path / split, split=split)) for split in ("trainval", "official", "random")
    )
    frames = {split: [f"{number:05d}" for number in numbers] for split, numbers in gta.FRAMES.items()}
    assert official == {
        "train": frames["train"][:-1],
        "val": ["00007", "00008"],
        "test": frames["test"],
    }
    assert usual == {"train": official["train"] + official["val"], "test": official["test"]}
    assert not set(random["train"]) & set(random["test"])
    assert sorted(random["train"] + random["test"]) == sorted(usual["train"] + usual["test"])
    assert names(run("gta", raw, tmp_path / "again", split="random")) == random


def test_lists_are_checked(raw, tmp_path):
    lists(raw, valIds=np.array([[7], [8], [10]]))
    assert "number 10 is in val and in test" in error_of("gta", raw, tmp_path / "out")
    (raw / "split.mat").write_bytes(b"no matrix")
    assert "split.mat: cannot be read" in error_of("gta", raw, tmp_path / "out")
    (raw / "split.mat").unlink()
    assert "lacks split.mat of read_mapping.zip" in error_of("gta", raw, tmp_path / "out")
    run("gta", raw, tmp_path / "out", split="random")


def test_a_frame_of_no_list_is_named(raw, tmp_path, monkeypatch):
    strict(monkeypatch, train=7, val=3, test=4)
    for folder in ("images", "labels"):
        shutil.copy(raw / folder / "00001.png", raw / folder / "00077.png")
    assert "00077 is in no list of split.mat" in error_of("gta", raw, tmp_path / "out", allow_partial="false")
    manifest = run("gta", raw, tmp_path / "out")
    assert not Path(tmp_path / "out/train/input/00077.png").exists()
    assert "00077" in {record["name"] for record in manifest["dropped"]}
