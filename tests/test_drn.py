"""DRN-D: parameter counts, official names, the layers against a second writing of them, the bilinear kernel."""

import math

import pytest
import torch
import torch.nn.functional as F

from errors import UserError
from models.drn import BLOCKS, DRN, bilinear_kernel, drn_from_state

COUNTS = {"drn_d_22": (15_890_499, 153), "drn_d_105": (54_298_051, 651)}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_and_official_names(name):
    with torch.device("meta"):
        network = DRN(name)
    learned = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    state = network.state_dict()
    assert (learned, len(state)) == COUNTS[name]
    assert network.up.weight.numel() == 4864 and not network.up.weight.requires_grad
    names = list(state)
    assert names[:3] == ["base.0.0.weight", "base.0.1.weight", "base.0.1.bias"]
    assert names[-3:] == ["seg.weight", "seg.bias", "up.weight"]
    last = {
        "drn_d_22": ("base.5.1.conv2.weight", (256, 256, 3, 3)),
        "drn_d_105": ("base.5.22.conv3.weight", (1024, 256, 1, 1)),
    }
    key, shape = last[name]
    assert tuple(state[key].shape) == shape
    assert f"base.5.{key.split('.')[2]}.downsample.0.weight" not in state  # only first blocks have one
    assert "base.5.0.downsample.1.running_mean" in state
    assert tuple(state["base.8.0.weight"].shape) == (512, 512, 3, 3)


def reference(state, x, wide, blocks):
    """The network out of its state dict by functional calls: a list of layers, each with its stride and dilation."""

    def norm(name, x):
        mean, var, weight, bias = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias, eps=1e-5)

    def conv(name, x, stride=1, dilation=1):
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, None, stride, dilation * (weight.shape[-1] // 2), dilation)

    for group, (stride, dilation) in enumerate(
        [(1, 1), (1, 1), (2, 1), (2, 1), (2, 1), (1, 2), (1, 4), (1, 2), (1, 1)]
    ):
        if group not in (3, 4, 5, 6):
            x = norm(f"base.{group}.1", conv(f"base.{group}.0", x, stride, dilation)).relu()
            continue
        for index in range(blocks[group - 3]):
            name, step = f"base.{group}.{index}", stride if index == 0 else 1
            if wide:
                y = norm(f"{name}.bn1", conv(f"{name}.conv1", x)).relu()
                y = norm(f"{name}.bn2", conv(f"{name}.conv2", y, step, dilation)).relu()
                y = norm(f"{name}.bn3", conv(f"{name}.conv3", y))
            else:
                y = norm(f"{name}.bn1", conv(f"{name}.conv1", x, step, dilation)).relu()
                y = norm(f"{name}.bn2", conv(f"{name}.conv2", y, 1, dilation))
            if f"{name}.downsample.0.weight" in state:
                x = norm(f"{name}.downsample.1", conv(f"{name}.downsample.0", x, step))
            x = (x + y).relu()
    x = F.conv2d(x, state["seg.weight"], state["seg.bias"])
    return F.conv_transpose2d(x, state["up.weight"], None, 8, 4, groups=len(state["seg.bias"]))


def filled(name, classes=5):
    """A network in eval mode whose statistics and affine maps are no identities."""
    torch.manual_seed(0)
    network = DRN(name, classes).eval()
    for key, value in network.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif key.endswith(("running_var", "bn1.weight", "bn2.weight", "bn3.weight")):
            value.uniform_(0.5, 1.5)
    return network


@pytest.mark.parametrize("name", COUNTS)
@torch.no_grad()
def test_equals_a_second_writing_and_crops_what_is_no_multiple_of_8(name):
    network = filled(name)
    x = torch.randn(1, 3, 43, 50, generator=torch.Generator().manual_seed(1))
    found = network(x)
    expected = reference(network.state_dict(), x, name == "drn_d_105", BLOCKS[name][1])
    assert expected.shape == (1, 5, 48, 56) and found.shape == (1, 5, 43, 50)
    torch.testing.assert_close(found, expected[..., :43, :50], rtol=1e-4, atol=1e-4)


def test_the_kernel_is_bilinear():
    size = 16
    factor = math.ceil(size / 2)
    centre = (2 * factor - 1 - factor % 2) / (2 * factor)
    for i, row in enumerate(bilinear_kernel(size).tolist()):
        for j, value in enumerate(row):
            assert value == pytest.approx((1 - abs(i / factor - centre)) * (1 - abs(j / factor - centre)))
    x = torch.rand(1, 1, 6, 7)
    up = F.conv_transpose2d(x, bilinear_kernel(size)[None, None], None, 8, 4)
    wanted = F.interpolate(x, scale_factor=8, mode="bilinear")
    torch.testing.assert_close(up[..., 8:-8, 8:-8], wanted[..., 8:-8, 8:-8])  # at the border it fades to zero


@pytest.mark.parametrize("wrap", ["plain", "module", "state_dict", "old"])
def test_official_forms_of_the_file(wrap):
    network = filled("drn_d_22", 19)
    state = dict(network.state_dict())
    if wrap == "old":  # before PyTorch 0.4.1 there were no counters
        state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
        assert len(state) == 153 - 25
    elif wrap == "module":
        state = {f"module.{key}": value for key, value in state.items()}
    found, loaded = drn_from_state({"epoch": 3, "state_dict": state} if wrap == "state_dict" else state)
    assert found == "drn_d_22" and not loaded.training and not loaded.up.weight.requires_grad
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(loaded(x), network(x))


def test_other_state_dicts_are_refused_by_name():
    state = dict(filled("drn_d_22", 4).state_dict())
    del state["base.3.0.conv1.weight"]
    state["extra"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"of drn_d_22: 2 keys differ, such as base\.3\.0\.conv1\.weight, extra"):
        drn_from_state(state)
    with pytest.raises(UserError, match="keys differ"):
        drn_from_state({})
    with pytest.raises(ValueError, match="no DRN 'drn_d_54'; there are drn_d_22, drn_d_105"):
        DRN("drn_d_54")
