"""CUT's generator against the official one: counts, names, recorded output and features; taps, sizes, channels."""

import pytest
import torch
from torch import Tensor, nn

from errors import UserError
from losses.comparison import Comparison
from models.blocks import InstanceNorm, init_weights
from models.official import convert, official_name
from models.resnet import ResidualBlock, ResnetGenerator
from tests import golden_fill

TAPS = [0, 4, 8, 12, 16]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def small(**settings: int | bool) -> ResnetGenerator:
    """Width 4, two blocks, weights large enough that the output is not almost zero."""
    torch.manual_seed(0)
    generator = ResnetGenerator(**{"channels": 3, "width": 4, "blocks": 2, **settings})
    for parameter in generator.parameters():
        nn.init.normal_(parameter, std=0.2)
    return generator


def draw(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(("blocks", "parameters"), [(9, 11_378_179), (6, 7_837_699)])
@pytest.mark.parametrize("antialias", [True, False])
def test_parameter_counts(blocks: int, parameters: int, antialias: bool):
    with torch.device("meta"):
        assert count(ResnetGenerator(3, blocks=blocks, antialias=antialias)) == parameters
        assert count(ResidualBlock(256)) == 1_180_160


@pytest.mark.parametrize(("antialias", "network"), [(True, "cut_generator"), (False, "cut_generator no_antialias")])
def test_names_and_shapes_are_the_official_ones(antialias: bool, network: str):
    with torch.device("meta"):
        state = ResnetGenerator(3, antialias=antialias).state_dict()
    assert {official_name(name): list(value.shape) for name, value in state.items()} == golden_fill.shapes(network)


def test_heads_are_the_official_ones():
    channels = ResnetGenerator(3, blocks=5).feature_channels(TAPS)
    assert channels == [3, 128, 256, 256, 256]
    term = Comparison(nn.L1Loss(), [["fake", "source"]], channels, channels, patches=256, head="mlp", reduce="mean")
    assert count(term) == 560_384
    state = term.state_dict()
    ours = {official_name(name): list(value.shape) for name, value in state.items()}
    assert ours == golden_fill.shapes("cut_patch_sample_f")


def test_an_official_checkpoint_loads_without_its_blur_filters():
    generator = small()
    state = {official_name(name): value for name, value in generator.state_dict().items()}
    state |= {"model.7.filt": torch.zeros(8, 1, 3, 3), "model.16.filt": torch.zeros(16, 1, 4, 4)}
    other = ResnetGenerator(3, width=4, blocks=2)
    other.load_state_dict(convert(state, other))
    assert torch.equal(other(draw(1, 3, 16, 16)), generator(draw(1, 3, 16, 16)))
    with pytest.raises(UserError, match=r"does not fit ResnetGenerator: .*blocks and antialias"):
        convert(state, ResnetGenerator(3, width=4, blocks=3))


@pytest.mark.parametrize(
    ("dtype", "order", "tolerance"),
    [
        (torch.float64, torch.contiguous_format, 1e-6),
        (torch.float64, torch.channels_last, 1e-6),
        (torch.float32, torch.contiguous_format, 7e-6),
        (torch.float32, torch.channels_last, 1e-4),  # PyTorch's moments over channels_last add up less exactly
    ],
)
def test_outputs_equal_the_recorded_ones(dtype: torch.dtype, order: torch.memory_format, tolerance: float):
    wanted = golden_fill.outputs("cut.npz")
    image = golden_fill.image(2, 3, 64, 64).to(dtype)
    generator = golden_fill.fill(ResnetGenerator(3, width=4)).to(dtype, memory_format=order)
    with torch.no_grad():
        fake, features = generator.tapped(image, TAPS)
        found = {f"cut_features_{tap}": feature for tap, feature in zip(TAPS, features, strict=True)}
        plain = golden_fill.fill(ResnetGenerator(3, width=4, antialias=False)).to(dtype, memory_format=order)
        found |= {"cut_generator": fake, "cut_generator_no_antialias": plain(image)}
    for key, value in found.items():
        torch.testing.assert_close(value, wanted[key].to(dtype), rtol=0, atol=tolerance)


def test_positions_are_those_of_the_table():
    names = [type(layer).__name__ for layer in ResnetGenerator(3, width=2).model]
    assert [i for i, name in enumerate(names) if name == "BlurDownsample"] == [7, 11]
    assert [i for i, name in enumerate(names) if name == "ResidualBlock"] == list(range(12, 21))
    assert [i for i, name in enumerate(names) if name == "Upsample"] == [21, 25] and len(names) == 32
    names = [type(layer).__name__ for layer in ResnetGenerator(3, width=2, antialias=False).model]
    assert [i for i, name in enumerate(names) if name == "ResidualBlock"] == list(range(10, 19))
    assert [i for i, name in enumerate(names) if name == "ConvTranspose2d"] == [19, 22] and len(names) == 28


def test_residual_block_equals_its_slow_twin():
    torch.manual_seed(0)
    block, x = ResidualBlock(3).double(), torch.randn(2, 3, 5, 4, dtype=torch.float64)
    y = x
    for index, conv in enumerate([block.first, block.second]):
        rows = [1, 0, 1, 2, 3, 4, 3]
        columns = [1, 0, 1, 2, 3, 2]
        padded = y[:, :, rows][:, :, :, columns]
        y = torch.zeros(2, 3, 5, 4, dtype=torch.float64) + conv.bias[:, None, None]
        for i in range(3):
            for j in range(3):
                y = y + torch.einsum("oc,bchw->bohw", conv.weight[:, :, i, j], padded[:, :, i : i + 5, j : j + 4])
        y = (y - y.mean((2, 3), keepdim=True)) / (y.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
        y = y.clamp(min=0) if index == 0 else y
    torch.testing.assert_close(block(x), x + y)


@pytest.mark.parametrize("antialias", [True, False])
def test_every_position_can_be_tapped_and_stays_as_it_was(antialias: bool):
    generator, x = small(antialias=antialias), draw(2, 3, 16, 24)
    every = [p for p, layer in enumerate(generator.model) if not isinstance(layer, InstanceNorm | nn.ReLU | nn.Tanh)]
    with torch.no_grad():
        image, found = generator.tapped(x, every)
        assert torch.equal(image, generator(x)) and torch.equal(image, found[-1].tanh())
        assert [feature.shape[1] for feature in found] == generator.feature_channels(every)
        y = x
        for position, layer in enumerate(generator.model):
            y = layer(y.clone())
            if position in every:
                assert torch.equal(y, found[every.index(position)])


def test_encode_runs_only_as_far_as_needed():
    generator, x = small(), draw(1, 3, 16, 16)
    ran: list[int] = []
    for position, layer in enumerate(generator.model):
        layer.register_forward_hook(lambda *_, position=position: ran.append(position))
    found = generator.encode(x, [8, 0, 4])
    assert ran == list(range(9))
    for feature, wanted in zip(found, generator.tapped(x, [8, 0, 4])[1], strict=True):
        assert torch.equal(feature, wanted)
    assert [feature.shape[1] for feature in found] == [16, 3, 8]
    assert found[1].shape == (1, 3, 22, 22)
    assert generator.encode(x, []) == []


@pytest.mark.parametrize("layer", [32, -1, "relu1_1", 4.5])
def test_an_unknown_layer_is_answered_with_the_range(layer: int | str | float):
    generator = ResnetGenerator(3, width=2)
    for call in (generator.feature_channels, lambda layers: generator.encode(draw(1, 3, 16, 16), layers)):
        with pytest.raises(
            UserError, match=rf"encoder\.layers: no layer '?{layer}'? to tap; this generator has 0, 1, 4"
        ):
            call([0, layer])


def test_other_sizes_are_refused_with_the_nearest_legal_ones():
    generator = small()
    assert generator.size_multiple == 4
    with pytest.raises(ValueError, match=r"size 30x64 .*ResnetGenerator needs multiples of 4 .*28x64 or 32x64"):
        generator(draw(1, 3, 30, 64))
    with pytest.raises(ValueError, match=r"such as 8x16$"):
        generator(draw(1, 3, 4, 16))
    for antialias in (True, False):
        assert small(antialias=antialias)(draw(1, 3, 8, 8)).shape == (1, 3, 8, 8)


@pytest.mark.parametrize(("channels", "output_channels"), [(1, 1), (5, 5), (1, 3), (3, 7)])
def test_any_channels_and_sides(channels: int, output_channels: int):
    generator = small(channels=channels, output_channels=output_channels)
    found = generator(draw(2, channels, 12, 20))
    assert found.shape == (2, output_channels, 12, 20) and found.abs().max() <= 1 and found.std() > 0.01
    with pytest.raises(ValueError, match=rf"a floating \(B, {channels}, H, W\) map"):
        generator(draw(2, channels + 1, 12, 20))


def test_ids_equal_the_dense_map():
    generator = small(channels=7).double()
    ids, edges = torch.randint(6, (2, 1, 16, 16)), torch.randint(2, (2, 1, 16, 16))
    dense = torch.cat([golden_fill.onehot(ids, 6), edges.double()], 1)
    image, features = generator.tapped(torch.cat([ids, edges], 1), [0, 4])
    wanted, wanted_features = generator.tapped(dense, [0, 4])
    torch.testing.assert_close([image, *features], [wanted, *wanted_features])


def test_a_batch_equals_its_images_one_by_one():
    generator, x = small(), draw(3, 3, 16, 16)
    for order in (torch.contiguous_format, torch.channels_last):
        generator.to(memory_format=order)
        torch.testing.assert_close(generator(x), torch.cat([generator(image) for image in x.split(1)]))


def test_gradients_reach_weights_and_source():
    generator, x = small().double(), draw(2, 3, 16, 16).double().requires_grad_()
    grads = []
    for order in (torch.contiguous_format, torch.channels_last):
        generator.to(memory_format=order).zero_grad()
        image, features = generator.tapped(x, TAPS[:4])
        x.grad = None
        sum(value.square().sum() for value in (image, *features)).backward()
        assert x.grad is not None
        grads.append([x.grad, *(parameter.grad for parameter in generator.parameters())])
    assert all(grad is not None and grad.isfinite().all() for grad in grads[0])
    assert all(grad.abs().sum() > 1e-6 for grad in grads[0][:2])
    torch.testing.assert_close(grads[0], grads[1])


def test_channels_last_and_bfloat16_keep_the_output():
    generator = small(width=16).eval()
    init_weights(generator, gain=1.0)
    x = draw(2, 3, 32, 32)
    with torch.no_grad():
        wanted, features = generator.tapped(x, [0, 8, 12])
        generator.to(memory_format=torch.channels_last)
        found, found_features = generator.tapped(x, [0, 8, 12])
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
        assert found_features[2].is_contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            found, found_features = generator.tapped(x, [0, 8, 12])
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, rtol=0, atol=0.1)
    assert (found.float() - wanted).std() < 0.03 * wanted.std()
    assert torch.equal(found_features[0], features[0])  # pixels are compared as they are
