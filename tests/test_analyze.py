"""Similarity histograms and weight maps of a checkpoint: against loops, known answers, and on small runs."""

import json

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from errors import UserError
from losses.comparison import Comparison
from losses.objective import Views
from results.collect import collect
from results.curves import similarities
from results.patches import BINS, Tally, grid, similarity, weights
from scripts.analyze import analyze
from tests.compose import TINY, UNPAIRED
from tests.compose import config as compose_config
from train import train


def config(checkpoint, **values):
    return OmegaConf.merge(
        compose_config(name="analyze"), {"checkpoint": str(checkpoint), "images": 2, "device": "cpu", **values}
    )


def test_histograms_against_loops():
    values = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    tally = Tally()
    tally.add(values[:2])
    tally.add(values[2:])
    found = tally.result()
    positives = [values[b, i, i].item() for b in range(3) for i in range(5)]
    negatives = [values[b, i, j].item() for b in range(3) for i in range(5) for j in range(5) if i != j]
    width = 2 / BINS
    for name, side in (("positive", positives), ("negative", negatives)):
        counts = [0] * BINS
        for value in side:
            counts[min(int((value + 1) / width), BINS - 1)] += 1
        assert found[name] == pytest.approx([count / len(side) / width for count in counts], rel=1e-5)
        assert found[f"{name}_count"] == len(side)
        assert found[f"{name}_mean"] == pytest.approx(sum(side) / len(side))
    assert found["overlap"] == pytest.approx(
        sum(min(a, b) * width for a, b in zip(found["positive"], found["negative"], strict=True)), rel=1e-5
    )
    below = [values[b, i, j] < values[b, i, i] for b in range(3) for i in range(5) for j in range(5) if i != j]
    assert found["rank"] == pytest.approx(sum(map(bool, below)) / len(below))
    assert len(found["edges"]) == BINS + 1 and (found["edges"][0], found["edges"][-1]) == (-1, 1)


def test_overlap_of_equal_and_of_separate_similarities():
    equal, apart = Tally(), Tally()
    equal.add(torch.full((1, 4, 4), 0.5))
    apart.add(torch.eye(4)[None] * 0.9 - 0.3)
    assert equal.result()["overlap"] == pytest.approx(1) and equal.result()["rank"] == 0
    assert apart.result()["overlap"] == 0 and apart.result()["rank"] == 1
    assert apart.result()["positive_sd"] == pytest.approx(0, abs=1e-6)


class Seen(torch.nn.Module):
    """A loss that keeps what it is given."""

    def forward(self, query, key):
        self.query, self.key = query, key
        return query.sum()


def plain_encoder(image):
    return [image[:, :, ::2, ::2]]


def contrast(loss, **settings):
    return Comparison(loss, [["fake", "target"]], [6], [6], **{"patches": None, "dim": 4, **settings})


def test_similarities_are_those_of_what_the_loss_compares():
    loss = Seen()
    term = contrast(loss, head="mlp", head_init="pytorch")
    images = torch.randn(2, 2, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    views = Views(plain_encoder, {"fake": images[0], "target": images[1]})
    term(views)
    features = [plain_encoder(image)[0] for image in images]
    found = similarity(term, 0, *features, None)
    query, key = (torch.nn.functional.normalize(side, dim=-1) for side in (loss.query, loss.key))
    assert torch.allclose(found, query @ key.mT, atol=1e-5)
    places = torch.tensor([3, 1, 7])
    assert torch.allclose(similarity(term, 0, *features, places), found[:, places][:, :, places], atol=1e-6)


def test_a_grid_is_regular_and_small_enough():
    for height, width, places in ((64, 64, 1024), (38, 38, 400), (5, 200, 30), (3, 3, 1024), (256, 512, 100)):
        rows, columns = grid(height, width, places)
        assert 1 < len(rows) * len(columns) <= places
        assert rows[-1] < height and columns[-1] < width
        steps = {int(step) for line in (rows, columns) for step in line.diff()}
        assert len(steps) == 1


def test_weights_are_one_among_equal_patches_and_mean_one_otherwise():
    term = contrast(torch.nn.Identity(), head="identity")
    level = Views(plain_encoder, {"fake": torch.ones(1, 6, 8, 8), "target": torch.ones(1, 6, 8, 8)})
    settings = {"places": 1024, "beta": None}
    maps = weights(term, level, "fake", "target", ["only"], patch=[0.5, 0.5], direction="easy", **settings)
    (found,) = maps["layers"]
    assert found["grid"] == [4, 4] and found["place"] == [2, 2]
    for name in ("weightnce", "monce"):
        flat = torch.tensor(found[name])
        assert flat[2, 2] == 0  # the patch itself is no negative
        assert torch.allclose(flat[flat > 0], torch.ones(15), atol=1e-3)
    images = torch.randn(2, 1, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    views = Views(plain_encoder, {"fake": images[0], "target": images[1]})
    both = {
        direction: weights(term, views, "fake", "target", ["only"], patch=[0, 0], direction=direction, **settings)
        for direction in ("easy", "hard")
    }
    for direction, maps in both.items():
        (layer,) = maps["layers"]
        assert maps["direction"] == direction and maps["beta"] == 0.1 and layer["place"] == [0, 0]
        for name in ("weightnce", "monce"):  # rows of weights sum to one over the other places
            assert torch.tensor(layer[name]).sum() / 15 == pytest.approx(1, abs=0.02)
        others = torch.tensor(layer["similarity"]).flatten()[1:]
        heaviest = torch.tensor(layer["weightnce"]).flatten()[1:].argmax()
        assert heaviest == (others.argmax() if direction == "hard" else others.argmin())


def test_a_paired_run_leaves_histograms_and_maps_that_a_report_finds(tmp_path):
    run = tmp_path / "run"
    train(compose_config(*TINY, "objective=contrast", "train.steps=1"), run)
    folder = analyze(config(run, places=64))
    assert folder == run / "analysis" / "1"
    assert {file.name for file in folder.iterdir()} == {
        f"{name}.{kind}" for name in ("similarity", "weights") for kind in ("json", "png")
    }
    found = json.loads((folder / "similarity.json").read_text())
    assert (found["query"], found["key"], found["images"], found["patches"]) == ("fake", "target", 2, 16)
    assert len(found["layers"]) == 6 and all(0 <= layer["overlap"] <= 1 for layer in found["layers"])
    for layer in found["layers"]:
        places = layer["positive_count"] / 2  # of each image, fewer than the patches asked for in a small layer
        assert 1 <= places <= 16 and layer["negative_count"] == 2 * places * (places - 1)
    assert found["layers"][0]["positive_count"] == 32
    maps = json.loads((folder / "weights.json").read_text())
    assert all(layer["grid"][0] * layer["grid"][1] <= 64 for layer in maps["layers"])
    for name in ("similarity", "weights"):
        with Image.open(folder / f"{name}.png") as picture:
            assert min(picture.size) > 100
    again = (folder / "similarity.json").read_bytes()
    analyze(config(run, places=64))
    assert (folder / "similarity.json").read_bytes() == again
    (shown,) = similarities(collect([run]).runs)
    assert shown["layers"] == found["layers"]


def test_an_unpaired_run_compares_the_fake_with_its_source(tmp_path):
    options = ("setting=unpaired", "objective=cut", "encoder=generator", "loss=monce", "objective.contrast.term.dim=8")
    train(compose_config(*UNPAIRED, *options, "train.steps=1", "train.ema=0.9"), tmp_path)
    found = json.loads((analyze(config(tmp_path)) / "similarity.json").read_text())
    assert (found["query"], found["key"]) == ("fake", "source")
    maps = json.loads((tmp_path / "analysis" / "1" / "weights.json").read_text())
    assert maps["beta"] == 0.1 and maps["cost"] == "linear"


def test_what_cannot_be_analyzed_is_told(tmp_path):
    train(compose_config(*TINY[:-1], "objective=gan", "loss=none", "train.steps=1"), tmp_path / "gan")
    with pytest.raises(UserError, match="no term of its objective compares patches"):
        analyze(config(tmp_path / "gan"))
    train(compose_config(*TINY, "objective=contrast", "train.steps=1"), tmp_path / "run")
    for values, words in (
        ({"term": "gan"}, "term=gan: no such term; there are contrast"),
        ({"image": 2}, "image=2: there are 2 images"),
    ):
        with pytest.raises(UserError, match=words):
            analyze(config(tmp_path / "run", **values))
