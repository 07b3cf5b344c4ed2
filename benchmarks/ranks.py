"""Images/s of a small training on 1 and 2 gloo ranks: `python -m benchmarks.ranks [steps=36] [threads=1] [small=1]`.

Each is a run of train.py itself under torchrun on the generated shapes, with four images a step and rank; the number is
the mean of its log's after the first line. What two ranks exchange in a step is counted from the networks: gradients of
every optimizer's parameters, and the statistics of each synchronised batch norm. `json=FILE` writes both.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from engine.build import build, build_dataset
from engine.inputs import Inputs
from models.blocks import BatchNorm
from tests.compose import config

ROOT = Path(__file__).resolve().parents[1]
WORDS = ("encoder=conv6", "model.generator.width=16", "dataset.size=[64,64]", "train.samples=0", "train.workers=1")
SMALL = ("model.generator.width=2", "model.discriminator.width=2", "nce.patches=16", "train.workers=0")
RANKS = 2
EACH = 4  # images of a step on each rank


def speed(ranks: int, steps: int, threads: int, words: tuple[str, ...], folder: Path) -> float:
    """Images/s of a run of `steps` steps in `folder`, over all ranks."""
    every = max(1, steps // 6)
    words = (*words, f"train.batch_size={EACH * ranks}", f"train.steps={steps}", f"train.log_every={every}")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "train.py"]
    environ = {**os.environ, "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    options = {"cwd": ROOT, "env": environ, "check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*start, *words, f"hydra.run.dir={folder}", "train.device=cpu"], **options)
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    seconds = [1 / row["images_per_second"] for row in rows[1:]]  # an image; the first line holds the start
    return len(seconds) / sum(seconds)


def exchanged(words: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """Bytes that two ranks sum in a step, and, where it is certain, by how many all-reduces; by what they are."""
    cfg = config(*words)
    parts = build(cfg, Inputs.of(build_dataset(cfg, "test", augment=False)))
    found = {"gradients of generator": (4 * sum(p.numel() for p in parts.trained()), 0)}
    for name, step in parts.other_steps.items():
        found[f"gradients of {name}"] = (4 * sum(p.numel() for p in step.parameters()), 0)
    norms = [m for m in parts.generator.modules() if isinstance(m, BatchNorm) and m.sync]
    channels = sum(norm.running_mean.numel() for norm in norms)
    found["batch norm, forward and backward"] = (2 * RANKS * 3 * 4 * channels, 2 * len(norms))
    return found


def main() -> None:
    """Print the table; write JSON where asked."""
    options = {"steps": "36", "threads": "1", "small": "0", "json": "", **dict(w.split("=", 1) for w in sys.argv[1:])}
    small = options["small"] == "1"
    words, steps = (*WORDS, *(SMALL if small else ())), 6 if small else int(options["steps"])
    with tempfile.TemporaryDirectory() as folder:
        speeds = {n: speed(n, steps, int(options["threads"]), words, Path(folder) / str(n)) for n in (1, RANKS)}
    for ranks, value in speeds.items():
        print(f"{ranks} rank(s) of {options['threads']} thread(s) {value:8.2f} images/s")
    print(f"{speeds[RANKS] / RANKS / speeds[1]:.1%} of {RANKS} times one rank")
    found = exchanged(words)
    for name, (size, calls) in found.items():
        print(f"{name:36} {size / 2**20:8.2f} MB a step" + (f" in {calls} messages" if calls else ""))
    if options["json"]:
        Path(options["json"]).write_text(json.dumps({"images_per_second": speeds, "exchanged": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
