"""Messages for people, out of the errors of libraries."""

import sys

import pytest
from torch.utils.data import DataLoader, Dataset

from engine import launch
from engine.launch import explain, fail_together
from errors import UserError
from tests.compose import entry_file


class Broken(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise UserError("a.png: cannot be decoded; replace the file")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_out_of_a_worker_keeps_its_one_line(workers):
    with pytest.raises(UserError) as caught:
        next(iter(DataLoader(Broken(), num_workers=workers)))
    assert explain(caught.value, []) == "a.png: cannot be decoded; replace the file"


@pytest.mark.parametrize("rank", ["0", "1"])
def test_what_all_ranks_found_is_told_by_the_first(monkeypatch, capsys, rank):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(launch, "HEAD_START", 0)
    with pytest.raises(SystemExit) as ended:
        fail_together("step 3: above train.limit=1")
    assert ended.value.code == 1
    assert capsys.readouterr().err == ("error: step 3: above train.limit=1\n" if rank == "0" else "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["=3"], "=3: a config group takes a name"),
        (["dataset=null"], "dataset=null: a config group takes a name"),
        (["hydra.run.dir=/proc/nowhere/run"], "/proc/nowhere"),
    ],
)
def test_what_hydra_itself_fails_of_is_one_line(words, said, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        launch.launch(entry_file("train.py").main)
    found = capsys.readouterr().err.splitlines()
    assert stop.value.code == 1 and len(found) == 1 and found[0].startswith("error: ") and said in found[0]
