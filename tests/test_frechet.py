"""Frechet distance against scipy's matrix square root, known answers, and sums over ranks."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from metrics.frechet import (
    Moments,
    frechet_distance,
    frechet_from_features,
    trace_from_covariances,
    trace_from_features,
)
from metrics.segmentation import Confusion


def features(n, channels=64, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, channels)) / np.sqrt(np.arange(1, channels + 1)) + shift


def fitted(x):
    return x.mean(0), np.cov(x, rowvar=False)


def reference(mean1, cov1, mean2, cov2):
    """The formula as it stands, with scipy's square root of the product."""
    root = scipy.linalg.sqrtm(cov1 @ cov2)
    return ((mean1 - mean2) ** 2).sum() + np.trace(cov1 + cov2 - 2 * root.real)


@pytest.mark.parametrize(("n", "tolerance"), [(500, 1e-6), (40, 1e-4)])
@pytest.mark.filterwarnings("ignore::scipy.linalg.LinAlgWarning", "ignore::RuntimeWarning", "ignore:Matrix is singular")
def test_equals_sqrtm(n, tolerance):
    x, y = features(n, seed=0), features(n, seed=1, shift=0.1)
    expected = reference(*fitted(x), *fitted(y))
    assert frechet_distance(*fitted(x), *fitted(y)) == pytest.approx(expected, rel=tolerance)
    assert frechet_from_features(x, y) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize(
    ("images", "channels"), [(250, 256), (300, 256), pytest.param(2000, 2048, marks=pytest.mark.slow)]
)
@pytest.mark.filterwarnings("ignore::scipy.linalg.LinAlgWarning", "ignore::RuntimeWarning", "ignore:Matrix is singular")
def test_both_forms_of_the_trace_equal_sqrtm(images, channels):
    """As many images as channels, or a few less: the size of FID on a test set. benchmarks/frechet.py times it."""
    x, y = features(images, channels), features(images, channels, seed=1, shift=0.1)
    expected = reference(*fitted(x), *fitted(y))
    assert frechet_from_features(x, y) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(*fitted(x), *fitted(y)) == pytest.approx(expected, rel=1e-6)
    first, second = ((z - z.mean(0)) / np.sqrt(images - 1) for z in (x, y))
    trace = trace_from_features(first, second)
    assert trace_from_covariances(first.T @ first, second.T @ second) == pytest.approx(trace, rel=1e-6)


def test_gaussians_with_diagonal_covariances():
    rng = np.random.default_rng(0)
    a, b, shift = rng.random(50), rng.random(50), rng.standard_normal(50)
    expected = math.fsum(shift**2) + math.fsum((np.sqrt(a) - np.sqrt(b)) ** 2)
    assert frechet_distance(np.zeros(50), np.diag(a), shift, np.diag(b)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("zeros", [0, 1, 7])
def test_covariances_without_a_cholesky_factor(zeros):
    """A channel of zeros in either: known for diagonals, and turning both alike changes nothing."""
    rng = np.random.default_rng(zeros)
    a, b = rng.random(10), rng.random(10)
    a[:zeros] = 0
    turn = np.linalg.qr(rng.standard_normal((10, 10)))[0]
    for turned in (np.eye(10), turn):
        first, second = ((turned * diagonal) @ turned.T for diagonal in (a, b))
        for pair in ((first, second), (second, first)):
            assert trace_from_covariances(*pair) == pytest.approx(np.sqrt(a * b).sum(), abs=1e-6)


def test_a_shift_alone_costs_its_square_and_the_distance_is_symmetric():
    x, y = features(300), features(300, seed=5, shift=0.3)
    assert frechet_from_features(x, x + 0.5) == pytest.approx(64 * 0.25, rel=1e-9)
    assert frechet_from_features(x, y) == pytest.approx(frechet_from_features(y, x), rel=1e-9)


@pytest.mark.parametrize("n", [2, 20, 200])
def test_a_set_against_itself_is_zero_and_never_negative(n):
    x = features(n)
    assert 0 <= frechet_from_features(x, x) < 1e-6
    assert 0 <= frechet_distance(*fitted(x), *fitted(x)) < 1e-6


def test_a_point_against_a_cloud():
    x = features(100)
    mean, cov = fitted(x)
    expected = (mean**2).sum() + np.trace(cov)
    assert frechet_distance(mean, cov, np.zeros(64), np.zeros((64, 64))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("sizes", [(20, 30), (20, 100), (100, 90)])
def test_raw_features_and_moments_agree_at_any_number(sizes):
    x, y = features(sizes[0]), features(sizes[1], seed=1, shift=0.2)
    assert frechet_from_features(x, y) == pytest.approx(frechet_distance(*fitted(x), *fitted(y)), rel=1e-6)


def test_torch_features_in_float32_are_enough_input():
    x, y = features(100), features(100, seed=1)
    single = frechet_from_features(torch.from_numpy(x).float(), torch.from_numpy(y).float())
    assert single == pytest.approx(frechet_from_features(x, y), rel=1e-5)


def test_broken_input_raises_at_once():
    x = features(10)
    with pytest.raises(ValueError, match="two images"):
        frechet_from_features(x[:1], x)
    with pytest.raises(ValueError, match="NaN"):
        frechet_from_features(np.where(x > 1, np.nan, x), x)
    with pytest.raises(
        ValueError, match="NaN"
    ):  # what np.cov gives for one image; scipy's sqrtm may never return on it
        frechet_distance(x[0], np.full((64, 64), np.nan), x[0], np.eye(64))
    with pytest.raises(ValueError, match="do not fit"):
        frechet_distance(x[0], np.eye(64), x[0], np.eye(63))
    with pytest.raises(ValueError, match=r"\(10, 64\)"):
        frechet_from_features(x, x[:, :3])
    moments = Moments(3)
    moments.update(torch.ones(1, 3))
    with pytest.raises(ValueError, match="two images"):
        moments.compute()
    with pytest.raises(ValueError, match="NaN"):
        moments.update(torch.tensor([[0.0, math.inf, 0.0]]))


@pytest.mark.parametrize("batch", [1, 7, 50])
def test_moments_do_not_depend_on_the_batches_and_match_a_scalar_loop(batch):
    x = torch.from_numpy(features(50, 3)).float()
    moments = Moments(3)
    for part in x.split(batch):
        moments.update(part)
    mean, cov = moments.compute()
    rows = x.double().tolist()
    for i in range(3):
        centre = math.fsum(row[i] for row in rows) / 50
        assert mean[i].item() == pytest.approx(centre, abs=1e-12)
        for j in range(3):
            other = math.fsum(row[j] for row in rows) / 50
            expected = math.fsum((row[i] - centre) * (row[j] - other) for row in rows) / 49
            assert cov[i, j].item() == pytest.approx(expected, abs=1e-12)


def _rank(rank, path):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}/rendezvous", rank=rank, world_size=2)
    x = torch.from_numpy(features(7, 3))
    moments, confusion = Moments(3), Confusion(2)
    moments.update(x[rank::2])  # 4 images on one rank, 3 on the other
    confusion.update(torch.tensor([rank, 1]), torch.tensor([1, 255]))
    mean, cov = moments.reduce().compute()
    expected = fitted(x.numpy())
    torch.testing.assert_close(mean, torch.from_numpy(expected[0]))
    torch.testing.assert_close(cov, torch.from_numpy(expected[1]))
    assert confusion.reduce().counts.tolist() == [[0, 0], [1, 1]] and confusion.void == 2
    dist.destroy_process_group()


def test_two_ranks_equal_one(tmp_path):
    mp.spawn(_rank, (tmp_path,), nprocs=2)
