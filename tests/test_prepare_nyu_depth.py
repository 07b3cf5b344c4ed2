"""NYU Depth V2: an HDF5 file with width before height becomes photos and 16-bit millimetres, read as colours."""

import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from data.depth import colorize
from data.depth_folders import PairedDepth
from data.folders import Paired
from data.prepare import nyu_depth as reader
from data.prepare.plan import drawn_apart
from data.prepare.synthetic import nyu_depth
from errors import UserError
from tests.prepared import error_of, run, truncate

h5py = pytest.importorskip("h5py", reason="h5py is not installed: requirements-data.txt")
FILE = "nyu_depth_v2_labeled.mat"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    raw = tmp_path_factory.mktemp("raw")
    nyu_depth.write(raw)
    return raw


@pytest.fixture
def raw(tree, tmp_path, monkeypatch):
    """A tree to damage, of the official count."""
    monkeypatch.setattr(reader, "COUNT", nyu_depth.COUNT)
    return shutil.copytree(tree, tmp_path / "raw")


def rewrite(raw, key, change):
    """Replaces one array of the file."""
    with h5py.File(raw / FILE, "a") as file:
        array = change(file[key][:])
        del file[key]
        file[key] = array


def data(root, split="train", augment=False, **settings):
    settings = {"size": (48, 64), "channels": 3} | settings
    return PairedDepth(split, augment, name="nyu_depth", root=root, **settings)


def test_photos_and_millimetres(raw, tmp_path):
    manifest = run("nyu_depth", raw, tmp_path / "out", allow_partial="false")
    assert {split: record["count"] for split, record in manifest["splits"].items()} == {"train": 12, "test": 3}
    assert manifest["depth"] and manifest["paired"] and manifest["labels"] == {"kind": "image", "channels": 3}
    assert manifest["image_size"] == [48, 64] and manifest["source_counts"] == {"all": 15}
    with h5py.File(raw / FILE) as file:
        for split in ("train", "test"):
            for name in manifest["splits"][split]["names"]:
                place = tmp_path / "out" / split
                depth = Image.open(place / "depth" / f"{name}.png")
                metres = file["depths"][int(name) - 1].T
                assert depth.mode == "I;16"
                assert np.array_equal(np.array(depth), np.round(metres.astype(np.float64) * 1000).astype(np.uint16))
                photo = np.array(Image.open(place / "input" / f"{name}.png"))
                assert np.array_equal(photo, file["images"][int(name) - 1].transpose(2, 1, 0))


def test_depth_is_coloured_after_resizing(raw, tmp_path):
    run("nyu_depth", raw, tmp_path / "out")
    whole, small = data(tmp_path / "out"), data(tmp_path / "out", size=(24, 32))
    item = whole[0]
    assert item["source"].shape == item["target"].shape == (3, 48, 64) and item["target"].dtype == torch.uint8
    assert item["depth"].dtype == torch.int32 and item["depth"].min() > 500 and item["depth"].max() <= 10000
    assert torch.equal(item["target"], colorize(item["depth"] / 1000))
    assert torch.equal(small[0]["depth"], item["depth"][:, 1::2, 1::2])  # nearest: no depth in between
    seen, known = ({tuple(color) for color in x["target"].flatten(1).T.tolist()} for x in (small[0], item))
    assert seen <= known
    shades = data(tmp_path / "out", depth="viridis", far=5.0)[0]["target"]
    assert torch.equal(shades, colorize(item["depth"] / 1000, "viridis", 5.0))


def test_photo_and_depth_are_cropped_and_mirrored_together(raw, tmp_path):
    with h5py.File(raw / FILE, "a") as file:  # depth is a function of the photo, so that a mismatch shows
        file["depths"][:] = 1 + file["images"][:, 0] / 255 * 8
    run("nyu_depth", raw, tmp_path / "out")
    dataset = data(tmp_path / "out", augment=True, size=(32, 40), load_size=(48, 64))
    plain = data(tmp_path / "out")[0]
    mirrored = 0
    for draw in range(8):
        item = dataset[(0, draw)]
        wanted = torch.round(1000 + item["source"][:1].double() / 255 * 8000)
        assert (item["depth"] - wanted).abs().max() <= 1
        assert torch.equal(item["target"], colorize(item["depth"] / 1000))
        mirrored += not any(
            torch.equal(item["source"], plain["source"][:, y : y + 32, x : x + 40])
            for y in range(17)
            for x in range(25)
        )
    assert 0 < mirrored < 8


def test_splits(raw, tmp_path):
    official = run("nyu_depth", raw, tmp_path / "official", split="official")
    names = {split: record["names"] for split, record in official["splits"].items()}
    assert names == {
        "train": [f"{number:04d}" for number in range(1, 16, 2)],
        "test": [f"{number:04d}" for number in range(2, 16, 2)],
    }
    (raw / "splits.mat").unlink()
    run("nyu_depth", raw, tmp_path / "random")
    assert "split=official needs it" in error_of("nyu_depth", raw, tmp_path / "none", split="official")
    savemat(raw / "splits.mat", {"trainNdxs": np.array([[1], [2]]), "testNdxs": np.array([[2], [3]])})
    message = error_of("nyu_depth", raw, tmp_path / "none", split="official")
    assert "number 2 is in train and in test" in message


def test_the_random_split_of_the_release_is_settled():
    names = [f"{number:04d}" for number in range(1, 1450)]
    test = drawn_apart(names, 1449 - round(0.8 * 1449), "nyu_depth")
    assert len(test) == 290 and sorted(test)[:5] == ["0007", "0020", "0030", "0031", "0035"]
    assert drawn_apart(names[::-1], 290, "nyu_depth") == test


def test_four_faults_give_four_errors(raw, tmp_path):
    def fault(change):
        folder = tmp_path / f"raw{len(messages)}"
        shutil.copytree(raw, folder)
        change(folder)
        messages.append(error_of("nyu_depth", folder, tmp_path / "out", allow_partial="false"))
        return messages[-1]

    def deep(array):
        array[3, 5, 5] = 77
        return array

    messages = []
    assert "15 images and 14 depth maps" in fault(lambda raw: rewrite(raw, "depths", lambda array: array[:-1]))
    assert "cannot be decoded" in fault(lambda raw: truncate(raw / FILE))
    assert "of pair 0004 goes from" in fault(lambda raw: rewrite(raw, "depths", deep)) and "to 77 m" in messages[-1]
    assert "images are 64x48, depth maps 48x64" in fault(
        lambda raw: rewrite(raw, "depths", lambda array: array.transpose(0, 2, 1))
    )
    assert len(set(messages)) == 4
    rewrite(raw, "depths", deep)
    manifest = run("nyu_depth", raw, tmp_path / "partial")
    assert [record["name"] for record in manifest["dropped"]] == ["0004"]
    rewrite(raw, "depths", lambda array: array[:-1])
    assert {record["name"] for record in run("nyu_depth", raw, tmp_path / "partial2")["dropped"]} == {"0004", "0015"}


def test_another_file_is_named(raw, tmp_path):
    with h5py.File(raw / FILE, "w") as file:
        file["images"] = np.zeros((2, 3, 8, 6), np.uint8)
    assert "depths None; wanted images (N, 3, W, H) uint8" in error_of("nyu_depth", raw, tmp_path / "out")
    (raw / FILE).unlink()
    assert f"lacks {FILE}" in error_of("nyu_depth", raw, tmp_path / "out")


def test_a_missing_package_is_named(raw, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert "pip install -r requirements-data.txt" in error_of("nyu_depth", raw, tmp_path / "out")


def test_settings_of_depth_are_checked(raw, tmp_path):
    run("nyu_depth", raw, tmp_path / "out")
    with pytest.raises(UserError, match=r"dataset\.depth is 'hot'; wanted one of turbo, viridis, jet"):
        data(tmp_path / "out", depth="hot")
    with pytest.raises(UserError, match="target: no such folder"):
        Paired("train", False, name="nyu_depth", root=tmp_path / "out", labels=False)
    file = tmp_path / "out/test/depth" / f"{data(tmp_path / 'out', 'test').names[0]}.png"
    Image.open(file).convert("L").save(file)
    with pytest.raises(UserError, match="a depth map is a 16-bit PNG of millimetres"):
        data(tmp_path / "out", "test").verify()
