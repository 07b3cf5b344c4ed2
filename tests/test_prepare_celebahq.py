"""CelebAMask-HQ from a miniature of the official tree: label maps, edges with distances, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.folders import Paired
from data.prepare import celebahq
from data.prepare.distance import distance_map
from data.prepare.faces import OUTLINED, contours, edge_drawing, label_map, outline
from data.prepare.synthetic import celebahq as synthetic
from errors import UserError
from tests.compose import config
from tests.prepared import complete, content, error_of, paint, run, shrink, train_and_evaluate, truncate

SPLITS = {  # by their numbers in CelebA
    "train": [0, 1, 2000, 4001, 6002, 10004, 14006, 16007, 20009, 22010, 26012, 28013, 29999],
    "val": [2, 3, 8003, 18008],
    "test": [4, 1999, 12005, 24011],
}
OFFICIAL_IDS = {
    "skin": 1, "nose": 2, "eye_g": 3, "l_eye": 4, "r_eye": 5, "l_brow": 6, "r_brow": 7, "l_ear": 8, "r_ear": 9,
    "mouth": 10, "u_lip": 11, "l_lip": 12, "hair": 13, "hat": 14, "ear_r": 15, "neck_l": 16, "neck": 17, "cloth": 18,
}  # fmt: skip


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    synthetic.write(folder)
    return folder


@pytest.fixture(scope="module")
def few(raw, tmp_path_factory):
    """Three training faces, one for validation and two for testing."""
    folder = Path(shutil.copytree(raw, tmp_path_factory.mktemp("few") / "CelebAMask-HQ"))
    for file in [*folder.glob("CelebA-HQ-img/*"), *folder.glob("CelebAMask-HQ-mask-anno/*/*")]:
        if int(file.stem.split("_")[0]) not in (0, 1, 2000, 2, 4, 1999):
            file.unlink()
    return folder


@pytest.fixture
def own(few, tmp_path):
    """A raw tree to damage."""
    return Path(shutil.copytree(few, tmp_path / "own"))


@pytest.fixture(scope="module")
def prepared(few, tmp_path_factory):
    """Small prepared folders by data set."""
    pytest.importorskip("skimage", reason="needs scikit-image of requirements-data.txt")
    out = tmp_path_factory.mktemp("out")
    for name in ("celebahq_semantic", "celebahq_edge"):
        run(name, few.parent, out / name, size="[72,72]")
    run("celebahq_edge", few, out / "simple", size="[72,72]", edges="simple1")
    return {file.name: file for file in out.iterdir()}


STEP = 6  # a slow twin of every sixth row and column will do


def slow_label_map(raw, number):
    ids = np.zeros((512, 512), np.uint8)
    for part, label in sorted(OFFICIAL_IDS.items(), key=lambda pair: pair[1]):
        file = raw / "CelebAMask-HQ-mask-anno" / str(number // 2000) / f"{number:05d}_{part}.png"
        if file.exists():
            mask = np.array(Image.open(file))
            for row in range(0, 512, STEP):
                for column in range(0, 512, STEP):
                    if mask[row, column] != 0:
                        ids[row, column] = label
    return ids[::STEP, ::STEP]


# ---------------------------------------------------------------- label maps


def test_label_maps_in_the_official_order_and_split(raw, tmp_path, capsys):
    manifest = run("celebahq_semantic", raw, tmp_path / "out")
    assert "train 13, val 4, test 4 pairs" in capsys.readouterr().out
    assert {split: [int(name) for name in record["names"]] for split, record in manifest["splits"].items()} == SPLITS
    assert manifest["labels"] == {"kind": "ids", "classes": 19, "ignore": None}
    assert manifest["image_size"] == [1024, 1024] and manifest["source_counts"] == {"all": 21}
    assert json.loads((tmp_path / "out/manifest.json").read_text()) == manifest
    photos = [raw / "CelebA-HQ-img/0.jpg", tmp_path / "out/train/target/00000.jpg"]
    assert photos[0].read_bytes() == photos[1].read_bytes()  # copied, not encoded again
    data = Paired("train", False, name="celebahq_semantic", root=tmp_path / "out", size=(512, 512), classes=19)
    item = data[data.names.index("00000")]
    wanted = slow_label_map(raw, 0)
    assert np.array_equal(item["source"][0, ::STEP, ::STEP].numpy(), wanted)  # 1024 and 512 hold the same ids
    assert set(np.unique(wanted)) >= {0, 1, 2, 3, 14, 15, 16, 17, 18}
    data = Paired("test", False, name="celebahq_semantic", root=tmp_path / "out", classes=19)
    test = Paired("test", False, name="celebahq_semantic", root=tmp_path / "out", size=(512, 512), classes=19)
    assert torch.equal(data[0]["source"], test[0]["source"][:, 1::2, 1::2])  # the id under the centre


def test_later_parts_are_painted_over_earlier_ones():
    on = torch.ones(1, 1, 1, dtype=torch.bool)
    assert list(OFFICIAL_IDS) == list(celebahq.PARTS)
    for part, label in OFFICIAL_IDS.items():
        assert label_map({part: on}).item() == label
    assert label_map({"cloth": on, "skin": on}).item() == 18
    assert label_map({"eye_g": on, "l_eye": on}).item() == 4  # the order of the official script, not of face parsing
    assert label_map({"skin": ~on}).item() == 0


def test_masks_of_three_channels_are_masks_too(tmp_path):
    pixels = np.zeros((512, 512, 3), np.uint8)
    pixels[3, 4] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    mask = celebahq.read_mask(tmp_path / "mask.png")
    assert mask.sum() == 1 and mask[0, 3, 4]


# ---------------------------------------------------------------- edges


def slow_outline(mask):
    height, width = mask.shape
    found = np.zeros((height, width), bool)
    for row in range(height):
        for column in range(width):
            for other, beside in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                inside = 0 <= other < height and 0 <= beside < width
                found[row, column] |= inside and mask[other, beside] != mask[row, column]
    return found


def slow_distance(shape):
    points = np.argwhere(shape)
    found = np.full(shape.shape, 255, np.uint8)
    for row in range(shape.shape[0]):
        for column in range(shape.shape[1]):
            if len(points):
                pixels = min(abs(row - y) + abs(column - x) for y, x in points)
                found[row, column] = min(pixels // 3, 255)
    return found


def random_masks(parts, height=14, width=17, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {part: torch.rand(1, height, width, generator=generator) > 0.7 for part in parts}


def test_outlines_and_distances_against_slow_twins():
    (mask,) = random_masks(["skin"]).values()
    mask[:, 4:12, 5:14] = True
    assert np.array_equal(outline(mask)[0].numpy(), slow_outline(mask[0].numpy()))
    few = random_masks(["skin"], seed=1)["skin"] & (torch.arange(17) > 14)
    assert few.any()
    assert np.array_equal(distance_map(few)[0].numpy(), slow_distance(few[0].numpy()))


def test_distances_known():
    point = torch.zeros(1, 5, 900, dtype=torch.bool)
    assert (distance_map(point) == 255).all()  # a part that is not there
    point[0, 2, 0] = True
    assert distance_map(point)[0, 2, [0, 2, 3, 5, 6, 764, 765, 899]].tolist() == [0, 0, 1, 1, 2, 254, 255, 255]
    assert distance_map(point)[0, 4, 1] == 1  # along rows and columns, not straight


def test_the_fifteen_channels_against_a_slow_twin():
    pytest.importorskip("skimage", reason="needs scikit-image of requirements-data.txt")
    from skimage.feature import canny

    size = 40
    masks = {part: torch.zeros(1, size, size, dtype=torch.bool) for part in ("skin", "nose", "hair", "neck", "l_eye")}
    masks["skin"][:, 10:30, 10:30] = True
    masks["nose"][:, 18:22, 18:22] = True
    masks["hair"][:, 5:16, 8:24] = True
    masks["neck"][:, 30:38, 14:26] = True  # neither an outline nor the face
    photo = torch.zeros(3, size, size, dtype=torch.uint8)
    photo[:, :, 13:] = 200  # an edge from top to bottom through hair, face and background
    found = edge_drawing(masks, photo).numpy()
    assert found.shape == (15, size, size) and found.dtype == np.uint8

    names = ["skin", "l_brow", "r_brow", "l_eye", "r_eye", "l_ear", "r_ear", "nose", "u_lip", "mouth", "l_lip", "eye_g"]
    assert list(OUTLINED) == [*names, "hair"]
    lines = {
        part: slow_outline(masks[part][0].numpy()) if part in masks else np.zeros((size, size), bool)
        for part in OUTLINED
    }
    drawn = np.any(list(lines.values()), axis=0)
    for at, part in enumerate(OUTLINED):
        assert np.array_equal(found[1 + at], slow_distance(lines[part])), part
    assert np.array_equal(found[14], drawn * 255)
    assert (found[4] == 255).all()  # l_eye has a mask without a pixel
    seen = canny(photo[0].numpy())
    face = (masks["skin"] | masks["nose"])[0].numpy() & ~masks["hair"][0].numpy()
    assert np.array_equal(found[0], (drawn | (seen & ~face)) * 255)
    columns = slice(12, 14)
    assert seen[2:38, columns].any(1).all()
    assert found[0, 33, columns].any() and found[0, 12, columns].any()  # background, and hair over skin
    assert not found[0, 26, columns].any()  # skin
    assert np.array_equal(contours(photo)[0].numpy(), seen)


def test_edges_are_drawn_where_they_are_read(few, tmp_path):
    pytest.importorskip("skimage", reason="needs scikit-image of requirements-data.txt")
    manifest = run("celebahq_edge", few, tmp_path / "out")
    assert manifest["labels"] == {"kind": "image", "channels": 15} and manifest["image_size"] is None
    assert manifest["options"] == {"size": None, "edges": "cocosnet15", "allow_partial": True}
    settings = {"name": "celebahq_edge", "root": tmp_path / "out", "labels": False}
    data = Paired("train", True, load_size=(286, 286), **settings)
    data.verify()
    assert data.source_channels == 15 and data.read(0)["source"].shape == (15, 286, 286)
    item = data[2]
    assert item["source"].shape == (15, 256, 256) and set(item["source"][0].unique().tolist()) == {0, 255}
    test = Paired("test", False, **settings)[0]
    assert set(test["source"][14].unique().tolist()) == {0, 255}  # nothing was resized
    assert test["target"].shape == (3, 256, 256)
    masks = {part: torch.zeros(1, 1, 1) for part in OUTLINED}
    for part in masks:
        file = few / "CelebAMask-HQ-mask-anno/0" / f"00004_{part}.png"
        mask = np.array(Image.open(file))[1::2, 1::2] > 0 if file.exists() else np.zeros((256, 256), bool)
        masks[part] = torch.from_numpy(mask)[None]
    photo = Image.open(few / "CelebA-HQ-img/4.jpg").resize((256, 256), Image.Resampling.BILINEAR)
    wanted = edge_drawing(masks, torch.from_numpy(np.array(photo)).movedim(-1, 0))
    assert torch.equal(test["source"], wanted)
    before = content(tmp_path / "out")
    run("celebahq_edge", few, tmp_path / "out")
    assert content(tmp_path / "out").keys() == before.keys()
    assert all(before[name] == value for name, value in content(tmp_path / "out").items() if name != "manifest.json")


def test_the_simple_option_needs_no_masks(own, tmp_path):
    pytest.importorskip("skimage", reason="needs scikit-image of requirements-data.txt")
    shutil.rmtree(own / "CelebAMask-HQ-mask-anno")
    manifest = run("celebahq_edge", own, tmp_path / "out", edges="simple1", size="[64,64]")
    assert manifest["labels"] == {"kind": "image", "channels": 1} and manifest["options"]["edges"] == "simple1"
    data = Paired("test", False, name="celebahq_edge", root=tmp_path / "out", labels=False, size=(64, 64))
    item = data[0]
    assert data.source_channels == 1 and set(item["source"].unique().tolist()) == {0, 255}
    assert "lacks CelebAMask-HQ-mask-anno" in error_of("celebahq_edge", own, tmp_path / "other")


# ---------------------------------------------------------------- what is refused


def test_too_few_faces_another_tree_and_other_options(raw, prepared, tmp_path):
    assert "with size=[72, 72], edges=simple1, not of" in error_of(
        "celebahq_edge", raw, prepared["simple"], size="[72,72]"
    )
    message = error_of("celebahq_semantic", raw, tmp_path / "out", allow_partial="false")
    assert "21" in message and "30000" in message and "allow_partial=true" in message
    (tmp_path / "other").mkdir()
    assert "lacks CelebA-HQ-img" in error_of("celebahq_semantic", tmp_path / "other", tmp_path / "out")
    assert "no such folder" in error_of("celebahq_edge", tmp_path / "none", tmp_path / "out")
    assert "cocosnet15 and simple1" in error_of("celebahq_edge", raw, tmp_path / "out", edges="canny")
    assert "no such option" in error_of("celebahq_semantic", raw, tmp_path / "out", edges="simple1")
    assert not (tmp_path / "out").exists()


MASK, PHOTO = "CelebAMask-HQ-mask-anno/0/00001_skin.png", "CelebA-HQ-img/1.jpg"
DAMAGE = {
    "lost": (Path.unlink, PHOTO, "00001 has no photo"),
    "truncated": (truncate, PHOTO, "1.jpg: cannot be decoded"),
    "truncated mask": (truncate, MASK, "00001_skin.png: cannot be decoded"),
    "id 77": (paint, MASK, "00001_skin.png: holds 77 (3 px); a mask holds 0 and 255 alone"),
    "another size": (shrink, PHOTO, "1.jpg: is 512x512, the official release has 1024x1024"),
    "another size of a mask": (shrink, MASK, "00001_skin.png: is 256x256, masks of the official release are 512x512"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_damage_names_file_and_cure(own, tmp_path, monkeypatch, damage):
    complete(monkeypatch, "celebahq_semantic")
    act, file, words = DAMAGE[damage]
    act(own / file)
    assert words in (
        message := error_of("celebahq_semantic", own, tmp_path / "out", allow_partial="false", size="[32,32]")
    )
    assert "allow_partial=true" in message
    manifest = run("celebahq_semantic", own, tmp_path / "out", size="[32,32]")
    assert [record["name"] for record in manifest["dropped"]] == ["00001"]
    data = Paired("train", False, name="celebahq_semantic", root=tmp_path / "out", size=(32, 32), classes=19)
    data.verify()
    assert len(data) == 2


def test_strange_files_and_mappings_are_named(own, tmp_path):
    lines = (own / "CelebA-HQ-to-CelebA-mapping.txt").read_text().splitlines()

    def mapped(*changed):
        (own / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(changed))
        return error_of("celebahq_semantic", own, tmp_path / "out", allow_partial="false")

    assert "00000 has no line in CelebA-HQ-to-CelebA-mapping.txt" in mapped(lines[0], *lines[2:])
    assert "two lines of 00001" in mapped(*lines, lines[2])
    assert "mapping.txt: cannot be read" in mapped(*lines, "29998 many x.jpg")
    (own / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(lines))
    shutil.copy(own / MASK, own / "CelebAMask-HQ-mask-anno/3/00001_skin.png")
    assert "3/00001_skin.png: is no mask of the official release" in error_of(
        "celebahq_semantic", own, tmp_path / "out"
    )
    (own / "CelebAMask-HQ-mask-anno/3/00001_skin.png").rename(own / "CelebAMask-HQ-mask-anno/0/00001_beard.png")
    assert "00001_beard.png: is no mask" in error_of("celebahq_semantic", own, tmp_path / "out")
    (own / "CelebAMask-HQ-mask-anno/0/00001_beard.png").unlink()
    shutil.copy(own / PHOTO, own / "CelebA-HQ-img/cover.jpg")
    assert "cover.jpg: is no photo of the official release" in error_of("celebahq_semantic", own, tmp_path / "out")


def test_empty_masks_are_refused(own, tmp_path):
    for file in (own / "CelebAMask-HQ-mask-anno/0").glob("00001_*"):
        Image.fromarray(np.zeros((512, 512), np.uint8)).save(file)
    with pytest.raises(UserError, match="masks are all empty"):
        face = next(item for item in celebahq.semantic(own, True).items if item.name == "00001")
        face.files["input"].draw((32, 32))


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("dataset", ["celebahq_semantic", "celebahq_edge"])
def test_the_rows_of_the_table_take_their_schedule(dataset):
    weights = {}
    for row in ("gan", "perceptual", "patchnce", "weightnce", "monce"):
        cfg = config(f"experiment=monce/table3/{row}", f"dataset={dataset}")
        assert (cfg.train.epochs, cfg.train.decay_epochs, cfg.train.batch_size) == (30, 30, 20)
        assert cfg.dataset.name == dataset and cfg.dataset.load_size == [286, 286] and cfg.dataset.flip
        if "contrast" in cfg.objective:
            weights[row] = cfg.objective.contrast.weight
    contrast = 100 if dataset == "celebahq_semantic" else 50
    assert weights == {"perceptual": 10, "patchnce": contrast, "weightnce": contrast, "monce": contrast}


@pytest.mark.parametrize(("folder", "channels"), [("celebahq_semantic", 19), ("celebahq_edge", 15), ("simple", 1)])
def test_a_step_and_an_evaluation(prepared, tmp_path, folder, channels):
    dataset = "celebahq_edge" if folder == "simple" else folder
    report = train_and_evaluate(
        prepared[folder],
        dataset,
        tmp_path,
        "experiment=monce/table3/monce",
        "encoder.pretrained=false",
        "dataset.load_size=[72,72]",
    )
    assert report["metrics"]["swd"]["value"] > 0
    assert len(list((tmp_path / "eval/images").glob("*/00004.png"))) >= 1
    saved = torch.load(tmp_path / "last.pt", weights_only=True)
    weights = saved["networks"]["generator"]
    assert any(value.dim() == 4 and value.shape[1] == channels for value in weights.values())
