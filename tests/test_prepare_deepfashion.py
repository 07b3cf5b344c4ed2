"""DeepFashion from a miniature of its tree: joints in both formats, skeletons, heat maps, and what is refused."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.folders import Paired
from data.prepare import skeleton
from data.prepare.deepfashion import flat_name
from data.prepare.joints import read_openpose, read_table
from data.prepare.synthetic import deepfashion as synthetic
from errors import UserError
from tests.compose import config
from tests.prepared import complete, content, error_of, run, shrink, train_and_evaluate, truncate

NAME = "WOMEN/Dresses/id_00000203/01_2_side"
FLAT = NAME.replace("/", "-")
TESTED = {"id_00000244", "id_00007636", "id_00000565"}
PALETTE = [  # in the order in which OpenPose lists it: blue, green, red
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85),
    (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255),
    (255, 0, 170), (255, 0, 85),
]  # fmt: skip
LIMBS = "2-3, 2-6, 3-4, 4-5, 6-7, 7-8, 2-9, 9-10, 10-11, 2-12, 12-13, 13-14, 2-1, 1-15, 15-17, 1-16, 16-18"


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    synthetic.write(folder)
    return folder


@pytest.fixture
def own(raw, tmp_path):
    """A raw tree to damage."""
    return Path(shutil.copytree(raw, tmp_path / "own"))


def person(name):
    return name.split("-")[2]


def pose(raw, name, kind):
    return raw / "pose" / f"{name}_{kind}.txt"


# ---------------------------------------------------------------- the layout


def test_openpose_files_and_lists(raw, tmp_path, capsys):
    manifest = run("deepfashion", raw, tmp_path / "out")
    assert "train 14, test 6 pairs" in capsys.readouterr().out
    assert {person(name) for name in manifest["splits"]["test"]["names"]} == TESTED
    assert manifest["labels"] == {"kind": "image", "channels": 20} and manifest["source_counts"] == {"all": 20}
    assert manifest["options"]["keypoints"] == "rendered" and manifest["image_size"] == [256, 256]
    data = Paired("train", False, name="deepfashion", root=tmp_path / "out", labels=False)
    data.verify()
    assert data.source_channels == 20
    joints = read_openpose(pose(raw, NAME, "candidate"), pose(raw, NAME, "subset"))
    picture, distances = skeleton.skeleton(joints)
    item = data[data.names.index(FLAT)]
    assert torch.equal(item["source"], torch.cat([picture, distances]))
    photos = [raw / "img" / f"{NAME}.jpg", tmp_path / "out/train/target" / f"{FLAT}.jpg"]
    assert photos[0].read_bytes() == photos[1].read_bytes()
    before = content(tmp_path / "out")
    run("deepfashion", raw, tmp_path / "out")
    again = content(tmp_path / "out")
    assert before.keys() == again.keys()
    assert all(before[name] == again[name] for name in before if name != "manifest.json")
    assert "keypoints=heatmaps; choose another out" in error_of(
        "deepfashion", raw, tmp_path / "out", keypoints="heatmaps"
    )


def test_the_tables_of_patn_give_the_same_drawings(own, tmp_path):
    run("deepfashion", own, tmp_path / "openpose")
    shutil.rmtree(own / "pose")
    manifest = run("deepfashion", own, tmp_path / "tables")
    assert {person(name) for name in manifest["splits"]["test"]["names"]} == TESTED
    one, other = (
        Paired("train", False, name="deepfashion", root=tmp_path / made, labels=False)
        for made in ("openpose", "tables")
    )
    assert one.names == other.names and len(one) == 14
    for index in range(0, 14, 5):
        assert torch.equal(one[index]["source"], other[index]["source"])
    table = read_table(own / "fasion-resize-annotation-test.csv")
    lines = (own / "fasion-resize-annotation-test.csv").read_text().splitlines()
    name, down, right = lines[1].split(":")
    assert table[name][0] == (float(right.strip(" [").split(",")[0]) + 40, float(down.strip(" [").split(",")[0]))
    assert sum(joint is None for joints in table.values() for joint in joints) == sum(
        text.split(":")[1].count("-1") for text in lines[1:]
    )


def test_names_as_patn_has_them():
    assert flat_name("WOMEN/Dresses/id_00002629/02_3_back") == "fashionWOMENDressesid0000262902_3back.jpg"
    assert flat_name("MEN/Shirts_Polos/id_00001802/02_4_full") == "fashionMENShirts_Polosid0000180202_4full.jpg"


def test_photos_that_no_table_names_are_left_out(own, tmp_path):
    shutil.rmtree(own / "pose")
    table = own / "fasion-resize-annotation-train.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[:-2]))
    manifest = run("deepfashion", own, tmp_path / "out", size="[32,32]")
    assert manifest["splits"]["train"]["count"] == 12 and manifest["dropped"] == []


def test_without_lists_persons_are_drawn_apart(own, tmp_path):
    for name in ("train.txt", "val.txt"):
        (own / name).unlink()
    places = {}
    manifest = run("deepfashion", own, tmp_path / "out", size="[16,16]")
    for split, record in manifest["splits"].items():
        for name in record["names"]:
            assert places.setdefault(person(name), split) == split
    assert len(places) == 10 and manifest["splits"]["test"]["count"] == 2
    assert run("deepfashion", own, tmp_path / "again", size="[16,16]")["splits"] == manifest["splits"]


def test_only_listed_photos_are_taken(own, tmp_path):
    lines = (own / "train.txt").read_text().splitlines()
    (own / "train.txt").write_text("\n".join(lines[:4]))
    manifest = run("deepfashion", own, tmp_path / "out", size="[16,16]")
    assert manifest["splits"]["train"]["count"] == 4 and manifest["dropped"] == []
    (own / "train.txt").write_text("\n".join([*lines[:4], "img\\WOMEN\\Dresses\\id_00000203\\09_9_none.jpg"]))
    message = error_of("deepfashion", own, tmp_path / "out", allow_partial="false", size="[16,16]")
    assert "id_00000203/09_9_none has no photo, candidate, subset" in message


def test_other_sizes_show_the_same(raw, tmp_path):
    run("deepfashion", raw, tmp_path / "whole", keypoints="heatmaps")
    run("deepfashion", raw, tmp_path / "small", keypoints="heatmaps", size="[128,128]")
    settings = {"name": "deepfashion", "labels": False, "size": (128, 128)}
    whole, small = (Paired("test", False, root=tmp_path / made, **settings) for made in ("whole", "small"))
    assert whole.source_channels == 18
    assert torch.equal(whole[0]["source"], small[0]["source"])
    run("deepfashion", raw, tmp_path / "rendered", size="[512,512]")
    item = Paired("train", False, name="deepfashion", root=tmp_path / "rendered", labels=False, size=(512, 512))
    joints = read_openpose(pose(raw, NAME, "candidate"), pose(raw, NAME, "subset"))
    picture = skeleton.skeleton(joints)[0]
    assert torch.equal(item[item.names.index(FLAT)]["source"][:3, ::2, ::2], picture)  # nearest: no new colours


# ---------------------------------------------------------------- drawing


def someone():
    """All joints but the left wrist, away from each other, some with fractions."""
    found = [(float(x), float(y)) for x, y in synthetic.JOINTS]
    found[2] = (107.5, 69.25)
    return [None if at == 7 else joint for at, joint in enumerate(found)]


def slow_limb(start, end):
    """A pixel is on the limb where its distances to both ends of the ellipse's long axis say so."""
    (x, y), (u, v) = start, end
    length = math.hypot(u - x, v - y)
    half, width = length / 2, 4.0
    found = np.zeros((256, 256), bool)
    for row in range(256):
        for column in range(256):
            a, b = column - (x + u) / 2, row - (y + v) / 2
            along = (a * (u - x) + b * (v - y)) / length
            across = (-a * (v - y) + b * (u - x)) / length
            found[row, column] = (along / half) ** 2 + (across / width) ** 2 <= 1.000001
    return found


def slow_distance(shape):
    """Two sweeps, forth and back: exact for distances along rows and columns."""
    found = np.where(shape, 0, 10**6)
    for row in range(256):
        for column in range(256):
            for other, beside in ((row - 1, column), (row, column - 1)):
                if other >= 0 and beside >= 0:
                    found[row, column] = min(found[row, column], found[other, beside] + 1)
    for row in reversed(range(256)):
        for column in reversed(range(256)):
            for other, beside in ((row + 1, column), (row, column + 1)):
                if other < 256 and beside < 256:
                    found[row, column] = min(found[row, column], found[other, beside] + 1)
    return np.minimum(found // 3, 255).astype(np.uint8)


def test_the_twenty_channels_against_a_slow_twin():
    joints = someone()
    picture, distances = skeleton.skeleton(joints)
    assert picture.shape == (3, 256, 256) and distances.shape == (17, 256, 256)
    assert picture.dtype == distances.dtype == torch.uint8
    canvas = np.zeros((256, 256, 3))
    for joint, (blue, green, red) in zip(joints, PALETTE, strict=True):
        if joint is not None:
            for row in range(256):
                for column in range(max(0, int(joint[0]) - 6), min(256, int(joint[0]) + 7)):
                    if (column - joint[0]) ** 2 + (row - joint[1]) ** 2 <= 16:
                        canvas[row, column] = red, green, blue
    pairs = [tuple(int(end) - 1 for end in pair.split("-")) for pair in LIMBS.split(", ")]
    assert [tuple(end - 1 for end in pair) for pair in skeleton.LIMBS] == pairs and len(pairs) == 17
    for at, ((first, second), (blue, green, red)) in enumerate(zip(pairs, PALETTE, strict=False)):
        if joints[first] is None or joints[second] is None:
            assert (distances[at] == 255).all()
            continue
        shape = slow_limb(joints[first], joints[second])
        canvas[shape] = np.rint(0.4 * canvas[shape] + 0.6 * np.array([red, green, blue]))
        if at in (0, 3, 15):
            assert np.array_equal(distances[at].numpy(), slow_distance(shape)), at
    assert np.array_equal(picture.movedim(0, -1).numpy(), canvas.astype(np.uint8))


def test_known_drawings():
    alone = [None] * 18
    alone[0] = (100.0, 50.0)
    picture, distances = skeleton.skeleton(alone)
    assert (distances == 255).all()
    assert picture[:, 50, 100].tolist() == [0, 0, 255] and picture[:, 50, 104].tolist() == [0, 0, 255]
    assert picture[:, 50, 105].sum() == 0 and picture[:, 54, 101].sum() == 0
    assert (picture[2] > 0).sum() == 49  # whole pixels in a disc of radius 4

    arm = [None] * 18
    arm[2], arm[3] = (100.0, 100.0), (100.0, 140.0)  # right shoulder to right elbow: limb 3, yellow-green after red
    picture, distances = skeleton.skeleton(arm)
    red, green, blue = PALETTE[2][::-1]
    assert picture[:, 120, 100].tolist() == [round(0.6 * red), round(0.6 * green), round(0.6 * blue)]
    assert picture[:, 120, 104].sum() > 0 and picture[:, 120, 105].sum() == 0  # 4 to either side of the middle
    assert distances[2, 120, [100, 104, 106, 107, 110]].tolist() == [0, 0, 0, 1, 2]
    assert distances[2, 144, 100] == 1 and (distances[[0, 1, 3]] == 255).all()
    shoulder = (0.4 * np.array(PALETTE[2][::-1]) + 0.6 * np.array([red, green, blue])).round()
    assert picture[:, 100, 100].tolist() == shoulder.tolist()

    arm[3] = arm[2]
    picture, _ = skeleton.skeleton(arm)  # both joints on one pixel
    assert picture.isfinite().all()


def test_heat_maps_known():
    maps = skeleton.heat_maps(someone())
    assert maps.shape == (18, 256, 256) and maps.dtype == torch.uint8
    assert maps[7].sum() == 0 and maps[0, 40, 128] == 255
    for down, right in ((0, 6), (8, 3), (0, 20), (40, 0)):
        wanted = round(255 * math.exp(-(down**2 + right**2) / 72))
        assert maps[0, 40 + down, 128 + right] == wanted
        assert maps[0, 40 - down, 128 - right] == wanted


# ---------------------------------------------------------------- what is refused


def test_too_few_photos_another_tree_and_other_options(raw, tmp_path):
    message = error_of("deepfashion", raw, tmp_path / "out", allow_partial="false")
    assert "20 pairs" in message and "52712" in message and "allow_partial=true" in message
    (tmp_path / "other").mkdir()
    assert "lacks img" in error_of("deepfashion", tmp_path / "other", tmp_path / "out")
    shutil.copytree(raw / "img", tmp_path / "alone/img")
    assert "lacks joints; raw= wants" in error_of("deepfashion", tmp_path / "alone", tmp_path / "out")
    assert "rendered and heatmaps" in error_of("deepfashion", raw, tmp_path / "out", keypoints="stick")
    assert not (tmp_path / "out").exists()


def point(file):
    """The first joint in a line that is not there."""
    file.write_text(" ".join(["77", *file.read_text().split()[1:]]))


def empty(file):
    file.write_text(" ".join(["-1"] * 20))


def scale(file):
    file.write_text("\n".join(" ".join(["300", *line.split()[1:]]) for line in file.read_text().splitlines()))


DAMAGE = {
    "lost": (Path.unlink, "img/{}.jpg", f"{NAME} has no photo"),
    "lost joints": (Path.unlink, "pose/{}_subset.txt", f"{NAME} has no subset"),
    "truncated": (truncate, "img/{}.jpg", "01_2_side.jpg: cannot be decoded"),
    "truncated joints": (truncate, "pose/{}_subset.txt", "01_2_side_subset.txt: begins with"),
    "joint 77": (point, "pose/{}_subset.txt", "joint 0 is in line 77 of 01_2_side_candidate.txt"),
    "another size": (shrink, "img/{}.jpg", "01_2_side.jpg: is 128x128, the official release has 256x256"),
    "another scale": (scale, "pose/{}_candidate.txt", "lies outside of 256x256"),
    "no joint": (empty, "pose/{}_subset.txt", "no joint was found"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_damage_names_file_and_cure(own, tmp_path, monkeypatch, damage):
    complete(monkeypatch, "deepfashion")
    act, file, words = DAMAGE[damage]
    act(own / file.format(NAME))
    message = error_of("deepfashion", own, tmp_path / "out", allow_partial="false", size="[16,16]")
    assert words in message and "allow_partial=true" in message
    manifest = run("deepfashion", own, tmp_path / "out", size="[16,16]")
    assert [record["name"].replace("/", "-") for record in manifest["dropped"]] == [FLAT]
    assert manifest["splits"]["train"]["count"] == 13
    Paired("train", False, name="deepfashion", root=tmp_path / "out", labels=False, size=(16, 16)).verify()


def test_persons_in_two_splits_are_refused(own, tmp_path, monkeypatch):
    complete(monkeypatch, "deepfashion")
    listed = (own / "val.txt").read_text().splitlines()
    train = (own / "train.txt").read_text().splitlines()
    (own / "val.txt").write_text("\n".join([*listed, train[0]]))
    (own / "train.txt").write_text("\n".join(train[1:]))
    message = error_of("deepfashion", own, tmp_path / "out", allow_partial="false", size="[16,16]")
    assert "1 photos for training show persons of the test photos (WOMEN/Dresses/id_00000002/01_2_side)" in message
    manifest = run("deepfashion", own, tmp_path / "out", size="[16,16]")
    assert [record["name"] for record in manifest["dropped"]] == ["WOMEN-Dresses-id_00000002-01_2_side"]
    assert manifest["splits"]["test"]["count"] == 7
    (own / "train.txt").write_text("\n".join(train))
    assert "train.txt and val.txt share WOMEN/Dresses/id_00000002/01_1_front" in error_of(
        "deepfashion", own, tmp_path / "out", size="[16,16]"
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a.jpg: [1, 2]: [3, 4]", "line 2 has 2 joints, wanted 18"),
        ("a.jpg: [1, 2: [3, 4]", "line 2 cannot be read"),
        ("a.jpg", "line 2 cannot be read"),
        (f"a.jpg: {[1] * 18}: {[1] * 17}", "line 2 cannot be read"),
        (f"a.jpg: {[1] * 18}: {[1] * 18}\na.jpg: {[1] * 18}: {[1] * 18}", "line 3 has a name that came before"),
    ],
)
def test_damaged_tables_are_named_by_line(tmp_path, line, words):
    (tmp_path / "table.csv").write_text(f"name:keypoints_y:keypoints_x\n{line}\n")
    with pytest.raises(UserError, match=r"table\.csv: " + words):
        read_table(tmp_path / "table.csv")
    (tmp_path / "table.csv").write_text("from,to\n")
    with pytest.raises(UserError, match="begins with 'from,to', wanted name:keypoints_y:keypoints_x"):
        read_table(tmp_path / "table.csv")


def test_a_missing_photo_of_a_table_is_named(own, tmp_path, monkeypatch):
    complete(monkeypatch, "deepfashion")
    shutil.rmtree(own / "pose")
    (own / "img" / f"{NAME}.jpg").unlink()
    message = error_of("deepfashion", own, tmp_path / "out", allow_partial="false", size="[16,16]")
    assert f"{flat_name(NAME)} has no photo" in message


# ---------------------------------------------------------------- training


def test_the_rows_of_the_table_take_their_schedule():
    for row in ("gan", "perceptual", "patchnce", "weightnce", "monce"):
        cfg = config(f"experiment=monce/table3/{row}", "dataset=deepfashion")
        assert (cfg.train.epochs, cfg.train.decay_epochs, cfg.train.batch_size) == (50, 50, 20)
        assert cfg.dataset.load_size == [286, 286] and not cfg.dataset.flip
        if row in ("patchnce", "weightnce", "monce"):
            assert cfg.objective.contrast.weight == 50


@pytest.mark.parametrize(("keypoints", "channels"), [("rendered", 20), ("heatmaps", 18)])
def test_a_step_and_an_evaluation(raw, tmp_path, keypoints, channels):
    run("deepfashion", raw, tmp_path / "data", keypoints=keypoints, size="[72,72]")
    report = train_and_evaluate(
        tmp_path / "data",
        "deepfashion",
        tmp_path / "run",
        "experiment=monce/table3/perceptual",
        "encoder.pretrained=false",
        "dataset.load_size=[72,72]",
    )
    assert report["metrics"]["swd"]["value"] > 0
    weights = torch.load(tmp_path / "run/last.pt", weights_only=True)["networks"]["generator"]
    assert any(value.dim() == 4 and value.shape[1] == channels for value in weights.values())
    grid = Image.open(next((tmp_path / "run/eval").glob("*.png")))
    assert np.array(grid).std() > 5
