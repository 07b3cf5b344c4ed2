"""Paths are checked before torch is loaded, and what a system refuses is one line."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import HydraException

from engine import launch, paths
from engine.config import folder_name
from engine.pipes import EXIT_CODE
from engine.record import Board
from errors import UserError

ROOT = Path(__file__).resolve().parents[1]
MISSING = {  # command, and what its one line says
    "train.py experiment=cut dataset.root=/nowhere": "/nowhere: no such folder; set dataset.root",
    "train.py checkpoint=/nowhere": "checkpoint=/nowhere: no such file",
    "test.py checkpoint=/nowhere": "checkpoint=/nowhere: no such file",
    "test.py checkpoint=README.md input=/nowhere": "/nowhere: no such folder, file or pattern",
    "evaluate.py fake=/nowhere real=docs": "fake=/nowhere: does not exist; a folder of images",
    "evaluate.py fake=docs real=README.md": "real=README.md: is a file; a folder of images",
    "evaluate.py fake=docs real=docs labels=/nowhere": "labels=/nowhere: does not exist",
    "evaluate.py fake=docs real=docs segmenter=/nowhere": "segmenter=/nowhere: no such file or folder",
    "evaluate.py checkpoint=/nowhere": "checkpoint=/nowhere: no such file",
    "prepare.py dataset=camvid raw=/nowhere": "raw=/nowhere: no such folder",
    "report.py runs=/nowhere": "runs=/nowhere: no such folder",
    "scripts/export.py checkpoint=/nowhere": "checkpoint=/nowhere: no such file",
    "scripts/analyze.py checkpoint=docs": "checkpoint=docs: the folder holds no last.pt",
    "scripts/train_segmenter.py dataset=folder dataset.root=/nowhere": "/nowhere: no such folder; set dataset.root",
    "scripts/import_checkpoint.py nowhere.pth out.pt": "nowhere.pth: no such file",
}
WITHOUT_TORCH = """
import io, contextlib, json, runpy, sys
sys.modules["torch"] = None  # an import of it is an error from here on
found = {}
for command in json.loads(sys.argv[1]):
    sys.argv = command.split()
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as stop:
        found[command] = [stop.code, told.getvalue()]
    except BaseException as error:
        found[command] = [repr(error), told.getvalue()]
print(json.dumps(found))
"""


def test_missing_paths_are_told_before_torch_is_loaded():
    import json

    command = [sys.executable, "-c", WITHOUT_TORCH, json.dumps(list(MISSING))]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(ended.stdout.splitlines()[-1])
    for words, told in MISSING.items():
        code, line = found[words]
        assert (code, line.count("\n")) == (1, 1) and told in line, (words, code, line)


def test_head_ends_a_command_quietly():
    """The reader of the output leaves after a line."""
    for words in (["train.py", "--cfg", "job"], ["scripts/doctor.py"]):
        running = subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        running.stdout.close()
        told = running.stderr.read()
        assert (running.wait(), told) == (EXIT_CODE, "")


def refused(raised, monkeypatch, capsys):
    def main():
        raise raised

    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit) as stop:
        launch.launch(main)
    assert stop.value.code == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ENAMETOOLONG, errno.EPERM])
def test_what_the_system_refuses_is_one_line(number, monkeypatch, capsys):
    line = refused(OSError(number, os.strerror(number), "/some/run"), monkeypatch, capsys)
    assert line.startswith("error: /some/run: cannot be made or written (") and line.count("\n") == 1
    line = refused(OSError(number, os.strerror(number)), monkeypatch, capsys)
    assert line.startswith(f"error: {os.strerror(number)}; free some space")


def test_other_errors_keep_their_traceback(monkeypatch):
    for error in (
        FileNotFoundError(errno.ENOENT, "gone", "x"),
        BrokenPipeError(errno.EPIPE, "a worker's"),
        KeyError(1),
    ):

        def main(error=error):
            raise error

        with pytest.raises(type(error)):
            launch.launch(main)


def test_a_deleted_current_folder_is_one_line(monkeypatch, capsys):
    def gone():
        raise FileNotFoundError

    monkeypatch.setattr(Path, "cwd", gone)
    line = refused(HydraException("never reached"), monkeypatch, capsys)
    assert line == "error: the current folder does not exist any more; change to another one\n"
    with pytest.raises(SystemExit):
        paths.early({})


def test_words_that_hydra_reads_are_left_to_it(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "raw='a b'", "raw=a,b", "raw=null", "raw=", "other=1", "raw=${oc.env:X}"])
    paths.early({"raw": paths.check_raw})


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("pairs", "pairs"),
        ("a,b = (c)", "a-b-c"),
        ("cut+2_x.y", "cut+2_x.y"),
        ("../../escape", "..-..-escape"),
        ("x" * 300, None),
        ("Größe", None),
        ("..", None),
        ("", None),
        ("猫", None),
    ],
)
def test_folders_of_data_sets_can_be_typed(name, folder):
    made = folder_name(name)
    assert folder in (None, made)
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-")
    assert made.strip(".") and len(made) <= 120


def test_other_letters_are_other_folders():
    assert len({folder_name(name) for name in ("Größe", "Grüße", "猫", "犬", "", "..")}) == 6


class Full:
    """A disk that is full."""

    def __init__(self, *_, **__):
        self.calls = 0

    def __getattr__(self, _):
        def refuse(*_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

        return refuse


def test_training_goes_on_without_tensorboard_on_a_full_disk(tmp_path, monkeypatch, capsys):
    import torch.utils.tensorboard as board

    monkeypatch.setattr(board, "SummaryWriter", Full)
    one = Board(tmp_path, 0)
    one.scalars({"a": 1.0, "b": 2.0}, 1)
    one.close()
    told = capsys.readouterr().out.splitlines()
    assert told == [f"{tmp_path}: cannot be written (No space left on device); training goes on without TensorBoard"]

    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(board, "SummaryWriter", refuse)
    one = Board(tmp_path, 0)
    one.scalars({"a": 1.0}, 1)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_grey_side_names_the_key_that_reads_it_in_colour():
    from engine.build import _check_channels, _encoder
    from engine.inputs import Inputs
    from tests.compose import UNPAIRED, config

    words = [word for word in UNPAIRED if not word.startswith(("dataset", "model=")) and "lengths" not in word]
    cfg = config("experiment=cut", "dataset=unpaired_folder", *words)
    kinds = {"labels": False, "classes": None, "ignore": None, "instance": False, "aligned": False}
    grey = Inputs(source_channels=1, target_channels=3, **kinds)
    with pytest.raises(UserError, match=r"encoder=generator: .* set dataset\.source_channels=3, which reads grey"):
        _encoder(cfg, None, grey)
    term = type("Term", (), {"reads": {"identity"}})()
    with pytest.raises(UserError, match=r"objective\.contrast: .* set dataset\.target_channels=3"):
        _check_channels(cfg, Inputs(source_channels=3, target_channels=1, **kinds), {"contrast": term}, None)


def test_a_folder_without_folders_says_what_it_has(tmp_path):
    from listing import seen

    assert seen(tmp_path) == f"{tmp_path} has no folders"
    (tmp_path / "a.jpg").touch()
    assert seen(tmp_path) == f"{tmp_path} has no folders, but 1 files: a.jpg"
    (tmp_path / "train").mkdir()
    assert seen(tmp_path) == f"{tmp_path} has the folders train"
