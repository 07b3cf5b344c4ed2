"""Every official download in miniature, written by code that knows nothing of the readers, through prepare.py."""

import ast
import functools
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.folders import Paired
from data.prepare import synthetic
from data.unpaired import Unpaired
from engine.build import build_dataset
from errors import UserError
from prepare import DOWNLOADS, FINDERS, prepare
from tests.compose import config
from tests.prepared import content, error_of, run, truncate

ROOT = Path(__file__).resolve().parents[1]
TREES = {  # raw tree that a data set is made of, by data set
    "camvid": "camvid",
    "camvid_dusk": "camvid",
    "cityscapes": "cityscapes",
    "cityscapes_unpaired": "cityscapes_unpaired",
    "gta": "gta",
    "ade20k": "ade20k",
    "nyu_depth": "nyu_depth",
    "horse2zebra": "horse2zebra",
    "winter2summer": "winter2summer",
}
COUNTS = {
    "camvid": {"train": 32, "val": 4, "test": 4},
    "camvid_dusk": {"train": 20, "val": 4, "test": 16},
    "cityscapes": {"train": 8, "test": 4},
    "cityscapes_unpaired": {"train": 16, "test": 8},
    "gta": {"train": 8, "test": 4},
    "ade20k": {"train": 8, "test": 4},
    "nyu_depth": {"train": 12, "test": 3},
    "horse2zebra": {"train": 13, "test": 7},
    "winter2summer": {"train": 11, "test": 7},
}
CITY = "{}/train/ulm/ulm_000001_000019_{}.png"
PHOTO = {
    "camvid": "train/images/0016E5_00003.png",
    "camvid_dusk": "train/images/0016E5_00003.png",
    "cityscapes": CITY.format("leftImg8bit", "leftImg8bit"),
    "cityscapes_unpaired": CITY.format("leftImg8bit", "leftImg8bit"),
    "gta": "images/00002.png",
    "ade20k": "ADEChallengeData2016/images/training/ADE_train_00000003.jpg",
    "horse2zebra": "trainA/n02381460_3.jpg",
    "winter2summer": "trainA/2011-01-03 12_30_03.jpg",
}
LABEL = {
    "camvid": "train/labels/0016E5_00003.png",
    "camvid_dusk": "train/labels/0016E5_00003.png",
    "cityscapes": CITY.format("gtFine", "gtFine_labelIds"),
    "cityscapes_unpaired": CITY.format("gtFine", "gtFine_labelIds"),
    "gta": "labels/00002.png",
    "ade20k": "ADEChallengeData2016/annotations/training/ADE_train_00000003.png",
}


@pytest.fixture(scope="session")
def trees(tmp_path_factory):
    """All raw trees, which tests only read."""
    out = tmp_path_factory.mktemp("synthetic")
    folders = prepare(config("dataset=synthetic", f"out={out}", name="prepare"))
    if "nyu_depth" not in folders:
        pytest.skip("h5py is not installed: requirements-data.txt")
    return out


@pytest.fixture
def official(trees, monkeypatch):
    """Makes the counts of the miniature trees the official ones, so that nothing but damage is refused."""

    def finder(name, find):
        @functools.wraps(find)
        def found(raw, allow_partial, **options):
            plan = find(raw, allow_partial, **options)
            plan.expected = find(trees / TREES[name], True, **options).source_counts
            return plan

        return found

    for name in TREES:
        monkeypatch.setitem(FINDERS, name, finder(name, FINDERS[name]))
    return trees


def copy(tree, tmp_path):
    """A raw tree to damage."""
    return Path(shutil.copytree(tree, tmp_path / "raw"))


def dataset(name, root, split="train", augment=False):
    """The reader of a data set's own config, at 64 pixels a side."""
    cfg = config(f"dataset={name}", f"dataset.root='{root}'", "dataset.size=[64,64]", "dataset.load_size=null")
    return build_dataset(cfg, split, augment)


def test_the_writers_share_nothing_with_the_readers():
    for file in (ROOT / "data/prepare/synthetic").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            module = node.module if isinstance(node, ast.ImportFrom) else ""
            ours = (module or "").split(".")[0] in ("data", "engine", "models", "losses", "metrics")
            assert not ours or module.startswith("data.prepare.synthetic"), f"{file.name} imports {module}"


def test_the_same_seed_writes_the_same_trees(trees, tmp_path):
    prepare(config("dataset=synthetic", f"out={tmp_path}", name="prepare"))
    one, other = (
        {name: data for name, (_, data) in content(folder).items() if not name.endswith(".mat")}  # those bear a date
        for folder in (trees, tmp_path)
    )
    assert one == other and len(one) > 200
    assert {tree.name for tree in trees.iterdir()} >= set(TREES.values())


@pytest.mark.parametrize("name", TREES)
def test_every_tree_is_brought_into_the_layout(trees, tmp_path, name):
    raw, out = trees / TREES[name], tmp_path / "out"
    source = content(raw)
    manifest = run(name, raw, out)
    counts = {split: record["count"] for split, record in manifest["splits"].items()}
    assert counts == COUNTS[name] and manifest["dataset"] == name
    for split in counts:
        dataset(name, out, split).verify()
    made = content(out)
    assert run(name, raw, out) == manifest
    assert content(out).keys() == made.keys()
    assert {file: made[file] for file in made if file != "manifest.json"} == {
        file: data for file, data in content(out).items() if file != "manifest.json"
    }
    assert content(raw) == source


@pytest.mark.parametrize("name", TREES)
def test_miniature_counts_are_not_the_official_ones(trees, tmp_path, name):
    message = error_of(name, trees / TREES[name], tmp_path / "out", allow_partial="false")
    assert "the official release has" in message and "allow_partial=true" in message
    assert not (tmp_path / "out").exists()


def delete(file):
    file.unlink()


def paint(file, label):
    """Three pixels of another id; a palette stays."""
    image = Image.open(file)
    pixels = np.array(image)
    pixels[0, :3] = label
    changed = Image.fromarray(pixels)
    if image.mode == "P":
        changed.putpalette(image.getpalette())
    changed.save(file)


def turn(file):
    """Width and height change places."""
    turned = Image.open(file).transpose(Image.Transpose.ROTATE_90)
    turned.save(file, **({"quality": 95} if file.suffix == ".jpg" else {}))


def shrink(file):
    image = Image.open(file)
    image.crop((0, 0, image.width, image.height // 2)).save(file)


@pytest.mark.parametrize("name", [name for name in TREES if name in LABEL])
def test_four_faults_of_pairs_give_four_errors(official, tmp_path, name):
    label = 177 if name == "ade20k" else 77  # of which ADE20K has one
    faults = {
        "has no": (delete, PHOTO[name]),
        "cannot be decoded": (truncate, PHOTO[name]),
        f"label ids {label} (3 px) are outside 0..": (lambda file: paint(file, label), LABEL[name]),
        "its label map": (turn, PHOTO[name]),
    }
    key = Path(LABEL[name]).stem.removesuffix("_gtFine_labelIds")
    assert run(name, official / TREES[name], tmp_path / "whole", allow_partial="false")["splits"]
    messages = []
    for number, (words, (damage, file)) in enumerate(faults.items()):
        raw = Path(shutil.copytree(official / TREES[name], tmp_path / f"raw{number}"))
        damage(raw / file)
        messages.append(error_of(name, raw, tmp_path / f"out{number}", allow_partial="false"))
        assert words in messages[-1] and key in messages[-1] and "allow_partial=true" in messages[-1]
        manifest = run(name, raw, tmp_path / f"out{number}")
        assert key in {record["name"].removeprefix("A/").removeprefix("B/") for record in manifest["dropped"]}
        dataset(name, tmp_path / f"out{number}").verify()
    assert len(set(messages)) == 4


@pytest.mark.parametrize("name", ["horse2zebra", "winter2summer"])
def test_three_faults_of_archives_give_three_errors(official, tmp_path, name):
    faults = {
        "raw split trainA: 5 images, the official release has 6": delete,
        "cannot be decoded": truncate,
        "is 256x128, the official release has 256x256": shrink,
    }
    for number, (words, damage) in enumerate(faults.items()):
        raw = Path(shutil.copytree(official / name, tmp_path / f"raw{number}"))
        damage(raw / PHOTO[name])
        assert words in error_of(name, raw, tmp_path / f"out{number}", allow_partial="false")
        assert run(name, raw, tmp_path / f"out{number}")["splits"]["train"]["count"] == COUNTS[name]["train"] - 1


def test_archives_are_copied_and_grey_photos_counted(trees, tmp_path):
    raw = copy(trees / "horse2zebra", tmp_path / "nested") / "horse2zebra"
    shutil.copytree(trees / "horse2zebra", raw)
    manifest = run("horse2zebra", raw.parent, tmp_path / "out")  # the folder that the archive unpacks to lies inside
    assert manifest["grey"] == 1 and not manifest["paired"]
    assert manifest["labels"] == {"kind": "image", "channels": 3}
    photos = [folder / "n02391049_1002.jpg" for folder in (raw / "trainB", tmp_path / "out/train/B")]
    assert photos[0].read_bytes() == photos[1].read_bytes()
    assert Image.open(tmp_path / "out/train/A/n02381460_1.png").mode == "RGB"


def test_archives_are_also_read_as_they_are(trees, tmp_path):
    run("winter2summer", trees / "winter2summer", tmp_path / "out")
    for split in ("train", "test"):
        one, other = (dataset("winter2summer", root, split) for root in (trees / "winter2summer", tmp_path / "out"))
        assert one.names == other.names and one.real_names == other.real_names
        assert np.array_equal(one[0]["source"], other[0]["source"])


# ---------------------------------------------------------------- cityscapes without pairs


def city(root, split="train"):
    return Unpaired(split, False, name="cityscapes_unpaired", root=root, size=(256, 256), classes=35)


def test_labels_become_colours_that_never_blend(trees, tmp_path):
    from data.labels import CITYSCAPES_COLORS, CITYSCAPES_TRAIN_IDS

    raw = trees / "cityscapes"
    manifest = run("cityscapes_unpaired", raw, tmp_path / "out")
    assert manifest["image_size"] == [256, 256] and manifest["options"]["cut_compatible"] is False
    palette = [(0, 0, 0) if at == 255 else CITYSCAPES_COLORS[at] for at in CITYSCAPES_TRAIN_IDS]
    ids = np.array(Image.open(raw / LABEL["cityscapes"]))
    rows = ((np.arange(256) + 0.5) * 64 / 256).astype(int)
    columns = ((np.arange(256) + 0.5) * 128 / 256).astype(int)
    near = ids[rows][:, columns]
    made = np.array(Image.open(tmp_path / "out/train/A/ulm_000001_000019.png"))
    assert np.array_equal(made, np.array(palette, np.uint8)[near])
    assert np.array_equal(np.array(Image.open(tmp_path / "out/train/labels/ulm_000001_000019.png")), near)
    data = city(tmp_path / "out", "test")
    item = data.sources()[0]
    assert item["label"].shape == (1, 256, 256) and data.scored_labels and len(data.real_names) == 4


def test_cut_compatible_colours_blend(trees, tmp_path):
    raw = trees / "cityscapes"
    run("cityscapes_unpaired", raw, tmp_path / "out", cut_compatible="true")
    color = Image.open(raw / "gtFine/train/ulm/ulm_000001_000019_gtFine_color.png").convert("RGB")
    pixels = np.array(color.resize((256, 256), Image.Resampling.BICUBIC)).astype(int)
    made = np.array(Image.open(tmp_path / "out/train/A/ulm_000001_000019.png")).astype(int)
    assert 0 < np.abs(made - pixels).mean() < 2  # JPEG of quality 100
    assert len(np.unique(made.reshape(-1, 3), axis=0)) > 10 * len(np.unique(np.array(color).reshape(-1, 3), axis=0))
    assert "cut_compatible=True, not of" in error_of("cityscapes_unpaired", raw, tmp_path / "out")


# ---------------------------------------------------------------- the command


def test_options_of_other_data_sets_are_refused(trees, tmp_path):
    assert "split=official: dataset=camvid has no such option" in error_of(
        "camvid", trees / "camvid", tmp_path / "out", split="official"
    )
    assert "gta has trainval" in error_of("gta", trees / "gta", tmp_path / "out", split="mine")
    assert "nyu_depth has random" in error_of("nyu_depth", trees / "nyu_depth", tmp_path / "out", split="mine")


def test_help_tells_what_to_download():
    ended = subprocess.run([sys.executable, "prepare.py", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    listed = {name for names in DOWNLOADS for name in names.split(", ")}
    assert listed == set(FINDERS)
    for names in DOWNLOADS:
        assert f"\n{names}\n" in ended.stdout
    assert ended.stdout.count("\n  licence") == ended.stdout.count("\n  get ") == len(DOWNLOADS)
    for word in ("cityscapes-dataset.com", "2.8 GB", "non-commercial", "dataset=synthetic", "allow_partial"):
        assert word in ended.stdout


def test_a_tree_that_cannot_be_written_is_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "h5py", None)
    few = {name: writer for name, writer in synthetic.writers().items() if name in ("camvid", "nyu_depth")}
    monkeypatch.setattr(synthetic, "writers", lambda: few)
    folders = prepare(config("dataset=synthetic", f"out={tmp_path}", name="prepare"))
    assert list(folders) == ["camvid"]
    assert "nyu_depth: left out: nyu_depth is written with h5py" in capsys.readouterr().out


def test_an_unknown_split_of_a_reader_is_named(trees, tmp_path):
    run("gta", trees / "gta", tmp_path / "out")
    with pytest.raises(UserError, match="val: no such folder"):
        Paired("val", False, name="gta", root=tmp_path / "out", classes=35)
