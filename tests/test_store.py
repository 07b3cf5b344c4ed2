"""The cache of resized images: the same items as without it, out of a file that never has to be trusted."""

import json
import os
import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import pixels
from data import store, transforms
from data.depth_folders import PairedDepth
from data.unpaired import Unpaired
from engine.config import label
from tests.compose import config
from tests.test_folders import error_of, ids, make, paired, photo, save
from train import train

SIZES = {"size": (6, 8), "load_size": (9, 10)}
KEYS = [(0, 3, False), (1, 4, False), (2, 5, False), (1, 6, True)]


def unpaired_root(root):
    for seed in range(3):
        save(root / f"train/A/{seed}.png", ids(seed, 20, 30))
        save(root / f"train/B/{seed}.png", photo(seed, 25, 22))
    return root


def depth_root(root):
    for seed in range(3):
        save(root / f"train/input/{seed}.png", photo(seed, 20, 30))
        save(root / f"train/depth/{seed}.png", ids(seed, 20, 30).astype(np.uint16) * 2000)
    return root


def data_sets(root):
    """Functions of `cache` that make each kind of data set."""
    labels, sides, depth = make(root / "labels", instance=True), unpaired_root(root / "u"), depth_root(root / "d")
    common = {"name": "mine", **SIZES}
    return {
        "labels": lambda cache: paired(labels, augment=True, instance=True, **SIZES, cache=cache),
        "depth": lambda cache: PairedDepth("train", True, root=depth, **common, cache=cache),
        "unpaired": lambda cache: Unpaired("train", True, root=sides, **common, cache=cache),
        "colors": lambda cache: Unpaired(
            "train", True, root=sides, **common, colors="shapes", classes=8, source_channels=3, cache=cache
        ),
    }


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]) if key != "name" else value == second[key]


def forbid(monkeypatch):
    """From now on nothing is decoded."""

    def refused(*_):
        raise AssertionError("a file was decoded")

    monkeypatch.setattr(pixels.Image, "open", refused)


@pytest.mark.parametrize("kind", ["labels", "depth", "unpaired", "colors"])
def test_items_are_equal_at_first_and_later_without_decoding(tmp_path, monkeypatch, kind):
    make_data = data_sets(tmp_path)[kind]
    plain = make_data(None)
    expected = [plain[key] for key in KEYS]
    cached = make_data(tmp_path / "cache")
    for key, item in zip(KEYS, expected, strict=True):
        assert_same(cached[key], item)
    again = make_data(tmp_path / "cache")
    for key in KEYS:
        again[key]
    forbid(monkeypatch)
    for key, item in zip(KEYS, expected, strict=True):
        assert_same(again[key], item)


def cached(root, cache, **options):
    return paired(root, augment=True, flip=False, cache=cache, **options)


def test_a_changed_file_is_read_again(tmp_path):
    data = cached(make(tmp_path / "data"), tmp_path / "cache")
    before = [data[index]["target"] for index in range(3)]
    save(tmp_path / "data/train/target/b.png", photo(77))
    os.utime(tmp_path / "data/train/target/b.png", ns=(1, 1))
    assert np.array_equal(data[1]["target"].movedim(0, -1).numpy(), photo(77))
    for index in (0, 2):
        assert torch.equal(data[index]["target"], before[index])
    (tmp_path / "data/train/target/b.png").unlink()
    assert "cannot be decoded" in error_of(data.__getitem__, 1)


def test_a_new_file_shifts_the_others_without_harm(tmp_path):
    root = make(tmp_path / "data")
    data = cached(root, tmp_path / "cache")
    expected = {item["name"]: item for item in (data[index] for index in range(3))}
    make(root, names=("0",))
    data = cached(root, tmp_path / "cache")
    for _ in range(2):
        for index in range(1, 4):
            assert_same(data[index], expected[data.names[index]])


@pytest.mark.parametrize("at", [3, 17, 40, -1])
def test_a_damaged_or_shortened_file_is_mended(tmp_path, at):
    data = cached(make(tmp_path / "data"), tmp_path / "cache")
    expected = [data[index] for index in range(3)]
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at:][1:])
    for index in range(3):
        assert_same(data[index], expected[index])
    assert file.read_bytes() == whole
    file.write_bytes(whole[: len(whole) // 2])
    for index in range(3):
        assert_same(data[index], expected[index])
    assert file.read_bytes() == whole


def test_other_settings_roots_and_sizes_have_files_of_their_own(tmp_path):
    root, cache = make(tmp_path / "data"), tmp_path / "cache"
    for options in ({}, {"classes": 5}, {"ignore": 255}, {"size": (6, 8)}):
        data = cached(root, cache, **options)
        data[0]
    other = shutil.copytree(root, tmp_path / "other")
    cached(other, cache)[0]
    assert len(list(cache.iterdir())) == 5
    assert "outside 0..1" in error_of(cached(root, cache, classes=2).__getitem__, 0)


def test_new_versions_of_the_libraries_make_items_anew(tmp_path, monkeypatch):
    data = cached(make(tmp_path / "data"), tmp_path / "cache", size=(6, 8))
    old = data[0]["target"]
    monkeypatch.setattr(store, "VERSIONS", "others")
    monkeypatch.setattr(transforms, "resize_image", lambda image, size: image[:, : size[0], : size[1]])
    assert not torch.equal(data[0]["target"], old)


def test_held_out_images_are_never_kept(tmp_path):
    paired(make(tmp_path / "data"), augment=False, cache=tmp_path / "cache")[0]
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_serve_is_refused(tmp_path, monkeypatch):
    root = make(tmp_path / "data")
    (tmp_path / "file").write_text("")
    assert "dataset.cache" in error_of(cached, root, tmp_path / "file")
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    message = error_of(cached(root, tmp_path / "cache").__getitem__, 0)
    assert "3 items of 16x12" in message and "dataset.cache=null" in message
    assert not list((tmp_path / "cache").iterdir())


def test_workers_share_a_file_and_the_data_set_can_be_sent_to_them(tmp_path):
    root = make(tmp_path / "data", names=[f"{index:02d}" for index in range(12)])
    data = pickle.loads(pickle.dumps(cached(root, tmp_path / "cache")))
    expected = [cached(root, None)[index]["target"] for index in range(12)]
    for _ in range(2):
        found = [item["target"][0] for item in DataLoader(data, num_workers=2)]
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_training_is_the_same_and_goes_on_in_the_same_folder(tmp_path):
    root = tmp_path / "data"
    for split in ("train", "val"):
        for seed in range(4):
            save(root / split / f"input/{seed}.png", ids(seed, 40, 40))
            save(root / split / f"target/{seed}.png", photo(seed, 40, 40))
    words = ["dataset=folder", f"dataset.root={root}", "dataset.classes=4", "dataset.size=[32,32]", "train.workers=0"]
    words += ["dataset.load_size=[36,36]", "model.generator.width=2", "model.discriminator.width=2", "train.samples=0"]
    words += ["train.batch_size=2", "train.log_every=1"]
    logs = []
    for name, more in (("plain", []), ("cached", [f"dataset.cache={tmp_path / 'cache'}"])):
        assert label([*words, *more]) == label(words)
        train(config(*words, "train.steps=2", *more), tmp_path / name)
        train(config(*words, "train.steps=3"), tmp_path / name)
        lines = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        logs.append([(line["step"], line["contrast"], line["norm/generator"]) for line in lines])
    assert logs[0] == logs[1] and len(logs[0]) == 3
    assert list((tmp_path / "cache").iterdir())
