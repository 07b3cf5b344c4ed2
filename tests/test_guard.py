"""The guard stops at the first value that is no number or beyond the limit, and names it."""

import pytest
import torch
from torch import nn

from engine.guard import FiniteGuard, _Pending, gradient_norm
from errors import Diverged


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


def test_a_limit_stops_after_one_warning(capsys):
    guard = FiniteGuard(torch.device("cpu"), limit=1e6)
    for step, value in enumerate((1.0, 9e3, 2e4, -9e5, 1e6), 1):
        guard.watch(step, {"gan": torch.tensor(1.0), "discriminator": torch.tensor(value)})
    warned = capsys.readouterr().err
    assert warned == "warning: step 3: discriminator = 2e+04 is large; training stops above train.limit=1e+06\n"
    told = r"step 6: above train\.limit=1e\+06: discriminator = -1\.01e\+06 \(norm"
    with pytest.raises(Diverged, match=told) as caught:
        guard.watch(6, {"gan": torch.tensor(2.0), "discriminator": torch.tensor(-1.01e6)})
    assert caught.value.step == 6
    assert caught.value.values == {"gan": 2.0, "discriminator": -1.01e6}


def test_without_a_limit_any_number_is_training(capsys):
    FiniteGuard(torch.device("cpu")).watch(1, {"gan": torch.tensor(1e30)})
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("rank", [0, 1])
def test_every_rank_stops_for_the_first_bad_one_and_says_the_same(monkeypatch, rank):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", str(rank))
    guard = FiniteGuard(torch.device("cpu"), limit=10)
    values = torch.tensor([[1.0, 2.0], [1.0, 11.0], [float("nan"), 12.0]], dtype=torch.float64)
    with pytest.raises(Diverged, match=r"step 5 on rank 1: above train\.limit=10: cycle = 11 \(") as caught:
        guard._read(_Pending(5, ["gan", "cycle"], values, None, ()))
    assert caught.value.values == {"gan": 1.0, "cycle": 11.0}


def test_gradient_norms_may_be_larger_than_losses():
    guard = FiniteGuard(torch.device("cpu"), limit=10)
    guard.watch(1, {"gan": torch.tensor(9.0), "norm/generator": torch.tensor(9e3)})
    with pytest.raises(Diverged, match=r"step 2: above train\.limit=10: norm/generator = 1\.1e\+04"):
        guard.watch(2, {"gan": torch.tensor(9.0), "norm/generator": torch.tensor(1.1e4)})
