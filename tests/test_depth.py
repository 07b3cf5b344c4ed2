"""Depth errors: going over pixels, known answers, the colour maps there and back, the constant, a run of the metric."""

import json
import math
from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image

from data.depth import table
from errors import UserError
from evaluate import depth_of
from metrics.depth import Errors, align_median, colorize, decolorize, nearest, rel, rms
from metrics.depth_images import Truth, depth_map, mean_depth
from metrics.measure import measure


def reference(predicted, truth, pooled=False):
    """(rel, rms) by going over pixels; lists of images, each a list of pixels."""
    relative, square = [], []
    for image, true in zip(predicted, truth, strict=True):
        pairs = [(p, g) for p, g in zip(image, true, strict=True) if g > 0 and math.isfinite(g)]
        relative.append([abs(p - g) / g for p, g in pairs])
        square.append([(p - g) ** 2 for p, g in pairs])
    if pooled:
        relative, square = [list(chain(*relative))], [list(chain(*square))]
    kept = [(r, s) for r, s in zip(relative, square, strict=True) if r]
    mean = [math.fsum(r) / len(r) for r, _ in kept], [math.sqrt(math.fsum(s) / len(s)) for _, s in kept]
    return tuple(math.fsum(values) / len(values) for values in mean)


@pytest.mark.parametrize("pooled", [False, True])
def test_equal_to_going_over_pixels_however_batched(pooled):
    generator = torch.Generator().manual_seed(0)
    predicted, truth = (10 * torch.rand(5, 4, 6, generator=generator) for _ in range(2))
    truth[truth < 3] = 0
    truth[1, 0, 0] = math.nan
    truth[2, 1, 1] = math.inf
    truth[4] = 0  # nothing is known of the last image
    expected = reference(predicted.flatten(1).tolist(), truth.flatten(1).tolist(), pooled)
    assert (rel(predicted, truth, pooled), rms(predicted, truth, pooled)) == pytest.approx(expected, rel=1e-6)
    parts = Errors(pooled)
    for one in range(5):
        parts.update(predicted[one : one + 1, None], truth[one : one + 1, None])
    assert tuple(parts.compute().values()) == pytest.approx(expected, rel=1e-6)


def test_known_answers():
    truth = torch.tensor([[1.0, 2.0], [4.0, 0.0]])
    assert rel(truth, truth) == rms(truth, truth) == 0
    assert (rel(2 * truth, truth), rms(truth + 3, truth)) == pytest.approx((1, 3))
    other = truth.clone()
    other[1, 1] = 1e6  # where nothing is known, nothing counts
    assert rel(other, truth) == 0
    with pytest.raises(ValueError, match="no pixel has a known depth"):
        rel(truth, torch.zeros(2, 2))
    with pytest.raises(ValueError, match="differ"):
        rel(truth, truth[:1])


def test_two_images_weigh_alike_unless_pooled():
    truth = torch.ones(2, 1, 4)
    truth[1, :, 1:] = 0
    predicted = torch.ones(2, 1, 4)
    predicted[1] = 3  # wrong by 2 in the one pixel of the second image
    assert (rel(predicted, truth), rms(predicted, truth)) == pytest.approx((1, 1))
    assert rel(predicted, truth, pooled=True) == pytest.approx(2 / 5)
    assert rms(predicted, truth, pooled=True) == pytest.approx(math.sqrt(4 / 5))


def test_there_and_back_within_half_a_step():
    """The bound of evaluation: 10 m / (2 * 255); its expected rms is 10 / 255 / sqrt(12)."""
    depth = torch.linspace(0, 10, 100 * 100).view(1, 100, 100)
    back = decolorize(colorize(depth))
    assert back.shape == depth.shape and back.dtype == torch.float32
    assert (back - depth).abs().max() <= 0.0197
    assert rms(back, depth) == pytest.approx(10 / 255 / math.sqrt(12), rel=0.01)
    batch = depth.view(4, 1, 50, 50)
    assert torch.equal(decolorize(colorize(batch)), back.view(4, 1, 50, 50))
    assert (decolorize(colorize(depth, far=20.0), far=20.0) - depth).abs().max() <= 0.0393
    assert decolorize(colorize(torch.tensor([[[12.0]]]))).item() == 10
    for name, most in (("viridis", 0.06), ("jet", 0.18)):  # not injective
        assert 0.0197 < (decolorize(colorize(depth, name), name) - depth).abs().max() < most


@pytest.mark.parametrize("name", ["turbo", "viridis", "jet"])
def test_nearest_equals_trying_all_colours_the_lower_of_equals(name):
    generator = torch.Generator().manual_seed(0)
    random = torch.randint(0, 256, (3, 5, 8), dtype=torch.uint8, generator=generator)
    exact = table(name).T.reshape(3, 16, 16)  # of a repeated colour the first is meant
    colors = table(name).tolist()
    for image in (random, exact):
        index, distance = nearest(image, name)
        assert index.shape == (1, *image.shape[1:]) and index.dtype == torch.int64
        for pixel, found, far in zip(
            image.flatten(1).T.tolist(), index.flatten().tolist(), distance.flatten().tolist(), strict=True
        ):
            squared = [sum((a - b) ** 2 for a, b in zip(pixel, color, strict=True)) for color in colors]
            assert found == squared.index(min(squared)) and far == pytest.approx(math.sqrt(min(squared)))
    with pytest.raises(ValueError, match=r"\(\.\.\., 3, H, W\) of uint8"):
        nearest(random.float())


def test_median_alignment_removes_a_scale_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    truth = 1 + 9 * torch.rand(3, 1, 5, 7, generator=generator)
    truth[0, 0, 0] = 0
    scaled = truth * torch.tensor([0.5, 2, 3]).view(3, 1, 1, 1)
    torch.testing.assert_close(align_median(scaled, truth), truth)
    shifted = align_median(truth + 1, truth)
    factor = truth[1].median() / (truth[1] + 1).median()
    torch.testing.assert_close(shifted[1], factor * (truth[1] + 1))
    assert rel(shifted, truth) > 0.01


def depth_file(path, metres):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(1000 * np.asarray(metres)).astype(np.uint16)).save(path)
    return path


def test_sixteen_bit_files(tmp_path):
    metres = np.random.default_rng(0).uniform(0.5, 10, (6, 8))
    metres[0, 0], metres[5, 7] = 0, 65.535
    path = depth_file(tmp_path / "a.png", metres)
    assert Image.open(path).mode.startswith("I;16")
    found = depth_map(path)
    assert found.shape == (1, 6, 8) and found.dtype == torch.float32
    assert (found[0].numpy() - metres).max() <= 0.00051
    assert set(depth_map(path, (3, 5)).flatten().tolist()) <= set(found.flatten().tolist())  # never a blend
    assert torch.equal(depth_map(path, (12, 16)), found.repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert mean_depth([path]) == pytest.approx(np.delete(metres.ravel(), 0).mean(), abs=1e-3)
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"b\.png.*16-bit"):
        depth_map(tmp_path / "b.png")
    with pytest.raises(UserError, match="no pixel has a known depth"):
        mean_depth([depth_file(tmp_path / "c.png", np.zeros((2, 2)))])


@pytest.fixture
def rooms(tmp_path):
    """Five scenes: true depth of 24x32, coloured real images and fakes (10 % too far) of 12x16, training depth."""
    truths = []
    for index in range(5):
        rng = np.random.default_rng(index)
        metres = np.repeat(np.repeat(rng.uniform(1, 8, (12, 16)), 2, 0), 2, 1).round(3)
        metres[:2, :2] = 0
        truths.append(metres[::2, ::2])
        depth_file(tmp_path / "depth" / f"{index}.png", metres)
        depth_file(tmp_path / "train" / f"{index}.png", np.full((4, 4), 2.0 + index))
        for name, factor in (("real", 1), ("fake", 1.1)):
            (tmp_path / name).mkdir(exist_ok=True)
            image = colorize(torch.from_numpy(metres[::2, ::2] * factor)[None].float())
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / name / f"{index}.png")
    return tmp_path, truths


def run(folder, metrics=("depth", "depth_median"), **settings):
    truth = Truth(**{"folder": folder / "depth", "train": folder / "train", **settings})
    return measure(folder / "fake", folder / "real", list(metrics), depth=truth, batch_size=2)


def test_the_metric_between_its_floor_and_the_constant(rooms):
    folder, truths = rooms
    found = run(folder)
    rows = found["metrics"]
    assert list(rows) == ["rel", "rms", "rel_median", "rms_median"]
    fakes = [torch.from_numpy(np.array(Image.open(folder / "fake" / f"{i}.png"))).permute(2, 0, 1) for i in range(5)]
    predicted = [decolorize(fake).clamp(min=1e-3).flatten().tolist() for fake in fakes]
    expected = reference(predicted, [truth.ravel().tolist() for truth in truths])
    assert (rows["rel"]["value"], rows["rms"]["value"]) == pytest.approx(expected, rel=1e-5)
    assert rows["rel"]["value"] == pytest.approx(0.1, abs=0.003)
    assert rows["rms"]["floor"] < 0.013 and rows["rel"]["floor"] < 0.005
    constant = reference([[4.0] * 192] * 5, [truth.ravel().tolist() for truth in truths])
    assert (rows["rel"]["constant"], rows["rms"]["constant"]) == pytest.approx(constant, rel=1e-5)
    assert rows["rel"]["constant_metres"] == pytest.approx(4)
    assert rows["rel_median"]["value"] < 0.01 < rows["rel"]["value"]  # the factor is gone, under another name
    assert rows["rel"]["off_map"] == 0 and all(row["better"] == "lower" for row in rows.values())
    block = found["protocol"]["metrics"]["depth"]
    assert (block["colormap"], block["far"], block["mean"]) == ("turbo", 10.0, "images")
    assert block["depth_sha256"] != block["train_depth_sha256"] and found["warnings"] == []
    assert json.loads(json.dumps(found)) == found and run(folder) == found


def test_options_and_what_is_said(rooms):
    folder, _ = rooms
    plain = run(folder, ["depth"])
    assert list(plain["metrics"]) == ["rel", "rms"]
    pooled = run(folder, ["depth"], pooled=True)
    assert pooled["protocol"]["metrics"]["depth"]["mean"] == "pixels"
    assert pooled["metrics"]["rms"]["value"] != plain["metrics"]["rms"]["value"]
    alone = run(folder, ["depth"], train=None)
    assert "constant" not in alone["metrics"]["rel"] and "no train_depth=" in alone["warnings"][0]
    other = run(folder, ["depth"], colormap="viridis")
    assert "off viridis in RGB" in other["warnings"][0] and other["metrics"]["rel"]["off_map"] > 10
    with pytest.raises(UserError, match="wants depth=FOLDER"):
        measure(folder / "fake", folder / "real", ["depth_median"])
    (folder / "depth" / "3.png").unlink()
    with pytest.raises(UserError, match=r"depth=.*none for 1 of 5 images: 3"):
        run(folder)


def test_a_run_takes_its_data_sets_depth():
    from omegaconf import OmegaConf

    found = depth_of(OmegaConf.create({"root": "/data/nyu", "depth": "jet", "far": 20.0}), "val")
    assert found == {
        "depth": "/data/nyu/val/depth",
        "train_depth": "/data/nyu/train/depth",
        "colormap": "jet",
        "far": 20.0,
    }
    for other in ({"root": "x"}, {"root": "x", "depth": None}):
        assert set(depth_of(OmegaConf.create(other), "test").values()) == {None}
