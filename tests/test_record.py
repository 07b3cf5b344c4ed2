"""The log's speed and data wait: of the steps alone, whatever is done between them."""

import json

import pytest
import torch

from engine import record
from engine.record import Recorder

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""
    now = [100.0]
    monkeypatch.setattr(record.time, "perf_counter", lambda: now[0])
    return now


def row_of(recorder, folder):
    """The last line after closing."""
    recorder.close()
    return json.loads((folder / "log.jsonl").read_text().splitlines()[-1])


def test_the_data_wait_is_a_share_of_the_steps_and_not_of_what_stands_between(tmp_path, clock):
    recorder = Recorder(tmp_path, True, 0, 4, 8, None)
    with recorder.aside():
        clock[0] += 1000  # the first samples and evaluation
    for waited in (0.5, 1.5):
        clock[0] += 4
        recorder.add({"contrast": torch.tensor(2.0)}, waited)
        with recorder.aside():
            clock[0] += 300  # a checkpoint
    recorder.line(2, {"contrast": 2.0}, 1e-3, CPU)
    with recorder.aside():
        clock[0] += 500
    clock[0] += 2
    recorder.add({"contrast": torch.tensor(2.0)}, 1.0)
    recorder.line(3, {"contrast": 2.0}, 1e-3, CPU)
    last = row_of(recorder, tmp_path)
    first = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert (first["data_wait"], first["images_per_second"]) == (0.25, 2.0)
    assert (last["data_wait"], last["images_per_second"]) == (0.5, 4.0)


def test_an_error_aside_is_passed_on(tmp_path):
    recorder = Recorder(tmp_path, True, 0, 4, 8, None)
    with pytest.raises(RuntimeError, match="no space"), recorder.aside():
        raise RuntimeError("no space")
    recorder.close()


def test_without_a_terminal_each_log_step_is_a_line(tmp_path, clock, capsys):
    """A bar in the file of a batch job is one line of thousands of redrawings."""
    recorder = Recorder(tmp_path, True, 0, 4, 8, None)
    for step in (1, 2):
        clock[0] += 4
        recorder.add({"contrast": torch.tensor(2.5), "norm/generator": torch.tensor(9.0)}, 0.0)
        recorder.line(step, {"contrast": 2.5, "norm/generator": 9.0}, 1e-3, CPU)
    recorder.close()
    shown = capsys.readouterr()
    assert shown.out == "step 1 of 4: contrast 2.5; 2.0 images/s\nstep 2 of 4: contrast 2.5; 2.0 images/s\n"
    assert not shown.err
