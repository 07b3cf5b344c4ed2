"""Presets of segmentation: what each fixes, what is refused, and that a score follows its size and class map."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from data.labels import CITYSCAPES_TRAIN_IDS
from errors import UserError
from metrics import measure as module
from metrics.measure import measure
from metrics.protocol import compare
from metrics.rules import Rule
from models.drn import DRN

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
PRESETS = ["cityscapes/cfl", "cityscapes/cut", "gta/cfl", "ade20k"]


def preset(name, **changes):
    node = OmegaConf.load(CONFIGS / "segmentation" / f"{name}.yaml")
    return Rule.of({**OmegaConf.to_container(node), **changes})


def test_every_preset_is_complete_and_chosen_on_the_command_line():
    files = (CONFIGS / "segmentation").rglob("*.yaml")
    found = {str(path.relative_to(CONFIGS / "segmentation").with_suffix("")) for path in files}
    assert found == {"plain", *PRESETS}
    with initialize_config_dir(str(CONFIGS), version_base=None):
        assert Rule.of(compose("evaluate").segmentation) == Rule() == preset("plain")
        for name in PRESETS:
            cfg = compose("evaluate", [f"segmentation={name}", "segmenter=file.pth", "segmentation.void=wrong"])
            assert Rule.of(cfg.segmentation).name == name and Rule.of(cfg.segmentation).void == "wrong"


def test_what_the_presets_fix():
    cfl, cut, gta, ade = (preset(name) for name in PRESETS)
    for rule in (cfl, cut, gta):
        assert (rule.network, rule.classes, rule.weights) == ("drn_d_105", 19, ("drn-d-105_ms_cityscapes.pth",))
        assert list(rule.class_map) == CITYSCAPES_TRAIN_IDS
    assert (cfl.size, cut.size, gta.size, ade.size) == ((256, 512), (128, 256), (256, 512), (256, 256))
    accuracies = [rule.block()["accuracy"] for rule in (cfl, cut, gta, ade)]
    assert accuracies == ["pixacc_all", "pixacc", "pixacc_all", "pixacc"]
    assert (ade.network, ade.classes, ade.class_map) == ("upernet_resnet101", 150, None)
    assert cfl.block()["images"] == "512x256, antialiased bicubic" and Rule().block()["images"] == "generated"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sise": "native"}, r"segmentation\.sise: no such key; known: name, network"),
        ({"size": "large"}, r"segmentation\.size=large: generated, native or \[height, width\]"),
        ({"size": [256]}, r"segmentation\.size=\[256\]"),
        ({"interpolation": "nearest"}, r"segmentation\.interpolation=nearest: bicubic or bilinear"),
        ({"void": "counted"}, r"segmentation\.void=counted: ignored or wrong"),
        ({"class_map": [0, 400]}, "score_map"),
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(UserError, match=words):
        Rule.of(settings)


def test_missing_weights_say_where_to_get_and_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    rule = preset("cityscapes/cfl")
    with pytest.raises(UserError) as caught:
        rule.find(tmp_path / "weights", offline=True)
    told = str(caught.value)
    for word in (
        "drn-d-105_ms_cityscapes.pth",
        "github.com/fyu/drn",
        f"put it into {tmp_path / 'weights'}",
        "segmenter=",
    ):
        assert word in told and "\n" not in told
    place = tmp_path / "home" / "hub" / "checkpoints"
    place.mkdir(parents=True)
    (place / rule.weights[0]).write_text("")
    assert rule.find(tmp_path / "weights") == rule.find() == place / rule.weights[0]
    (place / rule.weights[0]).write_text("another")  # its hash was recorded at first use
    with pytest.raises(UserError, match="had another at its first use"):
        rule.find()
    pair = preset("ade20k")
    for folder, name in zip((tmp_path / "weights", place), pair.weights, strict=True):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("")
    with pytest.raises(UserError, match=r"encoder_epoch_50\.pth and .*decoder_epoch_50\.pth were wanted in one folder"):
        pair.find(tmp_path / "weights", offline=True)
    (place / pair.weights[0]).write_text("")
    assert pair.find() == place / "ade20k-resnet101-upernet"
    with pytest.raises(UserError, match="segmenter=FILE, or a preset"):
        Rule().find()


class Bright:
    """Two classes: dark and bright; records the sizes that it saw."""

    num_classes = 2

    def __init__(self):
        self.sizes = []

    def predict(self, images):
        self.sizes.append(tuple(images.shape[2:]))
        return (images.mean(1) > 0.5).long()


@pytest.fixture
def folders(tmp_path):
    """Four images of 16x16, black and white quarters, label maps of 32x32 with stored ids 7, 9 and 3 (void)."""
    rng = np.random.default_rng(0)
    for name in ("fake", "real", "labels"):
        (tmp_path / name).mkdir()
    for index in range(4):
        ids = rng.permutation([0, 1, 1, 0]).reshape(2, 2)
        fake = np.where(rng.random((2, 2)) < 0.3, 1 - ids, ids)
        for name, pixels in (("fake", fake), ("real", ids)):
            Image.fromarray(np.kron(pixels, np.full((8, 8), 255)).astype(np.uint8)).save(
                tmp_path / name / f"{index}.png"
            )
        label = np.kron(np.array([7, 9])[ids], np.ones((16, 16))).astype(np.uint8)
        label[:4] = 3
        Image.fromarray(label).save(tmp_path / "labels" / f"{index}.png")
    return tmp_path


MAP = [255] * 7 + [0, 255, 1]


def scored(folders, segmenter, **settings):
    rule = Rule.of({"class_map": MAP, **settings})
    paths = {name: folders / name for name in ("fake", "real")}
    return measure(**paths, metrics=["segmentation"], labels=folders / "labels", segmenter=segmenter, rule=rule)


@pytest.mark.parametrize(
    ("size", "seen", "told"),
    [
        ("generated", (16, 16), "generated"),
        ("native", (32, 32), "native, antialiased bicubic"),
        ([8, 24], (8, 24), "24x8, antialiased bicubic"),
    ],
)
def test_images_come_to_the_network_at_the_rules_size(folders, size, seen, told):
    segmenter = Bright()
    found = scored(folders, segmenter, size=size)
    assert set(segmenter.sizes) == {seen}
    rows, block = found["metrics"], found["protocol"]["metrics"]["segmentation"]
    assert rows["miou"]["ceiling"] > 95 and rows["pixacc"]["value"] < 95
    assert rows["pixacc_all"]["ceiling"] == pytest.approx(rows["pixacc"]["ceiling"] * 7 / 8, abs=2)
    assert (block["images"], block["score_map"], block["segmenter"]) == (told, MAP, "Bright")


def test_native_takes_each_label_maps_own_size(folders):
    Image.open(folders / "labels" / "2.png").resize((48, 40), Image.Resampling.NEAREST).save(
        folders / "labels" / "2.png"
    )
    segmenter = Bright()
    found = scored(folders, segmenter, size="native")
    assert segmenter.sizes == [(32, 32), (40, 48), (32, 32)] * 2 and found["metrics"]["miou"]["ceiling"] > 95


def test_two_rules_are_not_compared(folders):
    one, other = scored(folders, Bright()), scored(folders, Bright(), size="native", void="wrong", name="x/y")
    with pytest.raises(UserError, match="different protocols") as caught:
        compare(one, other)
    for field in ("preset", "images", "accuracy"):
        assert f"metrics.segmentation.{field}" in str(caught.value)


def test_a_score_map_beside_a_preset_is_refused(folders):
    with pytest.raises(UserError, match="score_map= came with segmentation=x"):
        measure(
            folders / "fake",
            folders / "real",
            ["segmentation"],
            labels=folders / "labels",
            segmenter=Bright(),
            score_map=[0],
            rule=Rule(name="x", class_map=(0,)),
        )


def test_a_preset_takes_its_own_network_alone(tmp_path, folders, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    torch.manual_seed(0)
    path = tmp_path / "drn-d-105_ms_cityscapes.pth"
    torch.save(DRN("drn_d_22", 19).state_dict(), path)

    def run(rule, **more):
        paths = {name: folders / name for name in ("fake", "real")}
        more = {"weights_dir": tmp_path, "minimum_ceiling": 0, **more}
        return measure(**paths, metrics=["segmentation"], labels=folders / "labels", rule=rule, **more)

    with pytest.raises(UserError, match=r"wants drn_d_105, the segmenter is drn_d_22.*segmentation\.network="):
        run(preset("cityscapes/cfl"))
    smaller = {"network": "drn_d_22", "size": [32, 64]}
    found = run(preset("cityscapes/cfl", **smaller))
    block = found["protocol"]["metrics"]["segmentation"]
    assert (block["preset"], block["segmenter"], block["weights"]) == ("cityscapes/cfl", "drn_d_22", path.name)
    assert len(block["weights_sha256"]) == 64
    assert run(preset("cityscapes/cfl", **smaller, sha256=block["weights_sha256"][:12]))["metrics"] == found["metrics"]
    with pytest.raises(UserError, match="the weights have SHA-256"):
        run(preset("cityscapes/cfl", **smaller, sha256="0000"))
    with pytest.raises(UserError, match="wants 7 classes, the segmenter has 19"):
        run(preset("cityscapes/cfl", **smaller, classes=7))
    with pytest.raises(UserError, match=r"are in none of .*put it into"):
        run(preset("ade20k"), offline=True)
    monkeypatch.setattr(module, "load_segmenter", lambda *_: pytest.fail("opened for another metric"))
    measure(folders / "fake", folders / "real", ["appearance"], rule=preset("cityscapes/cfl"))
