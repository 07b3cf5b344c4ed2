"""The SPADE generator against the official one: parameter counts, names, recorded outputs; ids against dense maps."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engine.build import build, build_dataset
from engine.config import ConfigError
from engine.inputs import Inputs
from errors import UserError
from models import layout
from models.layout import Layout
from models.official import convert, official_name
from models.spade import SPADE, Noise, SPADEBlock, SPADEGenerator
from tests import golden_fill
from tests.compose import TINY, config


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


COUNTS = [
    (36, "more", 93_048_003),
    (35, "more", 93_018_051),
    (20, "more", 92_568_771),
    (19, "normal", 92_538_819),
    (151, "normal", 96_492_483),
    (151, "most", 97_412_579),
    (36, "most", 93_570_659),
    (15, "normal", 92_419_011),
    (1, "normal", 91_999_683),
    (18, "normal", 92_508_867),
    (3, "normal", 92_059_587),
]
MODULES = {
    151: [1_392_640, 23_947_264, 23_947_264, 23_947_264, 14_028_800, 5_374_976, 2_473_472, 1_379_072, 1_731],
    36: [332_800, 23_682_304, 23_682_304, 23_682_304, 13_631_360, 4_977_536, 2_076_032, 981_632, 1_731],
}


@pytest.mark.parametrize(("channels", "upsampling", "parameters"), COUNTS)
def test_parameter_counts(channels: int, upsampling: str, parameters: int):
    with torch.device("meta"):
        assert count(SPADEGenerator(channels, upsampling=upsampling)) == parameters


@pytest.mark.parametrize("channels", MODULES)
def test_parameter_counts_of_modules(channels: int):
    with torch.device("meta"):
        assert [count(child) for child in SPADEGenerator(channels).children()] == MODULES[channels]


@pytest.mark.parametrize(("channels", "parameters"), [(151, 2_535_424), (36, 2_402_944), (3, 2_364_928)])
def test_parameter_counts_of_the_norm(channels: int, parameters: int):
    with torch.device("meta"):
        assert count(SPADE(channels, 1024)) == parameters


def test_names_and_shapes_are_the_official_ones():
    with torch.device("meta"):
        state = SPADEGenerator(151).state_dict()
    ours = {official_name(name): list(value.shape) for name, value in state.items()}
    assert ours == golden_fill.shapes("spade_generator S=151 normal")


CASES = [("normal", 64, 64), ("more", 64, 128)]


@pytest.mark.parametrize(("upsampling", "height", "width"), CASES)
def test_outputs_equal_the_recorded_ones(upsampling: str, height: int, width: int):
    generator = golden_fill.fill(SPADEGenerator(5, width=4, upsampling=upsampling))
    ids = golden_fill.ids(2, 5, height, width)
    wanted = golden_fill.outputs("spade.npz")[f"spade_generator_{upsampling}"]
    with torch.no_grad():
        for semantic in (ids, golden_fill.onehot(ids, 5)):
            torch.testing.assert_close(generator(semantic).float(), wanted, rtol=0, atol=1e-6)
        generator.float()  # the float32 kernels of one CPU and another differ by up to 5e-5 here
        for semantic in (ids, golden_fill.onehot(ids, 5).float()):
            torch.testing.assert_close(generator(semantic), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("threshold", [0, 1000], ids=["look-up", "dense"])
def test_ids_equal_the_dense_map(monkeypatch, extra: int, threshold: int):
    monkeypatch.setattr(layout, "LOOKUP_FROM", threshold)
    monkeypatch.setattr(layout, "PLACES_FROM", threshold)
    torch.manual_seed(0)
    generator = SPADEGenerator(6 + extra, width=4, hidden=16).double().eval()
    for parameter in generator.parameters():  # Xavier 0.02 would leave hardly any signal to compare
        nn.init.normal_(parameter, std=0.1)
    ids = torch.randint(6, (2, 1, 32, 64))
    edges = torch.randint(2, (2, extra, 32, 64))
    dense = torch.cat([golden_fill.onehot(ids, 6), edges.double()], 1)
    grads = []
    for semantic in (torch.cat([ids, edges], 1), dense):
        generator.zero_grad()
        out = generator(semantic)
        (out * torch.linspace(-1, 1, 64)).sum().backward()
        grads.append((out.detach(), [parameter.grad for parameter in generator.parameters()]))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["replicate", "reflect"])
@pytest.mark.parametrize("learning", [True, False], ids=["dense", "look-up"])
def test_padding_of_ids_equals_that_of_the_dense_map(mode: str, learning: bool):
    torch.manual_seed(0)
    ids, edges = torch.randint(6, (2, 1, 8, 12)), torch.randint(2, (2, 1, 8, 12))
    dense = torch.cat([golden_fill.onehot(ids, 6), edges.double()], 1)
    weight, bias = torch.randn(4, 7, 3, 3, dtype=torch.float64, requires_grad=learning), torch.randn(4).double()
    found = Layout(torch.cat([ids, edges], 1), 7, weight).conv(weight, bias, 1, 1, mode)
    torch.testing.assert_close(found, F.conv2d(F.pad(dense, (1, 1, 1, 1), mode), weight, bias))


def test_with_replicated_borders_one_label_has_one_colour():
    """Zeros at the border tell every place how far away it is; without them nothing does."""
    torch.manual_seed(0)
    ids = torch.full((1, 1, 64, 64), 2)
    spread = {}
    for padding in ("zeros", "replicate"):
        generator = SPADEGenerator(4, width=4, padding=padding).double().eval()
        nn.init.normal_(generator.output.weight)
        spread[padding] = generator(ids)[0].flatten(1).std(1).max().item()
    assert spread["replicate"] < 1e-12 < 1e-3 < spread["zeros"]


def test_noise_is_drawn_anew_in_training_and_belongs_to_the_image_in_use():
    torch.manual_seed(0)
    generator = SPADEGenerator(4, width=2, noise=True)
    ids = torch.randint(4, (3, 1, 32, 32))
    assert not torch.equal(generator(ids), generator(ids))
    generator.eval()
    whole = generator(ids)
    torch.testing.assert_close(generator(ids[1:2]), whole[1:2])  # of its own map, whatever its batch
    torch.testing.assert_close(generator(ids), whole, rtol=0, atol=0)
    for module in generator.modules():
        if isinstance(module, Noise):
            nn.init.zeros_(module.scale)
    assert (generator(ids) - whole).abs().max() > 1e-4


def test_bilinear_doubling_of_a_ramp_has_no_steps():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    smooth = SPADEGenerator(3, width=2, interpolation="bilinear").up(ramp)
    assert smooth[..., 1:-1].diff(dim=-1).unique().tolist() == [0.5]
    assert SPADEGenerator(3, width=2).up(ramp).diff(dim=-1).unique().tolist() == [0, 1]


@pytest.mark.parametrize("option", ["interpolation", "padding"])
def test_an_unknown_option_is_refused(option: str):
    with pytest.raises(ValueError, match=f"{option} 'cubic' is none of"):
        SPADEGenerator(3, width=2, **{option: "cubic"})


def test_norm_equals_its_slow_twin():
    torch.manual_seed(0)
    spade = SPADE(3, 4, hidden=5).double()
    x = torch.randn(2, 4, 6, 8, dtype=torch.float64)
    semantic = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    found = spade(x, Layout(semantic, 3, semantic))
    hidden = F.conv2d(semantic, spade.shared.weight, spade.shared.bias, padding=1).clamp(min=0)
    for c in range(4):
        gamma = F.conv2d(hidden, spade.gamma.weight[c : c + 1], spade.gamma.bias[c : c + 1], padding=1)
        beta = F.conv2d(hidden, spade.beta.weight[c : c + 1], spade.beta.bias[c : c + 1], padding=1)
        mean, var = x[:, c].mean(), x[:, c].var(correction=0)
        wanted = (x[:, c] - mean) / (var + 1e-5).sqrt() * (1 + gamma[:, 0]) + beta[:, 0]
        torch.testing.assert_close(found[:, c], wanted)


def test_block_without_learned_shortcut_adds_its_input():
    block = SPADEBlock(2, 4, 4, hidden=3).eval()
    nn.init.zeros_(block.conv_1.bias)
    nn.init.zeros_(block.conv_1.weight)
    block.conv_1.normalized_weight = lambda: block.conv_1.weight  # sigma of zero weights is zero
    x, semantic = torch.randn(1, 4, 8, 8), torch.randn(1, 2, 8, 8)
    torch.testing.assert_close(block(x, Layout(semantic, 2, semantic)), x)


@pytest.mark.parametrize(("upsampling", "multiple"), [("normal", 32), ("more", 64), ("most", 128)])
def test_start_size_follows_the_input(upsampling: str, multiple: int):
    generator = SPADEGenerator(3, width=2, upsampling=upsampling, output_channels=1, hidden=2)
    assert generator.size_multiple == multiple
    semantic = torch.zeros(2, 3, 3 * multiple, multiple)
    assert generator(semantic).shape == (2, 1, 3 * multiple, multiple)


def test_other_sizes_are_refused_with_the_nearest_legal_ones():
    generator = SPADEGenerator(3, width=2)
    with pytest.raises(ValueError, match=r"100x64.*multiples of 32, such as 96x64 or 128x64"):
        generator(torch.zeros(1, 3, 100, 64))
    with pytest.raises(ValueError, match=r"such as 32x32$"):
        generator(torch.zeros(1, 3, 20, 32))
    with pytest.raises(ValueError, match="upsampling 'much' is none of normal, more, most"):
        SPADEGenerator(3, width=2, upsampling="much")


def test_channels_last_and_bfloat16_keep_the_output():
    torch.manual_seed(0)
    generator = SPADEGenerator(6, width=4, hidden=16).eval()
    ids = torch.randint(6, (2, 1, 32, 32))
    with torch.no_grad():
        wanted = generator(ids)
        generator.to(memory_format=torch.channels_last)
        torch.testing.assert_close(generator(ids), wanted, rtol=0, atol=4e-5)
        with torch.autocast("cpu", torch.bfloat16):
            found = generator(ids)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, rtol=0, atol=0.05)


def test_a_checkpoint_of_another_network_is_refused():
    generator = SPADEGenerator(5, width=4)
    state = {official_name(name): value for name, value in generator.state_dict().items()}
    with pytest.raises(UserError, match=r"2 keys differ, such as .*conv_img\.weight.*upsampling"):
        other = dict(state)
        other["extra"] = other.pop("conv_img.weight")
        convert(other, generator)
    with pytest.raises(UserError, match="64x5x3x3, wanted 64x6x3x3"):
        convert(state, SPADEGenerator(6, width=4))


@pytest.mark.parametrize(("upsampling", "multiple"), [("normal", 32), ("more", 64), ("most", 128)])
def test_batch_norm_needs_two_values_of_a_channel_in_training(upsampling: str, multiple: int):
    with torch.device("meta"):
        generator = SPADEGenerator(3, width=2, upsampling=upsampling)
    generator.check_size(multiple, multiple)  # in eval mode
    generator.check_size(multiple, multiple, images=2)
    generator.check_size(multiple, 2 * multiple, images=1)
    with pytest.raises(ValueError, match=rf"a single value.*{multiple}x{2 * multiple} or larger"):
        generator.check_size(multiple, multiple, images=1)
    with pytest.raises(ValueError, match=rf"such as {multiple}x{2 * multiple}$"):
        generator.check_size(multiple // 2, multiple // 2, images=1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("dataset.size=[32,32]", "train.batch_size=1", "loss.negatives=image"), "32x64 or larger"),
        (
            ("dataset.size=[32,32]", "train.batch_size=4", "train.accumulate=4", "loss.negatives=image"),
            "train.batch_size",
        ),
        (("dataset.size=[16,16]", "train.batch_size=1", "loss.negatives=image"), "such as 32x64"),
        (
            ("encoder.size=null", "encoder.layers=[conv5]", "train.batch_size=1", "loss.negatives=image"),
            "norm of the encoder",
        ),
        (("model.discriminator.scales=7",), "images from 65 pixels"),
        (("encoder=pixel", "encoder.scales=[128]"), "smaller than the pixel patches"),
    ],
)
def test_sizes_that_cannot_be_trained_are_refused_at_the_start(words: tuple[str, ...], told: str):
    cfg = config(*TINY, *words)
    with pytest.raises(ConfigError, match=rf"^dataset\.size=.*{told}"):
        build(cfg, Inputs.of(build_dataset(cfg, "train", augment=True)))


def test_two_images_of_the_smallest_size_can_be_trained():
    cfg = config(*TINY, "dataset.size=[32,32]")
    build(cfg, Inputs.of(build_dataset(cfg, "train", augment=True)))
