"""Official downloads into the one layout, on miniature raw trees that the test draws itself."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from data.folders import MissingSplit, Paired
from data.manifest import names_hash
from data.prepare import layout
from data.unpaired import Unpaired
from errors import UserError
from prepare import prepare, write_synthetic

ROOT = Path(__file__).resolve().parents[1]
CAMVID = ROOT.parent / "shared" / "data" / "camvid"
RAW_SPLITS = {"camvid": ("train", "val"), "cityscapes": ("train", "val"), "ade20k": ("training", "validation")}


def save(file, pixels, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **options)


def photo(seed, height=8, width=12):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def ids(seed, classes, height=8, width=12):
    return np.random.default_rng(seed).integers(0, classes, (height, width)).astype(np.uint8)


def camvid(raw):
    for split, count in (("train", 21), ("val", 4)):
        for i in range(count):
            save(raw / split / "images" / f"{split}_{i:03d}.jpg", photo(i), quality=95)
            save(raw / split / "labels" / f"{split}_{i:03d}.png", ids(i, 12))
    return raw


def cityscapes(raw):
    for split, cities in (("train", ("aachen", "ulm")), ("val", ("lindau",))):
        for number, city in enumerate(cities):
            for i in range(2):
                stem = f"{city}/{city}_00000{i}_000019"
                seed = number * 10 + i
                save(raw / "leftImg8bit" / split / f"{stem}_leftImg8bit.png", photo(seed))
                save(raw / "gtFine" / split / f"{stem}_gtFine_labelIds.png", ids(seed, 34))
                save(raw / "gtFine" / split / f"{stem}_gtFine_instanceIds.png", ids(seed, 34).astype(np.uint16) * 1000)
                save(raw / "gtFine" / split / f"{stem}_gtFine_color.png", photo(seed))
    return raw


def ade20k(raw):
    for split, short in (("training", "train"), ("validation", "val")):
        for i in range(3):
            name = f"ADE_{short}_{i:08d}"
            save(raw / "images" / split / f"{name}.jpg", photo(i))
            save(raw / "annotations" / split / f"{name}.png", ids(i, 151))
    return raw


TREES = {"camvid": camvid, "cityscapes": cityscapes, "ade20k": ade20k}
A_LABEL = {
    "camvid": "train/labels/train_005.png",
    "cityscapes": "gtFine/train/ulm/ulm_000001_000019_gtFine_labelIds.png",
    "ade20k": "annotations/training/ADE_train_00000001.png",
}
A_PHOTO = {
    "camvid": "train/images/train_005.jpg",
    "cityscapes": "leftImg8bit/train/ulm/ulm_000001_000019_leftImg8bit.png",
    "ade20k": "images/training/ADE_train_00000001.jpg",
}


def run(dataset, raw, out, **options):
    """The command's function; miniature trees have fewer pairs than the official release."""
    words = [f"dataset={dataset}", f"raw={raw}", f"out={out}", "workers=2"]
    words += [f"{key}={value}" for key, value in ({"allow_partial": "true"} | options).items()]
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        return prepare(compose("prepare", words))


def error_of(*arguments, **options):
    with pytest.raises(UserError) as caught:
        run(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def content(folder):
    return {
        str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes())
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_camvid(tmp_path):
    manifest = run("camvid", camvid(tmp_path / "raw"), tmp_path / "out")
    counts = {split: record["count"] for split, record in manifest["splits"].items()}
    assert counts == {"train": 18, "val": 3, "test": 4} and manifest["source_counts"] == {"train": 21, "val": 4}
    assert manifest["splits"]["val"]["names"] == ["train_000", "train_010", "train_020"]
    data = Paired("train", False, name="camvid", root=tmp_path / "out", size=(8, 12), classes=12)
    data.verify()
    item = data[data.names.index("train_005")]
    assert np.array_equal(item["source"][0].numpy(), ids(5, 12))
    raw = (tmp_path / "raw/train/images/train_005.jpg").read_bytes()
    assert (tmp_path / "out/train/target/train_005.jpg").read_bytes() == raw  # copied, not encoded again


def test_camvid_as_segnet_distributes_it(tmp_path):
    ours = camvid(tmp_path / "ours")
    for split in ("train", "val"):
        (tmp_path / "raw").mkdir(exist_ok=True)
        (ours / split / "images").rename(tmp_path / "raw" / split)
        (ours / split / "labels").rename(tmp_path / "raw" / f"{split}annot")
    manifest = run("camvid", tmp_path / "raw", tmp_path / "out")
    assert {split: record["count"] for split, record in manifest["splits"].items()} == {
        "train": 18,
        "val": 3,
        "test": 4,
    }


def test_cityscapes(tmp_path):
    manifest = run("cityscapes", cityscapes(tmp_path / "raw"), tmp_path / "out")
    assert set(manifest["splits"]) == {"train", "test"}  # the papers evaluate on the official val
    settings = {"name": "cityscapes", "root": tmp_path / "out", "size": (8, 12), "classes": 35, "instance": True}
    data = Paired("train", False, **settings)
    data.verify()
    assert data.names[-1] == "ulm_000001_000019" and data.source_channels == 36
    assert np.array_equal(data[3]["source"][0].numpy(), ids(11, 34))
    assert np.array_equal(data[3]["instance"][0].numpy(), ids(11, 34).astype(int) * 1000)
    with pytest.raises(MissingSplit):
        Paired("val", False, **settings)


def test_ade20k(tmp_path):
    raw = ade20k(tmp_path / "raw" / "ADEChallengeData2016").parent
    grey = raw / "ADEChallengeData2016/images/validation/ADE_val_00000000.jpg"
    save(grey, ids(3, 256))
    manifest = run("ade20k", raw, tmp_path / "out")
    assert manifest["labels"] == {"kind": "ids", "classes": 150, "ignore": 255}
    data = Paired("test", False, name="ade20k", root=tmp_path / "out", size=(8, 12), classes=150, ignore=255)
    data.verify()
    stored = ids(0, 151).astype(int)
    assert np.array_equal(data[0]["source"][0].numpy(), np.where(stored == 0, 255, stored - 1))
    assert Image.open(tmp_path / "out/test/target/ADE_val_00000000.png").mode == "RGB"


def test_sizes_can_be_settled_once(tmp_path):
    raw = cityscapes(tmp_path / "raw")
    manifest = run("cityscapes", raw, tmp_path / "out", size="[4,6]")
    assert manifest["image_size"] == [4, 6]
    settings = {"name": "cityscapes", "size": (4, 6), "classes": 35, "instance": True}
    once = Paired("test", False, root=tmp_path / "out", **settings)
    run("cityscapes", raw, tmp_path / "whole")
    later = Paired("test", False, root=tmp_path / "whole", **settings)
    for key in ("source", "target", "instance"):
        assert np.array_equal(once[0][key], later[0][key]), key
    assert "size=[4, 6], not of cityscapes with size=None" in error_of("cityscapes", raw, tmp_path / "out")


@pytest.mark.parametrize("dataset", TREES)
def test_the_manifest_is_complete_and_true(tmp_path, dataset):
    returned = run(dataset, TREES[dataset](tmp_path / "raw"), tmp_path / "out")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest == returned and manifest["schema"] == 1 and manifest["dataset"] == dataset
    assert manifest["dropped"] == [] and manifest["image_size"] == [8, 12]
    for split, record in manifest["splits"].items():
        names = sorted(file.stem for file in (tmp_path / "out" / split / "input").iterdir())
        assert names == record["names"] and len(names) == record["count"] and names_hash(names) == record["sha256"]


@pytest.mark.parametrize("dataset", TREES)
def test_again_changes_nothing_and_the_source_is_never_touched(tmp_path, dataset):
    raw, out = TREES[dataset](tmp_path / "raw"), tmp_path / "out"
    source = content(raw)
    run(dataset, raw, out)
    made = content(out)
    assert not [name for name in made if name.endswith(".tmp")]
    run(dataset, raw, out)
    again = content(out)
    manifest = made.pop("manifest.json")[1]
    assert again.pop("manifest.json")[1] == manifest and again == made and content(raw) == source


def test_it_goes_on_after_a_crash(tmp_path):
    raw, out = camvid(tmp_path / "raw"), tmp_path / "out"
    run("camvid", raw, out)
    whole = {name: data for name, (_, data) in content(out).items()}
    (out / "train/input/train_005.png").unlink()
    (out / "train/target/train_006.jpg").write_bytes(b"half a fi")
    with pytest.raises(UserError, match=r"train_005|1 in target without input"):
        Paired("train", False, name="camvid", root=out, size=(8, 12), classes=12)
    run("camvid", raw, out)
    assert {name: data for name, (_, data) in content(out).items()} == whole


def test_a_changed_source_is_written_again(tmp_path):
    raw, out = camvid(tmp_path / "raw"), tmp_path / "out"
    run("camvid", raw, out)
    label, made = raw / "train/labels/train_005.png", out / "train/input/train_005.png"
    save(label, ids(99, 12))
    os.utime(label, ns=(made.stat().st_mtime_ns + 10**9,) * 2)
    run("camvid", raw, out)
    assert np.array_equal(np.array(Image.open(made)), ids(99, 12))


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("dataset", TREES)
def test_too_few_pairs_and_another_tree_are_refused(tmp_path, dataset):
    raw = TREES[dataset](tmp_path / "raw")
    message = error_of(dataset, raw, tmp_path / "out", allow_partial="false")
    assert RAW_SPLITS[dataset][0] in message and "official release has" in message and "allow_partial=true" in message
    (tmp_path / "other").mkdir()
    assert "lacks" in error_of(dataset, tmp_path / "other", tmp_path / "out")
    assert "no such folder" in error_of(dataset, tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def delete(file):
    file.unlink()


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def paint(file):
    pixels = np.array(Image.open(file))
    pixels[0, :3] = 201
    save(file, pixels)


def flatten(file):
    save(file, np.full((8, 12, 3), 90, np.uint8))


def shrink(file):
    save(file, photo(0, 8, 10))


DAMAGE = {
    "lost partner": (delete, A_PHOTO, "has no"),
    "truncated": (truncate, A_PHOTO, "cannot be decoded"),
    "truncated label": (truncate, A_LABEL, "cannot be decoded"),
    "wrong id": (paint, A_LABEL, "label ids 201 (3 px) are outside 0.."),
    "one colour": (flatten, A_PHOTO, "one colour"),
    "another size": (shrink, A_PHOTO, "is 10x8, its label map 12x8"),
}


@pytest.fixture
def small(monkeypatch):
    """Lets the miniature trees be the official releases."""
    import prepare as command

    def finder(find):
        def found(raw, allow_partial):
            plan = find(raw, allow_partial)
            plan.expected.clear()
            return plan

        return found

    monkeypatch.setattr(command, "FINDERS", {name: finder(find) for name, find in command.FINDERS.items()})


@pytest.mark.parametrize("dataset", TREES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_every_damage_names_file_and_cure(tmp_path, small, dataset, damage):
    raw, out = TREES[dataset](tmp_path / "raw"), tmp_path / "out"
    act, files, words = DAMAGE[damage]
    act(raw / files[dataset])
    message = error_of(dataset, raw, out, allow_partial="false")
    name = Path(A_PHOTO[dataset]).stem.removesuffix("_leftImg8bit")
    assert name in message and words in message and "allow_partial=true" in message
    manifest = run(dataset, raw, out, allow_partial="true")  # the pair is left out, and listed
    assert [record["name"] for record in manifest["dropped"]] == [name]
    settings = manifest["labels"]
    split = next(iter(manifest["splits"]))
    data = Paired(
        split, False, name=dataset, root=out, size=(8, 12), classes=settings["classes"], ignore=settings["ignore"]
    )
    data.verify()
    assert name not in data.names


def test_a_half_made_folder_is_refused_by_the_reader(tmp_path, small):
    raw, out = camvid(tmp_path / "raw"), tmp_path / "out"
    truncate(raw / A_LABEL["camvid"])
    truncate(raw / "train/labels/train_007.png")
    assert "(2 of 25 pairs are bad;" in error_of("camvid", raw, out, allow_partial="false")
    with pytest.raises(UserError, match=r"2 files of manifest\.json are missing \(train_005, train_007\)"):
        Paired("train", False, name="camvid", root=out, size=(8, 12), classes=12)


def test_foreign_files_and_folders_are_refused(tmp_path):
    raw, out = camvid(tmp_path / "raw"), tmp_path / "out"
    for place in (raw, raw / "out", tmp_path):
        assert f"out={place}: overlaps raw={raw}" in error_of("camvid", raw, place)
    run("camvid", raw, out)
    assert "is of camvid" in error_of("ade20k", ade20k(tmp_path / "other"), out)
    save(out / "val/input/stranger.png", ids(0, 12))
    assert "stranger" in error_of("camvid", raw, out)


def test_files_that_are_not_ours_are_never_written_over(tmp_path):
    raw, out = camvid(tmp_path / "raw"), tmp_path / "out"
    save(out / "train/target/train_007.png", photo(99))
    kept = (out / "train/target/train_007.png").read_bytes()
    assert "holds train_007, which prepare.py did not write" in error_of("camvid", raw, out)
    assert (out / "train/target/train_007.png").read_bytes() == kept and len(list(out.rglob("*.*"))) == 1


def test_twice_at_once_is_as_good_as_once(tmp_path):
    raw, out = camvid(tmp_path / "raw"), tmp_path / "out"
    wanted = run("camvid", raw, tmp_path / "other")
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        cfg = compose("prepare", ["dataset=camvid", f"raw={raw}", f"out={out}", "allow_partial=true"])
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(prepare, [cfg] * 4))
    assert all(manifest == wanted for manifest in made)
    for path in (tmp_path / "other").rglob("*.*"):
        assert (out / path.relative_to(tmp_path / "other")).read_bytes() == path.read_bytes()
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]


def test_another_data_set_at_once_in_the_same_folder_is_refused(tmp_path, monkeypatch):
    """It began between this run's first look and its end."""
    raw, out = camvid(tmp_path / "raw"), tmp_path / "out"
    strangers = layout._check_strangers

    def meanwhile(folder, items):
        strangers(folder, items)
        manifest = json.loads((out / "manifest.json").read_text())
        (out / "manifest.json").write_text(json.dumps({**manifest, "dataset": "gta"}))

    monkeypatch.setattr(layout, "_check_strangers", meanwhile)
    assert "is of gta with" in error_of("camvid", raw, out)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    raw, out = camvid(tmp_path / "raw"), tmp_path / "file"
    out.write_text("")
    assert "cannot be written" in error_of("camvid", raw, out)


def test_synthetic_raw_trees_are_not_mixed_with_others(tmp_path):
    (tmp_path / "camvid").mkdir()
    with pytest.raises(UserError, match="camvid is there already; choose another out"):
        write_synthetic(tmp_path)


def test_one_name_in_two_splits_is_refused(tmp_path):
    raw = camvid(tmp_path / "raw")
    save(raw / "val/images/train_003.jpg", photo(0))
    save(raw / "val/labels/train_003.png", ids(0, 12))
    assert "train_003" in error_of("camvid", raw, tmp_path / "out")


def test_settings_are_checked(tmp_path):
    assert "nothing to prepare" in error_of("shapes", tmp_path, tmp_path)


def test_the_command_ends_in_one_line_and_an_exit_code(tmp_path):
    command = [sys.executable, "prepare.py", "dataset=camvid", f"raw={tmp_path / 'none'}", f"out={tmp_path / 'out'}"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1
    assert "none: no such folder; `python prepare.py --help` says" in ended.stderr


# ---------------------------------------------------------------- without pairs


def recordings(raw):
    """12 frames by day of two recordings and 24 at dusk; 3 more by day in the raw val."""
    names = [f"0016E5_{i:05d}" for i in range(8)] + [f"0006R0_f{i:05d}" for i in range(4)]
    names += [f"0001TP_{i:06d}" for i in range(24)]
    for split, listed in (("train", names), ("val", [f"0016E5_{i:05d}" for i in range(50, 53)])):
        for seed, name in enumerate(listed):
            save(raw / split / "images" / f"{name}.jpg", photo(seed), quality=95)
            save(raw / split / "labels" / f"{name}.png", ids(seed, 12))
    return raw


def dusk(root, split="train"):
    return Unpaired(split, False, name="camvid_dusk", root=root, size=(8, 12), classes=12, unscored=[11])


def test_camvid_dusk(tmp_path, capsys):
    raw, out = recordings(tmp_path / "raw"), tmp_path / "out"
    manifest = run("camvid_dusk", raw, out)
    assert "train 20, val 4, test 15 images in" in capsys.readouterr().out
    assert not manifest["paired"] and manifest["source_counts"] == {"train": 36, "val": 3}
    assert manifest == json.loads((out / "manifest.json").read_text())
    sides = {split: (dusk(out, split).names, dusk(out, split).real_names) for split in ("train", "val", "test")}
    day = sorted(file.stem for file in (raw / "train/images").iterdir() if not file.stem.startswith("0001TP"))
    assert sides["val"] == ([day[0], day[10]], ["0001TP_000000", "0001TP_000010"])
    assert sides["test"][0] == [f"0016E5_{i:05d}" for i in range(50, 53)]
    assert sides["test"][1] == [f"0001TP_{i:06d}" for i in range(12, 24)]
    assert sides["train"][0] == [name for name in day if name not in sides["val"][0]]
    assert sides["train"][1] == [f"0001TP_{i:06d}" for i in range(1, 12) if i != 10]
    for split, (names, reals) in sides.items():
        listed = [f"A/{name}" for name in names] + [f"B/{name}" for name in reals]
        assert sorted(listed) == manifest["splits"][split]["names"]
        dusk(out, split).verify()
    assert np.array_equal(dusk(out, "test").sources()[1]["label"][0], ids(1, 12))
    photos = [folder / "0016E5_00051.jpg" for folder in (raw / "val/images", out / "test/A")]
    assert photos[0].read_bytes() == photos[1].read_bytes()  # copied, not encoded again
    assert not (out / "test/labels/0001TP_000012.png").exists()


def test_camvid_dusk_again_and_after_damage(tmp_path, small):
    raw, out = recordings(tmp_path / "raw"), tmp_path / "out"
    source = content(raw)
    run("camvid_dusk", raw, out)
    made = content(out)
    run("camvid_dusk", raw, out)
    again = content(out)
    manifest = made.pop("manifest.json")[1]
    assert again.pop("manifest.json")[1] == manifest and again == made and content(raw) == source
    (out / "train/B/0001TP_000001.jpg").unlink()
    with pytest.raises(UserError, match=r"1 files of manifest\.json are missing \(B/0001TP_000001\)"):
        dusk(out)
    truncate(raw / "train/images/0001TP_000001.jpg")
    assert "(1 of 39 images are bad;" in error_of("camvid_dusk", raw, out, allow_partial="false")
    manifest = run("camvid_dusk", raw, out)
    assert [record["name"] for record in manifest["dropped"]] == ["B/0001TP_000001"]
    dusk(out).verify()
    save(out / "train/labels/stranger.png", ids(0, 12))
    assert "labels: 1 files do not belong here (stranger)" in error_of("camvid_dusk", raw, out)


def test_camvid_dusk_wants_names_of_known_recordings(tmp_path):
    raw = recordings(tmp_path / "raw")
    save(raw / "train/images/Seq05VD_f00000.jpg", photo(0))
    save(raw / "train/labels/Seq05VD_f00000.png", ids(0, 12))
    message = error_of("camvid_dusk", raw, tmp_path / "out")
    assert "(Seq05VD_f00000)" in message and "0016E5, 0006R0, 0001TP" in message
    assert not (tmp_path / "out").exists()


def test_pairs_may_be_read_without_regard_to_pairs(tmp_path):
    run("camvid", camvid(tmp_path / "raw"), tmp_path / "out")
    settings = {"name": "mine", "root": tmp_path / "out", "size": (8, 12), "source": "input", "target": "target"}
    data = Unpaired("train", True, colors="camvid", classes=12, **settings)
    data.verify()
    assert len(data) == 18
    with pytest.raises(UserError, match=r"says classes 12, dataset\.classes is 13"):
        Unpaired("train", True, colors="camvid", classes=13, **settings)
    (tmp_path / "out/train/target/train_005.jpg").unlink()
    with pytest.raises(UserError, match=r"missing \(train_005\)"):
        Unpaired("train", True, colors="camvid", classes=12, **settings)


@pytest.mark.skipif(not CAMVID.is_dir(), reason=f"no CamVid at {CAMVID}")
def test_real_camvid_dusk(tmp_path):
    manifest = run("camvid_dusk", CAMVID, tmp_path / "out", allow_partial="false")
    sides = {
        split: [sum(name.startswith(side) for name in record["names"]) for side in ("A/", "B/")]
        for split, record in manifest["splits"].items()
    }
    assert sides == {"train": [274, 45], "val": [31, 5], "test": [101, 12]}
    data = dusk(tmp_path / "out", "test")
    day, dark = (
        np.mean([side[index][key].float().mean() for index in range(12)])
        for side, key in ((data.sources(), "source"), (data.reals(), "target"))
    )
    assert dark < day  # the right recordings on the right sides


@pytest.mark.skipif(not CAMVID.is_dir(), reason=f"no CamVid at {CAMVID}")
def test_real_camvid(tmp_path):
    manifest = run("camvid", CAMVID, tmp_path / "out", allow_partial="false")
    splits = {split: set(record["names"]) for split, record in manifest["splits"].items()}
    assert {split: len(names) for split, names in splits.items()} == {"train": 330, "val": 37, "test": 101}
    assert not splits["train"] & splits["val"] | splits["test"] & (splits["train"] | splits["val"])
    assert manifest["image_size"] == [192, 256]
    data = Paired("test", False, name="camvid", root=tmp_path / "out", size=(96, 128), classes=12, unscored=[11])
    data.verify()
    item = data[0]
    assert item["source"].max() <= 11 and item["target"].float().std() > 20
