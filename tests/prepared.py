"""Raw trees and what prepare.py makes of them, for the tests of one data set each."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import prepare as command
from errors import UserError
from evaluate import evaluate
from tests.compose import config
from train import train

TINY = (  # the smallest run on a prepared folder
    "dataset.size=[64,64]",
    "train.steps=1",
    "train.batch_size=2",
    "train.workers=0",
    "train.samples=1",
    "train.log_every=1",
    "model.generator.width=2",
    "model.discriminator.width=2",
)


def run(dataset: str, raw: Path, out: Path, **options: object) -> dict:
    """The manifest that the command writes; miniature trees have fewer items than the official release."""
    given = {"workers": 2, "allow_partial": "true", **options}
    words = [f"{key}={value}" for key, value in given.items()]
    return command.prepare(config(f"dataset={dataset}", f"raw={raw}", f"out={out}", *words, name="prepare"))


def error_of(*arguments: object, **options: object) -> str:
    """The one line that the command ends in."""
    with pytest.raises(UserError) as caught:
        run(*arguments, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def complete(monkeypatch: pytest.MonkeyPatch, dataset: str) -> None:
    """Lets a miniature tree be the official release."""
    find = command.FINDERS[dataset]

    def found(raw, allow_partial):
        plan = find(raw, allow_partial)
        plan.expected.clear()
        return plan

    monkeypatch.setitem(command.FINDERS, dataset, found)


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time and bytes of every file below a folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def truncate(file: Path) -> None:
    """The first half of a file."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def shrink(file: Path) -> None:
    """An image at half its size."""
    image = Image.open(file)
    image.resize((image.width // 2, image.height // 2), Image.Resampling.NEAREST).save(file)


def paint(file: Path, value: int = 77) -> None:
    """Three pixels of an image to one value."""
    pixels = np.array(Image.open(file))
    pixels[0, :3] = value
    Image.fromarray(pixels).save(file)


def train_and_evaluate(root: Path, dataset: str, folder: Path, *words: str) -> dict:
    """The report of one training step on a prepared folder; its images, logs and checkpoint are in `folder`."""
    assert train(config(f"dataset={dataset}", f"dataset.root={root}", *TINY, *words), folder) == 1
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(value) for line in lines for value in line.values() if isinstance(value, float))
    found = config(f"checkpoint={folder}", "metrics=[swd,appearance]", "workers=0", "cache=null", name="evaluate")
    return evaluate(found)
