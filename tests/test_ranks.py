"""Every host with every kind of loss on two gloo ranks: nothing is unused, and both ranks end with equal networks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.compose import UNPAIRED, config
from train import train

ROOT = Path(__file__).resolve().parents[1]
SPADE = (
    "train.batch_size=2", "train.workers=0", "train.samples=0", "dataset.size=[64,64]",
    "dataset.lengths={train:8,val:2,test:2}", "model.generator.width=2", "model.discriminator.width=2",
    "nce.patches=16", "encoder=pixel", "encoder.scales=[8,16]", "objective.contrast.term.dim=8",
)  # fmt: skip
CUT = (*UNPAIRED, "setting=unpaired", "encoder=generator", "objective.contrast.term.dim=8")
VGG = ("encoder=vgg16", "encoder.pretrained=false", "encoder.layers=[relu1_1,relu2_1]")
SESIM = (*UNPAIRED, "setting=unpaired", *VGG, "train.pool=2")
CYCLE = (*UNPAIRED, "setting=cycle", "train.pool=2")
ROWS = {
    **{f"spade_{loss}": (*SPADE, f"loss={loss}") for loss in ("l1", "perceptual", "patchnce", "weightnce", "monce")},
    **{f"cut_{loss}": (*CUT, "objective=cut", f"loss={loss}") for loss in ("patchnce", "weightnce", "monce")},
    "cut_fast": (*CUT, "objective=fastcut", "setting.flip_equivariance=true"),
    "cut_gan": (*UNPAIRED, "setting=unpaired", "objective=gan", "loss=none"),
    "cycle": (*CYCLE, "objective=cycle", "loss=none"),
    **{
        f"cycle_{loss}": (
            *CYCLE, "objective=cut", "encoder=generator", f"loss={loss}", "objective.contrast.term.dim=8",
            "objective.contrast.term.pairs=[[fake,source],[fake_source,target]]",
        )
        for loss in ("patchnce", "weightnce", "monce", "l1")
    },
    "sesim_fixed": (*SESIM, "objective=sesim", "loss=none"),
    "sesim_l1": (*SESIM, "objective=sesim", "loss=none", "objective.spatial.term.mode=l1"),
    **{f"sesim_{loss}": (*SESIM, "objective=lsesim", f"loss={loss}") for loss in ("patchnce", "weightnce", "monce")},
}  # fmt: skip
OWN_STATISTICS = (
    *SPADE, "loss=l1", "model.generator.sync=false", "evaluate.every=3", "evaluate.images=2", "evaluate.metrics=[swd]",
)  # fmt: skip
POOLED = (*CYCLE, "objective=cycle", "loss=none", "train.batch_size=4", "train.precision=float64", "dataset.flip=false")
DIVERGED = (*SPADE, "loss=patchnce", "train.lr=1e6")


def train_rows(folder, backend="gloo"):
    """Every row on two ranks, in a folder of its name."""
    rows = {**ROWS, "own_statistics": OWN_STATISTICS, "pooled": POOLED, "diverged": DIVERGED}
    (folder / "rows.json").write_text(json.dumps({name: [*row, "train.steps=3"] for name, row in rows.items()}))
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    words += ["--rdzv-endpoint=localhost:0", "-m", "tests.ranks", str(folder), backend]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train_rows(tmp_path_factory.mktemp("ranks"))


def assert_same_networks(folder, row):
    """Of both ranks of a row."""
    one, two = (torch.load(folder / f"{row}.{rank}.pt", weights_only=True) for rank in (0, 1))
    both_ways = {"generator_source"} | ({"discriminator_source"} if row == "cycle" else set())
    assert {"generator", "discriminator"} | (both_ways if row.startswith("cycle") else set()) <= one.keys()
    assert ("parts" in one) is (row.startswith("sesim") and row not in ("sesim_fixed", "sesim_l1"))
    for name, network in one.items():
        for key, value in network.items():
            if not key.endswith(("running_mean", "running_var")):
                assert torch.equal(value, two[name][key]), f"{name}.{key}"
    saved = torch.load(folder / row / "last.pt", weights_only=True)
    assert saved["step"] == 3 and saved["networks"].keys() == one.keys()
    if "pools" in saved:
        assert all(len(pool) == 2 for pool in saved["pools"].values())


@pytest.mark.parametrize("row", ROWS)
def test_both_ranks_end_with_the_same_networks(trained, row):
    assert_same_networks(trained, row)


def test_ranks_with_statistics_of_their_own_are_measured_as_the_network_that_is_saved(trained):
    one, two = (torch.load(trained / f"own_statistics.{rank}.pt", weights_only=True) for rank in (0, 1))
    statistics = [key for key in one["generator"] if key.endswith(("running_mean", "running_var"))]
    assert statistics and all(torch.equal(one["generator"][key], two["generator"][key]) for key in statistics)


def test_a_pool_does_not_depend_on_the_number_of_ranks(trained, tmp_path):
    train(config(*POOLED, "train.steps=3"), tmp_path)
    one, two = (torch.load(folder / "last.pt", weights_only=True) for folder in (tmp_path, trained / "pooled"))
    for name, pool in one["pools"].items():
        assert len(pool) == 2
        torch.testing.assert_close(two["pools"][name], pool, rtol=0, atol=1e-5)
    for name in ("discriminator", "discriminator_source"):
        for key, value in one["networks"][name].items():
            torch.testing.assert_close(two["networks"][name][key], value, rtol=0, atol=1e-5, msg=f"{name}.{key}")


def test_every_rank_stops_at_the_same_step_and_one_bundle_is_kept(trained):
    one, two = ((trained / f"diverged.{rank}.txt").read_text() for rank in (0, 1))
    assert one == two and "above train.limit=1e+06" in one
    bundle = trained / "diverged" / "diverged"
    record = json.loads((bundle / "step.json").read_text())
    batch = torch.load(bundle / "batch.pt", weights_only=True)
    assert record["ranks"] == 2 and batch["rank"] == record["rank"] and len(batch["batches"][0]["target"]) == 1
    assert f"step {record['step']} on rank {record['rank']}: " in one
