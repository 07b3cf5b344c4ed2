"""scripts/doctor.py: a working installation is fine, and what is missing is named with its cure."""

from pathlib import Path

import pytest

from scripts import doctor


def test_this_installation_is_well(capsys: pytest.CaptureFixture):
    assert doctor.doctor() == []
    shown = capsys.readouterr().out
    assert shown.endswith("nothing is wrong\n")
    for name in ("torch ", "hydra-core", "gpu", "ranks", "efficientnet-lite0-57934424.pth", "runs", "cache"):
        assert name in shown, name


@pytest.mark.parametrize(
    ("version", "bound", "below"),
    [("2.14.1+cpu", "2.14", False), ("2.9.0", "2.14", True), ("3.0", "2.14.1", False), ("0.3.0", "0.3.0", False)],
)
def test_versions_are_compared_by_number(version: str, bound: str, below: bool):
    assert doctor.older(version, bound) is below


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture):
    versions = {"scipy": None, "torch": "1.9.0"}
    real = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda package: versions.get(package, real(package)))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").touch()  # a file where the folder should be
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    (tmp_path / "data" / "ade20k").mkdir(parents=True)
    with pytest.raises(SystemExit, match="1"):
        monkeypatch.setattr("sys.argv", ["doctor.py", f"weights_dir={tmp_path}"])
        doctor.main()
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if line.startswith("wrong")] == [
        "wrong: torch 1.9.0 is older than 2.14, the oldest tested: pip install -r requirements.txt",
        "wrong: scipy is not installed: pip install -r requirements.txt",
        "wrong: checkpoints cannot be written: choose another folder",
    ]
    assert f"{tmp_path / 'data'}: ade20k" in shown and f"looked for in {tmp_path}" in shown


def test_a_torch_that_cannot_be_imported_is_wrong(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    def broken():
        raise ImportError("libcudart.so.12: cannot open shared object file")
        yield

    monkeypatch.setattr(doctor, "devices", broken)
    assert doctor.doctor() == ["torch cannot be imported: libcudart.so.12: cannot open shared object file"]
    assert "torch                             cannot be imported" in capsys.readouterr().out
