"""Published networks behind the adapter: DRN files, folders of transformers, UperNet of mit-semseg; all forms agree."""

import importlib.util
import json
import socket
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from errors import UserError
from models.drn import DRN
from models.published_segmenters import Transformer
from models.segmenters import SegmenterConfig, load_segmenter, save_segmenter
from models.trained_segmenter import build_segmenter

HF = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="needs transformers: pip install -r requirements-hf.txt"
)
SEMSEG = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mit_semseg", "yacs")),
    reason="needs mit-semseg: pip install -r requirements-semseg.txt",
)
NORM = {"mean": [0.290101, 0.328081, 0.286964], "std": [0.182954, 0.186566, 0.184475]}
AUTO = ({0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)


@pytest.fixture(scope="module")
def drn():
    torch.manual_seed(0)
    return DRN("drn_d_22", 6).eval()


@pytest.mark.parametrize("old_format", [False, True])
def test_a_state_dict_of_drn(drn, tmp_path, old_format):
    path = tmp_path / "drn-d-22_cityscapes.pth"
    torch.save(drn.state_dict(), path, _use_new_zipfile_serialization=not old_format)
    segmenter = load_segmenter(path)
    assert (segmenter.kind, segmenter.num_classes, segmenter.files) == ("drn_d_22", 6, (path,))
    images = torch.rand(2, 3, 24, 30, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(NORM[key]).view(3, 1, 1) for key in ("mean", "std"))
    ids = segmenter.predict(images)
    assert torch.equal(ids, drn((images - mean) / std).argmax(1)) and len(ids.unique()) > 1


def test_one_network_in_every_form_gives_equal_predictions(drn, tmp_path):
    """torch.export, TorchScript, state dict and a checkpoint of our own."""
    config = SegmenterConfig("drn_d_22", 6, (32, 48), None, "shapes", 0, 0)
    own = build_segmenter(config)
    own.network.load_state_dict(drn.state_dict())
    own.network.eval()
    save_segmenter(tmp_path / "own.pt", own, config)
    torch.save(drn.state_dict(), tmp_path / "drn.pth")
    x = torch.rand(2, 3, 32, 48)
    torch.export.save(torch.export.export(drn, (x,), dynamic_shapes=AUTO), tmp_path / "network.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(drn), tmp_path / "script.ts")
    for name in ("network", "script"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"num_classes": 6, **NORM}))
    found = {
        name: load_segmenter(tmp_path / name, trust=True) for name in ("own.pt", "drn.pth", "network.pt2", "script.ts")
    }
    kinds = ["drn_d_22", "drn_d_22", "export", "torchscript"]
    assert [segmenter.kind for segmenter in found.values()] == kinds
    images = torch.rand(3, 3, 40, 24)
    predictions = [segmenter.predict(images) for segmenter in found.values()]
    assert predictions[0].shape == (3, 40, 24) and len(predictions[0].unique()) > 1
    assert all(torch.equal(predictions[0], other) for other in predictions[1:])


@pytest.fixture
def segformer(tmp_path):
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
        num_labels=7,
    )
    torch.manual_seed(0)
    network = SegformerForSemanticSegmentation(config).eval()
    network.save_pretrained(tmp_path / "segformer")
    return network, tmp_path / "segformer"


@HF
def test_a_folder_of_transformers(segformer):
    network, folder = segformer
    settings = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    segmenter = load_segmenter(folder)
    assert segmenter.kind == "SegformerForSemanticSegmentation" and segmenter.num_classes == 7
    names = [file.name for file in segmenter.files]
    assert names == ["model.safetensors", "config.json", "preprocessor_config.json"]
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in settings.values())
    with torch.no_grad():
        logits = network(pixel_values=(images - mean) / std).logits
    assert logits.shape[2:] == (16, 24)  # a quarter: brought to the images' size before the argmax
    wanted = F.interpolate(logits, (64, 96), mode="bilinear").argmax(1)
    assert torch.equal(segmenter.predict(images), wanted) and len(wanted.unique()) > 1

    path, plain = folder.parent, Transformer(network)  # the same network as programs, of the size that was traced
    torch.export.save(torch.export.export(plain, (images,)), path / "network.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(plain, images), path / "script.ts")
    for name in ("network.pt2", "script.ts"):
        norm = {"num_classes": 7, "mean": settings["image_mean"], "std": settings["image_std"]}
        (path / name).with_suffix(".json").write_text(json.dumps(norm))
        assert torch.equal(load_segmenter(path / name, trust=True).predict(images), wanted)

    (folder / "preprocessor_config.json").unlink()
    assert load_segmenter(folder).mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"segmenter=.*segformer: cannot be opened") as caught:
        load_segmenter(folder)
    assert "\n" not in str(caught.value)


@HF
def test_a_name_of_the_hub_offline_opens_no_connection(monkeypatch, tmp_path):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(UserError, match="segmenter=hf:nobody/nothing-at-all: is not in its cache, and offline is set"):
        load_segmenter("hf:nobody/nothing-at-all", offline=True)


@pytest.mark.parametrize(
    ("package", "extra", "make"),
    [
        ("transformers", "requirements-hf.txt", lambda folder: (folder / "config.json").write_text("{}")),
        ("mit_semseg", "requirements-semseg.txt", None),
    ],
)
def test_a_missing_package_is_named_with_its_requirements_file(monkeypatch, tmp_path, package, extra, make):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.models", None)
    if make is None:
        torch.save({}, tmp_path / "encoder_epoch_50.pth")
        torch.save({"conv_last.1.weight": torch.zeros(150, 1)}, tmp_path / "decoder_epoch_50.pth")
    else:
        make(tmp_path)
    with pytest.raises(UserError, match=f"pip install -r {extra}") as caught:
        load_segmenter(tmp_path)
    assert "\n" not in str(caught.value)
    assert (Path(__file__).resolve().parents[1] / extra).is_file()


@SEMSEG
@pytest.mark.slow  # 83 million parameters are written and read
def test_a_folder_of_upernet(tmp_path):
    from models.published_segmenters import UperNet

    torch.manual_seed(0)
    network: nn.Module = UperNet(9).eval()
    parts = {"encoder": network.encoder, "decoder": network.decoder}
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    assert 42.5e6 < count["encoder"] < 42.7e6
    for name, part in parts.items():
        torch.save(part.state_dict(), tmp_path / f"{name}_epoch_50.pth", _use_new_zipfile_serialization=False)
    segmenter = load_segmenter(tmp_path)
    assert (segmenter.kind, segmenter.num_classes) == ("upernet_resnet101", 9)
    assert [file.name for file in segmenter.files] == ["encoder_epoch_50.pth", "decoder_epoch_50.pth"]
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        wanted = network((images - mean) / std)
    assert wanted.shape == (2, 9, 64, 96)
    assert torch.equal(segmenter.predict(images), wanted.argmax(1))
    torch.save({"conv_last.1.weight": torch.zeros(9, 3)}, tmp_path / "decoder_epoch_50.pth")
    with pytest.raises(UserError, match=r"decoder_epoch_50\.pth: not of UperNet-101"):
        load_segmenter(tmp_path)
    (tmp_path / "decoder_epoch_50.pth").unlink()
    with pytest.raises(UserError, match=r"wanted one encoder_\*\.pth and one decoder_\*\.pth"):
        load_segmenter(tmp_path)
