"""scripts/export.py: programs that need nothing of ours give test.py's pixels at any size."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from engine.checkpoint import contents, write
from engine.inputs import Inputs
from errors import UserError
from models.resnet import ResnetGenerator
from models.spade import SPADEGenerator
from scripts import export as exporting
from tests.compose import config, entry_file

FOLDER = ("dataset=folder", "model.generator.width=2")
LABELS = Inputs(6, 3, labels=True, classes=5, ignore=255, instance=False)
EDGES = Inputs(6, 3, labels=True, classes=5, ignore=None, instance=True)
IMAGE = Inputs(3, 3, labels=False, classes=None, ignore=None, instance=False)
CUT = ("experiment=cut", "model.generator.width=2", "model.generator.blocks=2")


def checkpoint(folder: Path, inputs: Inputs, generator: nn.Module, *words: str) -> Path:
    torch.manual_seed(1)
    for parameter in generator.parameters():
        nn.init.normal_(parameter, std=0.3)
    path = folder / "last.pt"
    write(path, contents(config(*words), 7, inputs, networks={"generator": generator.state_dict()}, encoder=None))
    return path


def run(path: Path) -> Path:
    return exporting.export(config(f"checkpoint={path}", name="export"))


@pytest.mark.parametrize("kind", ["labels", "image"])
def test_a_program_gives_the_pixels_of_test(tmp_path: Path, kind: str):
    labels = kind == "labels"
    words = (*FOLDER, "dataset.classes=5", "dataset.ignore=255") if labels else CUT
    network = SPADEGenerator(6, width=2, hidden=4) if labels else ResnetGenerator(3, width=2, blocks=2)
    path = checkpoint(tmp_path, LABELS if labels else IMAGE, network, *words)
    assert run(path) == tmp_path / "generator_7.pt2"
    about = json.loads((tmp_path / "generator_7.json").read_text())
    assert (about["source"], about["ignore"]) == (("label ids", 255) if labels else ("image", None))

    random = np.random.default_rng(0)
    sources = tmp_path / "in"
    sources.mkdir()
    for name, size in (("a", (97, 70)), ("b", (40, 256))):
        source = random.integers(0, 5, size, np.uint8) if labels else random.integers(0, 256, (*size, 3), np.uint8)
        if labels:
            source[:9] = 255
        Image.fromarray(source).save(sources / f"{name}.png")
    made = entry_file("test.py").test(config(f"checkpoint={path}", f"input={sources}", name="test"))

    # in a process that knows nothing of ours
    code = """
import numpy, torch
from PIL import Image
program = torch.export.load("generator_7.pt2").module()
for name in "ab":
    source = torch.from_numpy(numpy.array(Image.open(f"in/{name}.png")))
    source = source[None, None] if source.ndim == 2 else source.permute(2, 0, 1)[None]
    Image.fromarray(program(source)[0].permute(1, 2, 0).numpy()).save(f"{name}.png")
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    for name in "ab":
        found, wanted = (np.asarray(Image.open(place / f"{name}.png")).astype(int) for place in (tmp_path, made))
        assert found.shape == wanted.shape and wanted.std() > 10
        assert np.abs(found - wanted).max() <= 1


@pytest.mark.slow
def test_edges_of_instances_are_a_second_argument(tmp_path: Path):
    words = (*FOLDER, "dataset.classes=5", "dataset.instance=true")
    out = run(checkpoint(tmp_path, EDGES, SPADEGenerator(6, width=2, hidden=4), *words))
    program = torch.export.load(out).module()
    ids, one = torch.zeros(1, 1, 64, 64, dtype=torch.uint8), torch.zeros(1, 1, 64, 64, dtype=torch.int64)
    halves = one.clone()
    halves[..., 32:] = 1
    assert not torch.equal(program(ids, one), program(ids, halves))


def test_noise_is_refused(tmp_path: Path):
    words = (*FOLDER, "dataset.classes=5", "dataset.ignore=255", "model.generator.noise=true")
    path = checkpoint(tmp_path, LABELS, SPADEGenerator(6, width=2, hidden=4, noise=True), *words)
    with pytest.raises(UserError, match=r"draws noise \(model.generator.noise\)"):
        run(path)


def test_a_program_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = checkpoint(tmp_path, IMAGE, ResnetGenerator(3, width=2, blocks=2), *CUT)
    monkeypatch.setattr(exporting, "to_uint8", lambda image: (image * 0 + 9).to(torch.uint8))
    with pytest.raises(RuntimeError, match="grey levels"):
        run(path)
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]
