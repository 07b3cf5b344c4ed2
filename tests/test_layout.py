"""Convolutions over a semantic map: ids by look-up equal the dense one-hot map."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models import layout
from models.layout import Layout
from tests.golden_fill import onehot

CLASSES = 5


def ids_and_edges(extra: int, size: tuple[int, int] = (12, 16)) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (2, 1, *size), generator=generator)
    edges = torch.randint(2, (2, extra, *size), generator=generator)
    return torch.cat([labels, edges], 1)


def dense_of(semantic: Tensor) -> Tensor:
    return torch.cat([onehot(semantic[:, :1], CLASSES), semantic[:, 1:].double()], 1)


@pytest.mark.parametrize("extra", [0, 1, 2])
@pytest.mark.parametrize("learning", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (4, 2, 2), (1, 1, 0)])
def test_look_up_equals_the_convolution(monkeypatch, extra, learning, kernel, stride, padding):
    monkeypatch.setattr(layout, "LOOKUP_FROM", 0)
    monkeypatch.setattr(layout, "PLACES_FROM", 0)
    monkeypatch.setattr(layout, "CACHED", 1000)  # the gradient comes in blocks
    semantic = ids_and_edges(extra)
    channels = CLASSES + extra
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(7, channels, kernel, kernel, generator=generator, dtype=torch.float64, requires_grad=learning)
    bias = torch.randn(7, generator=generator, dtype=torch.float64, requires_grad=learning)
    found = Layout(semantic, channels, weight).conv(weight, bias, stride, padding)
    wanted = F.conv2d(dense_of(semantic), weight, bias, stride, padding)
    torch.testing.assert_close(found, wanted)
    assert torch.equal(Layout(semantic, channels, weight).dense(), dense_of(semantic))
    if learning:
        seed = torch.randn_like(wanted)
        mine, theirs = (torch.autograd.grad(made, (weight, bias), seed) for made in (found, wanted))
        torch.testing.assert_close(mine, theirs)


def test_maps_of_few_places_are_convolved(monkeypatch):
    """A table has as many rows as weights have columns, whatever the map's size."""
    semantic, weight = ids_and_edges(0), torch.randn(7, CLASSES, 3, 3)  # 384 places in two images
    for places, made in ((384, True), (385, False)):
        monkeypatch.setattr(layout, "PLACES_FROM", places)
        looked_up = Layout(semantic, CLASSES, weight)
        looked_up.conv(weight, None, 1, 1)
        assert ("dense" not in looked_up.found) == made


@pytest.mark.parametrize("factor", [2, 4])
def test_reduction_is_nearest_neighbour_from_the_upper_left(factor: int):
    semantic = ids_and_edges(1)
    dense = dense_of(semantic)
    small = F.interpolate(dense, (12 // factor, 16 // factor), mode="nearest")
    for given in (semantic, dense):
        assert torch.equal(Layout(given, CLASSES + 1, dense).reduced(factor).dense(), small)
    centred = F.interpolate(dense, (12 // factor, 16 // factor), mode="nearest-exact")
    assert not torch.equal(small, centred)


@pytest.mark.parametrize("size", [(12, 16), (11, 7)])
def test_pooling_of_ids_equals_pooling_of_the_dense_map(size: tuple[int, int]):
    for extra in (0, 1):
        semantic = ids_and_edges(extra, size)
        dense = dense_of(semantic)
        wanted = F.avg_pool2d(dense, 3, 2, 1, count_include_pad=False)
        for given in (semantic, dense):
            torch.testing.assert_close(Layout(given, CLASSES + extra, dense).pooled(), wanted)


def test_narrow_integers_are_ids_too(monkeypatch):
    monkeypatch.setattr(layout, "PLACES_FROM", 0)
    semantic = ids_and_edges(1)
    weight = torch.randn(3, CLASSES + 1, 3, 3)
    wanted = Layout(semantic, CLASSES + 1, weight).conv(weight, None, 1, 1)
    for dtype in (torch.uint8, torch.int32):
        torch.testing.assert_close(Layout(semantic.to(dtype), CLASSES + 1, weight).conv(weight, None, 1, 1), wanted)


def test_under_autocast_both_ways_give_bfloat16(monkeypatch):
    monkeypatch.setattr(layout, "LOOKUP_FROM", 0)
    monkeypatch.setattr(layout, "PLACES_FROM", 0)
    semantic, weight = ids_and_edges(1), torch.randn(8, CLASSES + 1, 3, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = Layout(semantic, CLASSES + 1, weight).conv(weight, None, 1, 1)
        wanted = Layout(dense_of(semantic), CLASSES + 1, weight).conv(weight, None, 1, 1)
    assert found.dtype == wanted.dtype == torch.bfloat16
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.05)
    found.float().sum().backward()
    assert weight.grad is not None and weight.grad.dtype == torch.float32


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (2, 7, 8, 8)])
def test_wrong_channels_are_named(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"where the network takes .*\(B, 5, H, W\)"):
        Layout(torch.zeros(shape), 5, torch.zeros(1))
    with pytest.raises(ValueError, match="map of ids"):
        Layout(torch.zeros((2, 6, 8, 8), dtype=torch.long), 5, torch.zeros(1))
