"""The multi-scale discriminator against the official one; ids against dense maps; gradients."""

import pytest
import torch
from torch import nn

from models import layout
from models.discriminators import MultiscaleDiscriminator
from models.official import official_name
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
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 3e-6)):
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
