"""Run the cases in one tree: `python tree.py TREE OUT RAW`. Every command is a fork of a process that has torch loaded.

The commands run in OUT, so that both trees write the same relative paths. Nothing of the project is imported before the
fork: a child imports the tree that it was told.
"""

import os
import runpy
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra.utils  # noqa: F401 - loaded once for all children
import torch
import torch.distributed
import torch.utils.tensorboard
import torchvision  # noqa: F401

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.same import cases


def forked(job: Callable[[], None], log: Path) -> int:
    """Start a child that runs `job` with its output in a file; returns its process id."""
    log.parent.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            try:
                job()
                code = 0
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        os._exit(code)


def command(tree: Path, words: Sequence[str]) -> Callable[[], None]:
    """`python FILE WORD ...` of a tree."""

    def job() -> None:
        for name in [name for name in sys.modules if name == "tests" or name.startswith("tests.")]:
            del sys.modules[name]
        sys.path[0] = str(tree)
        sys.argv = list(words)
        torch.set_num_threads(1)
        runpy.run_path(str(tree / words[0]), run_name="__main__")

    return job


def main(tree: Path, out: Path, raw: Path) -> int:
    """All cases; returns how many commands failed. Each prints a line when it does."""
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(out)
    failed = 0

    def run(name: str, *words: str, ranks: int = 1) -> None:
        nonlocal failed
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        children = []
        for rank in range(ranks):
            if ranks > 1:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            children.append(forked(command(tree, words), Path("logs") / f"{name}.{rank}.txt"))
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        for key in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(key, None)
        if any(codes):
            failed += 1
            text = (out / "logs" / f"{name}.0.txt").read_text(errors="replace").strip().splitlines()
            print(f"failed in {tree}: {' '.join(words)}: exit {codes}: {text[-1] if text else ''}", flush=True)

    if not raw.is_dir():
        run("synthetic", "prepare.py", "dataset=synthetic", f"out={raw}")
        return failed
    for name in cases.PREPARED:
        words = ["allow_partial=true", f"raw={raw / name.replace('celebahq_semantic', 'celebahq')}"]
        words = [word.replace("celebahq_edge", "celebahq").replace("camvid_dusk", "camvid") for word in words]
        run(f"prepare-{name}", "prepare.py", f"dataset={name}", *words, f"out=prepared/{name}")
    for name, words in cases.TRAININGS.items():
        run(name, "train.py", *words, f"hydra.run.dir=runs/{name}")
    for name, words in cases.RANKS.items():
        run(f"{name}-2", "train.py", *words, f"hydra.run.dir=ranks/{name}", ranks=2)
    depth = ("dataset=nyu_depth", "dataset.root=prepared/nyu_depth", "hydra.run.dir=runs/depth", "encoder=pixel")
    run("depth", "train.py", *cases.TRAIN, *depth, "loss=l1", "objective=contrast", "dataset.size=[64,64]")
    segmenter = (
        "train_segmenter.py",
        "dataset=shapes",
        "dataset.size=[64,64]",
        "dataset.lengths={train:8,val:2,test:4}",
    )
    run(
        "segmenter",
        f"scripts/{segmenter[0]}",
        *segmenter[1:],
        "steps=4",
        "batch_size=2",
        "workers=0",
        "out=segmenter.pt",
    )
    for name in cases.EVALUATED:
        run(f"evaluate-{name}", "evaluate.py", f"checkpoint=runs/{name}", "workers=0", "cache=null", "untrained=true")
        run(f"test-{name}", "test.py", f"checkpoint=runs/{name}", f"output=translated/{name}")
    run("evaluate-depth", "evaluate.py", "checkpoint=runs/depth", "metrics=[depth]", "workers=0", "cache=null")
    images = "runs/paired-contrast_gan/eval/images"
    folders = (f"fake={images}/20", f"real={images}/real", "workers=0", "cache=null")
    run(
        "measure",
        "evaluate.py",
        *folders,
        f"train_real={images}/train",
        f"metrics=[{cases.TWO_FOLDERS}]",
        "out=measured.json",
    )
    labels = (f"labels={images}/labels", "segmenter=segmenter.pt", "minimum_ceiling=0", "metrics=[segmentation]")
    run("segmentation", "evaluate.py", *folders, *labels, "out=segmented.json")
    run("report", "report.py", "runs=runs", "out=report", "images=2")
    for file in sorted((tree / "configs" / "experiment").rglob("*.yaml")):
        name = file.relative_to(tree / "configs" / "experiment").with_suffix("").as_posix()
        run(f"config/{name}", "train.py", f"experiment={name}", "--cfg", "job")
    return failed


if __name__ == "__main__":
    sys.exit(min(main(*(Path(word).resolve() for word in sys.argv[1:4])), 100))
