"""Every reader of files that others may have written, with a valid sample of each: what the fuzzer mutates."""

import io
import json
import random
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from data.labels import read_palette
from data.prepare.joints import read_openpose, read_table
from data.prepare.lists import read_lists
from data.reading import LabelReader, read_depth, read_image, read_instance
from engine.build import build, build_dataset, settle_channels
from engine.checkpoint import Loaded, contents, write
from engine.inputs import Inputs
from engine.render import load_generator
from metrics import protocol
from metrics.images import image_files, read
from models.weights import read_state
from pixels import read_header
from results.collect import collect
from tests.compose import UNPAIRED, config, entry_file
from tests.faults.mutations import (
    mutate_bytes,
    mutate_checkpoint,
    mutate_json,
    mutate_lines,
    mutate_state,
    mutate_yaml,
)
from tests.run_folders import make_run

Mutate = Callable[[bytes, random.Random], bytes]
CPU = torch.device("cpu")
TINY = (*UNPAIRED, "setting=unpaired", "objective=cut", "encoder=generator", "objective.contrast.term.dim=8")


@dataclass(frozen=True)
class Reader:
    """A way in.

    make: writes valid files below a folder and returns the one to mutate; read: what a command does with it.
    mutate: None where the file is broken already.
    same: whether a changed file that was read without a word holds what the valid one held; None: any content is as
        good as another.
    share: of all cases: fewer where one takes seconds, more where attacks come from.
    starts: whether it starts an interpreter of its own, which is no execution.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    mutate: Mutate | None = mutate_bytes
    same: Callable[[Any, Any], bool] | None = None
    share: int = 10
    starts: bool = False


def _image(mode: str, suffix: str, **options: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        values = np.random.default_rng(0).integers(0, 4, (24, 20, 3), dtype=np.uint8)
        values = values * 60 if mode == "RGB" else values[..., 0]
        image = Image.fromarray(values.astype(np.uint16) if mode == "I;16" else values)
        if mode == "P":
            image.putpalette([value for index in range(4) for value in (index * 60, 0, 0)])
        file = folder / f"file{suffix}"
        image.save(file, **options)
        return file

    return make


def _npy(folder: Path) -> Path:
    np.save(folder / "file.npy", np.zeros((8, 6, 3), np.uint8))
    return folder / "file.npy"


def _text(name: str, text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_text(text)
        return folder / name

    return make


def _data_set(folder: Path) -> Path:
    """A paired folder with a manifest; returns the manifest."""
    from data.manifest import write_manifest

    for split in ("train", "val", "test"):
        for side in ("input", "target"):
            (folder / split / side).mkdir(parents=True)
            for index in range(2):
                values = np.full((32, 32) if side == "input" else (32, 32, 3), index, np.uint8)
                Image.fromarray(values).save(folder / split / side / f"{index}.png")
    write_manifest(
        folder,
        dataset="own",
        options={},
        source_counts={"all": 6},
        labels={"kind": "ids", "classes": 2, "ignore": None},
        instance=False,
        image_size=[32, 32],
        splits={split: ["0", "1"] for split in ("train", "val", "test")},
        dropped=[],
    )
    return folder / "manifest.json"


@cache
def _data_config() -> Any:
    tiny = ("dataset=folder", "dataset.root=.", "dataset.classes=2", "dataset.size=[32,32]")
    return config(*tiny, "dataset.name=own")


def _read_data_set(manifest: Path) -> Any:
    cfg = _data_config().copy()
    cfg.dataset.root = str(manifest.parent)
    data = build_dataset(cfg, "train", augment=False)
    data.verify()
    return len(data), data[0]["name"]


@cache
def _checkpoint_state() -> tuple[Any, Any, dict[str, Any]]:
    cfg = config(*TINY)
    inputs = Inputs.of(build_dataset(cfg, "train", augment=True))
    settle_channels(cfg, inputs)
    networks = {name: network.state_dict() for name, network in build(cfg, inputs).networks.items()}
    return cfg, inputs, networks


def make_checkpoint(folder: Path) -> Path:
    """A tiny CUT run's last.pt, as train.py writes it."""
    cfg, inputs, networks = _checkpoint_state()
    state = contents(cfg, 2, inputs, networks=networks, optimizers={}, record={"count": 0}, encoder=None)
    write(folder / "last.pt", state)
    np.save(folder / "hostile.npy", np.array([_Hostile()], object), allow_pickle=True)
    torch.save(_Hostile(), folder / "hostile.pt")
    return folder / "last.pt"


class _Hostile:
    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch canary-was-called",)


def _read_checkpoint(path: Path) -> Any:
    loaded = Loaded.open(str(path))
    generator = load_generator(loaded, CPU)
    return {name: value.clone() for name, value in generator.state_dict().items()}


def _same_tensors(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def _run_folder(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        run = make_run(folder / "run", metrics={"swd": {"value": 1.0, "better": "lower"}}, log=4)
        (run / "progress.txt").write_text("4 of 4\n")
        return run / name

    return make


def _read_report(path: Path) -> Any:
    """As report.py does, without its page."""
    run = path
    while run.name != "run":
        run = run.parent
    collection = collect([str(run)])
    from results.sections import sections
    from results.tables import comma_separated, latex, markdown

    made = sections(collection)
    return markdown(made, "title", None), latex(made, None), comma_separated(made, None)


def _two_reports(folder: Path) -> Path:
    file = _run_folder("eval/100.json")(folder)
    file.with_name("other.json").write_bytes(file.read_bytes())
    return file


def _compare(path: Path) -> Any:
    return protocol.compare(protocol.read(path), protocol.read(path.with_name("other.json")), True)


def _train_folder(name: str) -> Callable[[Path], Path]:
    """A run of two steps of train.py, that is to go on; the file to mutate is `name`."""

    def make(folder: Path) -> Path:
        from train import train

        train(_train_config(), folder / "run")
        return folder / "run" / name

    return make


@cache
def _train_config() -> Any:
    return config(*TINY, "train.samples=0", "train.device=cpu")


def _go_on(path: Path) -> Any:
    """As train.py does when it is started again."""
    from train import train

    return train(_train_config().copy(), path.parent)


def _render_json(folder: Path) -> Path:
    for name in ("a", "b"):
        Image.new("RGB", (16, 16)).save(folder / f"{name}.png")
    note = {"checkpoint": "last.pt", "network": "generator", "step": 2, "mode": "eval", "average": False}
    note |= {"split": "test", "input": None, "precision": "float32", "images": 2}
    (folder / "render.json").write_text(json.dumps(note))
    return folder / "render.json"


def _read_outputs(path: Path) -> Any:
    """As test.py into the folder, and evaluate.py of it."""
    about = {"network": "generator", "split": "test", "input": None}
    entry_module().refuse_mixture(path.parent, about)
    return [read(file).shape for file in image_files(path.parent, "fake")]


@cache
def entry_module() -> Any:
    """test.py."""
    return entry_file("test.py")


def _official(folder: Path) -> Path:
    from models.official import official_name
    from models.resnet import ResnetGenerator

    network = ResnetGenerator(3, width=2, blocks=1)
    state = {official_name(name): value for name, value in network.state_dict().items()}
    torch.save(state, folder / "latest_net_G.pth")
    return folder / "latest_net_G.pth"


def _import(path: Path) -> Any:
    from scripts.import_checkpoint import import_checkpoint

    return import_checkpoint([path], path.with_name("out.pt"), ["model.generator.blocks=1"]).stat().st_size


def _openpose(folder: Path) -> Path:
    (folder / "a_candidate.txt").write_text("".join(f"{20 + i}.5 {30 + i} 0.9 {i}\n" for i in range(18)))
    (folder / "a_subset.txt").write_text(" ".join(str(i) for i in range(18)) + " 20.0 18\n")
    return folder / "a_candidate.txt"


def _openpose_subset(folder: Path) -> Path:
    return _openpose(folder).with_name("a_subset.txt")


def _joints(path: Path) -> Any:
    from data.prepare.skeleton import skeleton

    joints = read_openpose(path.with_name("a_candidate.txt"), path.with_name("a_subset.txt"))
    return skeleton(joints)[0].shape


def _mat(folder: Path) -> Path:
    from scipy.io import savemat

    savemat(folder / "splits.mat", {"trainNdxs": np.arange(1, 5), "testNdxs": np.arange(5, 8)})
    return folder / "splits.mat"


def _read_mat(path: Path) -> Any:
    return read_lists(path, {"a": "trainNdxs", "b": "testNdxs"}, "replace it")


def _hdf5(folder: Path) -> Path:
    import h5py

    from data.prepare.nyu_depth import FILE

    with h5py.File(folder / FILE, "w") as stored:
        stored["images"] = np.zeros((2, 3, 20, 24), np.uint8)
        stored["depths"] = np.full((2, 20, 24), 2.0, np.float32)
    return folder / FILE


def _nyu(path: Path) -> Any:
    from data.prepare.nyu_depth import find

    plan = find(path.parent, True)
    return [drawn.draw((16, 16)).shape for item in plan.items for drawn in item.files.values()]


def _segmenter(folder: Path) -> Path:
    from models.segmenters import SegmenterConfig, build_segmenter, save_segmenter

    settings = SegmenterConfig("lite2", 2, (32, 32), None, "own", 0, 1)
    save_segmenter(folder / "segmenter.pt", build_segmenter(settings, pretrained=False), settings)
    return folder / "segmenter.pt"


def _load_segmenter(path: Path) -> Any:
    from models.segmenters import load_segmenter

    return type(load_segmenter(path)).__name__


def _header_and_image(path: Path) -> Any:
    return read_header(path), read_image(path).shape, read(path).shape


LABELS = LabelReader(4, palette={(0, 0, 0): 0, (60, 0, 0): 1, (120, 0, 0): 2, (180, 0, 0): 3})
IDS = LabelReader(4)
TABLE = "name:keypoints_y:keypoints_x\n" + "".join(f"a{n}.jpg:{[20 + n] * 18}:{[30] * 18}\n" for n in range(3))
READERS: dict[str, Reader] = {
    "PNG": Reader(_image("RGB", ".png"), _header_and_image),
    "JPEG": Reader(_image("RGB", ".jpg"), _header_and_image),
    "WebP": Reader(_image("RGB", ".webp"), _header_and_image),
    "TIFF": Reader(_image("RGB", ".tif"), _header_and_image),
    "BMP": Reader(_image("RGB", ".bmp"), _header_and_image),
    "PPM": Reader(_image("RGB", ".ppm"), _header_and_image),
    "label ids": Reader(_image("L", ".png"), IDS.read),
    "label ids of 2 bits": Reader(_image("P", ".png", bits=2), IDS.read),
    "label colours": Reader(_image("P", ".png"), LABELS.read),
    "instance map": Reader(_image("I;16", ".png"), read_instance),
    "depth map": Reader(_image("I;16", ".png"), read_depth),
    ".npy": Reader(_npy, lambda path: (read_header(path), read_image(path).shape)),
    "palette of text": Reader(_text("p.txt", "0 0 0 0 road\n1 60 0 0\n# c\n2,120,0,0\n"), read_palette, mutate_lines),
    "palette of JSON": Reader(_text("p.json", '{"0": [0, 0, 0], "1": [60, 0, 0]}'), read_palette, mutate_json),
    "manifest.json": Reader(_data_set, _read_data_set, mutate_json),
    "render.json": Reader(_render_json, _read_outputs, mutate_json),
    "log.jsonl, report.py": Reader(_run_folder("log.jsonl"), _read_report, mutate_lines),
    "config.yaml, report.py": Reader(_run_folder("config.yaml"), _read_report, mutate_yaml),
    "environment.json": Reader(_run_folder("environment.json"), _read_report, mutate_json),
    "progress.txt": Reader(_run_folder("progress.txt"), _read_report, mutate_lines),
    "report.json, report.py": Reader(_run_folder("eval/100.json"), _read_report, mutate_json),
    "report.json, compare": Reader(_two_reports, _compare, mutate_json),
    "checkpoint": Reader(make_checkpoint, _read_checkpoint, mutate_checkpoint, _same_tensors, share=40),
    "config.yaml, train.py": Reader(_train_folder("config.yaml"), _go_on, mutate_yaml, share=5),
    "log.jsonl, train.py": Reader(_train_folder("log.jsonl"), _go_on, mutate_lines, share=5),
    "last.pt, train.py": Reader(_train_folder("last.pt"), _go_on, mutate_checkpoint, share=5),
    "official weights": Reader(_official, _import, mutate_state, share=2),
    "any weights": Reader(_official, lambda path: len(read_state(path, "weights")), mutate_state),
    "segmenter": Reader(_segmenter, _load_segmenter, mutate_state),
    "OpenPose candidates": Reader(_openpose, _joints, mutate_lines),
    "OpenPose subset": Reader(_openpose_subset, _joints, mutate_lines),
    "keypoint table": Reader(_text("t.csv", TABLE), read_table, mutate_lines),
    "MATLAB lists": Reader(_mat, _read_mat, share=2, starts=True),
    "HDF5": Reader(_hdf5, _nyu),
}
_samples = tempfile.TemporaryDirectory()  # removed when the process ends that made them, not its forks


@cache
def sample(name: str) -> tuple[Path, str]:
    """A folder with a reader's valid files, made once, before forks; and the file to mutate, relative to it."""
    folder = Path(_samples.name) / str(len(list(Path(_samples.name).iterdir())))
    folder.mkdir()
    with redirect_stdout(io.StringIO()):
        file = READERS[name].make(folder)
    return folder, str(file.relative_to(folder))
