"""Run by test_hash_seed.py: trains every combination of setting and objective for two steps.

Arguments: a folder, and a name below it. Writes <name>.json: of each combination the digest of its checkpoint and log,
and which networks it called how often. With <name> "second" it also goes on with what "first" began.
"""

import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from engine import build as building
from engine.record import TIMING
from tests.combinations import LSESIM, combinations, count_calls
from tests.compose import config
from train import train

calls: Counter[str] = Counter()


def counted(cfg: Any, inputs: Any, _build: Any = building.build) -> Any:
    parts = _build(cfg, inputs)
    calls.clear()
    count_calls(parts, calls)
    return parts


def digest(folder: Path) -> str:
    """Of all tensors of the checkpoint in their order, and of the log but for times."""
    found = hashlib.sha256()

    def take(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found.update(value.numpy().tobytes())
        elif isinstance(value, dict):
            for key, item in value.items():
                found.update(str(key).encode())
                take(item)
        elif isinstance(value, list | tuple):
            for item in value:
                take(item)
        else:
            found.update(repr(value).encode())

    state = torch.load(folder / "last.pt", weights_only=True)
    take({key: value for key, value in state.items() if key != "config"})
    for line in (folder / "log.jsonl").read_text().splitlines():
        take({key: value for key, value in json.loads(line).items() if key not in TIMING})
    return found.hexdigest()


def main(folder: Path, name: str) -> None:
    building.build = counted
    found = {}
    for combination, words in combinations(folder / "pairs").items():
        run = folder / name / combination.replace("/", "-")
        train(config(*words, "train.steps=2"), run)
        found[combination] = {"digest": digest(run), "calls": dict(calls)}
    words, begun = combinations(folder / "pairs")[LSESIM], folder / "begun"
    if name == "first":
        train(config(*words, "train.steps=1"), begun)
    else:
        train(config(*words, "train.steps=2"), begun)
        found["resumed"] = {"digest": digest(begun), "calls": {}}
    (folder / f"{name}.json").write_text(json.dumps(found))


main(Path(sys.argv[1]), sys.argv[2])
