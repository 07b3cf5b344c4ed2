"""Segmentation scores: the worked example, scalar loops, label maps, ceiling and floor."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from errors import UserError
from metrics.labels import VOID, pair, read_labels, score_table
from metrics.segmentation import Confusion, evaluate, scores


def test_worked_example():
    confusion = Confusion(2)
    confusion.update(torch.tensor([0, 1, 1, 1, 0]), torch.tensor([0, 0, 1, 1, VOID]))
    assert confusion.counts.tolist() == [[1, 1], [0, 2]] and confusion.void == 1
    found = confusion.scores()
    assert found["iou"] == pytest.approx([50, 200 / 3])
    assert found["miou"] == pytest.approx(58.3333333)
    assert (found["pixacc"], found["pixacc_all"], found["classacc"]) == pytest.approx((75, 60, 75))
    assert scores(confusion.counts)["pixacc_all"] == 75  # void pixels are counted where they are given


def reference(predicted, truth, classes):
    """mIoU, pixel and class accuracy by going over pixels."""
    pairs = [(p, t) for p, t in zip(predicted, truth, strict=True) if t != VOID]
    ious, accuracies = [], []
    for c in range(classes):
        both = sum(p == t == c for p, t in pairs)
        either = sum(c in (p, t) for p, t in pairs)
        true = sum(t == c for _, t in pairs)
        if either:
            ious.append(both / either)
        if true:
            accuracies.append(both / true)
    right = sum(p == t for p, t in pairs)
    means = [
        math.fsum(ious) / len(ious),
        right / len(pairs),
        right / len(truth),
        math.fsum(accuracies) / len(accuracies),
    ]
    return [100 * mean for mean in means]


@pytest.mark.parametrize("seed", range(5))
def test_equals_going_over_pixels_for_any_batches(seed):
    rng = np.random.default_rng(seed)
    predicted, truth = rng.integers(0, 4, (6, 5, 3)), rng.choice([0, 1, 3, 4, VOID], (6, 5, 3))  # 2 and 5 never true
    whole, parts = Confusion(6), Confusion(6)
    whole.update(torch.from_numpy(predicted), torch.from_numpy(truth))
    for p, t in zip(predicted, truth, strict=True):
        parts.update(torch.from_numpy(p), torch.from_numpy(t))
    assert torch.equal(whole.counts, parts.counts) and whole.void == parts.void
    found = whole.scores()
    expected = reference(predicted.ravel().tolist(), truth.ravel().tolist(), 6)
    assert [found[name] for name in ("miou", "pixacc", "pixacc_all", "classacc")] == pytest.approx(expected)
    assert found["absent"] == [5] and found["iou"][5] is None
    assert found["iou"][2] == 0  # predicted, never true: kept as 0


def test_ids_out_of_range_and_nothing_counted():
    confusion = Confusion(3)
    with pytest.raises(ValueError, match="truth ids reach from 3 to 3"):
        confusion.update(torch.tensor([0]), torch.tensor([3]))
    with pytest.raises(ValueError, match="predicted ids"):
        confusion.update(torch.tensor([-1]), torch.tensor([0]))
    with pytest.raises(ValueError, match="differ"):
        confusion.update(torch.zeros(2), torch.zeros(3))
    confusion.update(torch.tensor([9]), torch.tensor([VOID]))  # a prediction where nothing is true does not matter
    with pytest.raises(ValueError, match="no labelled pixel"):
        confusion.scores()


def label_file(path, ids, mode="L"):
    Image.fromarray(np.asarray(ids, np.uint8)).convert(mode).save(path)
    return path


def test_labels_are_mapped_and_resized_without_new_ids(tmp_path):
    ids = np.repeat(np.repeat([[7, 8], [11, 0]], 5, 0), 5, 1)
    path = label_file(tmp_path / "a.png", ids)
    table = score_table([255] * 7 + [0, 1] + [255] * 2 + [2])
    found = read_labels(path, table, 3, (4, 6))
    assert found.shape == (4, 6) and set(found.unique().tolist()) == {0, 1, 2, VOID}
    assert found[0, 0] == 0 and found[0, -1] == 1 and found[-1, 0] == 2 and found[-1, -1] == VOID
    assert torch.equal(read_labels(path, table, 3, (10, 10)), table[torch.from_numpy(ids)])


def test_a_palette_label_gives_its_indices(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [2, 2]], np.uint8), mode="P")
    image.putpalette([128, 64, 128, 244, 35, 232, 70, 70, 70])
    image.save(tmp_path / "p.png")
    assert read_labels(tmp_path / "p.png", score_table(None), 3, (2, 2)).tolist() == [[0, 1], [2, 2]]


def test_wrong_labels_are_named(tmp_path):
    plain = label_file(tmp_path / "plain.png", [[0, 1], [9, 255]])
    with pytest.raises(UserError, match=r"plain\.png: ids \[9\] are not in 0\.\.2.*score_map"):
        read_labels(plain, score_table(None), 3, (2, 2))
    colour = label_file(tmp_path / "colour.png", [[0, 1], [1, 0]], "RGB")
    with pytest.raises(UserError, match=r"colour\.png: mode RGB"):
        read_labels(colour, score_table(None), 3, (2, 2))
    (tmp_path / "broken.png").write_text("no image")
    with pytest.raises(UserError, match=r"broken\.png"):
        read_labels(tmp_path / "broken.png", score_table(None), 3, (2, 2))
    for wrong in ([256], [-1], [0] * 257, ["road"]):
        with pytest.raises(UserError, match="score_map"):
            score_table(wrong)


def test_pairs_go_by_relative_name_without_suffix(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    fakes, labels = [a / "x/1.jpg", a / "2.png"], [b / "2.png", b / "3.png", b / "x/1.png"]
    found = pair({"fake": (a, fakes), "labels": (b, labels)})
    assert found == {"fake": fakes, "labels": [b / "x/1.png", b / "2.png"]}
    with pytest.raises(UserError, match=r"labels=.*none for 1 of 2 images: x/1"):
        pair({"fake": (a, fakes), "labels": (b, labels[:2])})
    with pytest.raises(UserError, match="share a name"):
        pair({"fake": (a, [a / "2.png", a / "2.jpg"]), "labels": (b, labels)})


class RedIsClass:
    """A segmenter that reads the class off the red channel: 10 levels a class."""

    num_classes = 4

    def __init__(self):
        self.seen = []

    def predict(self, images):
        assert images.dtype == torch.float32 and images.min() >= 0 and images.max() <= 1
        self.seen.append(len(images))
        return (images[:, 0] * 255 / 10).round().long().clamp(0, 3)


@pytest.fixture
def scene(tmp_path):
    """Six images whose red channel is right where real, right in its upper half where fake; labels twice as large."""
    files = {"fake": [], "real": [], "labels": []}
    for i in range(6):
        ids = np.random.default_rng(i).integers(0, 4, (8, 8))
        large = np.repeat(np.repeat(ids, 2, 0), 2, 1)
        large[:2] = 255
        fake = ids.copy()
        fake[4:] = 0
        for kind, pixels in (("fake", fake), ("real", ids)):
            path = tmp_path / kind / f"{i}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.stack([pixels * 10, pixels, pixels], 2).astype(np.uint8)).save(path)
            files[kind].append(path)
        (tmp_path / "labels").mkdir(exist_ok=True)
        files["labels"].append(label_file(tmp_path / "labels" / f"{i}.png", large))
    return files


@pytest.mark.parametrize("batch_size", [1, 4])
def test_fakes_lie_between_the_real_images_and_the_shuffled_ones(scene, batch_size):
    segmenter = RedIsClass()
    found = evaluate(segmenter, scene["fake"], scene["real"], scene["labels"], batch_size=batch_size)
    assert found.ceiling["miou"] == found.ceiling["pixacc"] == found.ceiling["classacc"] == 100
    assert found.ceiling["pixacc_all"] == pytest.approx(100 * 7 / 8)
    assert found.floor is not None
    assert found.floor["miou"] < 30 < found.fake["miou"] < 80
    assert sum(segmenter.seen) == 12  # each image once
    right = total = 0
    for fake, label in zip(scene["fake"], scene["labels"], strict=True):
        truth, pixels = np.array(Image.open(label))[1::2, 1::2], np.array(Image.open(fake))[..., 0] // 10
        right += ((pixels == truth) & (truth != 255)).sum()
        total += (truth != 255).sum()
    assert found.fake["pixacc"] == pytest.approx(100 * right / total)


def test_real_images_that_do_not_fit_stop_the_evaluation(scene):
    with pytest.raises(UserError, match=r"mIoU .*20 at least.*minimum_ceiling"):
        evaluate(RedIsClass(), scene["fake"], scene["real"], scene["labels"][1:] + scene["labels"][:1])
    wrong = evaluate(RedIsClass(), scene["fake"], scene["real"], scene["labels"][::-1], minimum_ceiling=0)
    assert wrong.ceiling["miou"] < 20
    with pytest.raises(UserError, match="no label map has a pixel"):
        evaluate(RedIsClass(), scene["fake"], scene["real"], scene["labels"], score_map=[255] * 4)


def test_a_score_map_leaves_a_class_out(scene):
    found = evaluate(RedIsClass(), scene["fake"], scene["real"], scene["labels"], score_map=[0, 1, 2, 255])
    assert found.ceiling["miou"] == 100 and found.ceiling["absent"] == [3]


def test_a_single_image_has_no_floor(scene):
    found = evaluate(RedIsClass(), scene["fake"][:1], scene["real"][:1], scene["labels"][:1])
    assert found.floor is None
