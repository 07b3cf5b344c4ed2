"""Encoders: interface, taps, input quirks and frozen state, against torchvision's networks and recorded features."""

import hashlib
import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from errors import UserError
from models import weights
from models.backbones import effnet_lite0, resnet50, vgg16, vgg19
from models.efficientnet import channels_of, efficientnet_lite, natural
from models.encoders import Encoder, GeneratorEncoder, Tap, conv6, pixel
from models.resnet import ResnetGenerator
from models.spade import SPADEGenerator
from models.timm_features import timm
from tests.golden_fill import GOLDEN, image

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
ENCODERS: dict[str, Callable[[], Encoder]] = {
    "pixel": pixel,
    "conv6": conv6,
    "vgg19": lambda: vgg19(pretrained=False),
    "vgg16": lambda: vgg16(pretrained=False),
    "resnet50": lambda: resnet50(pretrained=False, size=64),
    "effnet_lite0": effnet_lite0,
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", ENCODERS)
def test_interface(name: str):
    torch.manual_seed(0)
    encoder = ENCODERS[name]().eval()
    x = draw(2, 3, 64, 64).requires_grad_()
    features, maps = encoder(x), encoder.maps(x)
    assert [found.shape[:2] for found in features] == [(2, channels) for channels in encoder.channels]
    assert [found.shape[1] for found in maps] == encoder.map_channels
    assert len(encoder.layers) == len(encoder.channels) == len(features)
    wanted = {"pixel": "none", "effnet_lite0": "efficientnet-lite0-57934424.pth"}
    assert encoder.weights == wanted.get(name, "random")
    sum(found.square().mean() for found in features).backward()
    assert x.grad is not None and x.grad.isfinite().all() and x.grad.abs().sum() > 0
    with torch.autocast("cpu", torch.bfloat16):
        assert all(found.isfinite().all() for found in encoder(x))


@pytest.mark.parametrize("name", ["conv6", "vgg19", "resnet50", "effnet_lite0"])
def test_an_unknown_layer_is_answered_with_the_list(name: str):
    build = {"conv6": conv6, "vgg19": vgg19, "resnet50": resnet50, "effnet_lite0": effnet_lite0}[name]
    known = {"conv6": "image, conv0, conv1", "vgg19": "conv1_1, relu1_1", "resnet50": "maxpool, layer1"}
    with pytest.raises(UserError, match=r"encoder\.layers: no layer 'relu9_1'; known: image, .*") as caught:
        build(layers=["relu9_1"])  # before any weights are looked for
    assert known.get(name, "block15, head") in str(caught.value)


@pytest.mark.parametrize("name", ENCODERS)
def test_grey_images_are_repeated_and_other_channels_refused(name: str):
    torch.manual_seed(0)
    encoder, grey = ENCODERS[name]().eval(), draw(1, 1, 64, 48)
    torch.testing.assert_close(encoder(grey), encoder(grey.repeat(1, 3, 1, 1)))
    message = r"\(1, 4, 64, 48\) has 4 channels, where the encoder takes 3 .*encoder\.image_channels=4"
    with pytest.raises(ValueError, match=message):
        encoder(draw(1, 4, 64, 48))


@pytest.mark.parametrize("channels", [1, 5])
def test_pixel_patches_of_any_channels(channels: int):
    encoder, x = pixel([4], image_channels=channels), draw(2, channels, 8, 12)
    assert encoder.channels == [16 * channels] and encoder.map_channels == [channels]
    assert encoder(x)[0].shape == (2, 16 * channels, 3, 5)
    assert torch.equal(encoder(x)[0][:, :, 1, 2], x[:, :, 2:6, 4:8].reshape(2, -1))
    assert encoder.maps(x)[0] is x


def test_generator_encoder_taps_without_owning():
    torch.manual_seed(0)
    generator = ResnetGenerator(3, width=4, blocks=5)
    encoder, x = GeneratorEncoder(generator, [0, 4, 8, 12, 16]), draw(2, 3, 16, 24).requires_grad_()
    assert encoder.channels == encoder.map_channels == [3, 8, 16, 16, 16]
    assert encoder.layers == [0, 4, 8, 12, 16] and encoder.weights == "generator" and not encoder.frozen
    assert not list(encoder.parameters()) and not encoder.state_dict() and not list(encoder.children())
    found, wanted = encoder(x), generator.tapped(x, encoder.layers)[1]
    for features in (found, encoder.maps(x)):
        assert all(map(torch.equal, features, wanted))
    encoder.eval()
    assert generator.training
    found[-1].square().sum().backward()
    assert generator.model[1].weight.grad is not None and generator.model[16].first.weight.grad is not None
    assert x.grad is not None and generator.model[-2].weight.grad is None


def test_generators_that_cannot_encode_are_refused():
    with pytest.raises(UserError, match=r"encoder=generator: SPADEGenerator has no layers to tap; choose model=cut"):
        GeneratorEncoder(SPADEGenerator(3, width=2, hidden=2), [0])
    with pytest.raises(UserError, match=r"takes 12 channels and gives 3, so it cannot encode both source and fake"):
        GeneratorEncoder(ResnetGenerator(12, width=2), [0])
    with pytest.raises(UserError, match=r"encoder\.layers: no layer 32 to tap; this generator has 0, 1, 4"):
        GeneratorEncoder(ResnetGenerator(3, width=2), [0, 32])


def test_pixel_patches_equal_their_slow_twin():
    encoder, x = pixel([4, 8]), draw(2, 3, 16, 12)
    for side, found in zip([4, 8], encoder(x), strict=True):
        step = side // 2
        assert found.shape[2:] == ((16 - side) // step + 1, (12 - side) // step + 1)
        for row in range(found.shape[2]):
            for column in range(found.shape[3]):
                patch = x[:, :, row * step : row * step + side, column * step : column * step + side]
                assert torch.equal(found[:, :, row, column], patch.reshape(2, -1))
    assert encoder.maps(x)[0] is x and encoder.map_channels == [3]


def test_pixel_scales_of_the_paper():
    encoder = pixel()
    assert encoder.channels == [48, 192, 768, 3072]
    sizes = [tuple(found.shape[2:]) for found in encoder(draw(1, 3, 256, 512))]
    assert sizes == [(127, 255), (63, 127), (31, 63), (15, 31)]
    with pytest.raises(ValueError, match="smaller than the pixel patches of side 32"):
        encoder(draw(1, 3, 64, 16))
    with pytest.raises(UserError, match=r"encoder\.scales: 5 "):
        pixel([4, 5])


def test_conv6_is_the_papers_network():
    encoder = conv6()
    assert count(encoder) == 8_366_016
    assert count(encoder.network[:6]) == 6_268_608
    x = draw(1, 3, 64, 64)
    found = encoder.eval()(x)
    sides = [(3, 256), (64, 128), (128, 64), (256, 32), (512, 16), (512, 8)]
    assert [(f.shape[1], f.shape[2]) for f in found] == sides
    torch.testing.assert_close(found[0], F.interpolate(x, (256, 256), mode="bilinear", align_corners=False))
    conv = encoder.network.conv0.conv
    conv.iterate(200)
    weight = conv.weight / torch.linalg.svdvals(conv.weight.flatten(1))[0]
    first = F.instance_norm(F.conv2d(found[0], weight, None, 2, 1), eps=1e-5)
    torch.testing.assert_close(encoder(x)[1], F.leaky_relu(first, 0.2), rtol=1e-4, atol=1e-4)


def test_conv6_keeps_pytorchs_initialisation():
    torch.manual_seed(0)
    for index in range(5):
        weight = conv6().network[index].conv.weight
        bound = 1 / math.sqrt(weight[0].numel())
        assert weight.abs().max().item() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_parameters_that_no_tap_reaches_take_no_gradient():
    encoder = conv6(layers=["image", "conv1"], size=32)
    encoder(draw(1, 3, 32, 32))[1].sum().backward()
    for name, parameter in encoder.named_parameters():
        assert (
            parameter.requires_grad
            == (parameter.grad is not None)
            == name.startswith(("network.conv0", "network.conv1"))
        )


def test_layers_come_in_the_asked_order():
    encoder = conv6(layers=["conv2", "image", "conv0"], size=None).eval()
    assert encoder.channels == [256, 3, 64]
    assert [found.shape[1] for found in encoder(draw(1, 3, 32, 32))] == [256, 3, 64]


def test_vgg19_taps_are_torchvisions():
    encoder = vgg19(pretrained=False)
    assert encoder.channels == [64, 128, 256, 512, 512] and count(encoder) == 12_944_960
    every = [name for name, _ in vgg19(layers=["pool5"], pretrained=False).network.named_children()]
    assert [every.index(f"relu{stage}_1") for stage in range(1, 6)] == [1, 6, 11, 20, 29]
    assert [every.index(f"relu{stage}_2") for stage in range(1, 6)] == [3, 8, 13, 22, 31]
    every = [name for name, _ in vgg16(layers=["pool5"], pretrained=False).network.named_children()]
    assert [every.index(f"relu{name}") for name in ("3_1", "4_1", "4_3")] == [11, 18, 22]
    assert count(vgg16(layers=["pool5"], pretrained=False)) == 14_714_688


def test_vgg_taps_stay_as_they_were():
    torch.manual_seed(0)
    encoder = vgg19(layers=["conv1_1", "relu1_1", "conv1_2", "pool1", "relu2_1"], pretrained=False)
    x, network = draw(1, 3, 16, 16), encoder.network
    found = encoder(x)
    torch.testing.assert_close(found[0], network.conv1_1(x))
    torch.testing.assert_close(found[1], found[0].relu())
    torch.testing.assert_close(found[2], network.conv1_2(found[1]))
    torch.testing.assert_close(found[3], F.max_pool2d(found[2].relu(), 2))
    assert found[0].min() < 0 and found[2].min() < 0


def made_file(monkeypatch, folder: Path, name: str, state: dict[str, Tensor]) -> None:
    """A weights file of our own making under a known name, with its own hash as the wanted one."""
    torch.save(state, folder / name)
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    known = [weights.WeightFile(name, None, digest, "https://example.org/" + name)]
    monkeypatch.setattr(weights, "known_files", lambda: known)


def test_vgg19_loads_torchvisions_file(monkeypatch, tmp_path: Path):
    torch.manual_seed(0)
    with torch.device("meta"):
        keys = torchvision.models.vgg19().state_dict()
    ends = [key for key in keys if int(key.split(".")[1]) > 5 or key.startswith("classifier")]
    state = {
        k: torch.zeros(1) if k in ends else torch.randn(v.shape) * 0.05 for k, v in keys.items()
    }  # later layers unread
    made_file(monkeypatch, tmp_path, "vgg19-dcbb9e9d.pth", state)
    encoder = vgg19(layers=["relu1_1", "relu1_2", "relu2_1"], weights_dir=str(tmp_path), offline=True)
    assert encoder.weights == "vgg19-dcbb9e9d.pth"
    x = draw(1, 3, 32, 32)
    features = reference_vgg(state)
    for found, index in zip(encoder(x), [1, 3, 6], strict=True):
        torch.testing.assert_close(found, features[: index + 1](x))
    shifted = vgg19(["relu2_1"], mean_std=True, size=16, weights_dir=str(tmp_path), offline=True)
    small = F.interpolate(x, (16, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(shifted(x)[0], features(((small + 1) / 2 - MEAN) / STD))


def reference_vgg(state: dict[str, Tensor]) -> nn.Sequential:
    """The first seven layers of torchvision's VGG19."""
    features = torchvision.models.vgg.make_layers([64, 64, "M", 128])
    features.load_state_dict({k.removeprefix("features."): v for k, v in state.items() if k[:11] in HEADS})
    for layer in features:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    return features


HEADS = ("features.0.", "features.2.", "features.5.")


def test_resnet50_loads_torchvisions_file(monkeypatch, tmp_path: Path):
    torch.manual_seed(0)
    network = torchvision.models.resnet50()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    made_file(monkeypatch, tmp_path, "resnet50-0676ba61.pth", network.state_dict())
    encoder = resnet50(weights_dir=str(tmp_path), offline=True)
    assert encoder.weights == "resnet50-0676ba61.pth" and count(encoder) == 23_508_032
    network.eval()
    x = draw(1, 3, 64, 96)
    found = encoder(x)
    sides = [(64, 56), (256, 56), (512, 28), (1024, 14), (2048, 7)]
    assert [(f.shape[1], f.shape[2]) for f in found] == sides
    y = F.interpolate(x, (224, 224), mode="bilinear", align_corners=True)
    y = network.maxpool(network.relu(network.bn1(network.conv1(y))))
    for stage, wanted in enumerate(found):
        y = y if stage == 0 else getattr(network, f"layer{stage}")(y)
        torch.testing.assert_close(wanted, y)


@pytest.mark.parametrize("init", ["pytorch", "official"])
def test_vgg_from_scratch(init: str):
    torch.manual_seed(0)
    found = vgg19(pretrained=False, init=init)(draw(2, 3, 64, 64))
    ratio = found[3].std().item() / found[0].std().item()
    assert (0.1 < ratio < 10) if init == "pytorch" else ratio < 1e-6
    with pytest.raises(UserError, match=r"encoder\.init"):
        vgg19(pretrained=False, init="other")


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_encoder_stays_frozen(frozen: bool):
    encoder = effnet_lite0(layers=["block2"], frozen=frozen)
    nn.ModuleList([encoder]).train()
    assert encoder.training is not frozen
    assert all(parameter.requires_grad is not frozen for parameter in encoder.parameters())
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    x = draw(2, 3, 32, 32).requires_grad_()
    encoder(x)[0].sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    same = all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert same is frozen  # an unfrozen one updates its running statistics


@pytest.mark.parametrize(("variant", "side"), [("lite0", 224), ("lite2", 260)])
def test_efficientnet_gives_the_recorded_features(variant: str, side: int):
    """Mean, deviation and three values of layers of the package efficientnet_lite_pytorch 0.1.0, in float64."""
    wanted = json.loads((GOLDEN / "efficientnet_lite.json").read_text())[variant]
    network = Tap(efficientnet_lite(variant), channels_of(variant), list(wanted), frozen=True, weights="")
    features = network.double()(natural(image(1, 3, side, side)))
    for found, (name, numbers) in zip(features, wanted.items(), strict=True):
        assert found.shape[1] == channels_of(variant)[name]
        summary = [found.mean(), found.std(), found[0, 0, 0, 0], found[0, -1, -1, -1], found[0, 3, 1, 2]]
        torch.testing.assert_close(torch.stack(summary), torch.tensor(numbers).double(), rtol=0, atol=1e-6)


def test_efficientnet_takes_any_size():
    found = effnet_lite0(["block0", "block2", "block4", "block10", "block15"])(draw(1, 3, 37, 50))
    assert [tuple(f.shape[2:]) for f in found] == [(19, 25), (10, 13), (5, 7), (3, 4), (2, 2)]


def test_natural_input_is_almost_the_image():
    x = draw(1, 3, 8, 8)
    torch.testing.assert_close(natural(x), ((x + 1) / 2 * 255 - 127) / 128)
    assert (natural(x) - x).abs().max() < 0.009


def test_timm_backbones():
    pytest.importorskip("timm")
    encoder = timm("resnet18", layers=["layer1", "layer3"], pretrained=False, frozen=False)
    assert encoder.layers == ["layer1", "layer3"] and encoder.channels == [64, 256] and encoder.weights == "random"
    assert [tuple(found.shape) for found in encoder(draw(1, 3, 64, 64))] == [(1, 64, 16, 16), (1, 256, 4, 4)]
    torch.testing.assert_close(encoder.prepare(draw(1, 3, 8, 8)), ((draw(1, 3, 8, 8) + 1) / 2 - MEAN) / STD)
    with pytest.raises(UserError, match=r"no layer 'layer9' in timm's resnet18; known: act1, layer1"):
        timm("resnet18", layers=["layer9"], pretrained=False)
    with pytest.raises(UserError, match=r"timm knows no 'resnet81'; did you mean resnet18"):
        timm("resnet81", pretrained=False)


def test_timm_with_channels_last_features():
    pytest.importorskip("timm")
    encoder = timm("swin_tiny_patch4_window7_224", layers=["layers.0"], pretrained=False, size=224)
    assert [tuple(found.shape) for found in encoder(draw(1, 3, 64, 64))] == [(1, 96, 56, 56)]


def test_timm_reads_weights_from_disk(tmp_path: Path):
    library = pytest.importorskip("timm")
    torch.manual_seed(0)
    source = library.create_model("test_resnet.r160_in1k", pretrained=False)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    encoder = timm("test_resnet", file=str(tmp_path / "weights.pth"))
    assert encoder.weights == "weights.pth"
    first = next(source.parameters())
    assert torch.equal(next(encoder.parameters()), first) and first.ndim == 4


def test_timm_missing_names_its_requirements(monkeypatch):
    def refuse(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(UserError, match=r"requirements-timm\.txt"):
        timm(pretrained=False)
