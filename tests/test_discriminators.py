"""The discriminators against the official ones; ids against dense maps; gradients."""

import pytest
import torch
from torch import nn

from models import layout
from models.discriminators import MultiscaleDiscriminator, PatchDiscriminator
from models.official import official_name
from models.resnet import ResnetGenerator
from tests import golden_fill

COUNTS = [
    (36, 5_601_410),
    (35, 5_599_362),
    (20, 5_568_642),
    (19, 5_566_594),
    (151, 5_836_930),
    (15, 5_558_402),
    (1, 5_529_730),
    (18, 5_564_546),
    (3, 5_533_826),
]


@pytest.mark.parametrize(("channels", "parameters"), COUNTS)
def test_parameter_counts(channels: int, parameters: int):
    with torch.device("meta"):
        for scales in (1, 2):
            discriminator = MultiscaleDiscriminator(channels + 3, scales=scales)
            assert sum(p.numel() for p in discriminator.parameters()) == parameters * scales // 2


def test_names_and_shapes_are_the_official_ones():
    with torch.device("meta"):
        state = MultiscaleDiscriminator(154).state_dict()
    ours = {official_name(name): list(value.shape) for name, value in state.items()}
    assert ours == golden_fill.shapes("spade_discriminator S=151")


def test_outputs_equal_the_recorded_ones():
    discriminator = golden_fill.fill(MultiscaleDiscriminator(8, width=4))
    ids, image = golden_fill.ids(2, 5, 64, 64), golden_fill.image(2, 3, 64, 64)
    wanted = golden_fill.outputs("spade.npz")
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-5)):
        discriminator.to(dtype)
        for condition in (ids, golden_fill.onehot(ids, 5).to(dtype)):
            found = discriminator(condition, image.to(dtype))
            assert [len(scale) for scale in found] == [5, 5]
            for i, scale in enumerate(found):
                for j, stage in enumerate(scale):
                    key = f"spade_discriminator_{i}_{j}"
                    torch.testing.assert_close(stage.float(), wanted[key], rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("height", "width", "sizes"),
    [
        (256, 256, [[129, 65, 33, 34, 35], [65, 33, 17, 18, 19]]),
        (256, 512, [[129, 65, 33, 34, 35], [65, 33, 17, 18, 19]]),
    ],
)
def test_sizes(height: int, width: int, sizes: list[list[int]]):
    discriminator = MultiscaleDiscriminator(5, width=2)
    found = discriminator(torch.zeros(1, 2, height, width), torch.zeros(1, 3, height, width))
    assert [[stage.shape[2] for stage in scale] for scale in found] == sizes
    if width == 512:
        assert [[stage.shape[3] for stage in scale] for scale in found] == [
            [257, 129, 65, 66, 67],
            [129, 65, 33, 34, 35],
        ]


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("threshold", [0, 1000], ids=["look-up", "dense"])
def test_ids_equal_the_dense_map(monkeypatch, extra: int, threshold: int):
    monkeypatch.setattr(layout, "LOOKUP_FROM", threshold)
    monkeypatch.setattr(layout, "PLACES_FROM", threshold)
    torch.manual_seed(0)
    discriminator = MultiscaleDiscriminator(9 + extra, width=4).double().eval()
    for parameter in discriminator.parameters():
        nn.init.normal_(parameter, std=0.1)
    ids, edges = torch.randint(6, (2, 1, 40, 32)), torch.randint(2, (2, extra, 40, 32))
    image = torch.rand(2, 3, 40, 32, dtype=torch.float64) * 2 - 1
    found = []
    for condition in (torch.cat([ids, edges], 1), torch.cat([golden_fill.onehot(ids, 6), edges.double()], 1)):
        discriminator.zero_grad()
        image = image.detach().clone().requires_grad_()
        scores = discriminator(condition, image)
        sum((stage**2).sum() for scale in scores for stage in scale).backward()
        grads = [parameter.grad for parameter in discriminator.parameters()]
        found.append((image.grad, grads, [[stage.detach() for stage in scale] for scale in scores]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)


def test_stacked_batches_share_the_condition():
    torch.manual_seed(0)
    discriminator = MultiscaleDiscriminator(9, width=4).double().eval()
    ids = torch.randint(6, (2, 1, 32, 32))
    fake, real = torch.rand(2, 2, 3, 32, 32, dtype=torch.float64)
    both = discriminator(ids, torch.cat([fake, real]))
    apart = [discriminator(ids, fake), discriminator(ids, real)]
    for scale in range(2):
        for stage in range(5):
            torch.testing.assert_close(both[scale][stage], torch.cat([found[scale][stage] for found in apart]))


def test_a_frozen_discriminator_passes_gradient_to_the_image():
    discriminator = MultiscaleDiscriminator(9, width=4).requires_grad_(False)
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    discriminator(torch.randint(6, (1, 1, 32, 32)), image)[1][-1].sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0


def test_channels_last_and_bfloat16_keep_the_scores():
    torch.manual_seed(0)
    discriminator = MultiscaleDiscriminator(9, width=8).eval()
    ids, image = torch.randint(6, (2, 1, 32, 32)), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        wanted = discriminator(ids, image)
        discriminator.to(memory_format=torch.channels_last)
        torch.testing.assert_close(discriminator(ids, image), wanted, rtol=1e-4, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            found = discriminator(ids, image)
    assert found[0][1].dtype in (torch.bfloat16, torch.float32)
    assert (found[0][2].float() - wanted[0][2]).std() < 0.05 * wanted[0][2].std()


def small(**settings: int | bool) -> PatchDiscriminator:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(**{"channels": 3, "width": 4, **settings}).double()
    for parameter in discriminator.parameters():
        nn.init.normal_(parameter, std=0.1)
    return discriminator


@pytest.mark.parametrize("antialias", [True, False])
def test_parameter_counts_of_cut(antialias: bool):
    with torch.device("meta"):
        discriminator = PatchDiscriminator(3, antialias=antialias)
        both = [discriminator, ResnetGenerator(3, antialias=antialias)]
    counts = [sum(p.numel() for p in network.parameters()) for network in both]
    assert counts[0] == 2_764_737 and 2 * sum(counts) == 28_285_832


def test_names_and_shapes_of_cut_are_the_official_ones():
    with torch.device("meta"):
        state = PatchDiscriminator(3).state_dict()
    ours = {official_name(name): list(value.shape) for name, value in state.items()}
    assert ours == golden_fill.shapes("cut_discriminator")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_output_of_cut_equals_the_recorded_one(dtype: torch.dtype, tolerance: float, order: torch.memory_format):
    discriminator = golden_fill.fill(PatchDiscriminator(3, width=4)).to(dtype, memory_format=order)
    (found,) = discriminator(None, golden_fill.image(2, 3, 64, 64).to(dtype))
    wanted = golden_fill.outputs("cut.npz")["cut_discriminator"].to(dtype)
    torch.testing.assert_close(found[-1], wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("antialias", "sizes"), [(True, [128, 64, 32, 31, 30]), (False, [128, 64, 32, 31, 30])], ids=["blur", "stride"]
)
def test_sizes_of_cut(antialias: bool, sizes: list[int]):
    with torch.device("meta"):
        (found,) = PatchDiscriminator(3, antialias=antialias)(None, torch.zeros(1, 3, 256, 512))
    assert [stage.shape[2] for stage in found] == sizes
    assert [stage.shape[1] for stage in found] == [64, 128, 256, 512, 1]
    assert found[-1].shape[3] == 62


@pytest.mark.parametrize("antialias", [True, False])
def test_the_smallest_image_of_cut(antialias: bool):
    discriminator = small(antialias=antialias)
    assert discriminator.smallest == 24
    assert discriminator(None, torch.rand(1, 3, 24, 24).double())[0][-1].shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match="PatchDiscriminator needs sides of at least 24"):
        discriminator(None, torch.rand(1, 3, 40, 23).double())


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("antialias", [True, False])
def test_a_condition_of_cut_is_concatenated(extra: int, antialias: bool):
    discriminator = small(channels=9 + extra, antialias=antialias)
    ids, edges = torch.randint(6, (2, 1, 40, 32)), torch.randint(2, (2, extra, 40, 32))
    dense = torch.cat([golden_fill.onehot(ids, 6), edges.double()], 1)
    images = torch.rand(4, 3, 40, 32, dtype=torch.float64) * 2 - 1  # two batches: fakes, then reals
    wanted = discriminator.model(torch.cat([dense.repeat(2, 1, 1, 1), images], 1))
    for condition in (dense, torch.cat([ids, edges], 1)):
        (found,) = discriminator(condition, images)
        assert len(found) == 5
        torch.testing.assert_close(found[-1], wanted)


@pytest.mark.parametrize("image_channels", [1, 3, 5])
@pytest.mark.parametrize("kind", [PatchDiscriminator, MultiscaleDiscriminator])
def test_images_of_any_channels_alone_or_under_a_condition(kind: type[nn.Module], image_channels: int):
    torch.manual_seed(0)
    image, condition = torch.rand(2, image_channels, 32, 40), torch.rand(2, 4, 32, 40)
    alone = kind(image_channels, width=4, image_channels=image_channels).eval()
    found = alone(None, image)
    torch.testing.assert_close(found[0][-1][:1], alone(None, image[:1])[0][-1])
    with pytest.raises(ValueError, match=r"condition \(2, 4, 32, 40\), where the discriminator takes the image alone"):
        alone(condition, image)
    both = kind(4 + image_channels, width=4, image_channels=image_channels).eval()
    assert [s.shape for s in both(condition, image)[0][1:]] == [s.shape for s in found[0][1:]]
    assert not torch.equal(both(condition, image)[0][-1], both(condition.flip(3), image)[0][-1])
    with pytest.raises(ValueError, match="no condition, where the discriminator takes one of 4 channels"):
        both(None, image)


def test_channels_last_and_bfloat16_keep_the_scores_of_cut():
    discriminator, image = small(width=8).float(), torch.rand(2, 3, 32, 48)
    grads = []
    for order, half in ((torch.contiguous_format, False), (torch.channels_last, False), (torch.channels_last, True)):
        discriminator.to(memory_format=order).zero_grad()
        x = image.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            (found,) = discriminator(None, x)
        found[-1].float().square().sum().backward()
        grads.append([found[-1].float().detach(), x.grad, discriminator.model[3].weight.grad])
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-4)
    for exact, rough in zip(grads[0], grads[2], strict=True):
        assert (rough - exact).norm() < 0.2 * exact.norm()  # bfloat16 convolutions alone leave 0.14
