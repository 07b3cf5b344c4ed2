"""Label maps: edges against a slow twin, dense maps, palettes and training ids."""

import json
import random

import pytest
import torch

from data.labels import (
    CITYSCAPES_TRAIN_IDS,
    colorize,
    colors,
    instance_edges,
    one_hot,
    read_palette,
    score_map,
    semantic_map,
)
from errors import UserError


def reference_edges(ids):
    """1 where a pixel differs from a 4-neighbour; lists of rows."""
    height, width = len(ids), len(ids[0])
    edges = [[0] * width for _ in range(height)]
    for y in range(height):
        for x in range(width):
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= v < height and 0 <= u < width and ids[v][u] != ids[y][x]:
                    edges[y][x] = 1
    return edges


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (7, 1), (9, 13)])
def test_instance_edges_equal_their_slow_twin(height, width):
    generator = torch.Generator().manual_seed(height * 100 + width)
    instance = torch.randint(0, 3, (4, 1, height, width), generator=generator, dtype=torch.int32) * 11000
    expected = torch.tensor([[reference_edges(item[0].tolist())] for item in instance], dtype=torch.uint8)
    assert torch.equal(instance_edges(instance), expected)


def test_a_square_has_a_border_of_known_length():
    instance = torch.zeros(1, 1, 8, 8, dtype=torch.int32)
    instance[..., 2:6, 2:6] = 26001
    assert instance_edges(instance).sum() == 12 + 16  # the rim of the square, and the four sides around it
    assert instance_edges(torch.zeros_like(instance)).sum() == 0


def test_unknown_pixels_become_the_extra_class():
    source = torch.tensor([[[[0, 149, 255, 3]]]], dtype=torch.uint8)
    semantic = semantic_map(source, classes=150, ignore=255)
    assert semantic.tolist() == [[[[0, 149, 150, 3]]]] and semantic.dtype == torch.uint8
    assert torch.equal(semantic_map(source, classes=256), source)
    assert semantic_map(source, classes=256, ignore=3).tolist() == [[[[0, 149, 255, 256]]]]


def test_one_hot_equals_its_slow_twin():
    generator = torch.Generator().manual_seed(0)
    source = torch.randint(0, 5, (2, 1, 6, 7), generator=generator, dtype=torch.uint8)
    instance = torch.randint(0, 2, (2, 1, 6, 7), generator=generator, dtype=torch.int32)
    semantic = semantic_map(source, 4, ignore=4, instance=instance)
    dense = one_hot(semantic, 5)
    assert dense.shape == (2, 6, 6, 7) and dense.dtype == torch.float32
    edges = instance_edges(instance)
    for b in range(2):
        for y in range(6):
            for x in range(7):
                expected = [0.0] * 6
                expected[source[b, 0, y, x]] = 1.0
                expected[5] = float(edges[b, 0, y, x])
                assert dense[b, :, y, x].tolist() == expected


def test_cityscapes_training_ids_are_the_benchmark_s():
    wanted = {
        7: 0,
        8: 1,
        11: 2,
        12: 3,
        13: 4,
        17: 5,
        19: 6,
        20: 7,
        21: 8,
        22: 9,
        23: 10,
        24: 11,
        25: 12,
        26: 13,
        27: 14,
    }
    wanted |= {28: 15, 31: 16, 32: 17, 33: 18}
    assert [wanted.get(label, 255) for label in range(35)] == CITYSCAPES_TRAIN_IDS


def test_score_map_says_what_metrics_compare():
    assert score_map(3)[:4] == [0, 1, 2, 255]
    assert score_map(12, unscored=[11])[10:13] == [10, 255, 255]
    table = score_map(35, scored=CITYSCAPES_TRAIN_IDS)
    assert len(table) == 256 and table[:35] == CITYSCAPES_TRAIN_IDS and set(table[35:]) == {255}


def test_colours_are_known_or_distinct():
    ids = torch.tensor([[[[7, 26]]]], dtype=torch.uint8)
    assert colorize(ids, "cityscapes")[0, :, 0].T.tolist() == [[128, 64, 128], [0, 0, 142]]
    assert colorize(torch.tensor([[[3]]]), "camvid").flatten().tolist() == [128, 64, 128]
    assert len({tuple(row) for row in colors("anything").tolist()}) == 256
    assert colorize(torch.zeros(2, 1, 4, 5, dtype=torch.uint8)).shape == (2, 3, 4, 5)


def test_palettes_are_read_in_three_forms(tmp_path):
    wanted = {(255, 0, 0): 0, (0, 255, 0): 1, (0, 0, 255): 1}
    text = tmp_path / "palette.txt"
    text.write_text("# id R G B name\n0 255 0 0 sky\n1, 0, 255, 0\n\n1 0 0 255  # a second colour of id 1\n")
    assert read_palette(text) == wanted
    listed, named = tmp_path / "list.json", tmp_path / "named.json"
    listed.write_text(json.dumps([[255, 0, 0], [0, 255, 0]]))
    named.write_text(json.dumps({"0": [255, 0, 0], "7": [0, 255, 0]}))
    assert read_palette(listed) == {(255, 0, 0): 0, (0, 255, 0): 1}
    assert read_palette(named) == {(255, 0, 0): 0, (0, 255, 0): 7}


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("a.txt", "0 255 0\n", "line 1"),
        ("a.txt", "0 1 2 3\n1 1 2 300\n", "line 2"),
        ("a.txt", "0 1 2 3\n4 1 2 3\n", "before it was 0"),
        ("a.txt", "# nothing\n", "no colours"),
        ("a.json", "[[1, 2, 3], [4, 5]]", "entry 1"),
        ("a.json", "{broken", "not a palette"),
        ("a.json", "3", "not a palette"),
        ("a.json", "[" * 100_000, "not a palette"),
        ("a.json", "[[Infinity, 0, 0]]", "entry 0"),
    ],
)
def test_a_bad_palette_names_file_and_place(tmp_path, name, text, word):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=f"{name}.*{word}"):
        read_palette(tmp_path / name)


def test_a_byte_order_mark_is_passed_over(tmp_path):
    for name, text in (("p.txt", "0 255 0 0 sky\n1 0 255 0\n"), ("p.json", "[[255, 0, 0], [0, 255, 0]]")):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert read_palette(tmp_path / name) == {(255, 0, 0): 0, (0, 255, 0): 1}


@pytest.mark.parametrize(
    "text",
    [
        "128 64 128 0\n244 35 232 1\n70 70 70 2\n",
        "128 64 128 1 road\n244 35 232 2 walk\n",
        "128,64,128,0\n244,35,232,1\n0,0,0,255\n",
        "9 64 128 0\n8 35 232 1\n7 0 0 1\n",
        "255 0 0 0\n0 255 0 1\n0 0 255 2\n",
    ],
)
def test_columns_in_the_order_r_g_b_id_are_refused(tmp_path, text):
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(UserError, match=r"p\.txt: its last column counts up.*R G B ID"):
        read_palette(tmp_path / "p.txt")


@pytest.mark.parametrize(
    "text",
    ["0 1 2 0\n1 1 2 1\n", "7 255 0 0\n11 0 0 255\n", "5 9 9 0\n", "0 9 8 7\n2 9 8 6\n"],
)
def test_columns_in_the_order_id_r_g_b_are_read(tmp_path, text):
    (tmp_path / "p.txt").write_text(text)
    ids = [int(line.split()[0]) for line in text.splitlines()]
    assert list(read_palette(tmp_path / "p.txt").values()) == ids


def test_scored_has_a_training_id_for_each_class():
    with pytest.raises(UserError, match=r"dataset\.scored lists 2 ids, dataset\.classes is 5"):
        score_map(5, scored=[0, 1])
    with pytest.raises(UserError, match=r"dataset\.scored holds 300"):
        score_map(2, scored=[0, 300])


def test_a_missing_palette_names_the_key(tmp_path):
    with pytest.raises(UserError, match=r"dataset\.palette"):
        read_palette(tmp_path / "none.txt")


def test_a_palette_survives_shuffling(tmp_path):
    rows = [f"{label} {label * 3 % 256} {label} {255 - label}" for label in range(200)]
    random.Random(0).shuffle(rows)
    (tmp_path / "p.txt").write_text("\n".join(rows))
    assert read_palette(tmp_path / "p.txt") == {(label * 3 % 256, label, 255 - label): label for label in range(200)}
