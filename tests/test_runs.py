"""What a run keeps: damaged, foreign and misplaced files are noticed, and nothing whole is lost with them."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from engine import lock as locks
from engine import seal
from engine.checkpoint import Damaged, Loaded, RunFolder, clean, read, write
from engine.fingerprint import Data, below_data_root
from engine.lock import FolderLock, Owner
from engine.preempt import EXIT_CODE, INTERRUPTED, Preempted, Preemption
from engine.record import Recorder, restore_log
from errors import UserError
from tests.compose import TINY, config, entry_file
from tests.test_train import assert_same, lines, state, without_config
from train import train

ROOT = Path(__file__).resolve().parents[1]
DEAD = 2**22 + 1  # above the largest process number of a Linux machine
INPUTS = {"source_channels": 3, "target_channels": 3, "labels": False, "classes": None, "ignore": None,
          "instance": False, "aligned": True}  # fmt: skip


def run(folder, *overrides):
    return train(config(*TINY, "train.sample_every=1000", *overrides), folder)


def plain(step=0, **changes):
    """The content of a small checkpoint, with other values for some keys; ... leaves one out."""
    network = {"weight": torch.arange(20.0), "count": torch.tensor(3)}
    content = {
        "schema": 1,
        "step": step,
        "config": json.dumps({"dataset": {"name": "x"}}),
        "inputs": json.dumps(INPUTS),
        "networks": {"generator": network},
        **changes,
    }
    return {key: value for key, value in content.items() if value is not ...}


def damage(path):
    """Flip a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Seal


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path):
    path = tmp_path / "a.pt"
    write(path, plain())
    assert_same(read(path), plain())
    assert torch.load(path, weights_only=True)["step"] == 0 and zipfile.ZipFile(path).testzip() is None
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        with pytest.raises(Exception), path.open("rb") as file:  # noqa: B017 - zipfile raises of any kind
            seal.check(file)
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(Damaged, match="not a readable checkpoint"):
            read(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(Damaged):
        read(path)


def test_a_file_without_a_seal_is_checked_by_its_crcs(tmp_path, capsys):
    path = tmp_path / "a.pt"
    torch.save(plain(), path)
    assert read(path)["step"] == 0
    assert "has no digest of this project's" in capsys.readouterr().out
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(20.0).numpy().tobytes()) + 7] ^= 1
    path.write_bytes(content)
    with pytest.raises(Damaged, match=r"data/\d+ does not match its CRC"):
        read(path)


def test_a_file_never_unpacks_to_more_than_its_size(tmp_path):
    """Refused before torch sees it: compressed records, and many that share their bytes."""
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    assert path.stat().st_size < 20_000
    with pytest.raises(Damaged, match=r"data\.pkl is compressed"):
        read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(1000))
        archive.writestr("archive/data/0", bytes(1000))
        archive.infolist()[1].header_offset = 0
    with pytest.raises(Damaged, match="overlaps another record"):
        read(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": "1"}, "its schema is '1', a whole number was expected"),
        ({"schema": True}, "its schema is 'True'"),
        ({"schema": 2}, "written by a newer version"),
        ({"step": "ten"}, "its step is 'ten'"),
        ({"step": float("nan")}, "its step is 'nan'"),
        ({"step": torch.tensor(3)}, "its step is 'tensor"),
        ({"step": -1}, "step -1"),
        ({"step": ...}, "it has no step"),
        ({"config": ...}, "it has no config"),
        ({"config": "["}, "not a whole checkpoint"),
        ({"config": "[" * 100_000}, "not a whole checkpoint"),
        ({"config": "{}"}, "its config has no dataset"),
        ({"inputs": json.dumps({**INPUTS, "extra": 1})}, "keys of source_channels"),
        ({"inputs": json.dumps({**INPUTS, "source_channels": "3"})}, "source_channels is '3'"),
        ({"networks": [1]}, r"its networks is '\[1\]'"),
        ({"networks": {"generator": {"weight": 1}}}, "its network generator is no set of tensors"),
        ({"networks": {"generator": {"weight": torch.tensor([1.0, float("nan")])}}}, r"generator\.weight holds a NaN"),
        ({"average": {"generator.weight": torch.tensor(float("inf"))}}, "average.generator.weight holds"),
        ({"networks": {"generator": {"weight": torch.ones(1).expand(10**9)}}}, "larger than what is stored"),
    ],
)  # fmt: skip
def test_foreign_content_is_one_line(tmp_path, changes, words):
    write(tmp_path / "a.pt", plain(**changes))
    with pytest.raises(UserError, match=words) as error:
        Loaded.open(str(tmp_path / "a.pt"))
    assert "\n" not in str(error.value) and str(tmp_path / "a.pt") in str(error.value)


# Fall back


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of six steps, never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder, "train.steps=6", "train.save_every=2")
    return folder


def test_a_damaged_checkpoint_falls_back_and_the_run_ends_equal(whole, tmp_path, capsys):
    run(tmp_path, "train.steps=4", "train.save_every=2")
    assert read(tmp_path / "previous.pt")["step"] == 2
    damage(tmp_path / "last.pt")
    with pytest.raises(UserError, match=r"last\.pt: not a readable .* others are there: previous\.pt; training again"):
        Loaded.open(str(tmp_path))
    capsys.readouterr()
    run(tmp_path, "train.steps=6", "train.save_every=2")
    out = capsys.readouterr().out
    assert "last.pt: is damaged (" in out and "kept as last.pt.damaged; goes on from previous.pt, step 2" in out
    assert_same(without_config(state(whole)), without_config(state(tmp_path)))
    assert lines(whole) == lines(tmp_path)
    assert read(tmp_path / "previous.pt")["step"] == 4


def folder_of(path, **steps):
    """A run folder with small checkpoints of these names and steps."""
    path.mkdir(exist_ok=True)
    for name, step in steps.items():
        write(path / f"{name}.pt", plain(step))
    return RunFolder(path, OmegaConf.create({"dataset": {"name": "x"}}))


@pytest.mark.parametrize("fate", [damage, Path.unlink, lambda path: path.write_bytes(b"")])
def test_the_newest_whole_checkpoint_takes_the_place(tmp_path, fate, monkeypatch):
    def links(*_):
        raise OSError("no links here")

    for number, patch in enumerate((False, True)):
        folder = folder_of(tmp_path / str(number), last=9, previous=6, best=3, step_00000007=7, step_00000008=8)
        damage(folder.path / "step_00000008.pt")
        fate(folder.path / "last.pt")
        if patch:
            monkeypatch.setattr(os, "link", links)
        assert folder._repaired()["step"] == 7 and folder.latest()["step"] == 7
        assert read(folder.path / "step_00000007.pt")["step"] == 7


def test_without_another_checkpoint_a_damaged_one_is_refused(tmp_path):
    folder = folder_of(tmp_path, last=9)
    damage(tmp_path / "last.pt")
    with pytest.raises(UserError, match="no other checkpoint of this run is whole; move it away to begin at step 0"):
        folder._repaired()
    assert (tmp_path / "last.pt").is_file()


def test_a_damaged_best_is_noticed_and_dropped(tmp_path, capsys):
    folder = folder_of(tmp_path, best=3)
    best = {"metric": "swd", "split": "val", "images": 3, "step": 3, "value": 1.0, "merit": -1.0}
    assert folder.best({"best": best}) == best and folder.best({}) is None and folder.best({"best": [1]}) is None
    damage(tmp_path / "best.pt")
    assert folder.best({"best": best}) is None and (tmp_path / "best.pt.damaged").is_file()
    assert "best.pt: is damaged (" in capsys.readouterr().out
    assert folder.best({"best": best}) is None and "best.pt: is gone" in capsys.readouterr().out


def test_no_run_goes_on_from_weights_alone(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    content = state(whole)
    for key, words in (
        ("optimizers", "KeyError"),
        ("record", "KeyError"),
        ("networks", "holds no network discriminator"),
    ):
        broken = {name: value for name, value in content.items() if name != key}
        if key == "networks":
            broken[key] = {"generator": content[key]["generator"]}
        write(tmp_path / "run" / "last.pt", broken)
        with pytest.raises(UserError, match=f"{words}.*start a new run from its weights"):
            run(tmp_path / "run", "train.steps=7")


# config.yaml


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a: [", b"[1]", b"seed: 3\ndataset: {name: x}\n"])
def test_a_damaged_config_is_rebuilt_from_the_checkpoint(whole, tmp_path, content, capsys):
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_bytes(content)
    assert run(tmp_path / "run", "train.steps=6", "train.save_every=2") == 6
    assert "config.yaml: is damaged or was edited; rebuilt from last.pt" in capsys.readouterr().out
    assert (tmp_path / "run" / "config.yaml").read_text() == (whole / "config.yaml").read_text()
    with pytest.raises(UserError, match=r"made with another config \(loss\.temperature"):
        run(tmp_path / "run", "train.steps=6", "loss.temperature=0.1")


# log.jsonl


def rows(*steps):
    return [json.dumps({"step": step, "gan": 1.0}).encode() for step in steps]


@pytest.mark.parametrize(
    ("spoiled", "kept"),
    [
        (lambda a, b, c, d, e: [a, b"{broken", c, d, e], [1, 3, 4]),
        (lambda a, b, c, d, e: [a, b"\xff\xfe\x00", c, d, e], [1, 3, 4]),
        (lambda a, b, c, d, e: [a, b'{"gan": 1}', c, d, e], [1, 3, 4]),
        (lambda a, b, c, d, e: [a, b'{"step": "2"}', c, d, e], [1, 3, 4]),
        (lambda a, b, c, d, e: [a, b"[2]", b"", c, d, e], [1, 3, 4]),
        (lambda a, b, c, d, e: [a, b"[" * 100_000, c, d, e], [1, 3, 4]),
        (lambda a, b, c, d, e: [a, b'{"step": 4}', c, d, e], [1, 3, 4]),
        (lambda a, b, c, d, e: [a, b'{"step": 92}', c, d, e], [1, 3, 4]),
        (lambda a, b, c, d, e: [a, b'{"step": NaN}', c, d, e], [1, 3, 4]),
    ],
)
def test_a_damaged_line_costs_itself_alone(tmp_path, spoiled, kept, capsys):
    log, content = tmp_path / "log.jsonl", b"\n".join(spoiled(*rows(1, 2, 3, 4, 5))) + b"\n" + b'{"step": 6, "ga'
    for aside in ("log.damaged.jsonl", "log.damaged2.jsonl"):
        log.write_bytes(content)
        restore_log(log, 4)
        assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == kept
        assert (tmp_path / aside).read_bytes() == content
        out = capsys.readouterr().out
        assert f"the file as it was is {aside}" in out and len(out.splitlines()) == 1


def test_what_was_logged_beyond_the_checkpoint_is_no_damage(tmp_path, capsys):
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"\n".join(rows(1, 2, 3, 4)) + b'\n{"step": 5, "ga')
    restore_log(log, 2)
    assert log.read_bytes() == b"\n".join(rows(1, 2)) + b"\n" and not capsys.readouterr().out
    restore_log(log.with_name("none.jsonl"), 2)
    assert names(tmp_path) == ["log.jsonl", "none.jsonl"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda text: text.replace('"step": 2, "images"', '"step": 2, "image"'),
            "its 4 lines up to step 4 are not the 4",
        ),
        (lambda text: "".join(text.splitlines(keepends=True)[:3]), "its 3 lines up to step 4 are not the 4"),
        (lambda text: text[:-30], "its 3 lines up to step 4 are not the 4"),
        (lambda text: "", "is gone or empty; the 4 lines up to step 4 are lost"),
        (None, "is gone or empty; the 4 lines up to step 4 are lost"),
    ],
    ids=["changed", "cut", "half", "empty", "gone"],
)
def test_lines_that_are_not_what_was_written_are_noticed_once(whole, tmp_path, change, words, capsys):
    """Also where each line that is left can be read."""
    shutil.copytree(whole, tmp_path / "run")
    log = tmp_path / "run" / "log.jsonl"
    text = "".join(log.read_text().splitlines(keepends=True)[:4])
    assert torch.load(whole / "last.pt", weights_only=True)["record"]["log"] == restore_log(log, 6)
    wanted = restore_log(log, 4)
    log.unlink()
    if change is not None:
        log.write_text(change(text))
    before = log.read_bytes() if log.exists() else b""
    capsys.readouterr()
    stays = restore_log(log, 4, wanted)
    out = capsys.readouterr().out
    assert words in out and len(out.splitlines()) == 1 and stays != wanted
    assert not before or log.with_name("log.damaged.jsonl").read_bytes() == before
    capsys.readouterr()
    restore_log(log, 4, stays)
    assert not capsys.readouterr().out


def test_the_log_is_on_disk_before_the_checkpoint(tmp_path, monkeypatch):
    done = []
    real, sync = RunFolder.save, Recorder.sync
    monkeypatch.setattr(RunFolder, "save", lambda *a, **k: (done.append("save"), real(*a, **k)))
    monkeypatch.setattr(Recorder, "sync", lambda self: (done.append("sync"), sync(self)))
    run(tmp_path, "train.steps=1")
    assert done == ["sync", "save"]


# Lock

HOLD = """
import sys, time
from pathlib import Path
from engine.lock import FolderLock
FolderLock(Path(sys.argv[1]), "training", "wait").take()
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def hold(path, seconds=60.0):
    """A process that tries to take a lock, and holds it."""
    words = [sys.executable, "-c", HOLD, str(path), str(seconds)]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


@pytest.mark.parametrize("kernel", [True, False])
def test_a_second_owner_is_refused_and_a_dead_one_replaced(tmp_path, kernel, monkeypatch, capfd):
    if not kernel:
        monkeypatch.setattr(locks, "_kernel_lock", lambda handle: None)
        monkeypatch.setattr(locks, "POLL", 0.01)
    first = hold(tmp_path / "train.lock")
    try:
        assert first.stdout.readline() == "held\n"
        other = FolderLock(tmp_path / "train.lock", "training", "choose another run=")
        with pytest.raises(UserError, match=rf"training runs there already: host .*, pid {first.pid}, since .*run="):
            other.take()
        with pytest.raises(UserError, match=f"pid {first.pid}"):
            run(tmp_path)
        assert names(tmp_path) == ["train.lock"]
    finally:
        first.kill()
        first.wait()
    with other:
        other.check()
        assert f"its process has ended (host {Owner.this('').host}, pid {first.pid}" in capfd.readouterr().err
    assert not names(tmp_path)


def test_of_many_at_once_one_wins(tmp_path):
    started = [hold(tmp_path / "train.lock", 1.5) for _ in range(6)]
    assert sum(process.communicate()[0] == "held\n" for process in started) == 1


@pytest.mark.parametrize(
    ("change", "age", "taken"),
    [
        ({"host": "elsewhere"}, 0, False),
        ({"host": "elsewhere"}, 3600, True),
        ({"boot": "another"}, 0, False),
        ({"boot": "another"}, 10**8, True),  # before this machine was started
        ({"started": "1"}, 0, True),  # the number of the dead process was given to this one
        ({"pid": DEAD}, 0, True),
        ({"pid": "x"}, 0, True),
    ],
)
def test_whose_lock_is_taken_over(tmp_path, change, age, taken):
    path = tmp_path / "train.lock"
    path.write_text(json.dumps({**vars(Owner.this("training")), **change}))
    os.utime(path, (time.time() - age,) * 2)
    lock = FolderLock(path, "training", "wait")
    with (
        contextlib.nullcontext() if taken else pytest.raises(UserError, match="remove that file, or wait until 10 min")
    ):
        lock.take()
    lock.release()
    assert path.exists() is not taken


def test_a_lock_that_was_lost_stops_the_run(tmp_path):
    with FolderLock(tmp_path / "a.lock", "training", "wait") as lock:
        lock.path.unlink()
        with pytest.raises(UserError, match="another process took this lock over"):
            lock.check()


def test_waiting_for_another_evaluation(tmp_path, capfd):
    first = hold(tmp_path / ".lock", 1.0)
    assert first.stdout.readline() == "held\n"
    lock = FolderLock(tmp_path / ".lock", "an evaluation", "wait")
    lock.wait()
    assert "waiting for its end" in capfd.readouterr().err and first.wait() == 0
    lock.release()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(locks.os, "open", refuse)
    with pytest.raises(UserError, match=r"cannot be written \(Permission denied\); choose another run= or hydra\.run"):
        run(tmp_path)


# Temporary files


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    for place in (tmp_path, tmp_path / "samples", tmp_path / "eval" / "val-3"):
        place.mkdir(parents=True, exist_ok=True)
    host = locks.socket.gethostname()
    gone = [
        *(f".{name}.{DEAD}.tmp" for name in ("last.pt", "best.pt", "step_00000002.pt", "previous.pt")),
        f".patchwise-{host}-{DEAD}-0.tmp", f"samples/.patchwise-{host}-{DEAD}-7.tmp", ".config.yaml.tmp", "log.tmp",
        f"eval/val-3/.patchwise-{host}-{DEAD}-1.tmp", "samples/.00000002.png.tmp",
    ]  # fmt: skip
    stay = [f".last.pt.{os.getpid()}.tmp", "notes.tmp", "step_00000001.pt"]
    for name in (*gone, *stay):
        (tmp_path / name).write_bytes(b"")
    run(tmp_path, "train.steps=0")
    assert not [name for name in gone if (tmp_path / name).exists()]
    assert [name for name in stay if (tmp_path / name).exists()] == stay
    clean([tmp_path / "none"])


# Training data


def pairs(root, seed=0, count=4):
    rng = np.random.default_rng(seed)
    for split in ("train", "val", "test"):
        for side in ("input", "target"):
            (root / split / side).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
                    root / split / side / f"{index}.png"
                )
    return root


def own(root, *more):
    words = [word for word in TINY if "lengths" not in word]
    return config(*words, "dataset=folder", f"dataset.root={root}", "dataset.labels=false", *more)


def test_other_data_of_the_same_name_are_refused_and_moved_ones_go_on(tmp_path):
    a, b = pairs(tmp_path / "a" / "pairs"), pairs(tmp_path / "b" / "pairs", seed=1)
    run = tmp_path / "run"
    train(own(a), run)
    words = (
        r"was trained on other images: \S+a/pairs \(input: 4 files, .* there, \S+b/pairs .* here; 8 changed \(input/0"
    )
    with pytest.raises(UserError, match=words):
        train(own(b, "train.steps=3"), run)
    assert f"root: {a}" in (run / "config.yaml").read_text()
    (run / "data.json").write_text("{")
    with pytest.raises(UserError, match="was trained on other images"):
        train(own(b, "train.steps=3"), run)
    moved = a.rename(tmp_path / "moved")
    assert train(own(moved, "train.steps=3"), run) == 3
    assert f"root: {moved}" in (run / "config.yaml").read_text() and Data.read(run).root == str(moved)
    assert train(own(b, f"checkpoint={run}"), tmp_path / "new") == 2


def test_what_changes_the_fingerprint(tmp_path, monkeypatch):
    from data.folders import Paired

    root = pairs(tmp_path / "x")

    def found():
        return Data.of(Paired("train", True, name="x", root=root, labels=False, size=(32, 32)), None)

    for limit in ("WHOLE", "MANY"):  # all bytes, then heads and tails
        first = found()
        assert found().fingerprint == first.fingerprint and first.difference(found()) == ""
        file = root / "train" / "target" / "2.png"
        content = file.read_bytes()
        file.write_bytes(content[:60] + bytes([content[60] ^ 1]) + content[61:])
        assert "1 changed (target/2.png)" in first.difference(found())
        file.write_bytes(content)
        (root / "train" / "input" / "3.png").rename(root / "train" / "input" / "9.png")
        (root / "train" / "target" / "3.png").rename(root / "train" / "target" / "9.png")
        assert "2 missing (input/3.png, target/3.png), 2 new (input/9.png" in first.difference(found())
        for side in ("input", "target"):
            (root / "train" / side / "9.png").rename(root / "train" / side / "3.png")
        monkeypatch.setattr(f"engine.fingerprint.{limit}", 0)
    monkeypatch.setattr("engine.fingerprint.LISTED", 0)
    first = found()
    assert first.fingerprint["kind"] == "sizes" and first.sides is None
    with file.open("ab") as stream:
        stream.write(b"\0")
    assert "there, " in first.difference(found()) and "changed" not in first.difference(found())
    assert Data.from_json(first.json()).fingerprint == first.fingerprint
    for text in (None, "", "[", "[1]", '{"fingerprint": 3}', "[" * 100_000):
        assert Data.from_json(text) is None


def test_a_checkpoint_that_names_no_data_goes_on_with_a_line(tmp_path, capsys):
    root = pairs(tmp_path / "data")
    train(own(root), tmp_path / "run")
    write(tmp_path / "run" / "last.pt", {key: value for key, value in state(tmp_path / "run").items() if key != "data"})
    assert train(own(root, "train.steps=3"), tmp_path / "run") == 3
    assert "does not say which images it was trained on; going on with these" in capsys.readouterr().out


# Elsewhere


def test_colours_and_data_are_found_without_the_files_of_training(tmp_path, monkeypatch):
    root = pairs(tmp_path / "a" / "camvid")
    table = [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
    for split in ("train", "val", "test"):
        for file in (root / split / "input").iterdir():
            ids = np.random.default_rng(0).integers(0, 4, (64, 64))
            Image.fromarray(np.array(table, np.uint8)[ids]).save(file)
    palette = tmp_path / "p.txt"
    palette.write_text("".join(f"{label} {' '.join(map(str, color))} name\n" for label, color in enumerate(table)))
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "a"))
    words = [word for word in TINY if "lengths" not in word]
    cfg = config(*words, "dataset=camvid", "dataset.classes=4", "dataset.unscored=[]", f"dataset.palette={palette}")
    train(cfg, tmp_path / "run")
    palette.unlink()
    root.parent.rename(tmp_path / "b")
    test = entry_file("test.py").test
    with pytest.raises(UserError, match=r"a/camvid: no such folder; set dataset\.root or DATA_ROOT"):
        test(config(f"checkpoint={tmp_path / 'run'}", name="test"))
    moved = tmp_path / "b" / "camvid"
    output = test(config(f"checkpoint={tmp_path / 'run'}", f"dataset.root={moved}", name="test"))
    assert len(list(output.glob("*.png"))) == 4
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "b"))
    assert Loaded.open(str(tmp_path / "run")).cfg.dataset.root == str(moved)
    from evaluate import evaluate

    report = evaluate(config(f"checkpoint={tmp_path / 'run'}", "metrics=[appearance]", "images=2", name="evaluate"))
    assert report["protocol"]["real"]["n"] == 2
    given = test(
        config(f"checkpoint={tmp_path / 'run'}", f"input={moved / 'test'}", f"output={tmp_path / 'o'}", name="test")
    )
    assert len(list(given.glob("*.png"))) == 4
    with pytest.raises(UserError, match=r"dataset\.palette=.*has no palette"):
        run(tmp_path / "shapes", "train.steps=0")
        Loaded.open(str(tmp_path / "shapes"), dataset={"palette": "x"})


def test_which_roots_lie_below_data_root():
    assert below_data_root("${oc.env:DATA_ROOT,datasets}/gta") == "gta"
    assert below_data_root("/home/gta") is None and below_data_root(None) is None


# Signals


@pytest.fixture
def heard():
    """Signals as in a terminal's foreground: a test run in the background or by nohup ignores some."""
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGHUP, signal.SIGINT)}
    for number in before:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def at_step(monkeypatch, step, *numbers):
    """Send signals to this process in the middle of a step."""
    real, seen = Recorder.add, []

    def add(self, values, waited):
        seen.append(None)
        if len(seen) == step:
            for number in numbers:
                os.kill(os.getpid(), number)
        real(self, values, waited)

    monkeypatch.setattr(Recorder, "add", add)


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, Preempted), (signal.SIGINT, KeyboardInterrupt)])
def test_a_library_that_fails_because_it_was_interrupted_is_no_error(heard, number, kind):
    """And an error without a signal stays one."""
    with pytest.raises(kind), Preemption():
        try:
            os.kill(os.getpid(), number)
        finally:
            raise AttributeError("half of an object")
    with pytest.raises(AttributeError), Preemption():
        raise AttributeError("a fault of ours")


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGUSR2, EXIT_CODE), (signal.SIGHUP, EXIT_CODE), (signal.SIGINT, INTERRUPTED)],
)
def test_a_signal_saves_at_its_step(heard, whole, tmp_path, number, code, monkeypatch):
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        at_step(patch, 3, number)
        with pytest.raises(Preempted, match="saved at step 3") as stop:
            run(tmp_path, "train.steps=6", "train.save_every=100")
    assert stop.value.code == code and state(tmp_path)["step"] == 3 and signal.getsignal(number) == before
    run(tmp_path, "train.steps=6", "train.save_every=2")
    assert_same(without_config(state(whole)), without_config(state(tmp_path)))


def test_a_second_interrupt_aborts_at_once(heard, tmp_path, monkeypatch):
    at_step(monkeypatch, 2, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "train.steps=6", "train.save_every=1")
    assert state(tmp_path)["step"] == 1 and not (tmp_path / "train.lock").exists()


@pytest.mark.parametrize(("number", "error"), [(signal.SIGUSR2, Preempted), (signal.SIGINT, KeyboardInterrupt)])
def test_before_the_first_step_a_signal_ends_the_run_at_once(heard, tmp_path, number, error, monkeypatch):
    monkeypatch.setattr("engine.build.build_dataset", lambda *_, **__: os.kill(os.getpid(), number))
    with pytest.raises(error) as stop:
        run(tmp_path)
    assert getattr(stop.value, "code", EXIT_CODE) == EXIT_CODE
    assert not list(tmp_path.iterdir())


def test_an_ignored_hangup_stays_ignored(heard):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    with Preemption() as preemption:
        os.kill(os.getpid(), signal.SIGHUP)
        preemption.listen(None)
        assert not preemption.agreed()
        os.kill(os.getpid(), signal.SIGUSR2)
        assert preemption.agreed() and preemption.code == EXIT_CODE


def test_a_signal_while_python_starts_is_exit_code_85(tmp_path):
    """Before torch is loaded and there is a folder: an import of torch that waits for ever stands in for it."""
    (tmp_path / "torch.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)\n")
    words = [sys.executable, "train.py", *TINY, f"hydra.run.dir={tmp_path / 'run'}"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "loading\n"
    process.terminate()
    assert process.communicate()[0].startswith("stopped by SIGTERM before its first step, with nothing new to save")
    assert process.returncode == EXIT_CODE
