"""KID against scalar loops, its jackknife against leaving images out, and its expectation."""

import math

import numpy as np
import pytest

from metrics import kid as module
from metrics.kid import kid


def reference(x, y):
    """Unbiased MMD^2 with k(a, b) = (a.b / C + 1)^3, in scalar loops."""

    def k(a, b):
        return (math.fsum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    x, y = x.tolist(), y.tolist()
    n, m = len(x), len(y)
    xx = math.fsum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = math.fsum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    xy = math.fsum(k(a, b) for a in x for b in y) / (n * m)
    return xx + yy - 2 * xy


def reference_error(x, y):
    """Jackknife of two samples: each image left out in turn."""
    total = 0.0
    for n, left in ((len(x), lambda i: (np.delete(x, i, 0), y)), (len(y), lambda i: (x, np.delete(y, i, 0)))):
        values = [reference(*left(i)) for i in range(n)]
        mean = math.fsum(values) / n
        total += (n - 1) / n * math.fsum((value - mean) ** 2 for value in values)
    return math.sqrt(total)


def sample(n, seed, channels=6, shift=0.0):
    return np.random.default_rng(seed).standard_normal((n, channels)) + shift


@pytest.mark.parametrize("block", [2, 3, 2000])
def test_equals_the_scalar_loop(monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK", block)
    x, y = sample(6, 0), sample(5, 1, shift=0.3)
    value, error = kid(x, y)
    assert value == pytest.approx(reference(x, y), rel=1e-10)
    assert error == pytest.approx(reference_error(x, y), rel=1e-10)


def test_one_distribution_is_zero_within_its_error_and_unbiased():
    found = [kid(sample(60, 2 * seed), sample(60, 2 * seed + 1)) for seed in range(40)]
    values = np.array([value for value, _ in found])
    errors = np.array([error for _, error in found])
    assert abs(values.mean()) < 3 * values.std() / math.sqrt(len(values))
    assert (values < 0).any() and (values > 0).any()
    assert 0.6 < errors.mean() / values.std() < 1.8  # the jackknife tells the true spread
    assert (np.abs(values) < 3 * errors).mean() > 0.9


def test_grows_with_the_difference_and_is_symmetric():
    x = sample(80, 0)
    values = [kid(x, sample(80, 1, shift=shift))[0] for shift in (0.0, 0.3, 0.6, 1.2)]
    assert values == sorted(values) and values[1] > 3 * kid(x, sample(80, 1))[1]
    y = sample(50, 1, shift=0.5)
    assert kid(x, y) == pytest.approx(kid(y, x), rel=1e-10)


def test_a_set_against_itself_is_below_zero_by_the_missing_diagonal():
    x = sample(30, 0)
    diagonal = np.mean(((x * x).sum(1) / x.shape[1] + 1) ** 3)
    off = (((x @ x.T) / x.shape[1] + 1) ** 3).mean()
    assert kid(x, x)[0] == pytest.approx(2 * (30 * off - diagonal) / 29 - 2 * off, rel=1e-9)


def test_few_and_broken_features():
    x = sample(5, 0)
    value, error = kid(x[:2], x)
    assert math.isfinite(value) and math.isnan(error)
    with pytest.raises(ValueError, match="two images"):
        kid(x[:1], x)
    with pytest.raises(ValueError, match="NaN"):
        kid(np.full_like(x, np.nan), x)
    with pytest.raises(ValueError, match=r"\(5, 6\)"):
        kid(x, x[:, :2])
