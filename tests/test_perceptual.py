"""Regression losses and feature matching against scalar twins."""

import math
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from losses.objective import Views
from losses.perceptual import L1, FeatureMatching, Perceptual, l1

LOSSES = Path(__file__).resolve().parents[1] / "configs" / "loss"


def mean_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    pairs = list(zip(one.flatten().tolist(), other.flatten().tolist(), strict=True))
    return math.fsum(abs(a - b) for a, b in pairs) / len(pairs)


@pytest.mark.parametrize("make", [L1, Perceptual])
def test_l1_is_its_twin_and_stops_at_the_key(make):
    query, key = (torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    loss = make()(query, key)
    assert make.on == "maps"
    assert loss.item() == pytest.approx(mean_difference(query, key))
    to_query, to_key = torch.autograd.grad(loss, (query, key), allow_unused=True)
    torch.testing.assert_close(to_query, (query - key).sign() / query.numel())
    assert to_key is None


def test_bfloat16_is_averaged_in_float32():
    query = torch.ones(1, 1, 100, 100, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = l1(query, torch.full_like(query, 0.99609375))
    assert value.dtype == torch.float32
    assert value.item() == 0.00390625


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"query \(1, 2\) and key \(2, 1\) differ"):
        L1()(torch.ones(1, 2), torch.ones(2, 1))  # and not broadcast


def test_presets_of_the_layer_weights():
    weights = {path.stem: instantiate(OmegaConf.load(path)).layer_weights for path in LOSSES.glob("perceptual*.yaml")}
    spade = [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1]
    networks = [1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5]
    assert weights["perceptual"] == Perceptual().layer_weights == spade
    assert weights["perceptual_official"] == pytest.approx([w / (1 + sum(spade)) for w in spade], rel=1e-9)
    assert weights["perceptual_official"][-1] == pytest.approx(0.40506, abs=1e-5)
    assert weights["perceptual_crn"] == pytest.approx([w / (1 + sum(networks)) for w in networks], rel=1e-9)


def stages(scales: int) -> list[list[torch.Tensor]]:
    return [
        [torch.randn(2, 4 + k, 8 >> s, 8 >> s, dtype=torch.float64, requires_grad=True) for k in range(4)]
        for s in range(scales)
    ]


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_feature_matching_sums_stages_and_averages_scales(scales):
    fake, real = stages(scales), stages(scales)
    term = FeatureMatching()
    value = term(Views(None, {"fake_stages": fake, "real_stages": real}))
    expected = sum(
        mean_difference(f, r) for fs, rs in zip(fake, real, strict=True) for f, r in zip(fs, rs, strict=True)
    )
    assert value.item() == pytest.approx(expected / scales)
    assert term.reads == {"fake_stages", "real_stages"}
    value.backward()
    assert all(f.grad is not None for fs in fake for f in fs)
    assert all(r.grad is None for rs in real for r in rs)


def test_feature_matching_refuses_another_number_of_stages():
    fake, real = stages(1), stages(1)
    with pytest.raises(ValueError, match="zip"):
        FeatureMatching()(Views(None, {"fake_stages": fake, "real_stages": [real[0][:3]]}))
