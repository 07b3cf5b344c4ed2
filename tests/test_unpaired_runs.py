"""Unpaired runs from folders to pictures: any channels and shape, both directions, and a reason for every refusal."""

import importlib.util
import itertools
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
from data.labels import colorize
from engine.checkpoint import Loaded
from engine.checks import validate
from engine.config import ConfigError
from engine.render import load_generator
from errors import UserError
from tests.compose import CONFIGS, UNPAIRED, config
from train import train

QUICK = [word for word in UNPAIRED if not word.startswith("dataset")]
GAN = ("setting=unpaired", "objective=gan", "loss=none")
CUT = ("setting=unpaired", "objective=cut", "encoder=generator", "objective.contrast.term.dim=8")


def render(cfg):
    """The function of test.py, whose name Python's own test package has."""
    spec = importlib.util.spec_from_file_location("entry_test", CONFIGS.parent / "test.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.test(cfg)


def folders(root, a=3, b=3, size=(32, 48), splits=("train", "test")):
    """Five and four random images a side, of `a` and `b` channels: grey and RGB as PNG, others as .npy."""
    random = np.random.default_rng(0)
    for split in splits:
        for side, channels, count in (("A", a, 5), ("B", b, 4)):
            place = root / split / side
            place.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 256, (*size, channels), np.uint8)
                if channels in (1, 3):
                    Image.fromarray(pixels.squeeze()).save(place / f"{side}{index}.png")
                else:
                    np.save(place / f"{side}{index}.npy", pixels)
    return root


def own(root, *words, size="[32,48]"):
    return config(*QUICK, "dataset=unpaired_folder", f"dataset.root={root}", f"dataset.size={size}", *words)


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        ((1, 1), CUT),
        ((5, 5), CUT),
        ((1, 3), GAN),
        ((3, 1), ("setting=cycle", "objective=cycle", "loss=none", "~objective.identity")),
        ((1, 3), (*GAN[:1], "objective=sesim", "loss=none", "encoder=vgg16", "encoder.pretrained=false")),
    ],
    ids=["grey cut", "five-channel cut", "grey to colour", "colour to grey and back", "grey sesim"],
)
def test_any_channels_on_both_sides(tmp_path, channels, words):
    root = folders(tmp_path / "data", *channels)
    assert train(own(root, *words), tmp_path / "run") == 2
    saved = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    inputs = json.loads(saved["inputs"])
    assert (inputs["source_channels"], inputs["target_channels"], inputs["aligned"]) == (*channels, False)


def test_evaluation_measures_all_fakes_against_all_reals(tmp_path, capsys):
    root = folders(tmp_path / "data")
    train(own(root, *CUT), tmp_path / "run")
    report = evaluate.evaluate(
        config(f"checkpoint={tmp_path / 'run'}", "metrics=[appearance]", "device=cpu", name="evaluate")
    )
    assert report["protocol"]["fake"]["n"] == 5 and report["protocol"]["real"]["n"] == 4
    assert (tmp_path / "run/eval/2.png").is_file() and "5 generated against 4 real images" in capsys.readouterr().out


def test_both_generators_of_a_cycle_translate_any_size(tmp_path):
    root = folders(tmp_path / "data")
    run = tmp_path / "run"
    train(own(root, "setting=cycle", "objective=cycle", "loss=none"), run)
    Image.fromarray(np.zeros((37, 51, 3), np.uint8)).save(tmp_path / "odd.png")
    made = {}
    for network in ("generator", "generator_source"):
        words = (f"checkpoint={run}", f"network={network}", "device=cpu")
        made[network] = render(
            config(*words, f"input={tmp_path / 'odd.png'}", f"output={tmp_path / network}", name="test")
        )
        assert Image.open(made[network] / "odd.png").size == (51, 37)
        split = sorted(path.name for path in render(config(*words, name="test")).glob("*.png"))
        assert split == [f"A{i}.png" for i in range(5)] if network == "generator" else [f"B{i}.png" for i in range(4)]
    first, second = (np.array(Image.open(folder / "odd.png")) for folder in made.values())
    assert not np.array_equal(first, second)
    with pytest.raises(UserError, match=r"network=critic: .* one of generator, generator_source is wanted"):
        render(config(f"checkpoint={run}", "network=critic", "device=cpu", name="test"))


def test_label_ids_are_given_to_a_network_of_their_colours_as_in_training(tmp_path):
    root = tmp_path / "data"
    random = np.random.default_rng(0)
    for split, side in itertools.product(("train", "test"), ("input", "target")):
        (root / split / side).mkdir(parents=True)
        for index in range(3):
            shape = (32, 48) if side == "input" else (32, 48, 3)
            pixels = random.integers(0, 12 if side == "input" else 256, shape, np.uint8)
            Image.fromarray(pixels).save(root / split / side / f"{index}.png")
    words = ("dataset=camvid_unpaired", f"dataset.root={root}", "dataset.size=[32,48]", "dataset.load_size=null")
    train(config(*QUICK, *words, *GAN), tmp_path / "run")
    cfg = ("device=cpu", f"checkpoint={tmp_path / 'run'}")
    split = render(config(*cfg, f"output={tmp_path / 'split'}", name="test"))
    folder = render(config(*cfg, f"input={root / 'test/input'}", f"output={tmp_path / 'folder'}", name="test"))
    for index in range(3):
        one, other = (np.array(Image.open(place / f"{index}.png")) for place in (split, folder))
        assert np.abs(one.astype(int) - other).max() <= 1
    ids = torch.from_numpy(np.array(Image.open(root / "test/input/0.png")))[None]
    Image.fromarray(colorize(ids, "camvid").permute(1, 2, 0).numpy()).save(tmp_path / "0.png")  # the colours themselves
    painted = render(config(*cfg, f"input={tmp_path / '0.png'}", f"output={tmp_path / 'painted'}", name="test"))
    assert np.array_equal(Image.open(painted / "0.png"), Image.open(folder / "0.png"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("setting=unpaired", "model=cut", "objective=cut", "encoder=generator"),
            r"setting=unpaired: translates images into images, but dataset=shapes gives label ids; choose",
        ),
        (
            ("dataset=shapes_unpaired", "encoder=pixel"),
            r"setting=paired: compares the generated image with its target, but dataset=shapes_unpaired has no pairs",
        ),
        (
            ("dataset=shapes_unpaired", "setting=unpaired", "model=cut", "encoder=generator"),
            r"objective\.contrast: compares fake with target, which show different scenes in setting=unpaired",
        ),
        (
            ("dataset=shapes_unpaired", "setting=unpaired", "objective=cut", "encoder=generator"),
            r"encoder=generator: SPADEGenerator has no layers to tap; choose model=cut",
        ),
        (
            (*UNPAIRED, "setting=unpaired", "objective=cycle", "loss=none"),
            r"objective\.gan_source: no view 'fake_source_score'; setting=unpaired makes source, target, fake",
        ),
        (
            (*UNPAIRED, *CUT, "dataset.size=[30,32]"),
            r"dataset\.size=\[30, 32\]: .*needs .*multiples of 4",
        ),
        (
            (*UNPAIRED, *CUT, "dataset.size=[20,20]"),
            r"dataset\.size=\[20, 20\]: the discriminator takes images from 24 pixels a side on",
        ),
        ((*UNPAIRED, *CUT, "encoder.layers=[0,99]"), r"encoder\.layers: no layer 99 to tap"),
        (
            (*UNPAIRED, *CUT, "model.generator.antialias=false"),
            r"encoder\.layers: no layer 8 to tap; .* CUT's own five being 0, 4, 7, 10, 14",
        ),
        (
            (*UNPAIRED, "setting=cycle", "objective=gan", "loss=none"),
            r"setting=cycle: no term reads what the second generator makes; choose objective=cycle",
        ),
        (
            ("encoder=vgg16", "encoder.pretrained=false", "objective=sesim", "loss=none"),
            r"objective\.spatial: compares fake with source, but dataset=shapes has label ids for sources",
        ),
        (
            (*UNPAIRED, "setting=unpaired", "objective=sesim", "loss=none", "encoder=conv6"),
            r"objective\.spatial: compares the features of a fixed network, but this encoder \(random\) is trained",
        ),
        (
            (*UNPAIRED, "setting=unpaired", "objective=sesim", "loss=none", "encoder=generator"),
            r"objective\.spatial: compares the features of a fixed network",
        ),
    ],
    ids=[
        "labels",
        "pairs",
        "aligned",
        "spade",
        "views",
        "multiples",
        "small",
        "layers",
        "strided",
        "one-way",
        "ids",
        "trained",
        "own",
    ],
)
def test_what_cannot_be_trained_is_refused_with_the_cure(tmp_path, words, message):
    with pytest.raises(UserError, match=message):
        train(config(*words), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train.pool=50",), r"train\.pool=50: in setting=paired an image is judged beside its own source"),
        (("setting=unpaired", "train.regenerate_fake=true"), r"train\.regenerate_fake=true: in setting=unpaired the"),
        (("train.pool=-1",), r"train\.pool=-1: must be at least 0"),
        (("gan=wasserstein",), r"gan=wasserstein: must be one of hinge, lsgan, nonsaturating"),
    ],
)
def test_settings_that_do_not_go_together(words, message):
    with pytest.raises(ConfigError, match=message):
        validate(config(*words))


def test_images_that_an_encoder_cannot_take_are_refused_before_anything_is_made(tmp_path):
    root = folders(tmp_path / "data", 5, 5)
    for words in (("encoder=vgg16", "encoder.pretrained=false", "objective=cut"), ("encoder=pixel", "objective=cut")):
        with pytest.raises(ConfigError, match=r"objective\.contrast: the encoder takes images of 3 channels, or grey"):
            train(own(root, "setting=unpaired", *words), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    words = ("encoder=pixel", "encoder.scales=[8]", "encoder.image_channels=5", "objective=cut")
    assert train(own(root, "setting=unpaired", *words), tmp_path / "run") == 2


def test_training_images_alone_are_refused_before_anything_is_made_unless_no_samples_are_wanted(tmp_path):
    root = folders(tmp_path / "data", splits=("train",))
    with pytest.raises(UserError, match=r"holds no test/A or testA"):
        train(own(root, *CUT), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert train(own(root, *CUT, "train.samples=0"), tmp_path / "run") == 2


def test_a_cycle_keeps_the_average_of_both_generators(tmp_path):
    root = folders(tmp_path / "data")
    words = ("setting=cycle", "objective=cycle", "loss=none")
    train(own(root, *words, "train.ema=0.5"), tmp_path / "run")
    loaded = Loaded.open(str(tmp_path / "run"))
    for name in ("generator", "generator_source"):
        held = load_generator(loaded, torch.device("cpu"), name).state_dict()
        key = "model.1.weight"
        assert torch.equal(held[key], loaded.state["average"][f"{name}.{key}"])
        assert not torch.equal(held[key], loaded.state["networks"][name][key])


def test_identity_wants_as_many_channels_on_both_sides(tmp_path):
    root = folders(tmp_path / "data", 1, 3)
    with pytest.raises(
        ConfigError, match=r"objective\.contrast: reads what a generator makes of its own target domain"
    ):
        train(own(root, *CUT[:2], "encoder=pixel"), tmp_path / "run")
    with pytest.raises(
        UserError, match=r"encoder=generator: encodes the images of both sides, but sources have 1 and targets 3"
    ):
        train(own(root, *CUT), tmp_path / "run")


def test_names_that_are_no_utf8_and_large_images_go_through_training_translation_and_evaluation(tmp_path, capfd):
    root = folders(tmp_path / "data")
    for place in ("train/A", "test/A"):
        folder = os.fsencode(root / place)
        os.rename(folder + b"/A0.png", folder + b"/caf\xe9.png")  # noqa: PTH104 - bytes
    (root / "test/A/A1.png").rename(root / "test/A" / f"{'n' * 251}.png")
    run = tmp_path / "run"
    train(own(root, *GAN), run)
    out = tmp_path / "out"
    words = (f"checkpoint={run}", f"input={root / 'test/A'}", f"output={out}")
    render(config(*words, name="test"))
    made = sorted(os.listdir(os.fsencode(out)))  # noqa: PTH208 - bytes
    assert b"caf\xe9.png" in made and b"n" * 251 + b".png" in made and len(made) == 6

    report = tmp_path / "report.json"
    measured = [f"fake={out}", f"real={root / 'test/A'}", "metrics=[appearance]", f"out={report}"]
    evaluate.evaluate(config(*measured, name="evaluate"))
    assert json.loads(report.read_text())["protocol"]["fake"]["n"] == 5

    Image.new("L", (900, 10)).save(root / "test/A/wide.png")
    with pytest.raises(UserError, match=r"wide\.png: is 900x10, 10800 pixels.*set max_pixels=10800 ") as caught:
        render(config(*words[:2], f"output={tmp_path / 'other'}", "max_pixels=2000", name="test"))
    assert "\n" not in str(caught.value) and not (tmp_path / "other").exists()
