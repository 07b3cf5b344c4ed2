"""The commands as a user types them, each in its own process: exit codes, one-line errors, files on disk."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.launch import launch
from tests.compose import TINY, entry_file

ROOT = Path(__file__).resolve().parents[1]


MAINS = {file: entry_file(file).main for file in ("train.py", "test.py", "evaluate.py")}
QUICK = (*TINY, "train.save_every=2", "train.sample_every=2")


def call(*words, ok=True, **variables):
    """Run `python WORDS` from the project's root; the result has stdout and stderr as text."""
    environment = {**os.environ, **variables}
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode == 0) is ok, done.stdout + done.stderr
    return done


@pytest.fixture
def refused(monkeypatch, capfd):
    """The one line that a user's mistake gives, typed into the same main function: exit code 1, no traceback."""

    def typed(*words, **variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        monkeypatch.chdir(ROOT)
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            launch(MAINS[words[0]])
        shown = capfd.readouterr().err
        lines = [line for line in shown.strip().splitlines() if line.startswith("error")]
        assert stop.value.code == 1 and "Traceback" not in shown and len(lines) == 1, shown
        return lines[0].removeprefix("error: ")

    return typed


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of two steps."""
    folder = tmp_path_factory.mktemp("run") / "seed0"
    call("train.py", *QUICK, f"hydra.run.dir={folder}")
    return folder


def test_help_and_cfg_job():
    assert "experiment/cfl/table1" in call("train.py", "--help").stdout
    printed = call("train.py", "--cfg", "job", "experiment=camvid/patchnce").stdout
    assert "effnet_lite0" in printed and "batch_size: 8" in printed
    for entry in ("test.py", "evaluate.py", "prepare.py", "scripts/train_segmenter.py"):
        assert "== Config ==" in call(entry, "--help").stdout


def test_a_run_folder_is_a_function_of_the_command(tmp_path):
    home = f"hydra.sweep.dir={tmp_path}"
    call("train.py", "-m", "loss=l1,patchnce", *QUICK, home)
    found = sorted(str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("last.pt"))
    assert len(found) == 2 and all(path.startswith("demo/shapes/") and path.endswith("/seed0") for path in found)
    assert len({path.split("/")[2] for path in found}) == 2
    again = call("train.py", "-m", "loss=l1,patchnce", *QUICK, home)  # of a sweep that was started again
    assert again.stdout.count("finished at step 2") == 2 and not again.stderr.count("error")


def test_torchrun_makes_one_run_folder(tmp_path, refused):
    words = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0")
    done = call(*words, "train.py", *QUICK, f"hydra.run.dir={tmp_path / 'run'}", "train.workers=3")
    assert "UserWarning" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()] == [1, 2]
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["ranks"] == 2
    assert "-m (multirun) came under torchrun" in refused("train.py", "-m", "seed=0,1", WORLD_SIZE="2", RANK="0")


def test_tensorboard_events_are_readable(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("contrast")] == [1, 2]
    assert "samples" in events.Tags()["images"]


def test_test_translates_the_test_split_and_any_folder(trained, tmp_path, refused):
    call("test.py", f"checkpoint={trained}", f"output={tmp_path / 'a'}", "device=cpu")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "render.json",
        "test_00000.png",
        "test_00001.png",
    ]
    odd = tmp_path / "odd" / "deep"
    odd.mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 8, (131, 57), dtype=np.uint8)).save(odd / "one.png")
    Image.fromarray(np.zeros((40, 72), np.uint8)).save(tmp_path / "odd" / "two.png")
    call("test.py", f"checkpoint={trained / 'last.pt'}", f"input={tmp_path / 'odd'}", f"output={tmp_path / 'b'}")
    assert Image.open(tmp_path / "b" / "deep" / "one.png").size == (57, 131)
    assert Image.open(tmp_path / "b" / "two.png").size == (72, 40)
    assert "a: holds images of split=test, not val; choose another output=" in refused(
        "test.py", f"checkpoint={trained}", "split=val", f"output={tmp_path / 'a'}"
    )
    call("test.py", f"checkpoint={trained}", "split=val", "precision=bf16")
    assert [path.name for path in (trained / "test" / "2-val-bf16").glob("*.png")] != []


def test_the_samples_of_training_are_what_test_makes(trained, tmp_path):
    """One sample row is shown, the first validation item: source | fake | target with gaps of two pixels."""
    call("test.py", f"checkpoint={trained}", "split=val", f"output={tmp_path}")
    grid = np.asarray(Image.open(trained / "samples" / "00000002.png")).astype(int)
    fake = np.asarray(Image.open(tmp_path / "val_00000.png")).astype(int)
    assert abs(grid[:64, 66:130] - fake).max() <= 1


def test_evaluate_a_run_and_two_folders(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    shown = call(
        "evaluate.py", f"checkpoint={run}", "metrics=[fd_lite2,kid_lite2,swd,appearance]", "untrained=true"
    ).stdout
    reports = {name: json.loads((run / "eval" / f"{name}.json").read_text()) for name in ("2", "untrained")}
    for report in reports.values():
        assert report["metrics"]["fd_lite2"]["floor"] is not None
        assert report["protocol"]["fake"]["n"] == report["protocol"]["real"]["n"] == 2
    assert reports["2"]["subject"]["step"] == 2 and reports["2"]["protocol"]["selection"] == "last"
    assert (run / "eval" / "2.png").is_file() and "fd_lite2" in shown and "floor" in shown
    images = run / "eval" / "images"
    call(
        "evaluate.py", f"fake={images / '2'}", f"real={images / 'real'}", "metrics=[swd]", f"out={tmp_path / 'x.json'}"
    )
    assert (
        json.loads((tmp_path / "x.json").read_text())["metrics"]["swd"]["value"]
        == reports["2"]["metrics"]["swd"]["value"]
    )


def pair(root, split, name, label, size=(64, 64)):
    """One input and target of the folder layout; `label` is an array."""
    for side in ("input", "target"):
        (root / split / side).mkdir(parents=True, exist_ok=True)
    Image.fromarray(label).save(root / split / "input" / f"{name}.png")
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(root / split / "target" / f"{name}.png")


@pytest.fixture
def folder(tmp_path):
    """Four valid pairs of two classes in each split."""
    for split in ("train", "val", "test"):
        for index in range(4):
            pair(
                tmp_path / "data",
                split,
                f"{index}",
                np.random.default_rng(index).integers(0, 2, (64, 64), dtype=np.uint8),
            )
    return tmp_path / "data"


def own(folder, *more):
    tiny = [word for word in QUICK if not word.startswith("dataset.lengths")]
    return (
        "train.py",
        "dataset=folder",
        f"dataset.root={folder}",
        "dataset.classes=2",
        *tiny,
        f"hydra.run.dir={folder.parent / 'run'}",
        *more,
    )


def test_own_pairs_train(folder):
    call(*own(folder))
    assert (folder.parent / "run" / "last.pt").is_file()


def test_bad_input_is_refused_in_one_line(folder, refused):
    def spoil(file, write):
        kept = file.read_bytes() if file.is_file() else None
        write(file)
        line = refused(*own(folder))
        if kept is None:
            file.unlink()
        else:
            file.write_bytes(kept)
        assert not (folder.parent / "run" / "last.pt").exists()
        return line

    label, target = folder / "train" / "input" / "1.png", folder / "train" / "target" / "1.png"
    found = {
        "id": spoil(label, lambda file: Image.fromarray(np.full((64, 64), 7, np.uint8)).save(file)),
        "colours": spoil(label, lambda file: Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(file)),
        "partner": spoil(target, lambda file: file.unlink()),
        "truncated": spoil(target, lambda file: file.write_bytes(file.read_bytes()[:60])),
    }
    assert "7 (4096 px)" in found["id"] and "dataset.classes=2" in found["id"]
    assert "dataset.palette" in found["colours"]
    assert "1 in input without target (1)" in found["partner"]
    assert "1.png: cannot be decoded" in found["truncated"]
    assert len({line.split(":")[1] for line in found.values()}) == 4
    bad = call(*own(folder), "dataset.classes=1", ok=False)  # the same as a user types it
    assert bad.returncode == 1 and bad.stderr.startswith("error: ") and len(bad.stderr.strip().splitlines()) == 1
    shutil.rmtree(folder / "train" / "input")
    (folder / "train" / "input").mkdir()
    assert "holds no images" in refused(*own(folder))


def test_bad_words_are_refused_in_one_line(tmp_path, refused):
    assert "did you mean 'train.steps'" in refused("train.py", "train.stepz=3")
    assert refused("train.py", "train.epochs=ten") == "train.epochs=ten: must be a whole number"
    assert "loss=monc: no such choice; did you mean monce" in refused("train.py", "loss=monc")
    assert "did you mean cfl/table1/vgg_patchnce" in refused("train.py", "experiment=cfl/table1/vgg_patch")
    assert "checkpoint: no value; set checkpoint=..." in refused("test.py")
    assert "put it into a file of configs/objective" in refused("train.py", "+objective.extra={a:1}")
    assert "needs inner quotes" in refused("train.py", "dataset.root=a=b")
    assert "loss.direction: 'soft' is none of hard, easy" in refused(
        "train.py", *QUICK, "loss=monce", "loss.direction=soft", f"hydra.run.dir={tmp_path}"
    )
    assert "dataset.size=[50, 50]" in refused("train.py", *QUICK, "dataset.size=[50,50]", f"hydra.run.dir={tmp_path}")


def test_missing_pretrained_weights_say_what_to_place_where(tmp_path, refused):
    line = refused(
        "train.py", *QUICK, "encoder=vgg19", "offline=true", f"hydra.run.dir={tmp_path}", TORCH_HOME=str(tmp_path)
    )
    assert "vgg19-dcbb9e9d.pth" in line and "weights_dir" in line and "encoder.pretrained=false" in line
    line = refused(
        "evaluate.py", f"fake={tmp_path}", f"real={tmp_path}", "metrics=[fid]", "offline=true", TORCH_HOME=str(tmp_path)
    )
    assert "holds no" in line or "pt_inception" in line


def test_a_checkpoint_that_does_not_fit_is_refused(trained, tmp_path, refused):
    assert "no such file" in refused("test.py", f"checkpoint={tmp_path / 'none'}")
    wide = ("model.generator.width=4", f"hydra.run.dir={tmp_path / 'wide'}", f"checkpoint={trained}")
    assert "another architecture" in refused("train.py", *QUICK, *wide)
    torch.save({"weights": torch.zeros(1)}, tmp_path / "foreign.pt")
    assert "not a Patchwise checkpoint" in refused("test.py", f"checkpoint={tmp_path / 'foreign.pt'}")
    (tmp_path / "file").write_text("")
    below = refused("train.py", *QUICK, f"hydra.run.dir={tmp_path / 'file' / 'run'}")
    assert "file/run: cannot be made or written (Not a directory)" in below
    assert "cannot be written" in refused("test.py", f"checkpoint={trained}", f"output={tmp_path / 'file' / 'x'}")
