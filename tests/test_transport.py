"""Sinkhorn against a float64 log-sum-exp twin, the golden plan, POT, and its own gradient by autograd."""

import math

import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from losses import transport
from losses.transport import sinkhorn
from tests.nce_reference import golden_features

BETAS = (10, 1, 0.3, 0.1, 0.03, 0.01, 0.001)


def reference_sinkhorn(log_kernel: Tensor, iterations: int) -> Tensor:
    """u = 1 / (K v), v = 1 / (K^T u) from v = 1, in float64 logarithms; differentiable."""
    log_kernel = log_kernel.double()
    g = torch.zeros_like(log_kernel[:, 0])
    for _ in range(iterations):
        f = -(log_kernel + g.unsqueeze(-2)).logsumexp(-1)
        g = -(log_kernel + f.unsqueeze(-1)).logsumexp(-2)
    return log_kernel + f.unsqueeze(-1) + g.unsqueeze(-2)


def features(kind: str, batch: int, count: int) -> tuple[Tensor, Tensor]:
    """Float32 unit vectors (batch, count, 16) of two images."""
    generator = torch.Generator().manual_seed(count)
    noise = torch.randn(2, batch, count, 16, generator=generator)
    if kind == "random":
        query, key = noise
    elif kind == "constant":
        query, key = torch.ones_like(noise)
    elif kind == "correlated":
        query = 0.05 * noise[0] + torch.randn(batch, 1, 16, generator=generator)
        key = query + 0.01 * noise[1]
    else:  # clusters of unequal size, other sizes in query and key: the slowest to converge
        centres = torch.randn(5, 16, generator=generator)
        query, key = centres[torch.randint(5, (2, batch, count), generator=generator)] + 0.02 * noise
    return nn.functional.normalize(query, dim=-1), nn.functional.normalize(key, dim=-1)


def log_kernel_of(kind: str, batch: int, count: int, beta: float, sign: int) -> Tensor:
    query, key = features(kind, batch, count)
    return (sign * query @ key.mT / beta).masked_fill(torch.eye(count, dtype=torch.bool), -math.inf)


def worst(log_plan: Tensor, expected: Tensor) -> float:
    """Largest difference where the plan exceeds 1e-12."""
    return (log_plan - expected).abs()[expected > math.log(1e-12)].max().item()


@pytest.mark.parametrize("kind", ["random", "constant", "correlated", "clusters"])
@pytest.mark.parametrize("count", [8, 64, 256])
def test_float32_kernels_at_every_beta(kind, count):
    for sign in (1, -1):
        for beta in BETAS:
            log_kernel = log_kernel_of(kind, 1, count, beta, sign)
            found = sinkhorn(log_kernel, 50)
            assert worst(found, reference_sinkhorn(log_kernel, 50)) <= 1e-6 / beta, (sign, beta)
            assert found.diagonal(dim1=-2, dim2=-1).isneginf().all()


def test_many_patches_in_clusters():
    """The slowest mode, mass between clusters, adds up the rounding of all iterations."""
    log_kernel = log_kernel_of("clusters", 1, 1024, 0.1, 1)
    assert worst(sinkhorn(log_kernel, 50), reference_sinkhorn(log_kernel, 50)) <= 5e-6


@pytest.mark.parametrize("kind", ["random", "constant", "correlated", "clusters"])
def test_iterations_in_float32_with_the_last_in_float64(kind, monkeypatch):
    """The way of large kernels, which are also worked on in blocks of rows."""
    monkeypatch.setattr(transport, "CPU_BLOCK", 2**10)
    for count in (40, 64, 256):
        test_float32_kernels_at_every_beta(kind, count)


@pytest.mark.parametrize("beta", [1, 0.1, 0.03])
def test_gradient_through_iterations_in_float32(beta, monkeypatch):
    log_kernel = log_kernel_of("random", 2, 64, beta, 1).requires_grad_()
    direction = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    direction.diagonal(dim1=-2, dim2=-1).zero_()
    found = []
    for block in (transport.CPU_BLOCK, 2**10):
        monkeypatch.setattr(transport, "CPU_BLOCK", block)
        plan = sinkhorn(log_kernel, 50).masked_fill(torch.eye(64, dtype=torch.bool), 0)
        found.append(torch.autograd.grad((plan * direction).sum(), log_kernel)[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(2, 12),
    iterations=st.integers(1, 60),
    scale=st.sampled_from([1e-3, 1.0, 30.0, 1e3, 1e5]),
    seed=st.integers(0, 999),
    diagonal=st.booleans(),
)
def test_any_kernel_and_count(count, iterations, scale, seed, diagonal):
    log_kernel = scale * torch.randn(2, count, count, generator=torch.Generator().manual_seed(seed)).double()
    if diagonal:
        log_kernel.diagonal(dim1=-2, dim2=-1).fill_(-math.inf)
    found, expected = sinkhorn(log_kernel, iterations), reference_sinkhorn(log_kernel, iterations)
    assert worst(found, expected) <= 1e-8 + 1e-12 * scale


def rush(size: float) -> Tensor:
    """Every row prefers the first column by about `size`: log scalings grow by log N an iteration until there."""
    log_kernel = size * torch.rand(1, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    log_kernel[..., 0] += 2 * size
    return log_kernel


def test_scalings_that_outgrow_every_float():
    log_kernel = rush(700)
    for iterations in (50, 200, 1000, 3000):
        expected = reference_sinkhorn(log_kernel, iterations)
        assert worst(sinkhorn(log_kernel, iterations), expected) < 1e-8, iterations


@pytest.mark.parametrize("kind", ["random", "constant", "clusters"])
def test_a_device_without_float64_comes_close(kind):
    for beta in BETAS:
        log_kernel = log_kernel_of(kind, 1, 64, beta, 1)
        f, g = transport._Potentials.apply(log_kernel, 50, torch.float32)
        found = log_kernel + f.unsqueeze(-1) + g.unsqueeze(-2)
        assert found.dtype == torch.float32
        assert worst(found, reference_sinkhorn(log_kernel, 50)) <= 1e-5 / min(beta, 1)


@pytest.mark.parametrize("beta", [1, 0.1, 0.01])
def test_columns_sum_to_one(beta):
    plan = sinkhorn(log_kernel_of("random", 3, 40, beta, 1).double(), 50).exp()
    torch.testing.assert_close(plan.sum(-2), torch.ones(3, 40, dtype=torch.float64), rtol=0, atol=1e-12)


def test_golden_plan():
    query, key = golden_features()
    log_kernel = (query @ key.mT / 0.1).masked_fill(torch.eye(8, dtype=torch.bool), -math.inf)
    plan = sinkhorn(log_kernel, 50).exp()
    assert (plan.sum(-2) - 1).abs().max() < 1e-14
    assert plan.sum(-1).min().item() == pytest.approx(0.99868, abs=1e-5)
    assert plan.sum(-1).max().item() == pytest.approx(1.00288, abs=1e-5)
    assert plan[0, 0, 1:4].tolist() == pytest.approx([0.0111305, 1.14265e-5, 4.58928e-5], rel=1e-5)


@pytest.mark.parametrize("beta", [1.0, 0.3, 0.1])
def test_equal_to_pot_where_both_converge(beta):
    count = 32
    query, key = features("random", 1, count)
    cost = (1 - query @ key.mT)[0].double().masked_fill(torch.eye(count, dtype=torch.bool), 1e3)
    uniform = torch.full((count,), 1 / count, dtype=torch.float64)
    expected = count * ot.sinkhorn(uniform, uniform, cost, beta, numItermax=10000, stopThr=1e-13)
    log_kernel = (-cost / beta).fill_diagonal_(-math.inf).unsqueeze(0)
    torch.testing.assert_close(sinkhorn(log_kernel, 3000)[0].exp(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("iterations", [1, 2, 3, 50])
@pytest.mark.parametrize("scale", [1.0, 10.0, 300.0, 3000.0])
def test_gradient_is_that_of_every_iteration(iterations, scale):
    """The larger scales need several absorptions."""
    diagonal = torch.eye(9, dtype=torch.bool)
    generator = torch.Generator().manual_seed(3)
    log_kernel = scale * torch.randn(2, 9, 9, dtype=torch.float64, generator=generator)
    log_kernel = log_kernel.masked_fill(diagonal, -math.inf).requires_grad_()
    direction = torch.randn(2, 9, 9, dtype=torch.float64, generator=generator).masked_fill(diagonal, 0)
    found, expected = (
        torch.autograd.grad((solve(log_kernel, iterations).masked_fill(diagonal, 0) * direction).sum(), log_kernel)[0]
        for solve in (sinkhorn, reference_sinkhorn)
    )
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


def test_gradient_through_iterations_that_change_nothing():
    """Of a uniform plan, which is there after the first iteration; and of scalings that outgrow every float."""
    uniform = torch.zeros(1, 3, 3, dtype=torch.float64).masked_fill(torch.eye(3, dtype=torch.bool), -math.inf)
    for log_kernel, iterations in ((uniform, 50), (rush(700), 600)):
        log_kernel.requires_grad_()
        direction = torch.arange(log_kernel.numel(), dtype=torch.float64).view_as(log_kernel).sin()
        found, expected = (
            torch.autograd.grad((direction * solve(log_kernel, iterations).clamp(min=-1e9)).sum(), log_kernel)[0]
            for solve in (sinkhorn, reference_sinkhorn)
        )
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_gradient_against_finite_differences():
    log_kernel = torch.randn(
        2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    assert torch.autograd.gradcheck(lambda kernel: sinkhorn(kernel, 20), log_kernel)


def test_gradient_is_finite_and_in_the_type_of_the_kernel():
    for kind in ("random", "constant", "correlated", "clusters"):
        for beta in BETAS:
            log_kernel = log_kernel_of(kind, 1, 40, beta, 1).requires_grad_()
            plan = sinkhorn(log_kernel, 50).masked_fill(torch.eye(40, dtype=torch.bool), 0)
            (gradient,) = torch.autograd.grad(plan.square().sum(), log_kernel)
            assert gradient.dtype == torch.float32
            assert torch.isfinite(gradient).all(), (kind, beta)


def test_batched_products_give_the_same(monkeypatch):
    """The way of devices other than the CPU: all images in one."""
    log_kernel = log_kernel_of("clusters", 3, 20, 0.01, 1).requires_grad_()
    direction = torch.randn(3, 20, 20).masked_fill(torch.eye(20, dtype=torch.bool), 0)
    results = []
    for split in (transport._split, lambda batch: (batch,)):
        monkeypatch.setattr(transport, "_split", split)
        plan = sinkhorn(log_kernel, 50).masked_fill(torch.eye(20, dtype=torch.bool), 0)
        results.append((plan.detach(), torch.autograd.grad((plan * direction).sum(), log_kernel)[0]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-6)


def test_scalings_that_the_host_never_sees_are_absorbed_in_time(monkeypatch):
    """The way of devices other than the CPU: by the bound, at all sizes, with the gradient, in either precision."""
    monkeypatch.setattr(transport, "_readable", lambda plan: False)
    test_scalings_that_outgrow_every_float()
    for kind, count in (("random", 8), ("constant", 64), ("correlated", 64), ("clusters", 256)):
        test_float32_kernels_at_every_beta(kind, count)
    for kind in ("random", "constant", "clusters"):
        test_a_device_without_float64_comes_close(kind)
    for scale in (1.0, 300.0, 3000.0):
        test_gradient_is_that_of_every_iteration(50, scale)
    test_smallest_sizes()


def test_images_do_not_see_each_other():
    log_kernel = torch.cat([log_kernel_of("random", 1, 16, beta, 1) for beta in (1, 0.01, 0.1)])
    alone = torch.cat([sinkhorn(image.unsqueeze(0), 50) for image in log_kernel])
    torch.testing.assert_close(sinkhorn(log_kernel, 50), alone, rtol=0, atol=0)


def test_smallest_sizes():
    assert sinkhorn(torch.full((2, 1, 1), -math.inf), 50).tolist() == [[[0]], [[0]]]
    two = torch.tensor([[[-math.inf, 3.0], [-5.0, -math.inf]]])
    assert sinkhorn(two, 50).tolist() == [[[-math.inf, 0], [0, -math.inf]]]
    assert sinkhorn(torch.zeros(0, 4, 4), 50).shape == (0, 4, 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_result_is_float64_even_under_autocast(dtype):
    log_kernel = log_kernel_of("random", 2, 16, 1, 1).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = sinkhorn(log_kernel, 50)
    assert found.dtype == torch.float64
    assert worst(found, reference_sinkhorn(log_kernel, 50)) < 1e-8


def test_non_finite_kernel_gives_a_non_finite_plan():
    log_kernel = torch.zeros(1, 4, 4)
    log_kernel[0, 1, 2] = math.nan
    assert sinkhorn(log_kernel, 50).isnan().any()


def test_input_is_left_alone():
    log_kernel = log_kernel_of("random", 2, 8, 0.1, 1)
    before = log_kernel.clone()
    sinkhorn(log_kernel.mT, 5)
    assert torch.equal(log_kernel, before)


@pytest.mark.parametrize("shape", [(4, 4), (1, 3, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"not \(B, N, N\)"):
        sinkhorn(torch.zeros(shape), 5)


def test_no_iterations_are_refused():
    with pytest.raises(ValueError, match="iterations is 0"):
        sinkhorn(torch.zeros(1, 2, 2), 0)
