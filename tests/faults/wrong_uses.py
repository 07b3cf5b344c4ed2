"""Wrong uses of every command: each must end in one line and exit code 1, and leave the user's files as they were.

`python -m tests.faults.wrong_uses [word=...] [every=8] [part=0/2] [json=FILE]` prints the answer to each; with `word`,
to those that contain it. Words in braces are paths below a scratch folder that `prepare_place` fills.
"""

import os
import sys
import tempfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.compose import CONFIGS
from tests.faults.commands import Done, bound_memory, start
from tests.faults.readers import make_checkpoint
from tests.faults.results import write

ROOT = CONFIGS.parent
MEMORY = 4 << 30  # bytes of address space that a command may take beside what the warm interpreter has
SMALL = (
    "encoder=pixel encoder.scales=[4] loss=l1 objective=contrast train.steps=1 train.batch_size=2 train.workers=0 "
    "train.samples=1 train.device=cpu dataset.size=[32,32] dataset.lengths={train:4,val:2,test:2} "
    "model.generator.width=2 model.discriminator.width=2 hydra.run.dir={out}/run"
)
HERE = SMALL.replace(" hydra.run.dir={out}/run", "")
OWN = (
    SMALL.replace("dataset.lengths={train:4,val:2,test:2} ", "")
    + " dataset=folder dataset.root={pairs} dataset.classes=4"
)
CUT = (
    "model=cut dataset=shapes_unpaired setting=unpaired objective=cut encoder=generator train.steps=1 "
    "train.batch_size=2 train.workers=0 train.samples=1 train.device=cpu dataset.size=[32,32] "
    "dataset.lengths={train:4,val:2,test:2} model.generator.width=2 model.generator.blocks=5 "
    "model.discriminator.width=2 hydra.run.dir={out}/run"
)
TEST = "checkpoint={run} input={images} output={out}/o device=cpu"
FOLDERS = "fake={images} real={images} metrics=[swd] cache=null out={out}/r.json device=cpu"

USES: dict[str, tuple[str, ...]] = {  # by entry file; NAME=VALUE words before `|` are environment variables
    "train.py": (
        "train.stepz=3",
        "loss=monc",
        "experiment=cutt",
        "dataset=nowhere",
        "train.steps=ten",
        "=3",
        "loss",
        "train.lr=",
        "dataset.root=a=b",
        "+objective.extra={a:1}",
        "seed=x",
        "seed=[1]",
        "train=null",
        "dataset=null",
        f"{SMALL} train.lr=nan",
        f"{SMALL} train.lr=inf",
        f"{SMALL} train.lr=-1",
        f"{SMALL} train.lr=1e400",
        f"{SMALL} dataset.size=[100000,100000]",
        f"{SMALL} dataset.size=[0,0]",
        f"{SMALL} dataset.size=[-32,32]",
        f"{SMALL} dataset.size=[32]",
        f"{SMALL} dataset.size=32",
        f"{SMALL} dataset.lengths.val=0",
        f"{SMALL} dataset.lengths.train=0",
        f"{SMALL} nce.patches=0",
        f"{SMALL} nce.patches=-4",
        f"{SMALL} model.generator.width=0",
        f"{SMALL} model.generator.width=-4",
        f"{SMALL} model.generator.width=1000000000",
        f"{SMALL} model.discriminator.width=0 objective=gan",
        f"{SMALL} train.workers=5000",
        f"{SMALL} train.workers=-1",
        f"{SMALL} train.batch_size=0",
        f"{SMALL} train.batch_size=1000000000",
        f"{SMALL} train.accumulate=0",
        f"{SMALL} train.accumulate=3",
        f"{SMALL} train.steps=-1",
        f"{SMALL} train.ema=1",
        f"{SMALL} train.ema=nan",
        f"{SMALL} train.betas=[0.5]",
        f"{SMALL} train.betas=[nan,0.9]",
        f"{SMALL} train.device=banana",
        f"{SMALL} train.device=cuda:99",
        f"{SMALL} train.precision=half",
        f"{SMALL} train.log_every=0",
        f"{SMALL} train.save_every=-1",
        f"{SMALL} train.minutes=0",
        f"{SMALL} train.minutes=nan",
        f"{SMALL} train.keep=-1",
        f"{SMALL} train.samples=-1",
        f"{SMALL} train.pool=-1",
        f"{SMALL} train.init_gain=nan",
        f"{HERE} run=../../escape",
        f"{HERE} run=/tmp/escape",
        f"{SMALL} objective.contrast.weight=nan",
        f"{SMALL} evaluate.every=-1",
        f"{SMALL} evaluate.every=1 evaluate.metrics=[sdw]",
        f"{SMALL} evaluate.every=1 evaluate.images=0",
        f"{SMALL} evaluate.every=1 evaluate.split=train",
        f"{SMALL} evaluate.every=1 evaluate.batch_size=0",
        f"{SMALL} evaluate.every=1 evaluate.metrics=[]",
        f"{SMALL} checkpoint={{none}}",
        f"{SMALL} checkpoint={{text}}",
        f"{SMALL} checkpoint={{images}}",
        f"{SMALL} hydra.run.dir={{text}}/run",
        f"{SMALL} hydra.run.dir=/proc/nowhere/run",
        f"{SMALL} +encoder._target_=os.system",
        f"{OWN} dataset.root={{none}}",
        f"{OWN} dataset.root={{text}}",
        f"{OWN} dataset.root={{empty}}",
        f"{OWN} dataset.root={{images}}",
        f"{OWN} dataset.classes=1",
        f"{OWN} dataset.classes=0",
        f"{OWN} dataset.classes=-3",
        f"{OWN} dataset.classes=1000",
        f"{OWN} dataset.palette={{none}}",
        f"{OWN} dataset.palette={{text}}",
        f"{OWN} dataset.unscored=[9]",
        f"{OWN} dataset.scored=[0,1]",
        f"{OWN} dataset.ignore=-1",
        f"{OWN} dataset.instance=true",
        f"{OWN} dataset.load_size=[8,8]",
        f"{CUT} model.generator.blocks=-1",
        f"{CUT} model.generator.blocks=0 encoder.layers=[0,4,8,99]",
        f"{CUT} model.generator.blocks=1000000000",
        f"{CUT} encoder.layers=[]",
        f"{CUT} nce.patches=0",
        f"{CUT} train.pool=-1",
        f"{CUT} objective.contrast.term.dim=0",
        f"WORLD_SIZE=2 | {SMALL}",
        f"WORLD_SIZE=x | {SMALL}",
        f"RANK=3 WORLD_SIZE=2 | {SMALL}",
        f"RANK=-1 WORLD_SIZE=2 | {SMALL}",
        "RANK=0 WORLD_SIZE=2 | -m seed=0,1",
    ),
    "test.py": (
        "",
        "checkpoint={none}",
        "checkpoint={text}",
        "checkpoint={images}",
        "checkpoint={empty}",
        "checkpoint=",
        f"{TEST} batch_size=0 input=null split=test",
        f"{TEST} workers=-1",
        f"{TEST} workers=5000",
        f"{TEST} device=banana",
        f"{TEST} device=cuda:99",
        f"{TEST} precision=half",
        f"{TEST} network=generater",
        f"{TEST} network=discriminator",
        f"{TEST} split=all input=null",
        f"{TEST} batch_size=ten",
        f"{TEST} inputs=x",
        "checkpoint={run} input={none} output={out}/o",
        "checkpoint={run} input={empty} output={out}/o",
        "checkpoint={run} input={text} output={out}/o",
        "checkpoint={run} input={broken} output={out}/o",
        "checkpoint={run} input={pipe} output={out}/o",
        "checkpoint={run} input={images} output={images}",
        "checkpoint={run} input={images} output={images}/below",
        "checkpoint={run} input={images} output={place}",
        "checkpoint={run} input={images} output={linked}",
        "checkpoint={run} input={images} output={text}/x",
        "checkpoint={run} input={images} output=/proc/nowhere",
        f"{TEST} checkpoint=[1,2]",
        f"{TEST} input=[1]",
    ),
    "evaluate.py": (
        "",
        "checkpoint={none}",
        "checkpoint={text}",
        "checkpoint={run} fake={images}",
        "fake={images}",
        "real={images}",
        f"{FOLDERS} fake={{none}}",
        f"{FOLDERS} real={{text}}",
        f"{FOLDERS} fake={{empty}}",
        f"{FOLDERS} fake={{broken}}",
        f"{FOLDERS} metrics=[sdw]",
        f"{FOLDERS} metrics=[]",
        f"{FOLDERS} metrics=swd2",
        f"{FOLDERS} batch_size=0",
        f"{FOLDERS} workers=-1",
        f"{FOLDERS} workers=5000",
        f"{FOLDERS} device=banana",
        f"{FOLDERS} seed=-1",
        f"{FOLDERS} real_size=big",
        f"{FOLDERS} swd_count=none",
        f"{FOLDERS} out={{images}}",
        f"{FOLDERS} out={{text}}/x",
        f"{FOLDERS} metrics=[segmentation]",
        f"{FOLDERS} metrics=[segmentation] segmenter={{text}}",
        f"{FOLDERS} metrics=[segmentation] segmenter={{none}}",
        f"{FOLDERS} metrics=[depth]",
        f"{FOLDERS} metric=[swd]",
        "checkpoint={run} images=0 device=cpu",
        "checkpoint={run} images=-1",
        "checkpoint={run} which=first",
        "checkpoint={run} which=best",
        "checkpoint={run} shown=-1 metrics=[swd]",
        "compare=[{text},{text}]",
        "compare=[{none}]",
        "compare={none}",
        "compare=[{images},{images}]",
    ),
    "prepare.py": (
        "dataset=camvidd",
        "dataset=camvid raw={none} out={out}/o",
        "dataset=camvid raw={text} out={out}/o",
        "dataset=camvid raw={empty} out={out}/o",
        "dataset=camvid raw={images} out={images}",
        "dataset=camvid raw={images} out={images}/below",
        "dataset=camvid raw={images} out={place}",
        "dataset=synthetic out={text}/x",
        "dataset=camvid raw={empty} out={out}/o workers=0",
        "dataset=camvid raw={empty} out={out}/o size=[0,0]",
        "dataset=camvid raw={empty} out={out}/o size=5",
        "dataset=gta raw={empty} out={out}/o split=half",
        "dataset=nyu_depth raw={empty} out={out}/o",
        "dataset=celebahq_edge raw={empty} out={out}/o edges=many",
        "dataset=deepfashion raw={empty} out={out}/o",
        "dataset=camvid raw={empty} out={out}/o allow_partial=perhaps",
        "dataset=camvid row={empty}",
    ),
    "report.py": (
        "",
        "runs={none}",
        "runs={empty}",
        "runs={text}",
        "runs={images}",
        "runs=[]",
        "runs={run} out={text}/x",
        "runs={run} images=-1",
        "runs={run} images=many",
        "runs={run} columns=0",
        "runs={run} quality=101",
        "runs={run} tittle=x",
        "runs={run} out=/proc/nowhere",
    ),
    "scripts/analyze.py": (
        "",
        "checkpoint={none}",
        "checkpoint={text}",
        "checkpoint={run} images=0",
        "checkpoint={run} patch=[2,2]",
        "checkpoint={run} patches=0",
        "checkpoint={run} term=none",
        "checkpoint={run} split=train2",
        "checkpoint={run} batch_size=0",
        "checkpoint={run} beta=nan",
        "checkpoint={run} direction=soft",
        "checkpoint={run} image=99",
        "checkpoint={run} device=banana",
        "checkpoint={run} places=0",
    ),
    "scripts/export.py": (
        "",
        "checkpoint={none}",
        "checkpoint={text}",
        "checkpoint={run} network=discriminator",
        "checkpoint={run} out=/proc/nowhere/x.pt2",
        "checkpoint={run} out={text}/x.pt2",
        "checkpoint={run} out={images}",
        "checkpoint={run} outt=x",
    ),
    "scripts/import_checkpoint.py": (
        "{none} {out}/o.pt",
        "{text} {out}/o.pt",
        "{text}",
        "{images} {out}/o.pt",
        "{run}/last.pt {out}/o.pt",
        "{run}/last.pt {run}/last.pt",
    ),
    "scripts/train_segmenter.py": (
        "dataset=nowhere",
        "out={text}/x.pt steps=1",
        "steps=0 out={out}/s.pt",
        "steps=-1 out={out}/s.pt",
        "batch_size=0 out={out}/s.pt",
        "lr=nan out={out}/s.pt",
        "lr=-1 out={out}/s.pt",
        "backbone=none out={out}/s.pt",
        "workers=-1 out={out}/s.pt",
        "device=banana out={out}/s.pt",
        "seed=-1 out={out}/s.pt",
        "input_size=[0,0] out={out}/s.pt",
        "input_size=3 out={out}/s.pt",
        "dataset=folder dataset.root={none} dataset.classes=2 out={out}/s.pt",
    ),
    "scripts/weights.py": (
        "download=[nothing]",
        "download=5 offline=true",
        "weights_dir={text} download=[x]",
        "downlod=[]",
    ),
    "scripts/run_folder.py": ("train.stepz=3", "loss=monc", "=3", "experiment=cutt"),
}


def prepare_place(place: Path) -> dict[str, Path]:
    """What the words in braces name."""
    names = ("images", "empty", "broken", "pairs", "out", "run")
    paths = {name: place / name for name in names}
    for path in paths.values():
        path.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for at in range(2):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(paths["images"] / f"{at}.png")
        for split in ("train", "val", "test"):
            for side, high in (("input", 4), ("target", 256)):
                folder = paths["pairs"] / split / side
                folder.mkdir(parents=True, exist_ok=True)
                size = (32, 32) if side == "input" else (32, 32, 3)
                Image.fromarray(rng.integers(0, high, size, dtype=np.uint8)).save(folder / f"{at}.png")
    (paths["broken"] / "0.png").write_bytes((paths["images"] / "0.png").read_bytes()[:100])
    (place / "text").write_text("no checkpoint, no image, no folder\n")
    (place / "linked").symlink_to(paths["images"], target_is_directory=True)
    (place / "pipes").mkdir()
    os.mkfifo(place / "pipes" / "0.png")
    make_checkpoint(paths["run"])
    for name in ("hostile.npy", "hostile.pt"):
        (paths["run"] / name).unlink()
    return {**paths, "place": place, "text": place / "text", "none": place / "none", "linked": place / "linked",
            "pipe": place / "pipes"}  # fmt: skip


@cache
def main_of(file: str) -> Callable[[], object]:
    """The function that an entry file launches."""
    import importlib.util

    sys.path.insert(0, str(ROOT))
    spec = importlib.util.spec_from_file_location(f"wrong_{Path(file).stem}", ROOT / file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def use(file: str, words: str, scratch: Path) -> tuple[Done, dict[str, Path], dict[str, int]]:
    """Run one use in a fork; how it ended, the paths, and what the user's files were before."""
    paths = prepare_place(scratch / "place")
    before = checksums(scratch / "place")
    variables, _, rest = words.rpartition(" | ")
    main = main_of(file)

    def run() -> None:
        from engine.launch import launch

        bound_memory(MEMORY)
        os.chdir(paths["out"])
        os.environ.update(word.split("=", 1) for word in variables.split())
        typed = [_filled(word, paths) for word in rest.split()]
        sys.argv = [file, *typed]
        launch(main)

    return start(run, scratch / "printed").wait(limit=60), paths, before


def _filled(word: str, paths: dict[str, Path]) -> str:
    for name, path in paths.items():
        word = word.replace(f"{{{name}}}", str(path))
    return word


def checksums(place: Path) -> dict[str, int]:
    """Of the user's files: everything but `out`."""
    files = [path for path in sorted(place.rglob("*")) if path.is_file() and path.parts[len(place.parts)] != "out"]
    return {str(path.relative_to(place)): zlib.crc32(path.read_bytes()) for path in files}


def verdict(file: str, words: str) -> tuple[bool, str]:
    """Whether the use was refused as it should be, and the line, or else what happened."""
    with tempfile.TemporaryDirectory() as scratch:
        done, paths, before = use(file, words, Path(scratch))
        shown = [line for line in done.output.strip().splitlines() if line.strip()]
        last = shown[-1][:200] if shown else "no output"
        if done.hung:
            return False, "hung"
        if done.traceback:
            return False, f"traceback: {last}"
        if done.codes == [0]:
            return False, f"accepted: {last}"
        if done.codes != [1] or len(done.errors) != 1 or not shown[-1].startswith("error"):
            return False, f"exit codes {done.codes}, {len(done.errors)} error lines: {last}"
        after = checksums(paths["place"])
        changed = [name for name in before if after.get(name) != before[name]]
        return not changed, f"changed {changed}" if changed else last


def main() -> None:
    """Print every answer; write JSON where asked."""
    options = {"json": "", "word": "", "every": "1", "part": "0/1", **dict(w.split("=", 1) for w in sys.argv[1:])}
    torch.set_num_threads(1)
    part, parts = (int(number) for number in options["part"].split("/"))
    step = int(options["every"])
    rows = []
    for file, words in [(file, words) for file, uses in USES.items() for words in uses][part::parts][::step]:
        if options["word"] not in f"{file} {words}":
            continue
        short = words.replace(SMALL, "SMALL").replace(OWN, "OWN").replace(CUT, "CUT").replace(HERE, "HERE")
        good, found = verdict(file, words)
        rows.append({"name": f"{file} {short}", "good": good, "found": found})
        print(f"{'ok    ' if good else 'FAILED'} {file} {short}: {found}", flush=True)
    write(options["json"], rows)


if __name__ == "__main__":
    main()
