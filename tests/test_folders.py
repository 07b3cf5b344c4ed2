"""Folders to Examples: what is read, and one distinct line for every way in which a user's folder can be wrong."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf
from PIL import Image
from torch.utils.data import DataLoader

from data import files
from data.files import find_images
from data.folders import Inputs, MissingSplit, Paired
from data.labels import CITYSCAPES_TRAIN_IDS
from data.manifest import write_manifest
from data.transforms import resize
from errors import UserError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RED, GREEN = (200, 10, 20), (0, 180, 40)


def ids(seed=0, height=12, width=16, classes=4):
    return np.random.default_rng(seed).integers(0, classes, (height, width)).astype(np.uint8)


def photo(seed=0, height=12, width=16):
    return np.random.default_rng(seed + 1000).integers(0, 256, (height, width, 3)).astype(np.uint8)


def save(file, pixels, mode=None, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, **options)


def make(root, names=("a", "b", "city/c"), split="train", instance=False):
    """A sound data set of 4 classes."""
    for seed, name in enumerate(names):
        save(root / split / "input" / f"{name}.png", ids(seed))
        save(root / split / "target" / f"{name}.png", photo(seed))
        if instance:
            save(root / split / "instance" / f"{name}.png", ids(seed).astype(np.uint16) * 1000)
    return root


def paired(root, split="train", augment=False, **options):
    return Paired(split, augment, **({"name": "mine", "root": root, "size": (12, 16), "classes": 4} | options))


def error_of(call, *arguments, **options):
    """The message of the UserError, which is one line."""
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---------------------------------------------------------------- what is read


def test_pairs_are_matched_by_relative_stem(tmp_path):
    make(tmp_path, instance=True)
    save(tmp_path / "train/target/a.JPG", photo(0), quality=100)
    (tmp_path / "train/target/a.png").unlink()
    (tmp_path / "train/input/.hidden.png").write_bytes(b"")
    (tmp_path / "train/input/notes.txt").write_text("not an image")
    data = paired(tmp_path, instance=True)
    assert data.names == ["a", "b", "city/c"] and len(data) == 3 and data.source_channels == 5
    item = data[2]
    assert item["name"] == "city/c"
    assert np.array_equal(item["source"][0].numpy(), ids(2)) and item["source"].dtype == torch.uint8
    assert np.array_equal(item["target"].movedim(0, -1).numpy(), photo(2))
    assert np.array_equal(item["instance"][0].numpy(), ids(2).astype(int) * 1000)
    assert item["instance"].dtype == torch.int32
    data.verify()


def test_items_are_resized_and_augmented(tmp_path):
    data = paired(make(tmp_path), size=(6, 8))
    whole = paired(tmp_path)[1]
    assert torch.equal(data[1]["target"], resize(whole, (6, 8))["target"])
    augmented = paired(tmp_path, augment=True, size=(8, 8), load_size=(12, 16))
    assert augmented[1, 5]["source"].shape == (1, 8, 8)
    assert torch.equal(augmented[1, 5]["target"], augmented[1, 5]["target"])
    assert len({augmented[1, draw]["target"].numpy().tobytes() for draw in range(20)}) > 8


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_do_not_change_the_items(tmp_path, workers):
    data = paired(make(tmp_path, names=[f"n{i}" for i in range(8)]), augment=True, size=(8, 8), load_size=(12, 16))
    keys = [(index, 40 + index) for index in range(8)]
    batches = list(DataLoader(data, batch_size=4, sampler=keys, num_workers=workers))
    assert [name for batch in batches for name in batch["name"]] == data.names
    assert torch.equal(torch.cat([b["source"] for b in batches]), torch.stack([data[key]["source"] for key in keys]))
    assert torch.equal(torch.cat([b["target"] for b in batches]), torch.stack([data[key]["target"] for key in keys]))


def test_palette_pngs_give_their_indices(tmp_path):
    make(tmp_path, names=["a"])
    image = Image.new("P", (16, 12))
    image.putdata(ids(7).ravel().tolist())
    image.putpalette([value for label in range(256) for value in (255 - label, 3, label)])
    image.save(tmp_path / "train/input/a.png")
    assert Image.open(tmp_path / "train/input/a.png").mode == "P"
    assert np.array_equal(paired(tmp_path)[0]["source"][0].numpy(), ids(7))


def test_coloured_labels_are_read_through_a_palette(tmp_path):
    make(tmp_path, names=["a"])
    table = np.array([RED, GREEN, (0, 0, 0), (255, 255, 255)], np.uint8)
    save(tmp_path / "train/input/a.png", table[ids(3)])
    palette = tmp_path / "palette.json"
    palette.write_text(json.dumps(table.tolist()))
    data = paired(tmp_path, palette=str(palette))
    assert np.array_equal(data[0]["source"][0].numpy(), ids(3))
    adaptive = Image.fromarray(table[ids(3)]).convert("P", palette=Image.Palette.ADAPTIVE)  # its indices mean nothing
    adaptive.save(tmp_path / "train/input/a.png")
    assert np.array_equal(paired(tmp_path, palette=str(palette))[0]["source"][0].numpy(), ids(3))


def test_one_bit_masks_and_16_bit_ids_are_labels_too(tmp_path):
    make(tmp_path, names=["a", "b"])
    Image.fromarray(ids(1, classes=2) * 255).convert("1").save(tmp_path / "train/input/a.png")
    save(tmp_path / "train/input/b.png", ids(2).astype(np.uint16))
    data = paired(tmp_path)
    assert np.array_equal(data[0]["source"][0].numpy(), ids(1, classes=2))
    assert np.array_equal(data[1]["source"][0].numpy(), ids(2))


def test_the_ignore_id_is_allowed_and_counts_as_a_channel(tmp_path):
    make(tmp_path, names=["a"])
    label = ids(1)
    label[0] = 255
    save(tmp_path / "train/input/a.png", label)
    data = paired(tmp_path, ignore=255)
    assert data.source_channels == 5 and data[0]["source"][0, 0].tolist() == [255] * 16
    data.verify()


def test_images_as_input(tmp_path):
    make(tmp_path, names=["a", "b"])
    grey = paired(tmp_path, labels=False, classes=None)
    assert grey.source_channels == 1 and grey.classes is None and grey[0]["source"].shape == (1, 12, 16)
    save(tmp_path / "train/input/b.png", photo(5))
    mixed = paired(tmp_path, labels=False)
    assert mixed.source_channels == 3 and mixed[0]["source"].shape == (3, 12, 16)
    assert torch.equal(mixed[0]["source"][0], mixed[0]["source"][2])
    assert paired(tmp_path, labels=False, channels=1)[1]["source"].shape == (1, 12, 16)


def test_arrays_as_input(tmp_path):
    make(tmp_path, names=["a"])
    array = np.random.default_rng(0).integers(0, 256, (12, 16, 20)).astype(np.uint8)
    np.save(tmp_path / "train/input/a.npy", array)
    (tmp_path / "train/input/a.png").unlink()
    data = paired(tmp_path, labels=False, size=(12, 16))
    assert data.source_channels == 20
    assert np.array_equal(data[0]["source"].numpy(), array.transpose(2, 0, 1))
    assert paired(tmp_path, labels=False, size=(6, 8))[0]["source"].shape == (20, 6, 8)


def test_partners_may_differ_in_size(tmp_path):
    make(tmp_path, names=["a"])
    save(tmp_path / "train/target/a.png", photo(0, 25, 33))  # twice 12x16, and a pixel of rounding
    assert paired(tmp_path)[0]["target"].shape == (3, 12, 16)


def test_a_missing_split_can_be_told_from_other_mistakes(tmp_path):
    make(tmp_path)
    with pytest.raises(MissingSplit, match=r"val: no such folder.*has the folders train"):
        paired(tmp_path, split="val")
    with pytest.raises(UserError) as caught:
        paired(tmp_path / "nowhere")
    assert not isinstance(caught.value, MissingSplit) and "dataset.root" in str(caught.value)


def test_score_map_follows_the_settings(tmp_path):
    make(tmp_path)
    assert paired(tmp_path, unscored=[3]).score_map[:5] == [0, 1, 2, 255, 255]
    assert paired(tmp_path, scored=[255, 0, 1, 255]).score_map[:5] == [255, 0, 1, 255, 255]


# ---------------------------------------------------------------- what is refused


def wrong_id(root):
    label = ids(1)
    label[:2, :3] = 77
    save(root / "train/input/b.png", label)


def ignored(root):
    label = ids(1)
    label[3] = 255
    save(root / "train/input/b.png", label)


def truncated(root):
    file = root / "train/target/b.png"
    file.write_bytes(file.read_bytes()[:-200])


FAULTS = {  # how the folder is broken, and words that its message must hold
    "id out of range": (wrong_id, ("b.png", "77 (6 px)", "0..3", "dataset.classes", "dataset.ignore")),
    "255 without ignore": (ignored, ("b.png", "255 (16 px)", "0..3", "dataset.ignore")),
    "0/255 mask": (
        lambda root: save(root / "train/input/b.png", ids(1, classes=2) * 255),
        ("b.png", "255 (", "0/255 mask", "dataset.labels=false"),
    ),
    "RGB mask": (
        lambda root: save(root / "train/input/b.png", photo(1)),
        ("b.png", "RGB", "dataset.palette", "dataset.labels=false"),
    ),
    "JPEG label": (
        lambda root: ((root / "train/input/b.png").unlink(), save(root / "train/input/b.jpg", ids(1))),
        ("b.jpg", "JPEG", "PNG"),
    ),
    "JPEG that is called PNG": (
        lambda root: save(root / "train/input/b.png", ids(1), format="JPEG"),
        ("b.png", "JPEG", "compression"),
    ),
    "truncated image": (truncated, ("target/b.png", "cannot be decoded", "truncated")),
    "no image at all": (
        lambda root: (root / "train/target/b.png").write_text("<html>"),
        ("target/b.png", "cannot be decoded", "cannot identify"),
    ),
    "16-bit photo": (
        lambda root: save(root / "train/target/b.png", ids(1).astype(np.uint16) * 999),
        ("target/b.png", "more than 8 bits"),
    ),
    "missing partner": (
        lambda root: (root / "train/target/b.png").rename(root / "train/target/x.png"),
        ("1 in input without target (b)", "1 in target without input (x)", "same name"),
    ),
    "empty folder": (
        lambda root: [file.unlink() for file in find_images(root / "train/input").values()],
        ("input", "holds no images"),
    ),
    "folder of another name": (
        lambda root: (root / "train/input").rename(root / "train/labels"),
        ("input: no such folder", "labels, target"),
    ),
    "two files of one name": (
        lambda root: save(root / "train/target/b.jpg", photo(1)),
        ("same name as b.", "remove one"),
    ),
    "another shape": (
        lambda root: save(root / "train/target/b.png", photo(1, 12, 20)),
        ("b.png: is 20x12", "input/b.png is 16x12", "ratio"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_names_file_finding_and_cure(tmp_path, fault):
    damage, words = FAULTS[fault]
    damage(make(tmp_path))
    message = error_of(lambda: paired(tmp_path).verify())
    assert all(word in message for word in words), message


def test_all_faults_read_differently(tmp_path):
    messages = set()
    for number, (damage, _) in enumerate(FAULTS.values()):
        root = make(tmp_path / str(number))
        damage(root)
        messages.add(error_of(lambda root=root: paired(root).verify()).replace(str(root), ""))
    assert len(messages) == len(FAULTS)


@pytest.mark.parametrize("fault", ["RGB mask", "JPEG label", "no image at all", "missing partner", "another shape"])
def test_headers_and_partners_are_checked_before_any_pixel(tmp_path, fault):
    FAULTS[fault][0](make(tmp_path))
    error_of(paired, tmp_path)


@pytest.mark.parametrize("fault", ["id out of range", "truncated image"])
def test_a_bad_pixel_is_found_at_its_item_where_verify_did_not_look(tmp_path, fault):
    damage, words = FAULTS[fault]
    damage(make(tmp_path))
    data = paired(tmp_path)
    data.verify(limit=2)  # three items: too many to decode all
    data[0]
    assert words[0] in error_of(data.__getitem__, 1)


def test_long_lists_are_cut_short(tmp_path):
    make(tmp_path, names=[f"n{i:02d}" for i in range(15)])
    for file in find_images(tmp_path / "train/target").values():
        file.rename(file.with_name(f"other_{file.name}"))
    message = error_of(paired, tmp_path)
    assert "15 in input without target (n00, " in message and "n09, ...)" in message and "n10" not in message
    save(tmp_path / "val/input/a.png", np.arange(12 * 16, dtype=np.uint8).reshape(12, 16))
    save(tmp_path / "val/target/a.png", photo())
    assert "and 183 more" in error_of(paired(tmp_path, split="val").verify)


def test_an_unknown_colour_is_named(tmp_path):
    make(tmp_path, names=["a"])
    pixels = np.array([RED, GREEN], np.uint8)[ids(0, classes=2)]
    pixels[0, 0] = (1, 2, 3)
    save(tmp_path / "train/input/a.png", pixels)
    palette = tmp_path / "palette.txt"
    palette.write_text(f"0 {' '.join(map(str, RED))}\n1 {' '.join(map(str, GREEN))}\n")
    message = error_of(paired(tmp_path, palette=palette).verify)
    assert "a.png" in message and "1,2,3 (1 px)" in message and "dataset.palette" in message


def test_a_palette_beyond_the_classes_is_found(tmp_path):
    make(tmp_path, names=["a"])
    save(tmp_path / "train/input/a.png", np.array([RED, GREEN], np.uint8)[ids(0, classes=2)])
    palette = tmp_path / "palette.txt"
    palette.write_text(f"0 {' '.join(map(str, RED))}\n9 {' '.join(map(str, GREEN))}\n")
    assert "label ids 9 (" in error_of(paired(tmp_path, palette=palette).verify)


def test_impossible_settings_name_their_key(tmp_path):
    make(tmp_path, names=["a"])
    assert "dataset.classes" in error_of(paired, tmp_path, classes=None)
    assert "dataset.instance" in error_of(paired, tmp_path, labels=False, instance=True)
    assert "dataset.size" in error_of(paired, tmp_path, size=64)
    assert "dataset.load_size" in error_of(paired, tmp_path, augment=True, load_size=(8, 8))
    assert "instance: no such folder" in error_of(paired, tmp_path, instance=True)
    np.save(tmp_path / "train/input/a.npy", np.zeros((12, 16, 4), np.float32))
    (tmp_path / "train/input/a.png").unlink()
    assert "float32 (12, 16, 4)" in error_of(paired, tmp_path, labels=False)
    np.save(tmp_path / "train/input/a.npy", np.zeros((12, 16, 4), np.uint8))
    assert "dataset.labels=false" in error_of(paired, tmp_path)
    assert "wanted 7" in error_of(paired, tmp_path, labels=False, channels=7)


def test_an_instance_map_of_another_size_is_refused(tmp_path):
    make(tmp_path, names=["a"], instance=True)
    save(tmp_path / "train/instance/a.png", ids(0, 24, 32).astype(np.uint16))
    assert "is 32x24, its label map 16x12" in error_of(paired(tmp_path, instance=True).verify)


def test_arrays_of_other_channels_are_refused(tmp_path):
    make(tmp_path, names=["a", "b"])
    for name, channels in (("a", 4), ("b", 5)):
        np.save(tmp_path / f"train/input/{name}.npy", np.zeros((12, 16, channels), np.uint8))
        (tmp_path / f"train/input/{name}.png").unlink()
    message = error_of(paired, tmp_path, labels=False)
    assert "b.npy" in message and "5 channels" in message and "wanted 4" in message


# ---------------------------------------------------------------- manifest


def manifest(root, names, **labels):
    return write_manifest(
        root, dataset="mine", options={"size": None}, source_counts={}, instance=False, image_size=None, dropped=[],
        labels={"kind": "ids", "classes": 4, "ignore": None} | labels, splits={"train": list(names)},
    )  # fmt: skip


def test_a_manifest_is_checked(tmp_path):
    make(tmp_path)
    manifest(tmp_path, ["a", "b", "city/c"])
    paired(tmp_path).verify()
    manifest(tmp_path, ["a", "b", "city/d"])
    message = error_of(paired, tmp_path)
    assert "1 files of manifest.json are missing (city/d)" in message and "(city/c)" in message
    manifest(tmp_path, ["a", "b", "city/c"], classes=5)
    assert "dataset.classes is 4" in error_of(paired, tmp_path)
    manifest(tmp_path, ["a", "b", "city/c"], ignore=255)
    assert "dataset.ignore is None" in error_of(paired, tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 99}', '{"schema": 1, "splits": {}}'])
def test_a_damaged_manifest_is_no_traceback(tmp_path, text):
    make(tmp_path)
    (tmp_path / "manifest.json").write_text(text)
    assert "manifest.json" in error_of(paired, tmp_path) and "prepare.py" in error_of(paired, tmp_path)


# ---------------------------------------------------------------- sources alone


def test_inputs_take_a_folder_a_file_or_a_pattern(tmp_path):
    make(tmp_path, instance=True)
    split = tmp_path / "train"
    for where in (split, split / "input"):
        data = Inputs(where, classes=4, instance=True)
        assert data.names == ["a", "b", "city/c"] and data.source_channels == 5
        assert set(data[0]) == {"name", "source", "instance"}
    one = Inputs(split / "input/a.png", classes=4)
    assert (
        one.names == ["a"] and np.array_equal(one[0]["source"][0].numpy(), ids(0)) and set(one[0]) == {"name", "source"}
    )
    assert Inputs(str(split / "input/*.png"), classes=4).names == ["a", "b"]
    assert Inputs(str(split / "input/**/*.png"), classes=4).names == ["a", "b", "city/c"]
    assert Inputs(split / "target", labels=False).source_channels == 3


def test_inputs_keep_their_native_sizes(tmp_path):
    save(tmp_path / "a.png", photo(0, 7, 9))
    save(tmp_path / "b.png", ids(0, 20, 11))
    data = Inputs(tmp_path, labels=False, channels=3)
    assert [tuple(data[i]["source"].shape) for i in range(2)] == [(3, 7, 9), (3, 20, 11)]


def test_inputs_refuse_like_training_does(tmp_path):
    make(tmp_path, names=["a"])
    split = tmp_path / "train"
    assert "no such folder, file or pattern" in error_of(Inputs, tmp_path / "none", classes=4)
    assert "dataset.palette" in error_of(Inputs, split / "target", classes=4)
    assert "FOLDER/instance" in error_of(Inputs, split, classes=4, instance=True)
    assert "outside 0..1" in error_of(Inputs(split, classes=2).__getitem__, 0)
    save(split / "target/a.jpg", photo())
    assert "same name" in error_of(Inputs, str(split / "target/*"), labels=False)


# ---------------------------------------------------------------- configs


@pytest.mark.parametrize("file", sorted((CONFIGS / "dataset").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_config_fits_its_constructor(file):
    cfg = OmegaConf.load(file)
    accepted = inspect.signature(get_object(cfg._target_)).parameters
    keys = {key for key in cfg if not key.startswith("_")}
    assert keys <= set(accepted) and cfg._partial_ is True
    assert set(accepted) - keys == {"split", "augment"}  # every setting is a key that a user may override


def test_configs_build(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    make(tmp_path / "folder", instance=True)
    cfg = OmegaConf.load(CONFIGS / "dataset/folder.yaml")
    cfg.merge_with({"name": "mine", "classes": 4, "size": [8, 8], "unscored": [1]})
    data = instantiate(cfg)(split="train", augment=True)
    assert data[0, 1]["source"].shape == (1, 8, 8) and data.score_map[:4] == [0, 255, 2, 3]
    shapes = instantiate(OmegaConf.load(CONFIGS / "dataset/shapes.yaml"))(split="val", augment=False)
    assert len(shapes) == 100 and shapes[0]["source"].shape == (1, 64, 64)


def test_configs_hold_the_papers_settings():
    cityscapes, ade20k, camvid = (
        OmegaConf.load(CONFIGS / f"dataset/{name}.yaml") for name in ("cityscapes", "ade20k", "camvid")
    )
    assert list(cityscapes.scored) == CITYSCAPES_TRAIN_IDS
    assert (cityscapes.classes, cityscapes.instance, list(cityscapes.size), cityscapes.ignore) == (
        35,
        True,
        [256, 512],
        None,
    )
    assert (ade20k.classes, ade20k.ignore, list(ade20k.load_size), list(ade20k.size)) == (
        150,
        255,
        [286, 286],
        [256, 256],
    )
    assert (camvid.classes, list(camvid.unscored), list(camvid.size)) == (12, [11], [96, 128])


@pytest.mark.parametrize("slow", [-1.0, 1e9], ids=["slow disk", "cache"])
def test_headers_come_in_order_however_long_the_disk_takes(tmp_path, monkeypatch, slow):
    monkeypatch.setattr(files, "BLOCK", 2)
    monkeypatch.setattr(files, "SLOW", slow)
    found = {str(side): tmp_path / f"{side}.png" for side in range(1, 40)}
    for side, file in found.items():
        Image.new("L", (int(side), 3)).save(file)
    assert [header.size for header in files.read_headers(found, found)] == [(3, side) for side in range(1, 40)]
    for broken in ("30", "20"):
        found[broken].write_bytes(b"")
    with pytest.raises(UserError, match=r"20\.png"):
        files.read_headers(found, found)
