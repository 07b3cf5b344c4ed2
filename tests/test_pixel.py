"""Differences of images: the sum over pairs, against a scalar twin, and where gradients go."""

import math

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from losses.objective import Views
from losses.pixel import PixelL1, difference

CYCLE = [["cycled_source", "source"], ["cycled_target", "target"]]


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def twin(one: Tensor, other: Tensor) -> float:
    pairs = list(zip(one.flatten().tolist(), other.flatten().tolist(), strict=True))
    return math.fsum(abs(a - b) for a, b in pairs) / len(pairs)


def test_pairs_are_added_and_may_differ_in_channels_and_size():
    made = PixelL1(OmegaConf.create(CYCLE))
    views = {
        "source": image(2, 1, 4, 6),
        "cycled_source": image(2, 1, 4, 6, seed=1),
        "target": image(2, 3, 5, 3, seed=2),
        "cycled_target": image(2, 3, 5, 3, seed=3),
    }
    expected = sum(twin(views[one], views[other]) for one, other in CYCLE)
    assert made(Views(None, views)).item() == pytest.approx(expected, rel=1e-12)
    assert made.pairs == [tuple(pair) for pair in CYCLE]
    assert made.reads == set(views)


def test_a_shift_costs_its_size():
    target = image(3, 3, 4, 4)
    value = PixelL1([["fake", "target"]])(Views(None, {"fake": target - 0.25, "target": target}))
    assert value.item() == pytest.approx(0.25)


def test_gradients_flow_to_both_sides():
    one, other = image(1, 3, 4, 4).requires_grad_(), image(1, 3, 4, 4, seed=1).requires_grad_()
    PixelL1([["one", "other"]])(Views(None, {"one": one, "other": other})).backward()
    torch.testing.assert_close(one.grad, (one - other).sign() / one.numel())
    torch.testing.assert_close(other.grad, -one.grad)


def test_bfloat16_is_averaged_in_float32():
    one = torch.ones(1, 1, 100, 100, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = difference(one, torch.full_like(one, 0.99609375))
    assert value.dtype == torch.float32
    assert value.item() == 0.00390625


def test_views_of_different_shapes_are_named():
    views = Views(None, {"cycled_source": image(1, 3, 4, 4), "source": image(1, 1, 4, 4)})
    with pytest.raises(ValueError, match=r"'cycled_source' \(1, 3, 4, 4\) and 'source' \(1, 1, 4, 4\) differ"):
        PixelL1([["cycled_source", "source"]])(views)
    with pytest.raises(ValueError, match="differ"):
        difference(views["source"], views["cycled_source"])
