"""Appearance numbers against scalar loops, extremes, and the real images they were chosen on."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from metrics.appearance import Appearance
from metrics.images import batches, image_files

CAMVID = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "camvid" / "val" / "images"


def compute(*many):
    sums = Appearance()
    for images in many:
        sums.update(images)
    return sums.compute()


def reference(image):
    """Both numbers of one (3, H, W) image of floats in [0, 1], in scalar loops."""
    x = image.tolist()
    height, width = len(x[0]), len(x[0][0])
    spreads = [max(c[r][k] for c in x) - min(c[r][k] for c in x) for r in range(height) for k in range(width)]
    along = [
        abs(c[r][k - 1] - 2 * c[r][k] + c[r][k + 1]) for c in x for r in range(height) for k in range(1, width - 1)
    ]
    down = [abs(c[r - 1][k] - 2 * c[r][k] + c[r + 1][k]) for c in x for r in range(1, height - 1) for k in range(width)]
    return sum(spreads) / len(spreads), sum(along) / len(along) + sum(down) / len(down)


def test_equals_scalar_loops_for_any_batches():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 6, 9), dtype=torch.uint8, generator=generator)
    expected = [reference(image.double() / 255) for image in images]
    for size in (1, 2, 5):
        found = compute(*images.split(size))
        assert found["channel_range"] == pytest.approx(sum(e[0] for e in expected) / 5, rel=1e-5)
        assert found["second_difference"] == pytest.approx(sum(e[1] for e in expected) / 5, rel=1e-5)


def test_grey_ramp_and_checkerboard():
    ramp = torch.arange(0, 80, 5, dtype=torch.uint8).expand(1, 3, 16, 16)
    zeros = {"channel_range": 0.0, "second_difference": 0.0, "fixed_pattern": 0.0}
    assert compute(ramp) == pytest.approx(zeros, abs=1e-6)
    index = torch.arange(8)
    board = ((index[:, None] + index) % 2 * 255).to(torch.uint8).expand(1, 3, 8, 8)
    assert compute(board) == pytest.approx({"channel_range": 0.0, "second_difference": 4.0, "fixed_pattern": 0.0})
    red = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    red[:, 0] = 255
    assert compute(red)["channel_range"] == 1


def test_each_image_counts_once_whatever_its_size():
    a, b = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(1, 3, 40, 40, dtype=torch.uint8)
    b[:, 1] = 255
    assert compute(a, b)["channel_range"] == 0.5


def test_the_fixed_pattern_is_what_images_have_in_common():
    generator = torch.Generator().manual_seed(1)
    own = torch.randint(0, 256, (200, 1, 16, 20), generator=generator).expand(-1, 3, -1, -1)
    lines = torch.randint(0, 256, (1, 1, 1, 20), generator=generator)  # the same columns in every image
    assert abs(compute(own.to(torch.uint8))["fixed_pattern"]) < 0.02
    same = lines.expand(4, 3, 16, -1).to(torch.uint8)
    assert compute(same)["fixed_pattern"] == pytest.approx(1)
    assert compute(same[:1], torch.zeros(1, 3, 5, 5, dtype=torch.uint8))["fixed_pattern"] == 0  # nothing to compare
    half = ((own + lines) // 2).to(torch.uint8)
    grey = half[:, 0].double() / 255
    h = grey.diff(n=2, dim=2)
    expected = sum((h[i] * h[j]).sum() for i in range(30) for j in range(30) if i != j) / 29
    assert compute(half[:30])["fixed_pattern"] == pytest.approx((expected / h[:30].square().sum()).item(), rel=1e-4)
    assert compute(half[:30]) == pytest.approx(compute(half[:7], half[7:30]))


def test_wrong_input():
    with pytest.raises(ValueError, match="uint8"):
        compute(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="no images"):
        Appearance().compute()


@pytest.mark.skipif(not CAMVID.is_dir(), reason=f"no CamVid images at {CAMVID}")
def test_camvid_has_the_documented_numbers():
    halved = (F.avg_pool2d(batch.float(), 2).round().to(torch.uint8) for batch in batches(image_files(CAMVID), 16))
    found = compute(*halved)
    assert found["channel_range"] == pytest.approx(0.061, abs=0.001)
    assert found["second_difference"] == pytest.approx(0.118, abs=0.001)
