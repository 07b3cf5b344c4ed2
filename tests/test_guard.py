"""The guard stops at the first value that is no number and names it."""

import pytest
import torch
from torch import nn

from engine.guard import Diverged, FiniteGuard, gradient_norm


def test_a_nan_is_named_at_once_on_a_cpu():
    guard = FiniteGuard(torch.device("cpu"))
    guard.watch(1, {"contrast": torch.tensor(1.0), "norm/generator": torch.tensor(2.0)})
    with pytest.raises(Diverged, match=r"step 2: not finite: norm/generator = inf"):
        guard.watch(2, {"contrast": torch.tensor(1.0), "norm/generator": torch.tensor(float("inf"))})


def test_a_device_that_runs_ahead_is_read_one_step_late_and_before_a_save():
    guard = FiniteGuard(torch.device("cpu"))
    guard.late = True
    guard.watch(1, {"gan": torch.tensor(float("nan"))})
    with pytest.raises(Diverged, match=r"step 1: .*gan = nan"):
        guard.settle()
    with pytest.raises(Diverged, match=r"step 1: .*gan = nan"):
        guard.watch(2, {"gan": torch.tensor(0.0)})


def test_gradient_norm_is_the_euclidean_norm_over_all_parameters():
    network = nn.Linear(3, 2)
    network(torch.ones(1, 3)).sum().backward()
    expected = torch.cat([p.grad.flatten() for p in network.parameters()]).norm()
    torch.testing.assert_close(gradient_norm(network), expected)
    assert gradient_norm(nn.Linear(2, 2)) == 0
