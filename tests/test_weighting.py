"""Weights of the negatives: constraints, direction, twins and the published example of the exponential cost."""

import math

import pytest
import torch

from losses.transport import sinkhorn
from losses.weighting import softmax_weights, transport_weights
from tests.nce_reference import draw, golden_features, reference_plan, reference_softmax_weights


@pytest.mark.parametrize("direction", ["hard", "easy"])
@pytest.mark.parametrize("beta", [2.0, 0.1, 0.05])
def test_twins(direction, beta):
    query, key = draw(2, 7, 4), draw(2, 7, 4, seed=1)
    for weights, expected in (
        (softmax_weights(query @ key.mT, direction, beta), reference_softmax_weights(query, key, direction, beta)),
        (transport_weights(query @ key.mT, direction, beta), reference_plan(query, key, direction, beta)),
    ):
        torch.testing.assert_close(weights.exp(), expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("direction", ["hard", "easy"])
def test_softmax_rows_sum_to_one_without_the_positive(direction):
    weights = softmax_weights(draw(2, 9, 9), direction, 0.1)
    assert weights.diagonal(dim1=-2, dim2=-1).isneginf().all()
    torch.testing.assert_close(weights.exp().sum(-1), torch.ones(2, 9, dtype=torch.float64))


@pytest.mark.parametrize("direction", ["hard", "easy"])
@pytest.mark.parametrize("beta", [2.0, 0.1])
def test_of_a_third_image_all_pairs_are_negatives(direction, beta):
    query, other = draw(2, 7, 4), draw(2, 7, 4, seed=1)
    ones = torch.ones(2, 7, dtype=torch.float64)
    for make, twin in ((softmax_weights, reference_softmax_weights), (transport_weights, reference_plan)):
        found = make(query @ other.mT, direction, beta, paired=False).exp()
        torch.testing.assert_close(found, twin(query, other, direction, beta, paired=False), rtol=1e-9, atol=1e-14)
        torch.testing.assert_close(found.sum(-1 if make is softmax_weights else -2), ones)
        assert make(draw(2, 1, 1), direction, beta, paired=False).tolist() == [[[0]], [[0]]]
    official = transport_weights(query @ other.mT, direction, beta, official=True, paired=False)
    torch.testing.assert_close(official, transport_weights(query @ other.mT, direction, beta, paired=False))


@pytest.mark.parametrize("make", [softmax_weights, transport_weights])
def test_hard_prefers_similar_and_easy_dissimilar_negatives(make):
    similarity = 0.3 * draw(1, 12, 12)
    off = ~torch.eye(12, dtype=torch.bool)
    for direction, sign in (("hard", 1), ("easy", -1)):
        weights = make(similarity, direction, 0.1).exp()
        correlation = torch.corrcoef(torch.stack([weights[0][off], similarity[0][off]]))[0, 1]
        assert sign * correlation > 0.3


@pytest.mark.parametrize("direction", ["hard", "easy"])
def test_exponential_cost_is_divided_by_its_mean_image_by_image(direction):
    """The plain quotient, where it does not overflow; then an example known to have the largest weight 0.26."""
    query, key = draw(3, 8, 5), draw(3, 8, 5, seed=1)
    similarity = query @ key.mT
    cost = ((1 - similarity if direction == "hard" else similarity) / 0.1).exp()
    off = ~torch.eye(8, dtype=torch.bool)
    for b in range(3):
        kernel = torch.where(off, (-cost[b] / cost[b][off].mean()).exp(), 0.0)
        v = torch.ones(8, dtype=torch.float64)
        for _ in range(50):
            u = 1 / (kernel @ v)
            v = 1 / (kernel.mT @ u)
        found = transport_weights(similarity, direction, 0.1, cost="exp")[b].exp()
        torch.testing.assert_close(found, u[:, None] * kernel * v, rtol=1e-9, atol=1e-14)
    plan = transport_weights(similarity, direction, 0.1, cost="exp", paired=False)
    mean = cost.mean((-2, -1), keepdim=True)  # of all pairs: of a third image, none is left out
    torch.testing.assert_close(plan, sinkhorn(-cost / mean, 50), rtol=1e-9, atol=1e-9)


def test_exponential_cost_of_the_golden_features_is_a_mild_weighting():
    query, key = golden_features()
    assert transport_weights(query @ key.mT, "hard", 0.1, cost="exp").exp().max().item() == pytest.approx(
        0.26, abs=0.005
    )


def test_exponential_cost_does_not_overflow():
    similarity = torch.linspace(-1, 1, 64).view(1, 8, 8)
    for direction in ("hard", "easy"):
        weights = transport_weights(similarity, direction, 0.001, cost="exp")
        assert not weights.isnan().any()
        torch.testing.assert_close(weights.exp().sum(-2), torch.ones(1, 8))


def test_official_diagonal_is_a_similarity_of_minus_ten():
    similarity = draw(1, 6, 6)
    for direction in ("hard", "easy"):
        weights = transport_weights(similarity, direction, 1.0, official=True)
        assert torch.isfinite(weights).all()
        assert weights.diagonal(dim1=-2, dim2=-1).max() < -7
        exact = transport_weights(similarity, direction, 1.0)
        off = ~torch.eye(6, dtype=torch.bool)
        torch.testing.assert_close(weights[0][off], exact[0][off], rtol=0, atol=1e-3)
        assert not torch.equal(weights[0][off], exact[0][off])


@pytest.mark.parametrize("make", [softmax_weights, transport_weights])
def test_one_patch_has_no_negatives(make):
    assert make(torch.ones(2, 1, 1), "hard", 0.1).tolist() == [[[0]], [[0]]]


@pytest.mark.parametrize("make", [softmax_weights, transport_weights])
def test_large_beta_is_uniform(make):
    weights = make(draw(1, 9, 9), "hard", 1e6)
    off = ~torch.eye(9, dtype=torch.bool)
    assert (weights[0][off] + math.log(8)).abs().max() < 1e-5
