"""Sliced Wasserstein distance: the pyramid against scipy, the whole against a slow twin, and known answers."""

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from metrics import swd
from metrics.swd import down, projected_distance, sliced_wasserstein, up, wasserstein1

FILTER = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256


def images(n, height=32, width=32, seed=0, blur=0.0):
    noise = np.random.default_rng(seed).random((n, 3, height, width))
    smooth = scipy.ndimage.gaussian_filter(noise, (0, 0, 1 + blur, 1 + blur), mode="wrap")
    return ((smooth - smooth.min()) / (smooth.max() - smooth.min()) * 110).astype(np.uint8)


def slow_down(image):
    return scipy.ndimage.convolve(image, FILTER, mode="mirror")[::2, ::2]


def slow_up(image):
    fine = np.zeros((2 * image.shape[0], 2 * image.shape[1]))
    fine[::2, ::2] = image
    return scipy.ndimage.convolve(fine, 4 * FILTER, mode="mirror")


def test_pyramid_equals_filtering_with_zeros_between():
    image = np.random.default_rng(0).random((32, 20))
    single = image.astype(np.float32)
    assert np.abs(down(single) - slow_down(image)).max() < 1e-5
    assert np.abs(up(single) - slow_up(image)).max() < 1e-5
    detail, coarse = single - up(down(single)), down(single)
    assert np.abs(detail + up(coarse) - single).max() < 1e-4


def reference(fake, real, seed):
    """The definition for one seed, in loops over images, windows, patches and directions; the same draws."""
    n, _, height, width = fake.shape
    levels = int(math.log2(min(height, width) // 16)) + 1
    values = []
    for level in range(levels):
        sets = []
        for role, batch in enumerate((fake, real)):
            rng = np.random.default_rng([seed, level, role])
            planes = [[channel.astype(np.float64) for channel in image] for image in batch]
            for _ in range(level):
                planes = [[slow_down(channel) for channel in image] for image in planes]
            if level < levels - 1:
                planes = [[channel - slow_up(slow_down(channel)) for channel in image] for image in planes]
            rows = rng.integers(planes[0][0].shape[0] - 6, size=(n, swd.WINDOWS))
            columns = rng.integers(planes[0][0].shape[1] - 6, size=(n, swd.WINDOWS))
            patches = [
                [[channel[r + y, c + x] for y in range(7) for x in range(7)] for channel in image]
                for image, tops, lefts in zip(planes, rows, columns, strict=True)
                for r, c in zip(tops, lefts, strict=True)
            ]
            for channel in range(3):
                everything = [value for patch in patches for value in patch[channel]]
                mean = math.fsum(everything) / len(everything)
                deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in everything) / len(everything))
                for patch in patches:
                    patch[channel] = [(value - mean) / deviation for value in patch[channel]]
            sets.append([patch[0] + patch[1] + patch[2] for patch in patches])
        rng, distances = np.random.default_rng([seed, level, 2]), []
        for _ in range(swd.REPEATS):
            for direction in rng.standard_normal((swd.DIRECTIONS, 147)).astype(np.float32).tolist():
                length = math.sqrt(math.fsum(value * value for value in direction))
                a, b = (
                    sorted(
                        math.fsum(p * q for p, q in zip(patch, direction, strict=True)) / length for patch in patches
                    )
                    for patches in sets
                )
                distances.append(math.fsum(abs(p - q) for p, q in zip(a, b, strict=True)) / len(a))
        values.append(1000 * math.fsum(distances) / len(distances))
    return values


def test_equals_the_slow_twin(monkeypatch):
    monkeypatch.setattr(swd, "WINDOWS", 5)
    monkeypatch.setattr(swd, "DIRECTIONS", 6)
    monkeypatch.setattr(swd, "CHUNK", 2)
    fake, real = images(3, 32, 48), images(3, 32, 48, seed=1, blur=1)
    found = sliced_wasserstein(fake, real, seed=4, seeds=2)
    expected = np.array([reference(fake, real, 4), reference(fake, real, 5)])
    assert list(found.levels) == ["48x32", "24x16"]
    assert list(found.levels.values()) == pytest.approx(expected.mean(0).tolist(), rel=1e-4)
    assert found.mean == pytest.approx(expected.mean(), rel=1e-4)
    assert found.sd == pytest.approx(expected.mean(1).std(ddof=1), rel=1e-2)


def test_a_shift_costs_its_length_along_the_direction():
    rng = np.random.default_rng(0)
    x, shift, directions = rng.random((200, 9)), rng.random(9), rng.standard_normal((50, 9))
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    assert projected_distance(x, x + shift, directions) == pytest.approx(np.abs(unit @ shift).mean(), rel=1e-9)
    assert wasserstein1(np.sort(x[:, 0]), np.sort(x[:, 0]) - 3) == pytest.approx(3, rel=1e-12)


@pytest.mark.parametrize(("p", "q"), [(7, 7), (6, 9), (5, 8), (1, 4)])
def test_unequal_numbers_integrate_the_quantile_functions(p, q):
    rng = np.random.default_rng(0)
    a, b = np.sort(rng.standard_normal(p)), np.sort(rng.standard_normal(q) + 1)
    assert wasserstein1(a, b) == pytest.approx(scipy.stats.wasserstein_distance(a, b), rel=1e-12)
    assert wasserstein1(np.repeat(a, q), np.repeat(b, p)) == pytest.approx(wasserstein1(a, b), rel=1e-12)


def test_modes_of_counting():
    fake, real = images(6), images(9, seed=1)
    paper = sliced_wasserstein(fake, real, seeds=1)
    assert paper == sliced_wasserstein(fake, real[:6], seeds=1)
    assert paper.counts == (6, 6)
    assert sliced_wasserstein(fake, real[:6], seeds=1, count="all") == paper
    everything = sliced_wasserstein(fake, real, seeds=1, count="all")
    assert everything.counts == (6, 9) and everything.mean != paper.mean


def test_seeds_repeat_and_differ():
    fake, real = images(4), images(4, seed=1)
    assert sliced_wasserstein(fake, real, 3) == sliced_wasserstein(fake, real, 3)
    assert sliced_wasserstein(fake, real, 3).mean != sliced_wasserstein(fake, real, 4).mean
    assert sliced_wasserstein(fake, real, 3).sd > 0


def test_blind_to_global_colour_and_contrast_but_not_to_blur():
    fake, real = images(8), images(8, seed=1)
    plain = sliced_wasserstein(fake, real)
    recoloured = fake * np.array([2, 1, 2], np.uint8)[:, None, None] + np.array([0, 90, 30], np.uint8)[:, None, None]
    assert sliced_wasserstein(recoloured, real).mean == pytest.approx(plain.mean, rel=1e-4)
    assert sliced_wasserstein(images(8, blur=1), real).mean > plain.mean + 5 * plain.sd
    shuffled = sliced_wasserstein(fake[::-1], real)
    assert abs(shuffled.mean - plain.mean) < 6 * (plain.sd + shuffled.sd)


def test_odd_sizes_are_cropped_and_said():
    odd = sliced_wasserstein(images(3, 37, 51), images(3, 37, 51, seed=1), seeds=1)
    assert list(odd.levels) == ["50x36", "25x18"] and "cropped to 50x36" in odd.warnings[0]
    cropped = [batch[:, :, :36, :50] for batch in (images(3, 37, 51), images(3, 37, 51, seed=1))]
    assert odd.levels == sliced_wasserstein(*cropped, seeds=1).levels
    assert list(sliced_wasserstein(images(1, 16, 64), images(1, 16, 64), seeds=1).levels) == ["64x16"]


def test_constant_images_give_a_number_and_a_warning():
    found = sliced_wasserstein(np.full((3, 3, 32, 32), 7, np.uint8), images(3), seeds=1)
    assert math.isfinite(found.mean) and found.mean > 100
    assert len(found.warnings) == 2 and all("constant" in warning for warning in found.warnings)


def test_wrong_input():
    good = images(2)
    with pytest.raises(ValueError, match="16 at least"):
        sliced_wasserstein(good[..., :12], good[..., :12])
    with pytest.raises(ValueError, match="one size"):
        sliced_wasserstein(good, good[..., :24])
    with pytest.raises(ValueError, match="uint8"):
        sliced_wasserstein(good.astype(np.float32), good)
    with pytest.raises(ValueError, match="'paper' or 'all'"):
        sliced_wasserstein(good, good, count="some")
