"""Maps of self-similarity and their comparison: golden values, scalar twins, windows, and what changes nothing."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from losses.contrastive import PatchNCE
from losses.similarity import map_loss, similarity_map, windows


def golden_maps() -> tuple[Tensor, Tensor, Tensor]:
    """Source, generated and other image's features that the golden values were computed from: (2, 4, 4, 4)."""
    b, c, h, w = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in (2, 4, 4, 4)), indexing="ij")
    source = torch.sin(1 + 0.9 * b + 0.7 * c + 1.3 * h + 0.4 * w + 0.2 * c * h)
    fake = source + 0.5 * torch.cos(0.3 + 0.5 * b + 1.1 * c + 0.6 * h + 0.9 * w)
    return source, fake, torch.cos(2 + 1.2 * b + 0.3 * c + 0.8 * h + 1.7 * w)


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def span(centre: int, size: int, side: int) -> list[int]:
    if side >= size:
        return list(range(size))
    start = min(max(centre - side // 2, 0), size - side)
    return list(range(start, start + side))


def reference_map(
    maps: Tensor, places: list[int], keys: str, side: int, cosine: bool, centre: bool = True
) -> list[list[list[float]]]:
    """similarity_map in scalar loops."""
    height, width = maps.shape[-2:]
    found = []
    for image in maps.tolist():
        channels = [[value for row in channel for value in row] for channel in image]
        if centre:
            channels = [[value - math.fsum(channel) / len(channel) for value in channel] for channel in channels]
        vectors = [list(vector) for vector in zip(*channels, strict=True)]
        rows = []
        for place in places:
            at = places
            if keys == "window":
                at = [
                    y * width + x for y in span(place // width, height, side) for x in span(place % width, width, side)
                ]
            row = []
            for other in at:
                dot = math.fsum(p * q for p, q in zip(vectors[place], vectors[other], strict=True))
                if cosine:
                    row.append(dot / (math.hypot(*vectors[place]) * math.hypot(*vectors[other])))
                else:
                    row.append(math.tanh(dot / len(channels) / 10))
            rows.append(row)
        found.append(rows)
    return found


def bend(value: float, smooth: bool) -> float:
    if not smooth:
        return abs(value)
    return 0.5 * value**2 if abs(value) < 1 else abs(value) - 0.5


def reference_loss(fake: Tensor, source: Tensor, mode: str, smooth: bool) -> float:
    """map_loss in scalar loops."""
    values = []
    for fakes, sources in zip(fake.flatten(0, 1).tolist(), source.flatten(0, 1).tolist(), strict=True):
        threshold = sorted(fakes, reverse=True)[len(fakes) // 4]
        kept = [(s, f) for s, f in zip(sources, fakes, strict=True) if f >= threshold]
        if mode == "l1":
            values += [bend(4 * f - 4 * s, smooth) for s, f in kept] + [0.0] * (len(fakes) - len(kept))
        else:
            dot = math.fsum(s * f for s, f in kept)
            lengths = math.hypot(*(s for s, _ in kept)) * math.hypot(*(f for _, f in kept))
            values.append(bend(1 - dot / lengths, smooth))
    return math.fsum(values) / len(values)


@pytest.mark.parametrize(
    ("cosine", "first", "values"),
    [
        (False, (0.0578429, 0.0516733), (0.00102025729, 0.00238515549, 0.99766525740)),
        (True, (1, 0.9317384), (0.02223550100, 0.15886255649, 0.99321112588)),
    ],
)
def test_golden_values(cosine, first, values):
    source, fake, other = (similarity_map(maps, None, cosine=cosine) for maps in golden_maps())
    assert source.shape == (2, 16, 16)
    assert source[0, 0, :2].tolist() == pytest.approx(first, abs=6e-8)
    rows = [F.normalize(maps, dim=-1) for maps in (source, fake, other)]
    found = (
        map_loss(fake, source, "cos", smooth=not cosine),
        map_loss(fake, source, "l1", smooth=not cosine),
        PatchNCE().against(*rows),
    )
    assert [value.item() for value in found] == pytest.approx(values, rel=1e-6)


SIZES = [(6, 6, 4), (6, 6, 3), (5, 8, 3), (8, 5, 4), (3, 9, 4), (9, 3, 3), (4, 4, 4), (4, 5, 64)]


@pytest.mark.parametrize(("height", "width", "side"), SIZES)
@pytest.mark.parametrize("cosine", [False, True])
def test_maps_are_their_twin(height, width, side, cosine):
    maps = features(2, 3, height, width)
    corners = [0, width - 1, (height - 1) * width, height * width - 1]
    places = [*corners, height // 2 * width + width // 2, width]
    for keys in ("window", "queries"):
        expected = torch.tensor(reference_map(maps, places, keys, side, cosine), dtype=torch.float64)
        found = similarity_map(maps, torch.tensor(places), keys, side, cosine)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    everywhere = list(range(height * width))
    expected = torch.tensor(reference_map(maps, everywhere, "window", side, cosine), dtype=torch.float64)
    torch.testing.assert_close(similarity_map(maps, None, "window", side, cosine), expected, rtol=1e-12, atol=1e-14)


def test_maps_of_plain_features_are_their_twin():
    maps = 2 + features(2, 3, 4, 5)
    expected = torch.tensor(reference_map(maps, [7, 1, 13], "queries", 0, True, centre=False), dtype=torch.float64)
    found = similarity_map(maps, torch.tensor([7, 1, 13]), "queries", cosine=True, centre=False)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_windows_of_a_map_of_4_by_5():
    """Of a corner, of the centre, of the far corner: moved inside, one axis each for itself."""
    found = windows(torch.tensor([0, 7, 19]), 4, 5, 3)
    assert found.tolist() == [
        [0, 1, 2, 5, 6, 7, 10, 11, 12],
        [1, 2, 3, 6, 7, 8, 11, 12, 13],
        [7, 8, 9, 12, 13, 14, 17, 18, 19],
    ]
    assert windows(torch.tensor([7]), 4, 5, 4).tolist() == [[5 * y + x for y in range(4) for x in range(4)]]
    assert windows(torch.tensor([7]), 4, 5, 5).tolist() == [list(range(20))]


@pytest.mark.parametrize(("height", "width", "side"), SIZES)
def test_windows_hold_their_place_and_no_key_twice(height, width, side):
    places = torch.arange(height * width)
    found = windows(places, height, width, side)
    assert found.shape == (height * width, min(side, height) * min(side, width))
    assert (found == places[:, None]).sum(-1).eq(1).all()
    assert all(len(set(row)) == len(row) and min(row) >= 0 and max(row) < height * width for row in found.tolist())


@pytest.mark.parametrize("mode", ["cos", "l1"])
@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("count", [1, 3, 4, 9, 16])
def test_losses_are_their_twin(mode, smooth, count):
    fake, source = features(2, 5, count), features(2, 5, count, seed=1)
    found = map_loss(fake, source, mode, smooth).item()
    assert found == pytest.approx(reference_loss(fake, source, mode, smooth), rel=1e-9, abs=1e-12)


def test_strotss_is_its_twin():
    fake, source = features(2, 5, 5).tanh(), features(2, 5, 5, seed=1).tanh()
    expected = []
    for image in range(2):
        total = 0.0
        for column in range(5):
            shares = []
            for maps in (fake, source):
                distances = [1 - maps[image, row, column].item() for row in range(5)]
                shares.append([distance / math.fsum(distances) for distance in distances])
            total += math.fsum(abs(f - s) for f, s in zip(*shares, strict=True))
        expected.append(total / 25 * 5)
    assert map_loss(fake, source, "strotss").item() == pytest.approx(sum(expected) / 2, rel=1e-12)


@pytest.mark.parametrize("mode", ["cos", "l1", "strotss"])
def test_equal_maps_cost_nothing(mode):
    maps = similarity_map(features(2, 4, 5, 5), None, cosine=True)
    assert map_loss(maps, maps.clone(), mode).item() == pytest.approx(0, abs=1e-15)


def test_keys_that_the_generated_image_finds_unlike_do_not_count():
    fake = torch.tensor([[[0.9, 0.8, 0.1, 0.0, -0.1, -0.2, -0.3, -0.4]]])
    source = features(1, 1, 8).float()
    changed = source.clone()
    changed[..., 3:] += 1  # rank 8 // 4 = 2 is the last that counts
    for mode in ("cos", "l1"):
        assert map_loss(fake, source, mode).item() == map_loss(fake, changed, mode).item()
        changed[..., 2] += 1
        assert map_loss(fake, source, mode).item() != map_loss(fake, changed, mode).item()
        changed[..., 2] -= 1


def test_appearance_does_not_change_maps():
    """Contrast and an offset of every channel leave maps of cosines as they are; of products, the offset alone."""
    maps = features(1, 4, 5, 6)
    offset = features(1, 4, 1, 1, seed=1)
    places = torch.tensor([3, 20])
    plain = similarity_map(maps, places, cosine=True)
    torch.testing.assert_close(similarity_map(3 * maps + offset, places, cosine=True), plain)
    torch.testing.assert_close(similarity_map(maps + offset, places), similarity_map(maps, places))


def test_gradients_against_finite_differences():
    maps, places = features(2, 3, 4, 5).requires_grad_(), torch.tensor([0, 7, 19])
    for settings in ({"window": 3}, {"keys": "queries"}, {"window": 3, "cosine": True}):
        assert torch.autograd.gradcheck(lambda m, settings=settings: similarity_map(m, places, **settings), maps)
    fake, source = features(1, 3, 8).requires_grad_(), features(1, 3, 8, seed=1).requires_grad_()
    for mode in ("cos", "l1"):
        assert torch.autograd.gradcheck(lambda f, s, mode=mode: map_loss(f, s, mode), (fake, source))


@pytest.mark.parametrize("mode", ["cos", "l1", "strotss"])
@pytest.mark.parametrize("cosine", [False, True])
def test_flat_features_have_finite_gradients(mode, cosine):
    flat = torch.full((1, 4, 4, 4), 2.0, requires_grad=True)
    source = features(1, 4, 4, 4).float()
    for centre in (True, False):
        maps = [similarity_map(image, None, cosine=cosine, centre=centre) for image in (flat, source)]
        value = map_loss(*maps, mode)
        assert torch.isfinite(value)
        assert torch.isfinite(torch.autograd.grad(value, flat)[0]).all()


@pytest.mark.parametrize("mode", ["cos", "l1", "strotss"])
def test_non_finite_features_are_not_hidden(mode):
    broken, source = features(1, 4, 4, 4), features(1, 4, 4, 4, seed=1)
    broken[0, 1, 2, 2] = math.nan
    for cosine in (True, False):
        maps = [similarity_map(image, None, cosine=cosine) for image in (broken, source)]
        assert not torch.isfinite(map_loss(*maps, mode))


def test_autocast_is_left():
    maps = features(1, 8, 6, 6).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = similarity_map(maps, None, window=4)
    torch.testing.assert_close(found, similarity_map(maps.float(), None, window=4), rtol=0, atol=0)


def test_layout_in_memory_does_not_matter():
    maps, places = features(2, 4, 5, 6), torch.tensor([3, 20, 11])
    last = maps.to(memory_format=torch.channels_last)
    torch.testing.assert_close(similarity_map(last, places, window=3), similarity_map(maps, places, window=3))
