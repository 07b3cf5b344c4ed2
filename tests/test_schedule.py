"""Learning-rate schedules of both hosts against their released rules, and the moving average."""

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from engine.config import Schedule, Train
from engine.schedule import Average, Plan, factor
from models.blocks import SpectralConv2d


def spade_reference(epoch: int, epochs: int, decay: int) -> float:
    rate = 1.0
    for finished in range(1, epoch):  # at the end of every epoch e > niter: lr <- lr - lr0 / niter_decay
        if finished > epochs:
            rate -= 1 / decay
    return rate


def test_spade_decay_equals_the_released_rule():
    for epoch in range(1, 201):
        assert factor(epoch, 100, 100, Schedule.spade) == pytest.approx(spade_reference(epoch, 100, 100))
    assert factor(101, 100, 100, Schedule.spade) == 1.0
    assert factor(200, 100, 100, Schedule.spade) == pytest.approx(1 / 100)


def test_cut_decay_has_the_printed_values():
    known = {1: 1.0, 200: 1.0, 201: 0.995, 300: 0.502, 400: 0.00498}
    for epoch, value in known.items():
        assert factor(epoch, 200, 200, Schedule.cut) == pytest.approx(value, abs=5e-4)


def test_plan_in_epochs_and_in_steps():
    train = OmegaConf.structured(Train(epochs=2, decay_epochs=2))
    plan = Plan(train, per_epoch=3)
    assert plan.steps == 12
    assert [plan.factor(step) for step in range(12)] == [1.0] * 9 + [0.5] * 3
    train.steps, train.decay_steps = 10, 4
    plan = Plan(train, per_epoch=3)
    assert plan.steps == 10
    assert [plan.factor(step) for step in range(10)] == [1.0] * 7 + [0.75, 0.5, 0.25]


def test_crops_end_with_the_decay_where_they_do():
    train = OmegaConf.structured(Train(epochs=2, decay_epochs=2))
    assert Plan(train, per_epoch=3).plain_from is None
    train.decay_crop = False
    assert Plan(train, per_epoch=3).plain_from == 6
    train.steps, train.decay_steps = 10, 4
    assert Plan(train, per_epoch=3).plain_from == 6
    train.decay_steps = 0
    assert Plan(train, per_epoch=3).plain_from == 10  # never


def test_average_equals_its_formula_and_gives_the_weights_back():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = Average(network, 0.9)
    expected = network[0].weight.detach().clone()
    for _ in range(4):
        with torch.no_grad():
            network[0].weight.add_(torch.randn(2, 3))
        average.update()
        expected = 0.9 * expected + 0.1 * network[0].weight.detach()
    own = network[0].weight.detach().clone()
    with average.applied():
        torch.testing.assert_close(network[0].weight.detach(), expected)
    torch.testing.assert_close(network[0].weight.detach(), own, rtol=0, atol=0)


def test_an_average_of_weights_that_stand_still_gives_the_networks_own_images():
    """Spectral norms' vectors turn while they converge; a mean of them would estimate too small a norm."""
    torch.manual_seed(0)
    network = nn.Sequential(SpectralConv2d(3, 8, 3), SpectralConv2d(8, 2, 1))
    average = Average(network, 0.99)
    x = torch.randn(1, 3, 6, 6)
    for _ in range(30):
        network(x)
        average.update()
    network.eval()
    expected = network(x)
    with average.applied():
        torch.testing.assert_close(network(x), expected)
