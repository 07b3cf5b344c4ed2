"""The generated data set: deterministic, the same scene at any size, and grey only on average."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data.labels import instance_edges
from data.scenes import CLASSES, JOINTS, render
from data.shapes import Shapes, UnpairedShapes
from errors import UserError

FIELDS = ("image", "label", "instance", "depth", "edges", "keypoints")


@pytest.fixture(scope="module")
def scenes():
    train = Shapes("train", False, size=(48, 48))
    return [train.scene(index) for index in range(500)]


def test_an_item_is_one_typed_dict():
    item = Shapes("val", False, size=(40, 72), instance=True)[3]
    assert item["name"] == "val_00003"
    assert item["source"].shape == (1, 40, 72) and item["source"].dtype == torch.uint8
    assert item["target"].shape == (3, 40, 72) and item["target"].dtype == torch.uint8
    assert item["instance"].shape == (1, 40, 72) and item["instance"].dtype == torch.int32
    assert "instance" not in Shapes("val", False)[3]


def test_attributes_agree_with_the_items():
    shapes = Shapes("test", True, instance=True, lengths={"test": 7})
    assert len(shapes) == len(shapes.names) == len(set(shapes.names)) == 7
    assert shapes.source_channels == len(CLASSES) + 1 == 9
    assert shapes.score_map[:8] == list(range(8)) and set(shapes.score_map[8:]) == {255}
    with pytest.raises(IndexError):
        shapes[7]


def test_the_same_seed_is_the_same_scene_and_others_are_others():
    first, again = render((0, 0, 5), 32, 48), render((0, 0, 5), 32, 48)
    for field in FIELDS:
        assert np.array_equal(getattr(first, field), getattr(again, field)), field
    others = [(1, 0, 5), (0, 1, 5), (0, 0, 6)]
    assert all(not np.array_equal(first.image, render(seed, 32, 48).image) for seed in others)


def test_an_item_depends_on_index_and_draw_alone():
    shapes = Shapes("train", True, size=(16, 16))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = shapes[4, 9]
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    two = Shapes("train", True, size=(16, 16))[4, 9]
    assert torch.equal(one["source"], two["source"]) and torch.equal(one["target"], two["target"])
    flipped = {bool((shapes[4, draw]["target"] == shapes[4, 9]["target"]).all()) for draw in range(12)}
    assert flipped == {True, False}


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_do_not_change_the_items(workers):
    shapes = Shapes("train", True, size=(16, 16), lengths={"train": 8})
    keys = [(index, 100 + index) for index in range(8)]
    batches = list(DataLoader(shapes, batch_size=4, sampler=keys, num_workers=workers))
    assert [name for batch in batches for name in batch["name"]] == shapes.names
    targets = torch.cat([batch["target"] for batch in batches])
    assert torch.equal(targets, torch.stack([shapes[key]["target"] for key in keys]))


def test_a_scene_keeps_its_layout_at_any_size():
    small, large = render((0, 0, 11), 32, 32), render((0, 0, 11), 128, 128)
    assert (large.label[2::4, 2::4] == small.label).mean() > 0.97
    ratio = large.keypoints[small.keypoints[:, 0] >= 0] / small.keypoints[small.keypoints[:, 0] >= 0]
    assert np.allclose(ratio, 4)


def test_what_is_known_of_a_scene_agrees(scenes):
    for scene in scenes[:40]:
        assert scene.label.max() < len(CLASSES)
        for instance in np.unique(scene.instance):
            assert len(np.unique(scene.label[scene.instance == instance])) == 1  # an object has one class
        assert scene.depth.min() > 0 and scene.depth.max() <= 10 and scene.depth.dtype == np.float32
        edges = instance_edges(torch.from_numpy(scene.instance)[None, None])
        assert np.array_equal(scene.edges, edges[0, 0].numpy())
        assert scene.keypoints.shape == JOINTS.shape
        seen = scene.keypoints[scene.keypoints[:, 0] >= 0]
        assert ((seen >= 0) & (seen < 48)).all() and (scene.keypoints[scene.keypoints[:, 0] < 0] == -1).all()
    assert set(np.concatenate([np.unique(scene.label) for scene in scenes])) == set(range(len(CLASSES)))


def test_joints_lie_on_the_figure_where_nothing_hides_it():
    figure, on = CLASSES.index("figure"), []
    for index in range(60):
        scene = render((0, 0, index), 96, 96)
        neck = scene.keypoints[1].astype(int)
        if neck[0] >= 0 and scene.label[neck[1], neck[0]] == figure:
            on.append(scene.label[tuple(scene.keypoints[scene.keypoints[:, 0] >= 0].astype(int).T[::-1])] == figure)
    assert len(on) > 20 and np.concatenate(on).mean() > 0.85


def test_every_image_is_colourful_but_their_median_is_grey(scenes):
    images, labels = np.stack([scene.image for scene in scenes]), np.stack([scene.label for scene in scenes])
    chroma = images.max(1).astype(float) - images.min(1)
    assert chroma.mean((1, 2)).min() > 70  # every single image
    for label, name in enumerate(CLASSES):
        pixels = images.transpose(1, 0, 2, 3)[:, labels == label]
        for grey in (pixels.mean(1), np.median(pixels, 1)):
            assert np.abs(grey - 127.5).max() < 32 and np.ptp(grey) < 24, (name, grey)
    best = np.median(images, 0)  # what L1 would paint for any of them: far less colour
    assert (best.max(0) - best.min(0)).mean() < 0.2 * chroma.mean()


def test_the_median_of_one_layout_over_all_colours_is_grey():
    # One label map, many equally likely images: colours are drawn from a distribution symmetric about mid-grey.
    from data.canvas import Canvas
    from data.scenes import Painter

    rng = np.random.default_rng(0)
    painter = Painter(Canvas(8, 8, "a"), lambda low, high: low + (high - low) * rng.random())
    colors = np.stack([np.stack(painter.two_colors())[..., 0, 0] for _ in range(4000)])
    assert np.abs(np.median(colors, 0) - 0.5).max() < 0.04 and np.abs(colors.mean(0) - 0.5).max() < 0.02
    assert np.ptp(colors, axis=-1).min() > 0.25


def test_the_second_style_is_the_same_scene_with_another_look():
    shaded, drawing = Shapes("train", False), Shapes("train", False, style="b")
    one, two = shaded.scene(2), drawing.scene(2)
    for field in FIELDS[1:]:
        assert np.array_equal(getattr(one, field), getattr(two, field)), field
    assert np.array_equal(two.image, shaded.scene(2, style="b").image)
    means = [np.mean([data.scene(i).image.mean() for i in range(30)]) for data in (shaded, drawing)]
    assert means[1] > means[0] + 15  # paper is lighter


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"classes": 9}, "dataset.classes"),
        ({"style": "c"}, "dataset.style"),
        ({"lengths": {"val": 3}}, "dataset.lengths"),
    ],
)
def test_impossible_settings_name_their_key(wrong, word):
    with pytest.raises(UserError, match=word):
        Shapes("train", False, **wrong)


# ---------------------------------------------------------------- evaluation's two halves, and no pairs


def test_sources_and_reals_of_pairs():
    shapes = Shapes("val", False, size=(16, 16), lengths={"val": 3})
    sources = shapes.sources()
    assert sources.names == shapes.names and len(sources) == 3 and shapes.scored_labels
    for index, item in enumerate(sources):
        assert torch.equal(item["label"], shapes[index]["source"]) and "label" not in shapes[index]
    assert shapes.reals() is shapes


def test_a_key_may_say_plain():
    shapes = Shapes("train", True, size=(16, 16))
    assert torch.equal(shapes[1, 2, True]["target"], shapes[1, 2]["target"])  # there is no crop to leave out


def test_unpaired_sides_show_other_scenes_in_other_styles():
    data = UnpairedShapes("test", False, size=(16, 24), lengths={"test": 5})
    one, two = Shapes("test", False, size=(16, 24)), Shapes("test", False, size=(16, 24), style="b")
    assert len(data) == 5 and not set(data.names) & set(data.real_names)
    assert (data.source_channels, data.target_channels, data.labels, data.classes) == (3, 3, False, 8)
    for index, (item, source, real) in enumerate(zip(data, data.sources(), data.reals(), strict=True)):
        scene = one.scene(2 * index)
        assert np.array_equal(source["source"], scene.image) and np.array_equal(source["label"][0], scene.label)
        assert np.array_equal(real["target"], two.scene(2 * index + 1).image)
        assert set(item) == {"name", "source", "target"} and item["name"] == source["name"] == data.names[index]
        assert torch.equal(item["source"], source["source"]) and torch.equal(item["target"], real["target"])
    other = UnpairedShapes("test", False, size=(16, 24), lengths={"test": 5}, source="b", target="a")
    assert np.array_equal(other[0]["source"], two.scene(0).image)


def test_unpaired_shapes_draw_their_targets():
    data = UnpairedShapes("train", True, size=(8, 8), lengths={"train": 6})
    drawn = [data[0, draw]["target"].numpy().tobytes() for draw in range(40)]
    assert 6 < len(set(drawn)) <= 12  # every target and every flip of it
    assert torch.equal(data[3, 8]["target"], data[3, 8, True]["target"])
    with pytest.raises(UserError, match=r"dataset\.target"):
        UnpairedShapes("train", True, target="c")
