"""Two folders that are no pairs: what an item is, what it depends on, and one line for every mistake."""

import itertools

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image
from torch.utils.data import DataLoader

from data.folders import MissingSplit, Paired
from data.labels import CAMVID_COLORS, CITYSCAPES_TRAIN_IDS
from data.unpaired import Unpaired
from errors import UserError
from tests.compose import CONFIGS, config
from tests.test_folders import error_of, ids, photo, save


def make(root, count=(3, 5), split="train", form="{split}/{side}", size=(12, 16)):
    """Horses h0, h1, ... in A and zebras z0, ... in B, of which no two are alike."""
    for side, letter, number in zip("AB", "hz", count, strict=True):
        for seed in range(number):
            folder = root / form.format(split=split, side=side)
            save(folder / f"{letter}{seed}.png", photo(seed + 100 * (side == "B"), *size))
    return root


def unpaired(root, split="train", augment=False, **options):
    return Unpaired(split, augment, **({"name": "mine", "root": root, "size": (12, 16)} | options))


def horse(seed, size=(12, 16)):
    return torch.from_numpy(photo(seed, *size)).movedim(-1, 0)


def zebra(seed, size=(12, 16)):
    return horse(seed + 100, size)


def which(image, candidates):
    """Index of the candidate that the image shows, mirrored or not."""
    return next(
        index
        for index, known in enumerate(candidates)
        if torch.equal(image, known) or torch.equal(image.flip(-1), known)
    )


# ---------------------------------------------------------------- what an item is


@pytest.mark.parametrize("count", [(3, 5), (5, 3), (4, 4)])
def test_an_epoch_cycles_the_sources_and_draws_the_targets(tmp_path, count):
    data = unpaired(make(tmp_path, count), augment=True)
    assert len(data) == max(count)
    horses, zebras = [horse(i) for i in range(count[0])], [zebra(i) for i in range(count[1])]
    drawn = np.zeros((len(data), count[1]))
    for index, draw in itertools.product(range(len(data)), range(120)):
        item = data[index, draw]
        assert set(item) == {"name", "source", "target"} and item["name"] == f"h{index % count[0]}"
        assert which(item["source"], horses) == index % count[0]
        drawn[index, which(item["target"], zebras)] += 1
    expected = 120 / count[1]
    together = {tuple(which(data[index, draw]["target"], zebras) for index in range(len(data))) for draw in range(9)}
    assert any(len(set(one)) > 1 for one in together)  # one draw does not choose one target for all
    assert np.abs(drawn - expected).max() < 4.5 * np.sqrt(expected)  # every target for every source, evenly


def test_both_sides_flip_and_crop_apart_from_each_other(tmp_path):
    size = (12, 16)
    for side in "AB":  # the same picture on both sides: all that differs is the augmentation
        save(tmp_path / f"train/{side}/x.png", photo(0, *size))
    data = unpaired(tmp_path, augment=True)
    flips = [
        (torch.equal(data[0, d]["source"], horse(0)), torch.equal(data[0, d]["target"], horse(0))) for d in range(80)
    ]
    assert all(flips.count(pair) >= 8 for pair in itertools.product((True, False), repeat=2))
    windows = {horse(0)[:, y : y + 8, x : x + 8].numpy().tobytes(): (y, x) for y in range(5) for x in range(9)}
    data = unpaired(tmp_path, augment=True, size=(8, 8), load_size=size, flip=False)
    places = [[windows[data[0, d][key].numpy().tobytes()] for key in ("source", "target")] for d in range(80)]
    assert sum(one == other for one, other in places) < 10
    assert all(len({place[side] for place in places}) > 20 for side in (0, 1))


def test_an_item_depends_on_its_key_alone(tmp_path):
    data = unpaired(make(tmp_path), augment=True, size=(8, 8), load_size=(12, 16))
    torch.manual_seed(3)
    state = torch.get_rng_state()
    one = data[4, 77]
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(9)
    two = unpaired(tmp_path, augment=True, size=(8, 8), load_size=(12, 16))[4, 77]
    assert all(torch.equal(one[key], two[key]) for key in ("source", "target"))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_do_not_change_the_items(tmp_path, workers):
    data = unpaired(make(tmp_path, (3, 8)), augment=True, size=(8, 8), load_size=(12, 16))
    keys = [(index, 40 + index, index > 3) for index in range(8)]
    batches = list(DataLoader(data, batch_size=4, sampler=keys, num_workers=workers))
    for key in ("source", "target"):
        assert torch.equal(torch.cat([b[key] for b in batches]), torch.stack([data[k][key] for k in keys]))


def test_plain_items_are_resized_at_once_and_flipped(tmp_path):
    data = unpaired(make(tmp_path), augment=True, size=(6, 8), load_size=(12, 16))
    whole = unpaired(tmp_path, size=(6, 8))
    sources, zebras = whole.sources(), [item["target"] for item in whole.reals()]
    found = set()
    for draw in range(20):
        item = data[1, draw, True]
        which(item["target"], zebras)  # raises where it is a crop
        flipped = torch.equal(item["source"].flip(-1), sources[1]["source"])
        assert flipped != torch.equal(item["source"], sources[1]["source"])
        found.add(flipped)
        assert not torch.equal(data[1, draw]["source"], item["source"])
    assert found == {True, False}


def test_without_augmentation_nothing_is_random(tmp_path):
    data = unpaired(make(tmp_path))
    assert len(data) == 5 and len(list(data)) == 5
    for index in range(5):
        for key in (index, (index, 3), (index, 9, True)):
            assert torch.equal(data[key]["source"], horse(index % 3)) and torch.equal(data[key]["target"], zebra(index))
    with pytest.raises(IndexError):
        data[5]


def test_each_side_alone(tmp_path):
    data = unpaired(make(tmp_path, (3, 5)), size=(6, 8))
    sources, reals = data.sources(), data.reals()
    assert (sources.names, reals.names) == ([f"h{i}" for i in range(3)], [f"z{i}" for i in range(5)])
    assert [set(item) for item in sources] == [{"name", "source"}] * 3 and not data.scored_labels
    assert [set(item) for item in reals] == [{"name", "target"}] * 5
    assert torch.equal(
        torch.stack([item["source"] for item in sources]), torch.stack([data[i]["source"] for i in range(3)])
    )
    assert torch.equal(
        torch.stack([item["target"] for item in reals]), torch.stack([data[i]["target"] for i in range(5)])
    )
    (batch,) = DataLoader(sources, batch_size=3, num_workers=1)
    assert batch["name"] == sources.names and batch["source"].shape == (3, 3, 6, 8)


def test_each_side_of_pairs(tmp_path):
    for seed, name in enumerate("ab"):
        save(tmp_path / f"train/input/{name}.png", ids(seed))
        save(tmp_path / f"train/target/{name}.png", photo(seed))
    settings = {"name": "mine", "root": tmp_path, "size": (6, 8), "load_size": (12, 16)}
    pairs = Paired("train", False, classes=4, **settings)
    sources, reals = pairs.sources(), pairs.reals()
    assert pairs.scored_labels and sources.names == pairs.names and reals is pairs
    for index, item in enumerate(sources):
        assert torch.equal(item["label"], pairs[index]["source"]) and torch.equal(
            item["target"], pairs[index]["target"]
        )
        assert "label" not in pairs[index]
    images = Paired("train", False, labels=False, **settings)
    assert not images.scored_labels and "label" not in images.sources()[0]
    augmented = Paired("train", True, classes=4, **settings)
    whole = pairs[1]["target"]
    assert all(which(augmented[1, draw, True]["target"], [whole]) == 0 for draw in range(6))


# ---------------------------------------------------------------- layouts, directions, channels


def test_the_old_layout_is_understood(tmp_path):
    for split, count in (("train", (2, 3)), ("test", (1, 2))):
        make(tmp_path, count, split, "{split}{side}")
    assert (len(unpaired(tmp_path)), len(unpaired(tmp_path, "test"))) == (3, 2)
    with pytest.raises(MissingSplit, match=r"holds no val/A or valA and val/B or valB.*testA, testB, trainA, trainB"):
        unpaired(tmp_path, "val")
    make(tmp_path, (1, 1), "val", "{split}{side}")
    assert len(unpaired(tmp_path, "val")) == 1


def test_either_direction(tmp_path):
    data = unpaired(make(tmp_path), source="B", target="A")
    assert (
        data.names[0] == "z0" and torch.equal(data[0]["source"], zebra(0)) and torch.equal(data[0]["target"], horse(0))
    )


def test_grey_arrays_and_wide_images_on_either_side(tmp_path):
    for index in range(2):
        save(tmp_path / f"train/A/{index}.png", photo(index, 20, 12)[..., 0])
        array = np.random.default_rng(index).integers(0, 256, (10, 30, 7)).astype(np.uint8)
        (tmp_path / "train/B").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / f"train/B/{index}.npy", array)
    for source, target, channels in (("A", "B", (1, 7)), ("B", "A", (7, 1))):
        data = unpaired(tmp_path, source=source, target=target, augment=True, size=(8, 24), load_size=(10, 30))
        item = data[1, 5]
        assert (data.source_channels, data.target_channels) == channels
        assert item["source"].shape == (channels[0], 8, 24) and item["target"].shape == (channels[1], 8, 24)
        data.verify()
    colored = unpaired(tmp_path, source_channels=3, size=(8, 24))
    assert colored.source_channels == 3 and colored[0]["source"].shape == (3, 8, 24)


# ---------------------------------------------------------------- labels, shown and scored


def test_ids_become_colours_that_never_blend(tmp_path):
    make(tmp_path, (0, 2))
    for seed in range(3):
        save(tmp_path / f"train/A/{seed}.png", ids(seed, classes=2) * 10)  # ids of which a blend would be another id
    settings = {"colors": "camvid", "classes": 12, "unscored": [11], "size": (9, 10)}
    data = unpaired(tmp_path, augment=True, load_size=(15, 21), **settings)
    assert (data.labels, data.source_channels, data.scored_labels) == (False, 3, True)
    for draw in range(10):
        shown = data[0, draw]["source"]
        assert shown.shape == (3, 9, 10)
        assert set(map(tuple, shown.flatten(1).T.tolist())) == {CAMVID_COLORS[0], CAMVID_COLORS[10]}
    plain = unpaired(tmp_path, **settings)
    item = plain.sources()[2]
    assert item["label"].shape == (1, 9, 10) and item["label"].dtype == torch.uint8 and "label" not in plain[2]
    table = torch.tensor(CAMVID_COLORS, dtype=torch.uint8)
    assert torch.equal(item["source"], table[item["label"][0].long()].movedim(-1, 0))
    assert plain.score_map[:13] == [*range(11), 255, 255]
    data.verify()


def labelled(root, size=(12, 16)):
    make(root, split="test")
    for seed in range(3):
        save(root / f"test/labels/h{seed}.png", ids(seed, *size))
    return root


def test_labels_beside_the_sources_are_for_scores(tmp_path):
    data = unpaired(labelled(tmp_path), "test", classes=4)
    assert data.scored_labels and data.classes == 4 and data.score_map[:5] == [0, 1, 2, 3, 255]
    for seed, item in enumerate(data.sources()):
        assert set(item) == {"name", "source", "label"} and np.array_equal(item["label"][0], ids(seed))
    assert set(data[0]) == {"name", "source", "target"}
    data.verify()
    back = unpaired(tmp_path, "test", classes=4, source="B", target="A")  # the labels are of A
    assert not back.scored_labels and "label" not in back.sources()[0]
    assert not unpaired(tmp_path, "test").scored_labels


def test_label_maps_may_have_another_size_and_unscored_pixels(tmp_path):
    labelled(tmp_path, (24, 32))
    values = ids(0, 24, 32)
    values[:2] = 255
    save(tmp_path / "test/labels/h0.png", values)
    data = unpaired(tmp_path, "test", classes=4)
    data.verify()
    item = data.sources()[0]
    assert item["label"].shape == (1, 12, 16) and item["label"][0, 0].tolist() == [255] * 16


def test_training_needs_no_labels(tmp_path):
    make(tmp_path)
    (tmp_path / "train/labels").mkdir()
    assert len(unpaired(tmp_path, augment=True, classes=4)) == 5


# ---------------------------------------------------------------- what is refused

FAULTS = {  # how the folder is broken, and words that its message must hold
    "no images": (
        lambda root: [(root / f"train/B/z{i}.png").unlink() for i in range(5)],
        ("train/B", "holds no images", ".png"),
    ),
    "no folder": (
        lambda root: (root / "train/B").rename(root / "train/zebras"),
        ("train/B: no such folder", "A, zebras", "dataset.target"),
    ),
    "no source folder": (
        lambda root: (root / "train/A").rename(root / "train/horses"),
        ("train/A: no such folder", "B, horses", "dataset.source"),
    ),
    "truncated": (
        lambda root: (root / "train/B/z2.png").write_bytes((root / "train/B/z2.png").read_bytes()[:300]),
        ("B/z2.png", "cannot be decoded"),
    ),
    "truncated source": (
        lambda root: (root / "train/A/h2.png").write_bytes((root / "train/A/h2.png").read_bytes()[:300]),
        ("A/h2.png", "cannot be decoded"),
    ),
    "no image": (lambda root: (root / "train/A/h1.png").write_text("<html>"), ("A/h1.png", "cannot be decoded")),
    "two of one name": (lambda root: save(root / "train/A/h1.jpg", photo(1)), ("same name as h1.", "remove one")),
    "16 bits": (lambda root: save(root / "train/A/h1.png", ids().astype(np.uint16) * 999), ("h1.png", "8 bits")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_names_file_finding_and_cure(tmp_path, fault):
    damage, words = FAULTS[fault]
    damage(make(tmp_path))
    message = error_of(lambda: unpaired(tmp_path).verify())
    assert all(word in message for word in words), message


def test_headers_are_checked_before_any_pixel(tmp_path):
    FAULTS["no image"][0](make(tmp_path))
    error_of(unpaired, tmp_path)


def test_large_sides_are_checked_at_their_items(tmp_path):
    FAULTS["truncated"][0](make(tmp_path))
    data = unpaired(tmp_path)
    data.verify(limit=3)  # five zebras: too many to decode all
    data[0]
    assert "B/z2.png" in error_of(data.__getitem__, 2)


def test_a_missing_root_and_a_half_old_layout(tmp_path):
    assert "dataset.root" in error_of(unpaired, tmp_path / "none")
    assert "train/A or trainA" in error_of(unpaired, tmp_path / "none")
    make(tmp_path, form="{split}{side}")
    (tmp_path / "trainB").rename(tmp_path / "other")
    with pytest.raises(UserError, match=r"train/B: no such folder.*other, trainA.*dataset\.target") as caught:
        unpaired(tmp_path)
    assert not isinstance(caught.value, MissingSplit)


def test_arrays_of_other_channels_are_refused(tmp_path):
    make(tmp_path, (2, 0))
    (tmp_path / "train/B").mkdir()
    for index, channels in enumerate((4, 5)):
        np.save(tmp_path / f"train/B/{index}.npy", np.zeros((12, 16, channels), np.uint8))
    message = error_of(unpaired, tmp_path)
    assert "B/1.npy" in message and "5 channels" in message and "wanted 4" in message


def test_wrong_labels_are_named(tmp_path):
    labelled(tmp_path)
    assert "outside 0..1 and 255" in error_of(unpaired(tmp_path, "test", classes=2).verify)
    save(tmp_path / "test/labels/h0.png", ids(0, 12, 24))
    assert "labels/h0.png: is 24x12, but A/h0.png is 16x12" in error_of(unpaired, tmp_path, "test", classes=4)
    save(tmp_path / "test/labels/h0.png", photo(0))
    assert "dataset.classes=null" in error_of(unpaired, tmp_path, "test", classes=4)
    (tmp_path / "test/labels/h0.png").unlink()
    assert "1 in A without labels (h0)" in error_of(unpaired, tmp_path, "test", classes=4)
    assert "dataset.colors=null" in error_of(unpaired, tmp_path, "test", classes=4, colors="camvid")


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"source": "B"}, "dataset.source"),
        ({"colors": "camvit", "classes": 4}, "cityscapes, gta, camvid, shapes, distinct"),
        ({"colors": "camvid"}, "dataset.classes"),
        ({"classes": 300}, "dataset.classes is 300"),
        ({"colors": "camvid", "classes": 4, "source_channels": 1}, "dataset.source_channels"),
        ({"size": 64}, "dataset.size"),
        ({"augment": True, "load_size": (8, 8)}, "dataset.load_size"),
    ],
)
def test_impossible_settings_name_their_key(tmp_path, wrong, word):
    assert word in error_of(unpaired, make(tmp_path), **wrong)


# ---------------------------------------------------------------- configs


def test_configs_hold_the_hosts_settings():
    found = {
        name: config(f"dataset={name}").dataset for name in ("horse2zebra", "winter2summer", "cityscapes_unpaired")
    }
    for dataset in found.values():
        assert (list(dataset.size), list(dataset.load_size), dataset.flip) == ([256, 256], [286, 286], True)
    assert (found["winter2summer"].source, found["winter2summer"].target) == ("B", "A")
    assert list(found["cityscapes_unpaired"].scored) == CITYSCAPES_TRAIN_IDS


def test_configs_build(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    for name in ("horse2zebra", "summer2winter_yosemite", "unpaired_folder", "cityscapes_unpaired", "camvid_dusk"):
        make(tmp_path / name, form="{split}{side}")
    for seed in range(2):
        save(tmp_path / f"camvid/train/input/{seed}.png", ids(seed, 96, 128, 12))
        save(tmp_path / f"camvid/train/target/{seed}.jpg", photo(seed, 96, 128))
    names = {file.stem for file in (CONFIGS / "dataset").glob("*.yaml") if "unpaired.Unpaired" in file.read_text()}
    assert len(names) == 6
    for name in names:
        dataset = config(f"dataset={name}").dataset
        data = instantiate(dataset)(split="train", augment=True)
        assert data.name == dataset.name == name
        assert data[1, 3]["source"].shape == data[1, 3, True]["target"].shape == (3, *dataset.size)
    shapes = instantiate(config("dataset=shapes_unpaired").dataset)(split="val", augment=False)
    assert len(shapes) == 100 and Image.fromarray(shapes[0]["source"].movedim(0, -1).numpy()).size == (64, 64)
