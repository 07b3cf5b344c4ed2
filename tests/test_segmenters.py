"""The segmenter adapter, its three kinds of file, and the training script on generated scenes."""

import importlib
import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.shapes import Shapes
from errors import UserError
from models.segmenters import Segmenter, SegmenterConfig, build_segmenter, load_segmenter, save_segmenter

ROOT = Path(__file__).resolve().parents[1]
CONFIG = SegmenterConfig("lite2", 5, (32, 48), None, "shapes", 0, 7)


class Brightest(nn.Module):
    """Class of a pixel: its brightest channel; logits at half the size."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2)


def blocks(*shape: int) -> Tensor:
    """Images whose 2x2 blocks are uniform, so that half the size loses nothing but at borders."""
    small = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
    return small.repeat_interleave(4, 2).repeat_interleave(4, 3)


def test_predict_normalises_resizes_and_maps():
    images = blocks(2, 3, 4, 5)
    mean, std = [0.0, 0.5, 0.0], [1.0, 0.1, 1.0]
    segmenter = Segmenter(Brightest(), 3, mean, std)
    ids = segmenter.predict(images)
    assert ids.shape == (2, 16, 20) and ids.dtype == torch.int64
    scaled = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    wanted = F.interpolate(F.avg_pool2d(scaled, 2), (16, 20), mode="bilinear").argmax(1)
    assert torch.equal(ids, wanted) and len(ids.unique()) > 1
    mapped = Segmenter(Brightest(), 8, mean, std, output_map=[7, 0, 3]).predict(images)
    assert torch.equal(mapped, torch.tensor([7, 0, 3])[ids])


def test_predict_resizes_the_input_and_gives_back_the_images_size():
    seen = []

    class Record(Brightest):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            seen.append(x)
            return {"out": super().forward(x)}

    images = blocks(1, 3, 4, 5)
    assert Segmenter(Record(), 3, [0, 0, 0], [1, 1, 1], input_size=(8, 10)).predict(images).shape == (1, 16, 20)
    torch.testing.assert_close(seen[0], F.interpolate(images, (8, 10), mode="bilinear", antialias=True))


@pytest.mark.parametrize("backbone", ["lite2", "mobilenet_v3_large"])
def test_own_checkpoints_come_back_whole(tmp_path: Path, backbone: str):
    config = replace(CONFIG, backbone=backbone, input_size=(64, 96), miou=12.5)
    torch.manual_seed(0)
    segmenter = build_segmenter(config)
    segmenter.network.eval()
    images = torch.rand(2, 3, 32, 48)
    save_segmenter(tmp_path / "a" / "segmenter.pt", segmenter, config)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["segmenter.pt"]
    loaded = load_segmenter(tmp_path / "a" / "segmenter.pt")
    assert loaded.num_classes == 5 and loaded.input_size == (64, 96)
    torch.testing.assert_close(loaded.logits(images), segmenter.logits(images))
    stored = torch.load(tmp_path / "a" / "segmenter.pt", weights_only=True)
    assert json.loads(stored["config"])["dataset"] == "shapes" and json.loads(stored["config"])["steps"] == 7
    assert not any(parameter.grad_fn for parameter in stored["weights"].values())


def test_the_trained_backbone_starts_from_imagenet():
    from models.efficientnet import official

    network = build_segmenter(CONFIG).network
    stem = official("lite2")["stem.conv.weight"]
    assert torch.equal(network.backbone.network.stem.conv.weight, stem)
    with pytest.raises(UserError, match=r"backbone=other: lite2, mobilenet_v3_large, drn_d_22"):
        build_segmenter(replace(CONFIG, backbone="other"))


def exported(path: Path) -> Path:
    network, auto = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1)).eval(), torch.export.Dim.AUTO
    program = torch.export.export(network, (torch.rand(2, 3, 32, 48),), dynamic_shapes=({0: auto, 2: auto, 3: auto},))
    torch.export.save(program, path)
    return path


def scripted(path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(nn.Conv2d(3, 4, 3, 2, 1), torch.rand(2, 3, 32, 48)), path)
    return path


@pytest.mark.parametrize(("make", "suffix"), [(exported, ".pt2"), (scripted, ".pt"), (scripted, ".ts")])
def test_foreign_networks(tmp_path: Path, make, suffix: str):
    path = make(tmp_path / f"network{suffix}")
    segmenter = load_segmenter(path, trust=True)
    assert segmenter.num_classes == 4
    images = torch.rand(3, 3, 20, 26)
    plain = segmenter.predict(images)
    assert plain.shape == (3, 20, 26)
    settings = {"mean": [0, 0, 0], "std": [1, 1, 1], "input_size": [40, 52], "output_map": [9, 8, 7, 6]}
    path.with_suffix(".json").write_text(json.dumps(settings))
    other = load_segmenter(path, trust=True)
    assert other.num_classes == 10 and other.input_size == (40, 52)
    assert set(other.predict(images).unique().tolist()) <= {6, 7, 8, 9}
    path.with_suffix(".json").write_text(json.dumps({"means": [0, 0, 0]}))
    with pytest.raises(UserError, match=r"network\.json: no setting 'means'; known: num_classes, mean"):
        load_segmenter(path, trust=True)


def test_other_files_are_refused(tmp_path: Path):
    (tmp_path / "text.pt").write_text("hello")
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "empty").mkdir()
    torch.save({"weights": {}, "config": json.dumps({"backbone": "lite2"})}, tmp_path / "old.pt")
    cases = {
        "text.pt": "not a file of PyTorch",
        "missing.pt": "no such file",
        "empty": "is a folder without config.json and encoder_",
        "other.pt": r"no state dict of drn_d_22: \d+ keys differ",
        "list.pt": r"holds a list; a torch\.export",
        "old.pt": "cannot be opened",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message) as caught:
            load_segmenter(tmp_path / name)
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    return importlib.import_module("scripts.train_segmenter")


def test_training_learns_the_scenes(script, tmp_path: Path, capsys):
    torch.set_num_threads(1)
    lengths = {"train": 64, "val": 8, "test": 8}
    training, validation = (
        Shapes(split, False, size=(32, 32), lengths=lengths, unscored=(7,)) for split in ("train", "val")
    )
    out = tmp_path / "made" / "segmenter.pt"
    scores = script.train_segmenter(training, validation, out, steps=40, batch_size=8)
    assert scores["miou"] > 20 and len(scores["iou"]) == 7
    assert "val mIoU" in capsys.readouterr().out
    again = script.validate(load_segmenter(out), validation, torch.tensor(training.score_map), 8, torch.device("cpu"))
    assert again == scores


def test_training_is_a_function_of_its_seed(script, tmp_path: Path):
    lengths = {"train": 8, "val": 2, "test": 2}
    training, validation = (Shapes(split, False, size=(32, 32), lengths=lengths) for split in ("train", "val"))
    weights = []
    for run in range(2):
        out = tmp_path / f"{run}.pt"
        script.train_segmenter(training, validation, out, steps=2, batch_size=4, seed=3)
        stored = torch.load(out, weights_only=True)
        assert json.loads(stored["config"])["seed"] == 3 and json.loads(stored["config"])["size"] == [32, 32]
        weights.append(stored["weights"])
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


def test_training_wants_label_ids(script, tmp_path: Path):
    training = Shapes("train", False, lengths={"train": 2, "val": 2, "test": 2})
    training.labels = False
    with pytest.raises(UserError, match="a segmenter learns from label ids"):
        script.train_segmenter(training, training, tmp_path / "x.pt")


def test_a_drn_is_trained_like_the_others(script, tmp_path: Path):
    lengths = {"train": 4, "val": 2, "test": 2}
    training, validation = (Shapes(split, False, size=(32, 32), lengths=lengths) for split in ("train", "val"))
    script.train_segmenter(training, validation, tmp_path / "drn.pt", backbone="drn_d_22", steps=1, batch_size=2)
    loaded = load_segmenter(tmp_path / "drn.pt")
    assert (loaded.kind, loaded.num_classes) == ("drn_d_22", 8)
    assert loaded.mean.flatten().tolist() == pytest.approx([0.290101, 0.328081, 0.286964])


def test_augmentation_moves_image_and_ids_alike(script):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 5, (16, 6, 8), generator=generator).repeat_interleave(8, 1).repeat_interleave(8, 2)
    images = (ids[:, None] / 10 + 0.2).expand(-1, 3, -1, -1)
    found, moved = script.augment(images, ids, generator)
    inside = moved != 255
    assert 0.7 < inside.float().mean() < 1 and set(moved.unique().tolist()) == {0, 1, 2, 3, 4, 255}
    for image, label, known in zip(found, moved, inside, strict=True):  # per item: brightness is affine in the id
        level = torch.stack([image[0][known & (label == k)].median() for k in label[known].unique()])
        steps = level.diff() / label[known].unique().diff()
        assert steps.std() < 0.02 and steps.min() > 0.07
    assert not torch.equal(moved, ids)


def test_class_weights(script):
    frequency = torch.tensor([0.64, 0.36, 0.0])
    weight = script.class_weight(frequency)
    assert weight[2] == 0 and (weight * frequency).sum().item() == pytest.approx(1)
    assert (weight[1] / weight[0]).item() == pytest.approx(0.8 / 0.6)
