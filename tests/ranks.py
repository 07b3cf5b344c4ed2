"""Run under torchrun by test_ranks.py: trains every row of rows.json, {name: overrides}; keeps each rank's networks,
or what it said when it diverged.

Arguments: the folder of rows.json, and the backend, gloo or nccl.
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist

import train
from engine import build, distributed
from errors import Diverged
from tests.compose import config

made = []


def remembered(cfg, inputs, _build=build.build):
    made.append(_build(cfg, inputs))
    return made[-1]


build.build = remembered
folder, backend = Path(sys.argv[1]), sys.argv[2]
if backend == "nccl":
    torch.cuda.set_device(distributed.choose_device("cuda"))
dist.init_process_group(backend)  # one for all rows: torchrun's store does not take a second one
distributed.ranks = lambda device: nullcontext()
for name, overrides in json.loads((folder / "rows.json").read_text()).items():
    try:
        train.train(config(*overrides), folder / name)
    except Diverged as error:
        (folder / f"{name}.{distributed.rank()}.txt").write_text(str(error))
        continue
    networks = {key: network.state_dict() for key, network in made[-1].networks.items()}
    torch.save(networks, folder / f"{name}.{distributed.rank()}.pt")
dist.destroy_process_group()
