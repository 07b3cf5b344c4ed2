"""The NCE family: golden values, scalar twins, gradient stops, and the limits in which its members are equal."""

import math
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor, nn

from losses import nce
from losses.contrastive import MoNCE, PatchNCE, WeightNCE, patch_nce, weighted_nce
from tests.nce_reference import (
    draw,
    golden_features,
    reference_against,
    reference_nce,
    reference_plan,
    reference_softmax_weights,
)

LOSSES = Path(__file__).resolve().parents[1] / "configs" / "loss"
FAMILY = [
    PatchNCE(),
    PatchNCE(intra_negatives=True),
    WeightNCE("hard"),
    WeightNCE("easy", beta=1.0, q=0.5, detach_weights=False),
    MoNCE("hard"),
    MoNCE("easy", detach_weights=False),
    MoNCE("hard", cost="exp"),
    MoNCE("hard", beta=1.0, scale=8, weight_positive=True, official_numerics=True, detach_weights=False),
]
BOTH_WAYS = [PatchNCE(bidirectional=True), WeightNCE("easy", bidirectional=True), MoNCE("easy", bidirectional=True)]


def preset(name: str, **overrides) -> nn.Module:
    """The loss that `loss=NAME loss.KEY=...` would make, in a setting that leaves it one-directional and easy."""
    loss = OmegaConf.merge(OmegaConf.load(LOSSES / f"{name}.yaml"), overrides)
    return instantiate(OmegaConf.create({"nce": {"bidirectional": False, "direction": "easy"}, "loss": loss}).loss)


def gradients(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True))


GOLDEN = [  # preset, overrides, key before query, value; 1e-6 relative, or 1e-5 where fewer digits are known
    ("patchnce", {}, False, 0.022821231),
    ("patchnce", {}, True, 0.031391358),
    ("patchnce", {"negatives": "batch"}, False, 0.337043551),
    ("patchnce", {"bidirectional": True}, False, 0.027106295),
    ("patchnce_official", {"bidirectional": False}, False, 0.039022381),
    ("patchnce_official", {"bidirectional": False}, True, 0.042891413),
    ("patchnce_official", {"bidirectional": True}, False, (0.039022381 + 0.042891413) / 2),
    ("patchnce_official", {"bidirectional": False, "intra_negatives": False}, False, 0.022821231),
    ("weightnce", {"direction": "hard"}, False, 0.106794527),
    ("weightnce", {"direction": "hard", "q": 0.5}, False, 0.058654584),
    ("weightnce", {"direction": "hard", "beta": 1}, False, 0.040390525),
    ("weightnce", {}, False, 8.27565e-8),
    ("weightnce", {"beta": 1}, False, 0.009646033),
    ("monce_official_cut", {"scale": 7}, False, 0.086271725),
    ("monce_official_cut", {"scale": 7, "beta": 1}, False, 0.038362575),
    ("monce_official_cut", {"scale": 7, "direction": "easy"}, False, 1.186444e-4),
    ("monce_official_cut", {"scale": 7, "direction": "easy", "beta": 1}, False, 0.011825432),
    ("monce", {"direction": "hard"}, False, 0.086271725),
    ("monce", {"direction": "hard", "beta": 1}, False, 0.038362766),
    ("monce", {}, False, 1.186442e-4),
    ("monce", {"beta": 1}, False, 0.011825473),
    ("monce", {"direction": "hard", "q": 0.5}, False, 0.046691929),
    ("monce", {"direction": "hard", "q": 0.5, "beta": 1}, False, 0.019841346),
    ("monce", {"q": 0.5, "beta": 1}, False, 0.005982471),
    ("monce", {"direction": "hard", "cost": "exp"}, False, 0.0285661698),
    ("monce", {"cost": "exp"}, False, 7.425213686e-4),
    ("monce_official_spade", {"scale": 8}, False, 0.022522721),
]


@pytest.mark.parametrize(("name", "overrides", "swap", "value"), GOLDEN)
def test_golden_values(name, overrides, swap, value):
    query, key = reversed(golden_features()) if swap else golden_features()
    loss = preset(name, normalize=False, **overrides)(query, key)
    few_digits = value in (8.27565e-8, 1.186444e-4, 1.186442e-4)
    assert loss.item() == pytest.approx(value, rel=1e-5 if few_digits else 1e-6)


def test_early_layers_of_the_official_spade_half():
    loss = preset("monce_official_spade", normalize=False).unweighted()(*golden_features())
    assert loss.item() == pytest.approx(0.022821231, rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "swap", "norms"),
    [
        (PatchNCE(bidirectional=True, normalize=False), False, (0.128901, 0.135169)),
        (PatchNCE(detach="negatives", normalize=False), False, (0.127305, 0.146674)),
        (PatchNCE(detach="negatives", normalize=False), True, (0.201863, 0.197967)),
    ],
)
def test_golden_gradient_norms(loss, swap, norms):
    query, key = (v.requires_grad_() for v in golden_features())
    value = loss(key, query) if swap else loss(query, key)
    assert [g.norm().item() for g in gradients(value, query, key)] == pytest.approx(norms, rel=1e-5)


def test_similarities_of_the_golden_features():
    query, key = golden_features()
    assert (query @ key.mT)[0, 0, :4].tolist() == pytest.approx([0.977785, 0.152210, -0.698799, -0.781010], abs=1e-6)


@pytest.mark.parametrize("block", [16, 40, 2**20])  # smaller than a row, a few rows, everything
@pytest.mark.parametrize("count", [2, 7, 33])
def test_functions_are_their_twins(monkeypatch, block, count):
    monkeypatch.setattr(nce, "CPU_BLOCK", block)
    query, key = draw(2, count, 5), draw(2, count, 5, seed=1)
    expected = reference_nce(query, key, 0.07)
    torch.testing.assert_close(patch_nce(query, key, 0.07), expected, rtol=1e-10, atol=1e-12)
    log_weight = draw(2, count, count, seed=2)
    expected = reference_nce(query, key, 0.07, log_weight.exp())
    torch.testing.assert_close(weighted_nce(query, key, log_weight, 0.07), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("direction", ["hard", "easy"])
@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_weighted_losses_are_their_twins(direction, beta):
    query, key = draw(2, 9, 5), draw(2, 9, 5, seed=1)
    for loss, weight in (
        (WeightNCE(direction, beta, q=0.7), reference_softmax_weights(query, key, direction, beta)),
        (MoNCE(direction, beta, q=0.7), reference_plan(query, key, direction, beta)),
    ):
        expected = reference_nce(query, key, 0.07, 0.7 * 8 * weight).mean()
        assert loss(query, key).item() == pytest.approx(expected.item(), rel=1e-6)  # normalised again: 1e-7


def test_official_half_scales_the_positive_by_the_largest_weight_of_its_row():
    query, key = draw(1, 6, 5), draw(1, 6, 5, seed=1)
    weight = 3 * reference_plan(query, key, "hard", 1.0)
    expected = torch.stack(
        [reference_nce(query, key, 0.07, weight, positive=weight[0, i].max().item())[0, i] for i in range(6)]
    )
    loss = MoNCE("hard", 1.0, scale=3, weight_positive=True, normalize=False)(query, key)
    assert loss.item() == pytest.approx(expected.mean().item(), rel=1e-9)


@settings(deadline=None, max_examples=25)
@given(
    count=st.integers(1, 12),
    batch=st.integers(1, 3),
    seed=st.integers(0, 99),
    stop=st.sampled_from(["negatives", "all", "none"]),
)
def test_fused_and_plain_way_agree_in_value_and_gradients(count, batch, seed, stop):
    query, key = (
        draw(batch, count, 4, seed=seed).requires_grad_(),
        draw(batch, count, 4, seed=seed + 1).requires_grad_(),
    )
    log_weight = torch.randn(batch, count, count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    fused = weighted_nce(query, key, log_weight, detach=stop)
    plain = weighted_nce(query, key, log_weight.clone().requires_grad_(), detach=stop)
    torch.testing.assert_close(fused, plain, rtol=1e-9, atol=1e-12)
    row_weights = torch.rand(batch, count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    for one, other in zip(
        gradients((fused * row_weights).sum(), query, key),
        gradients((plain * row_weights).sum(), query, key),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_against_finite_differences(weighted):
    query, key, log_weight = draw(2, 5, 3), draw(2, 5, 3, seed=1), draw(2, 5, 5, seed=2)

    def both(q: Tensor, k: Tensor) -> Tensor:
        return weighted_nce(q, k, log_weight, 0.5, "none") if weighted else patch_nce(q, k, 0.5, "none")

    def first(q: Tensor) -> Tensor:
        return weighted_nce(q, key, log_weight, 0.5) if weighted else patch_nce(q, key, 0.5)

    assert torch.autograd.gradcheck(both, (query.requires_grad_(), key.clone().requires_grad_()))
    assert torch.autograd.gradcheck(first, query)
    assert torch.autograd.gradcheck(
        lambda w: weighted_nce(query.detach(), key, w, 0.5), log_weight.clone().requires_grad_()
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_detach_stops_the_gradient_where_it_says(weighted):
    """Against the same loss on two keys, one used as the positive and one as the negatives."""
    query, key, log_weight = draw(2, 6, 4), draw(2, 6, 4, seed=1), draw(2, 6, 6, seed=2)
    found = {}
    for stop in ("all", "negatives", "none"):
        q, k = query.clone().requires_grad_(), key.clone().requires_grad_()
        loss = weighted_nce(q, k, log_weight, 0.2, stop) if weighted else patch_nce(q, k, 0.2, stop)
        found[stop] = gradients(loss.sum(), q, k)
    q, as_positive, as_negative = (v.clone().requires_grad_() for v in (query, key, key))
    logits = q @ as_negative.mT / 0.2 + (log_weight if weighted else 0)
    positive = (q * as_positive).sum(-1) / 0.2
    logits = torch.where(torch.eye(6, dtype=torch.bool), positive.unsqueeze(-1), logits)
    to_query, to_positive, to_negative = gradients((logits.logsumexp(-1) - positive).sum(), q, as_positive, as_negative)
    for stop, to_key in (
        ("all", torch.zeros_like(key)),
        ("negatives", to_positive),
        ("none", to_positive + to_negative),
    ):
        torch.testing.assert_close(found[stop][0], to_query)
        torch.testing.assert_close(found[stop][1], to_key)


@pytest.mark.parametrize("make", [PatchNCE, lambda **k: WeightNCE("hard", **k), lambda **k: MoNCE("hard", **k)])
def test_both_directions_are_averaged_and_each_stops_its_own_gradient(make):
    query, key = draw(2, 6, 4).requires_grad_(), draw(2, 6, 4, seed=1).requires_grad_()
    for stop in (None, "all", "none"):
        both = make(bidirectional=True, detach=stop)(query, key)
        one_way = make(detach=stop or "negatives")
        halves = one_way(query, key) / 2, one_way(key, query) / 2
        torch.testing.assert_close(both, sum(halves))
        separate = [gradients(half, query, key) for half in halves]
        for i, total in enumerate(gradients(both, query, key)):
            torch.testing.assert_close(total, separate[0][i] + separate[1][i])
        # the released code stops all gradients to the generated image in the direction where it is the key
        assert (separate[1][0].norm().item() == 0) is (stop == "all")


def test_positive_of_the_second_direction_reaches_the_generated_image():
    generated, real = draw(1, 8, 4).requires_grad_(), draw(1, 8, 4, seed=1)
    second = PatchNCE(detach="negatives", normalize=False)(real, generated)
    (found,) = gradients(second, generated)
    share = (real @ generated.mT / 0.07).softmax(-1).diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(found, ((share - 1) / 0.07 / 8).unsqueeze(-1) * real)


@pytest.mark.parametrize("make", [WeightNCE, MoNCE])
@pytest.mark.parametrize("stop", ["all", "negatives", "none"])
def test_gradient_through_the_weights_is_a_choice(make, stop):
    """Through finite differences of the whole loss if the weights are not detached; with constant weights otherwise."""
    query, key = draw(1, 6, 4), draw(1, 6, 4, seed=1)
    flowing = make("hard", detach="none", detach_weights=False, normalize=False)
    assert torch.autograd.gradcheck(flowing, (query.clone().requires_grad_(), key.clone().requires_grad_()))
    q = query.clone().requires_grad_()
    constant = make("hard", detach=stop, normalize=False)
    log_weight = constant.log_weight(query @ key.mT)
    expected = gradients(weighted_nce(q, key, log_weight).mean(), q)[0]
    torch.testing.assert_close(gradients(constant(q, key), q)[0], expected)
    through = make("hard", detach=stop, detach_weights=False, normalize=False)
    assert not torch.allclose(gradients(through(q, key), q)[0], expected, rtol=1e-3)


def test_official_monce_passes_gradient_through_the_transport():
    """Against the released routine written out and differentiated by autograd: key detached, query not."""
    query, key = draw(2, 12, 5).requires_grad_(), draw(2, 12, 5, seed=1)
    diagonal = torch.eye(12, dtype=torch.bool)
    similarity = query @ key.mT
    kernel = (similarity.masked_fill(diagonal, -10) / 0.1).exp()
    u = v = torch.ones(2, 12, 1, dtype=torch.float64)
    for _ in range(50):
        u = 1 / (kernel @ v)
        v = 1 / (kernel.mT @ u)
    weight = u * kernel * v.mT * 11 + 1e-8
    negatives = ((similarity + 0.07 * weight.log()).masked_fill(diagonal, -10) / 0.07).logsumexp(-1)
    positive = similarity.diagonal(dim1=-2, dim2=-1) / 0.07
    expected = (torch.logaddexp(positive, negatives) - positive).mean()
    loss = preset("monce_official_cut", scale=11, normalize=False)(query, key)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(gradients(loss, query)[0], gradients(expected, query)[0], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("loss", [make(d, beta=1e6) for make in (WeightNCE, MoNCE) for d in ("hard", "easy")])
def test_uniform_weights_are_patch_nce(loss):
    for count in (2, 3, 64):
        query, key = (draw(2, count, 8, seed=s, dtype=torch.float32) for s in (0, 1))
        torch.testing.assert_close(loss(query, key), PatchNCE()(query, key), rtol=1e-5, atol=1e-5)


def test_constant_features_are_patch_nce_whatever_the_weights():
    features = torch.ones(2, 32, 4)
    for loss in (WeightNCE("hard", 0.01), MoNCE("easy", 0.001), MoNCE("hard", 0.01, cost="exp")):
        assert loss(features, features).item() == pytest.approx(math.log(32), abs=1e-5)


def test_q_counts_the_negatives():
    query, key = draw(2, 9, 4), draw(2, 9, 4, seed=1)
    log_weight = torch.full((2, 9, 9), math.log(3.0), dtype=torch.float64)
    tripled = key[:, [j for j in range(9) for _ in range(3)]]
    scores = query @ tripled.mT / 0.07
    own = torch.arange(27) // 3 == torch.arange(9)[:, None]
    positive = (query * key).sum(-1) / 0.07
    expected = torch.logaddexp(positive, scores.masked_fill(own, -math.inf).logsumexp(-1)) - positive
    torch.testing.assert_close(weighted_nce(query, key, log_weight), expected)


@pytest.mark.parametrize("loss", FAMILY + BOTH_WAYS, ids=str)
def test_batch_is_the_mean_of_its_images(loss):
    query, key = (draw(4, 16, 8, seed=s, dtype=torch.float32) for s in (0, 1))
    single = torch.stack([loss(query[b : b + 1], key[b : b + 1]) for b in range(4)]).mean()
    torch.testing.assert_close(loss(query, key), single, rtol=1e-6, atol=1e-6)


def test_negatives_of_the_batch_are_one_large_image():
    query, key = draw(3, 5, 4), draw(3, 5, 4, seed=1)
    for settings_ in ({"negatives": "batch"}, {"negatives": "batch", "bidirectional": True}):
        whole = PatchNCE(bidirectional="bidirectional" in settings_)(query.reshape(1, 15, 4), key.reshape(1, 15, 4))
        torch.testing.assert_close(PatchNCE(**settings_)(query, key), whole)


@pytest.mark.parametrize("loss", FAMILY + BOTH_WAYS, ids=str)
def test_one_patch_costs_nothing(loss):
    query, key = draw(2, 1, 4).requires_grad_(), draw(2, 1, 4, seed=1).requires_grad_()
    value = loss(query, key)
    if not getattr(loss, "weight_positive", False):
        assert value.item() == 0
    assert all(torch.isfinite(g).all() and g.abs().max() < 1e-9 for g in gradients(value, query, key))


def test_the_diagonal_of_log_weight_is_ignored():
    query, key = draw(2, 4, 3).requires_grad_(), draw(2, 4, 3, seed=1)
    log_weight = draw(2, 4, 4, seed=2)
    expected = weighted_nce(query, key, log_weight)
    for junk in (math.nan, -math.inf, math.inf):
        dirty = log_weight.clone()
        dirty.diagonal(dim1=-2, dim2=-1).fill_(junk)
        for candidate in (dirty, dirty.clone().requires_grad_()):
            found = weighted_nce(query, key, candidate)
            torch.testing.assert_close(found, expected)
            assert torch.isfinite(gradients(found.sum(), query)[0]).all()
    assert weighted_nce(query[:, :1], key[:, :1], torch.full((2, 1, 1), math.nan)).tolist() == [[0], [0]]


@pytest.mark.parametrize("loss", FAMILY + BOTH_WAYS, ids=str)
def test_autocast_and_low_precision_are_left(loss):
    query, key = (draw(2, 16, 8, seed=s, dtype=torch.bfloat16).requires_grad_() for s in (0, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(query, key)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(query.float(), key.float()), rtol=0, atol=0)
    assert all(torch.isfinite(g).all() for g in gradients(value, query, key))


@pytest.mark.parametrize("loss", FAMILY, ids=str)
def test_float64_stays_float64(loss):
    assert loss(draw(1, 4, 3), draw(1, 4, 3, seed=1)).dtype == torch.float64


@pytest.mark.parametrize("direction", ["hard", "easy"])
@pytest.mark.parametrize("beta", [1.0, 0.1, 0.01, 0.001])
@pytest.mark.parametrize("cost", ["linear", "exp"])
def test_monce_is_finite_for_small_beta(direction, beta, cost):
    random = draw(1, 48, 8, dtype=torch.float32)
    alike = nn.functional.normalize(1 + 0.1 * random, dim=-1)
    for query, key in ((random, draw(1, 48, 8, seed=1)), (alike, alike.flip(1)), (alike, alike)):
        query = query.clone().requires_grad_()
        for detach_weights in (True, False):
            loss = MoNCE(direction, beta, cost=cost, detach_weights=detach_weights)(query, key.float())
            assert torch.isfinite(loss)
            assert torch.isfinite(gradients(loss, query)[0]).all()


@pytest.mark.parametrize("q", [0.1, 0.5, 5.0])
def test_q_of_patch_nce_multiplies_the_sum_of_the_negatives(q):
    query, key = golden_features()
    unit = [(rows / (rows.norm(dim=-1, keepdim=True) + 1e-7)).tolist() for rows in (query, key)]
    losses = []
    for queries, keys in zip(*unit, strict=True):
        for i, row in enumerate(queries):
            terms = [math.exp(math.fsum(a * b for a, b in zip(row, other, strict=True)) / 0.07) for other in keys]
            losses.append(-math.log(terms[i] / (terms[i] + q * (math.fsum(terms) - terms[i]))))
    assert PatchNCE(q=q)(query, key).item() == pytest.approx(math.fsum(losses) / len(losses), rel=1e-9)
    torch.testing.assert_close(PatchNCE(q=q)(query, key), WeightNCE("hard", beta=1e8, q=q)(query, key))
    torch.testing.assert_close(
        PatchNCE(q=q).against(query, key, key.roll(1, 1)),
        WeightNCE("hard", beta=1e8, q=q).against(query, key, key.roll(1, 1)),
    )


def test_normalize_divides_by_length():
    query, key = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 5, 3, dtype=torch.float64)
    unit = [v / (v.norm(dim=-1, keepdim=True) + 1e-7) for v in (query, key)]
    torch.testing.assert_close(PatchNCE()(query, key), PatchNCE(normalize=False)(*unit))
    assert torch.isfinite(PatchNCE()(torch.zeros(1, 4, 3), torch.zeros(1, 4, 3)))


def test_non_finite_features_give_a_non_finite_loss_and_no_exception():
    query = draw(1, 6, 3, dtype=torch.float32)
    for bad in (math.nan, math.inf):
        broken = query.clone()
        broken[0, 2, 1] = bad
        for loss in FAMILY:
            assert not torch.isfinite(loss(broken, query))


@pytest.mark.parametrize("direction", ["hard", "easy"])
@pytest.mark.parametrize("q", [1.0, 0.5])
def test_three_blocks_are_their_twin(direction, q):
    """Weights of the first block leave the diagonal out and sum to Q (N-1) a row; of the others, to Q N."""
    query, key, other = (draw(2, 7, 5, seed=seed) for seed in (0, 1, 2))
    expected = reference_against(query, key, other, 0.07).mean().item()
    assert PatchNCE().against(query, key, other).item() == pytest.approx(expected, rel=1e-9)
    for loss, weigh in ((WeightNCE, reference_softmax_weights), (MoNCE, reference_plan)):
        weights = (
            q * 6 * weigh(query, key, direction, 0.1),
            q * 7 * weigh(query, other, direction, 0.1, paired=False),
            q * 7 * weigh(key, other, direction, 0.1, paired=False),
        )
        assert [w.sum().item() / 14 / q for w in weights] == pytest.approx([6, 7, 7])
        expected = reference_against(query, key, other, 0.07, weights).mean().item()
        assert loss(direction, q=q).against(query, key, other).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("loss", [make(d, beta=1e6) for make in (WeightNCE, MoNCE) for d in ("hard", "easy")])
def test_uniform_weights_of_three_blocks_are_patch_nce(loss):
    for count in (1, 2, 33):
        rows = [draw(2, count, 6, seed=seed) for seed in (0, 1, 2)]
        torch.testing.assert_close(loss.against(*rows), PatchNCE().against(*rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loss", FAMILY, ids=str)
def test_a_far_third_image_adds_nothing(loss):
    """Where it is opposite to both others, what is left is the loss of these two."""
    close = nn.functional.normalize(torch.ones(2, 6, 4) + 0.1 * draw(2, 6, 4, dtype=torch.float32), dim=-1).double()
    query, key = close[:1], close[1:]
    value = loss.against(query, key, -query)
    torch.testing.assert_close(value, loss(query, key), rtol=1e-5, atol=1e-6)


def test_three_blocks_in_both_directions_and_over_the_batch():
    query, key, other = (draw(3, 5, 4, seed=seed) for seed in (0, 1, 2))
    one_way = MoNCE("hard")
    both = MoNCE("hard", bidirectional=True).against(query, key, other)
    torch.testing.assert_close(both, (one_way.against(query, key, other) + one_way.against(key, query, other)) / 2)
    rows = (query, key, other)
    whole = PatchNCE().against(*(row.reshape(1, 15, 4) for row in rows))
    torch.testing.assert_close(PatchNCE(negatives="batch").against(*rows), whole)


@pytest.mark.parametrize("loss", FAMILY + BOTH_WAYS, ids=str)
def test_three_blocks_of_a_batch_are_the_mean_of_its_images(loss):
    rows = [draw(4, 9, 8, seed=seed, dtype=torch.float32) for seed in (0, 1, 2)]
    single = torch.stack([loss.against(*(row[b : b + 1] for row in rows)) for b in range(4)]).mean()
    torch.testing.assert_close(loss.against(*rows), single, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("stop", ["all", "negatives", "none"])
def test_three_blocks_pass_gradients_to_all_images_whatever_detach_says(stop):
    rows = tuple(draw(1, 4, 3, seed=seed).requires_grad_() for seed in (0, 1, 2))
    expected = gradients(reference := PatchNCE(detach="none").against(*rows), *rows)
    found = PatchNCE(detach=stop).against(*rows)
    torch.testing.assert_close(found, reference)
    for one, other in zip(gradients(found, *rows), expected, strict=True):
        torch.testing.assert_close(one, other)
        assert one.abs().max() > 1e-4
    for loss in (PatchNCE, WeightNCE, MoNCE):
        weighted = {} if loss is PatchNCE else {"direction": "hard", "detach_weights": False}
        assert torch.autograd.gradcheck(loss(temperature=0.5, detach=stop, **weighted).against, rows)


@pytest.mark.parametrize("make", [WeightNCE, MoNCE])
def test_weights_of_three_blocks_are_constants(make):
    rows = tuple(draw(1, 5, 4, seed=seed).requires_grad_() for seed in (0, 1, 2))
    query, key, other = (row.detach() for row in rows)
    loss = make("hard")
    blocks = ((query, key, True), (query, other, False), (key, other, False))
    weights = [loss.log_weight(a @ b.mT, paired) for a, b, paired in blocks]
    weights[0].diagonal(dim1=-2, dim2=-1).zero_()  # of the positives
    logits = torch.cat(
        [rows[i] @ rows[j].mT / 0.07 + w for (i, j), w in zip(((0, 1), (0, 2), (1, 2)), weights, strict=True)], -1
    )
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), torch.arange(5))
    found = loss.against(*rows)
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients(found, *rows), gradients(expected, *rows), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("loss", FAMILY + BOTH_WAYS, ids=str)
def test_three_blocks_leave_autocast(loss):
    rows = [draw(2, 6, 8, seed=seed, dtype=torch.bfloat16) for seed in (0, 1, 2)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss.against(*rows)
    torch.testing.assert_close(value, loss.against(*(row.float() for row in rows)), rtol=0, atol=0)


@pytest.mark.parametrize(
    "file",
    sorted(file for file in LOSSES.glob("*nce*.yaml") if "_target_" in OmegaConf.load(file)),
    ids=lambda file: file.stem,
)
def test_every_preset_offers_every_key(file):
    config = OmegaConf.load(file)
    loss = preset(file.stem)
    default = type(loss)() if isinstance(loss, PatchNCE) else type(loss)("easy")
    keys = [key for key in vars(default) if not key.startswith("_") and key != "training"]
    assert sorted(key for key in config if key != "_target_") == sorted(keys)
    if "official" not in file.stem:
        assert str(loss) == str(default)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WeightNCE("soft"), "direction is 'soft', not one of hard, easy"),
        (lambda: MoNCE("hard", cost="square"), "cost is 'square'"),
        (lambda: MoNCE("hard", cost="exp", official_numerics=True), "official_numerics"),
        (lambda: PatchNCE(temperature=0), "temperature is 0"),
        (lambda: PatchNCE(q=0), "q is 0"),
        (lambda: MoNCE("hard", beta=-1), "beta is -1"),
        (lambda: PatchNCE(detach="some"), "detach is 'some'"),
        (lambda: PatchNCE(negatives="world"), "negatives is 'world'"),
        (lambda: patch_nce(torch.ones(1, 2, 3), torch.ones(1, 3, 3)), r"query \(1, 2, 3\) and key \(1, 3, 3\)"),
        (lambda: patch_nce(torch.ones(2, 3), torch.ones(2, 3)), "not both"),
        (lambda: patch_nce(torch.ones(1, 2, 3), torch.ones(1, 2, 3), detach="some"), "detach is 'some'"),
        (lambda: weighted_nce(torch.ones(1, 2, 3), torch.ones(1, 2, 3), torch.ones(2, 2)), "log_weight"),
        (lambda: PatchNCE()(torch.ones(1, 2, 3), torch.ones(1, 2, 4)), "not both"),
        (lambda: PatchNCE().against(*[torch.ones(1, 2, 3)] * 2, torch.ones(1, 3, 3)), r"other \(1, 3, 3\) are not all"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
