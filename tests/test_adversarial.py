"""GAN losses against golden values, scalar twins and the gradients that make them a game."""

import math

import pytest
import torch

from losses.adversarial import DiscriminatorGAN, GeneratorGAN
from losses.objective import Views

SCORES = torch.tensor([[0.5, -2.0], [1.5, 0.1]], dtype=torch.float64)
MODES = ["hinge", "lsgan", "nonsaturating"]


def generator_loss(mode: str, fake) -> float:
    return GeneratorGAN(mode)(Views(None, {"fake_score": fake})).item()


def reference(mode: str, side: str, scores: torch.Tensor) -> float:
    """One scale in scalar loops."""
    formulas = {
        ("hinge", "real"): lambda d: max(0, 1 - d),
        ("hinge", "fake"): lambda d: max(0, 1 + d),
        ("hinge", "generator"): lambda d: -d,
        ("lsgan", "real"): lambda d: (d - 1) ** 2 / 2,
        ("lsgan", "fake"): lambda d: d**2 / 2,
        ("lsgan", "generator"): lambda d: (d - 1) ** 2,
        ("nonsaturating", "real"): lambda d: -math.log(1 / (1 + math.exp(-d))),
        ("nonsaturating", "fake"): lambda d: -math.log(1 - 1 / (1 + math.exp(-d))),
        ("nonsaturating", "generator"): lambda d: -math.log(1 / (1 + math.exp(-d))),
    }
    values = [formulas[mode, side](d) for d in scores.flatten().tolist()]
    return math.fsum(values) / len(values)


def test_golden_values():
    hinge, lsgan = DiscriminatorGAN("hinge"), DiscriminatorGAN("lsgan")
    assert hinge.real_loss(SCORES).item() == pytest.approx(1.1)
    assert hinge.fake_loss(SCORES).item() == pytest.approx(1.275)
    assert generator_loss("hinge", SCORES) == pytest.approx(-0.025)
    assert lsgan.real_loss(SCORES).item() == pytest.approx(0.5 * 2.5775)
    assert lsgan.fake_loss(SCORES).item() == pytest.approx(0.5 * 1.6275)
    assert hinge(SCORES, SCORES).item() == pytest.approx(1.1 + 1.275)  # added, no factor 1/2


@pytest.mark.parametrize("mode", MODES)
def test_mean_over_scales_of_different_sizes(mode):
    real = [torch.randn(2, 1, size, size + 1, dtype=torch.float64) for size in (5, 3)]
    fake = [torch.randn(2, 1, size, size + 1, dtype=torch.float64) for size in (5, 3)]
    expected = sum(reference(mode, "real", r) + reference(mode, "fake", f) for r, f in zip(real, fake, strict=True)) / 2
    assert DiscriminatorGAN(mode)(real, fake).item() == pytest.approx(expected)
    expected = sum(reference(mode, "generator", f) for f in fake) / 2
    assert generator_loss(mode, fake) == pytest.approx(expected)
    assert generator_loss(mode, fake[0]) == pytest.approx(reference(mode, "generator", fake[0]))


@pytest.mark.parametrize("mode", MODES)
def test_the_two_sides_pull_apart(mode):
    real, fake = (torch.zeros(3, requires_grad=True) for _ in range(2))
    to_real, to_fake = torch.autograd.grad(DiscriminatorGAN(mode)(real, fake), (real, fake), materialize_grads=True)
    (to_generator,) = torch.autograd.grad(GeneratorGAN(mode)(Views(None, {"fake_score": fake})), fake)
    assert (to_real < 0).all()
    assert (to_fake >= 0).all()
    assert (to_generator < 0).all()


@pytest.mark.parametrize("mode", MODES)
def test_extreme_scores_stay_finite_under_autocast(mode):
    scores = torch.tensor([-300.0, 300.0], dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = DiscriminatorGAN(mode)([scores], [scores]) + GeneratorGAN(mode)(Views(None, {"fake_score": [scores]}))
    assert value.dtype == torch.float32
    assert torch.isfinite(torch.autograd.grad(value, scores)[0]).all()


def test_another_view_can_be_judged():
    term = GeneratorGAN("lsgan", score="other_score")
    assert term.reads == {"other_score"}
    assert term(Views(None, {"other_score": torch.zeros(4)})).item() == 1


@pytest.mark.parametrize("make", [GeneratorGAN, DiscriminatorGAN])
def test_unknown_mode_is_named(make):
    with pytest.raises(ValueError, match="mode is 'wgan', not one of hinge, lsgan, nonsaturating"):
        make("wgan")
