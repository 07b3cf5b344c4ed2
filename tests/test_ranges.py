"""Every command refuses a value out of range, and a word that it cannot read, in one line that names the key."""

import os
import signal
import sys

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from engine import distributed, launch, schemas
from engine.config import Config, Train, trunk_keys
from engine.ranges import CORES, check_ranges, outside
from engine.sampling import explained_workers
from errors import UserError
from scripts import analyze, export, train_segmenter, weights
from tests.compose import CONFIGS, TINY, config, entry_file

MAINS = {
    file.removesuffix(".py"): entry_file(file).main for file in ("train.py", "test.py", "evaluate.py", "report.py")
}
MAINS |= {"prepare": entry_file("prepare.py").main, "analyze": analyze.main, "export": export.main}
MAINS |= {"train_segmenter": train_segmenter.main, "weights": weights.main}


@pytest.fixture
def refused(monkeypatch, capfd, tmp_path):
    """The one line that words typed into a command end in; nothing is written before."""

    def typed(entry, *words, **variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{entry}.py", *words])
        with pytest.raises(SystemExit) as stop:
            launch.launch(MAINS[entry])
        shown = capfd.readouterr().err.strip()
        assert stop.value.code == 1 and "Traceback" not in shown, shown
        assert len(shown.splitlines()) == 1 and shown.startswith("error"), shown
        return shown.partition(": ")[2]

    return typed


@pytest.mark.parametrize(
    ("entry", "words", "line"),
    [
        ("train", ["train.lr=nan"], "train.lr=nan: must be a finite number"),
        ("train", ["train.lr=inf"], "train.lr=inf: must be a finite number"),
        ("train", ["objective.contrast.weight=nan"], "objective.contrast.weight=nan: must be a finite number"),
        ("train", ["loss.temperature=inf"], "loss.temperature=inf: must be a finite number"),
        ("train", ["nce.patches=0"], "nce.patches=0: must be at least 1, or null"),
        ("train", ["nce.patches=-4"], "nce.patches=-4: must be at least 1, or null"),
        ("train", ["objective.contrast.term.patches=0"],
         "objective.contrast.term.patches=0: must be at least 1 and at most 1048575, or null"),
        ("train", ["model.generator.width=0"], "model.generator.width=0: must be at least 1 and at most 4096"),
        ("train", ["model.discriminator.width=-4"],
         "model.discriminator.width=-4: must be at least 1 and at most 4096"),
        ("train", ["model=cut", "model.generator.blocks=-1"],
         "model.generator.blocks=-1: must be at least 0 and at most 1024"),
        ("train", ["dataset.size=[100000,100000]"],
         "dataset.size=[100000, 100000]: must be at least 1 and at most 16384"),
        ("train", ["dataset.size=[0,64]"], "dataset.size=[0, 64]: must be at least 1 and at most 16384"),
        ("train", ["dataset.lengths={train:8,val:0,test:0}"],
         "dataset.lengths={'train': 8, 'val': 0, 'test': 0}: must be at least 1 and at most 1000000 (val), or null"),
        ("train", ["objective.gan.weight=-1"], "objective.gan.weight=-1.0: must be at least 0"),
        ("train", ["train.workers=100000"],
         f"train.workers=100000: must be at least 0 and at most {16 * CORES} (16 for each of this"),
        ("train", ["evaluate.images=1"], "evaluate.images=1: must be at least 2, or null"),
        ("train", ["run=../../escape"], "run=../../escape: the run folder stays below checkpoints/"),
        ("train", ["run=/tmp/escape"], "run=/tmp/escape: the run folder stays below checkpoints/"),
        ("test", ["max_pixels=0"], "max_pixels=0: must be at least 1, or null"),
        ("test", ["checkpoint=x", "batch_size=0"], "batch_size=0: must be at least 1"),
        ("test", ["checkpoint=x", "workers=-1"], "workers=-1: must be at least 0 and at most"),
        ("test", ["checkpoint=x", "device=banana"], "device=banana: must be one of auto, cpu, cuda, cuda:0"),
        ("test", ["checkpoint=x", "precision=float64"], "precision=float64: must be one of float32, bf16, or null"),
        ("test", ["checkpoint=x", "network=discriminator"], "network=discriminator: must be one of generator"),
        ("test", ["checkpoint=x", "split=everything"], "split=everything: must be one of train, val, test"),
        ("test", ["checkpoint=x", "batch_size=two"], "batch_size=two: must be a whole number"),
        ("test", ["checkpont=x"], "checkpont: no such key; did you mean 'checkpoint'?"),
        ("test", ["dataset=shapes"], "dataset: is no value of its own; set dataset.root or dataset.palette"),
        ("evaluate", ["fake=a", "real=b", "images=0"], "images=0: must be at least 2, or null"),
        ("evaluate", ["fake=a", "real=b", "batch_size=0"], "batch_size=0: must be at least 1"),
        ("evaluate", ["fake=a", "real=b", "far=nan"], "far=nan: must be a finite number"),
        ("evaluate", ["fake=a", "real=b", "far=0"], "far=0.0: must be above 0, or null"),
        ("evaluate", ["fake=a", "real=b", "which=worst"], "which=worst: must be one of last, best"),
        ("evaluate", ["fake=a", "real=b", "seed=-1"], "seed=-1: must be at least 0"),
        ("evaluate", ["fake=a", "real=b", "swd_count=many"], "swd_count=many: must be one of paper, all"),
        ("prepare", ["raw=a", "workers=-1"], "workers=-1: must be at least 0 and at most"),
        ("prepare", ["raw=a", "size=[0,4]"], "size=[0, 4]: must be at least 1 and at most 16384, or null"),
        ("prepare", ["raw=a", "size=[4]"], "size=[4]: must be [height,width], or null"),
        ("report", ["runs=a", "images=-1"], "images=-1: must be at least 0, or all"),
        ("report", ["runs=a", "images=many"], "images=many: must be all, or at least 0"),
        ("report", ["runs=a", "columns=0"], "columns=0: must be at least 1"),
        ("report", ["runs=a", "quality=101"], "quality=101: must be at least 1 and at most 100, or null"),
        ("analyze", ["checkpoint=a", "images=0"], "images=0: must be at least 1"),
        ("analyze", ["checkpoint=a", "patch=[0.5,1.5]"], "patch=[0.5, 1.5]: must be at least 0 and at most 1"),
        ("analyze", ["checkpoint=a", "beta=0"], "beta=0.0: must be above 0, or null"),
        ("analyze", ["checkpoint=a", "direction=soft"], "direction=soft: must be one of hard, easy, or null"),
        ("export", ["checkpoint=a", "out=x.json"], "out=x.json: must be a file name that ends in .pt2, or null"),
        ("train_segmenter", ["steps=0"], "steps=0: must be at least 1"),
        ("train_segmenter", ["backbone=other"], "backbone=other: must be one of lite2"),
        ("weights", ["offline=perhaps"], "offline=perhaps: must be true or false"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_one_line(refused, tmp_path, entry, words, line):
    own = [f"hydra.run.dir={tmp_path / 'run'}"] if entry == "train" and "checkpoints/" not in line else []
    assert refused(entry, *(TINY if own else ()), *words, *own).startswith(line)


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("train.steps=ten", "train.steps=ten: must be a whole number"),
        ("train.lr=fast", "train.lr=fast: must be a number"),
        ("train.ttur=maybe", "train.ttur=maybe: must be true or false"),
        ("train.schedule=linear", "train.schedule=linear: must be one of spade, cut"),
        ("train.betas=0.5", "train.betas=0.5: must be a list, such as [1,2]"),
        ("train.epochs=null", "train.epochs=null: must be a value, not null"),
        ("Größe=3", "Größe=3: not readable as KEY=VALUE; the key holds 'ö'"),
        ("dataset", "dataset: not readable as KEY=VALUE"),
        ("dataset.foo=1", "dataset.foo: no such key; did you mean"),
        ("train.stepz=1", "train.stepz: no such key; did you mean 'train.steps'?"),
        ("model.generator.widht=1", "model.generator.widht: no such key; did you mean 'model.generator.width'?"),
    ],
)  # fmt: skip
def test_a_word_that_cannot_be_read_is_one_line_about_it(refused, word, line):
    found = refused("train", "train.lr=1e-3", word)
    assert found.startswith(line) and "Hydra" not in found and "'dataset'?" not in found


@pytest.mark.parametrize(("name", "letter"), [("Größe", "ö"), ("a&b", "&"), ("a=b", "="), ("(a", "("), ("it's", "'")])
def test_a_value_that_needs_quotes_is_told_which_letter_and_how(refused, name, letter):
    quoted = f'dataset.name="{name}"'
    line = refused("train", "train.lr=1e-3", f"dataset.name={name}")
    assert line == (
        f"dataset.name={name}: not readable as KEY=VALUE; a value with {letter} needs inner quotes: '{quoted}'"
    )
    assert config(quoted).dataset.name == name


def test_a_failed_job_of_a_multirun_is_named(refused, tmp_path):
    line = refused("train", "-m", *TINY, f"hydra.sweep.dir={tmp_path}", "seed=4", "train.lr=0,1")
    assert line == "job 0 (train.lr=0): train.lr=0.0: must be above 0"


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 came without RANK, MASTER_ADDR, MASTER_PORT: start the ranks by torchrun"),
        ({"RANK": "1"}, "RANK=1 came without WORLD_SIZE, MASTER_ADDR, MASTER_PORT"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two: a whole number is expected"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost"}, "WORLD_SIZE=2 came without MASTER_PORT"),
    ],
)
def test_a_part_of_torchruns_variables_is_refused(refused, variables, line):
    for entry in ("train", "evaluate"):
        assert refused(entry, **variables).startswith(line)


def test_a_rank_of_no_world_is_refused(capsys):
    variables = {"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    with pytest.raises(SystemExit):
        launch.check_environment(variables)
    assert "RANK=2: is no rank of WORLD_SIZE=2, which are 0 to 1" in capsys.readouterr().err
    launch.check_environment({"WORLD_SIZE": "1"})
    launch.check_environment({**variables, "RANK": "1"})


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_rank_alone_gives_up_soon(monkeypatch, rank):
    alone = {"WORLD_SIZE": "2", "RANK": rank, "MASTER_ADDR": "localhost", "MASTER_PORT": "29561"}
    for name, value in {**alone, "PATCHWISE_RENDEZVOUS": "2"}.items():
        monkeypatch.setenv(name, value)
    line = rf"rank {rank} of WORLD_SIZE=2: not all ranks came within 2 s to MASTER_ADDR=localhost"
    with pytest.raises(UserError, match=line), distributed.ranks(torch.device("cpu")):
        pass


class Killed(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_one_line():
    line = r"a worker of the data loader .*the last checkpoint is whole.*fewer workers need less \(train.workers=0"
    with pytest.raises(UserError, match=line), explained_workers("train.workers"):
        next(iter(DataLoader(Killed(), num_workers=1)))
    with pytest.raises(RuntimeError, match="another"), explained_workers("train.workers"):
        raise RuntimeError("another")


def test_every_schema_is_what_its_file_says():
    """The keys of configs/<command>.yaml are those of its schema, and the defaults lie in their ranges."""
    for entry, schema in schemas.ENTRIES.items():
        words = {
            "test": ["checkpoint=x"],
            "export": ["checkpoint=x"],
            "analyze": ["checkpoint=x"],
            "report": ["runs=x"],
        }
        cfg = config(*words.get(entry, ()), name=entry)
        assert (
            set(cfg) == set(schema.__dataclass_fields__)
            and f"{entry}_schema" in (CONFIGS / f"{entry}.yaml").read_text()
        )
        check_ranges(cfg)
    assert "train.steps" in trunk_keys() and "batch_size" in trunk_keys("test") and "dataset" not in trunk_keys("test")
    assert {"dataset.root", "dataset.palette"} < set(trunk_keys("test"))
    assert outside(0, Train.__annotations__["batch_size"]) == "at least 1"
    check_ranges(config("experiment=demo"), Config)
