"""Directions: the official quotients to the last bit, exact gradients, and bounded ones where there is no direction."""

import pytest
import torch
import torch.nn.functional as F

from losses.contrastive import MoNCE, PatchNCE, WeightNCE
from losses.similarity import map_loss, similarity_map
from losses.vectors import unit


def vectors(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_quotients_are_the_releases():
    x = vectors(2, 9, 5).float() * torch.logspace(-12, 6, 9).view(1, 9, 1)
    assert torch.equal(unit(x, plus=1e-7), x / (x.norm(dim=-1, keepdim=True) + 1e-7))
    assert torch.equal(unit(x, 1, least=1e-12), F.normalize(x, dim=1))


@pytest.mark.parametrize("scale", [1.0, 1e-8, 3e-10])
def test_cosines_are_torchs_also_of_rows_shorter_than_its_smallest_length(scale):
    one, other = (scale * vectors(2, 5, 7, seed=seed) for seed in (0, 1))
    one.requires_grad_(), other.requires_grad_()
    found = (unit(one, least=1e-8, held=False) * unit(other, least=1e-8, held=False)).sum(-1)
    wanted = F.cosine_similarity(one, other, dim=-1)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    g = vectors(2, 5)
    for a, b in zip(
        torch.autograd.grad(found, (one, other), g), torch.autograd.grad(wanted, (one, other), g), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=0)


@pytest.mark.parametrize("form", [{"plus": 1e-7}, {"least": 1e-12}, {"least": 0.5}, {"plus": 0.5}])
def test_gradients_of_directions(form):
    """Lengths from a thousandth to a thousand times the mean of the image; images apart from each other."""
    x = (vectors(2, 7, 4) * torch.logspace(-1.5, 1.5, 7).view(1, 7, 1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: unit(x, **form), x)
    wanted = x / (x.norm(dim=-1, keepdim=True) + form.get("plus", 0)).clamp(min=form.get("least", 0))
    g = vectors(2, 7, 4, seed=1)
    torch.testing.assert_close(torch.autograd.grad(unit(x, **form), x, g), torch.autograd.grad(wanted, x, g))
    small = x.detach() * torch.tensor([1.0, 1e-9]).view(2, 1, 1)  # all of an image: as exact as before
    small.requires_grad_()
    wanted = small / (small.norm(dim=-1, keepdim=True) + 1e-7)
    torch.testing.assert_close(
        torch.autograd.grad(unit(small, plus=1e-7), small, g), torch.autograd.grad(wanted, small, g)
    )


CASES = {
    "patchnce": lambda q, k: PatchNCE()(q, k),
    "patchnce both ways": lambda q, k: PatchNCE(bidirectional=True)(q, k),
    "patchnce official": lambda q, k: PatchNCE(bidirectional=True, intra_negatives=True, detach="none")(q, k),
    "weightnce": lambda q, k: WeightNCE("hard", detach_weights=False)(q, k),
    "monce": lambda q, k: MoNCE("hard", detach_weights=False)(q, k),
    "maps of cosines": lambda q, k: map_loss(
        *(similarity_map(x.mT.unflatten(2, (4, 5)), None, cosine=True, centre=False) for x in (q, k))
    ),
    "rows of maps": lambda q, k: map_loss(q, k),
    "strotss": lambda q, k: map_loss(
        *(similarity_map(x.mT.unflatten(2, (4, 5)), None, "queries", cosine=True, centre=False) for x in (q, k)),
        "strotss",
    ),
}


@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-15, 1e-9, 1e-7])
@pytest.mark.parametrize("name", CASES)
def test_a_vector_without_direction_does_not_drown_the_others(name, length):
    query, key = vectors(2, 20, 6).float(), vectors(2, 20, 6, seed=1).float()
    for x in (query, key):
        x[:, 3] *= length
        x[1, 5:9] *= length
    query.requires_grad_(), key.requires_grad_()
    slopes = torch.autograd.grad(CASES[name](query, key), (query, key), allow_unused=True, materialize_grads=True)
    for x, slope in zip((query, key), slopes, strict=True):
        lengths = slope.norm(dim=-1)
        dead = x.norm(dim=-1) <= 1e-6
        assert torch.isfinite(lengths).all()
        assert lengths[dead].max() <= 1e4 * lengths[~dead].max()  # 4e6 to 1e14 times as long before
        if length == 0:
            assert not lengths[dead].any()


def test_equal_vectors_have_bounded_gradients():
    """A flat image: every distance is rounding, which STROTSS divides by its sum."""
    flat = torch.full((1, 4, 16, 16), 2.0) + 1e-7 * vectors(1, 4, 16, 16).float()
    images = flat.requires_grad_(), vectors(1, 4, 16, 16).float()
    maps = [similarity_map(image, None, "queries", cosine=True, centre=False) for image in images]
    (slope,) = torch.autograd.grad(map_loss(*maps, "strotss"), flat)
    assert torch.isfinite(slope).all() and slope.abs().max() < 10
