"""Joint transforms: labels stay ids, everything moves together, results depend on (index, draw) alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from data.example import to_float, to_uint8
from data.transforms import Augment, resize, resize_ids, resize_image, seed_of
from errors import UserError


def example(height=20, width=30, classes=5):
    """Source, target and instance that all show the same ids, so that they can be compared pixel by pixel."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, classes, (1, height // 5, width // 5), generator=generator, dtype=torch.uint8)
    ids = blocks.repeat_interleave(5, 1).repeat_interleave(5, 2)
    return {
        "name": "x",
        "source": ids,
        "target": (ids * 40).expand(3, -1, -1).contiguous(),
        "instance": ids.int() * 1000,
    }


def test_resized_ids_equal_pillow_and_a_slow_twin():
    ids = torch.randint(0, 200, (1, 23, 37), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    for height, width in ((23, 37), (11, 19), (40, 50), (1, 1), (23, 10)):
        made = resize_ids(ids, (height, width))
        pillow = Image.fromarray(ids[0].numpy()).resize((width, height), Image.Resampling.NEAREST)
        assert np.array_equal(made[0].numpy(), np.array(pillow))
        for y in range(height):
            for x in range(width):
                assert made[0, y, x] == ids[0, int((y + 0.5) * 23 / height), int((x + 0.5) * 37 / width)]


def test_resized_images_equal_pillow_s_bicubic():
    image = torch.randint(0, 256, (3, 32, 48), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    for height, width in ((16, 20), (50, 70)):
        pillow = Image.fromarray(image.movedim(0, -1).numpy()).resize((width, height), Image.Resampling.BICUBIC)
        difference = (
            resize_image(image, (height, width)).movedim(0, -1).int() - torch.from_numpy(np.array(pillow)).int()
        )
        assert difference.abs().max() <= 1  # rounding


def test_evaluation_resizes_alone():
    made = resize(example(), (10, 15))
    assert made["source"].shape == (1, 10, 15) and made["target"].shape == (3, 10, 15)
    assert torch.equal(resize(example(), (20, 30))["target"], example()["target"])
    assert torch.equal(resize(example(), (10, 15), labels=False)["source"], resize_image(example()["source"], (10, 15)))


def test_labels_stay_ids_and_integers():
    before = example(classes=3)
    for draw in range(6):
        made = Augment((16, 16), (33, 41))(before, (0, draw))
        assert set(made["source"].unique().tolist()) <= set(before["source"].unique().tolist())
        assert made["source"].dtype == torch.uint8 and made["instance"].dtype == torch.int32
        assert torch.equal(made["instance"], made["source"].int() * 1000)
        assert type(made["source"]) is torch.Tensor


def test_crop_and_flip_are_joint_and_of_both_kinds():
    before = example()
    augment = Augment((8, 12), (20, 30))  # no resampling: load_size is the size of the example
    windows = {}
    for y in range(13):
        for x in range(19):
            window = before["target"][:, y : y + 8, x : x + 12]
            windows.setdefault(window.numpy().tobytes(), "plain")
            windows.setdefault(window.flip(-1).contiguous().numpy().tobytes(), "flipped")
    found = set()
    for draw in range(40):
        made = augment(before, (0, draw))
        assert torch.equal(made["target"], (made["source"] * 40).expand(3, -1, -1))
        assert torch.equal(made["instance"], made["source"].int() * 1000)
        found.add(windows[made["target"].numpy().tobytes()])
    assert found == {"plain", "flipped"}


def test_plain_leaves_the_crop_out_and_keeps_the_flip():
    augment = Augment((10, 15), (20, 30))
    whole = resize(example(), (10, 15))
    found = set()
    for draw in range(20):
        made = augment(example(), (0, draw), plain=True)
        for key in ("source", "target", "instance"):
            flipped = torch.equal(made[key], whole[key].flip(-1))
            assert flipped != torch.equal(made[key], whole[key])
        found.add(flipped)
    assert found == {True, False}


def test_seeds_of_near_keys_are_unrelated():
    keys = [(index, draw, part) for index in range(5) for draw in (0, 1, 2**32, 2**62) for part in (1, 2, 3)]
    assert len({seed_of(key) for key in keys}) == len(keys)
    seeds = np.array([seed_of((index, part)) for index in range(200) for part in (1, 2)])
    bits = seeds[:, None] >> np.arange(63) & 1
    assert np.abs(bits.mean(0) - 0.5).max() < 0.15 and abs((bits[::2] ^ bits[1::2]).mean() - 0.5) < 0.02


def test_without_flip_and_crop_nothing_is_random():
    augment = Augment((20, 30), flip=False)
    assert all(torch.equal(augment(example(), (0, draw))["target"], example()["target"]) for draw in range(5))


def test_flips_come_half_of_the_time():
    augment = Augment((20, 30))
    flips = sum(not torch.equal(augment(example(), (index, 3))["target"], example()["target"]) for index in range(400))
    assert 150 < flips < 250  # 5 standard deviations


def test_a_draw_is_reproducible_and_leaves_the_generator_alone():
    augment = Augment((8, 8), (20, 30))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = augment(example(), (7, 123))
    assert torch.equal(torch.rand(3), expected)
    two = augment(example(), (7, 123))
    assert all(torch.equal(one[key], two[key]) for key in ("source", "target", "instance"))


def test_a_crop_larger_than_what_is_loaded_names_the_key():
    with pytest.raises(UserError, match=r"dataset\.load_size"):
        Augment((64, 64), (70, 60))


def test_the_image_range():
    levels = torch.arange(256, dtype=torch.uint8)
    assert to_float(levels).min() == -1 and to_float(levels).max() == 1
    assert torch.equal(to_uint8(to_float(levels)), levels)
    assert to_uint8(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]
