"""Broken files that have failed once, drawn by code and kept for ever: each is read, or refused with one line.

`python -m tests.faults.corpus [name=...] [json=FILE]` prints the answer to each. A case never leaves this list; a new
one is added with the fault that it found.
"""

import io
import json
import os
import shutil
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from data.labels import read_palette
from data.reading import LabelReader, read_image
from tests.faults.fuzz import fuzz_one
from tests.faults.mutations import MARK, Program, sealed
from tests.faults.readers import READERS, Reader, sample
from tests.faults.results import write


@dataclass(frozen=True)
class Case:
    """A reader of readers.py, what is done to its valid file, and the answer: "read", "refused", or "either" where the
    one is as good as the other. `holds`: what reading must give where the content matters."""

    reader: str
    change: Callable[[Path], Any]
    answer: str = "refused"
    holds: Callable[[Path], bool] | None = None


def _bytes(content: bytes) -> Callable[[Path], Any]:
    return lambda file: file.write_bytes(content)


def _edit(change: Callable[[bytes], bytes]) -> Callable[[Path], Any]:
    return lambda file: file.write_bytes(change(file.read_bytes()))


def _json(**values: Any) -> Callable[[Path], Any]:
    """Other values of a JSON file's keys."""
    return _edit(lambda content: json.dumps({**json.loads(content), **values}).encode())


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, color: int, rows: bytes) -> bytes:
    """A PNG of given header; rows: filter bytes and packed pixels, not compressed yet."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _saved(image: Image.Image, suffix: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, suffix, **options)
    return out.getvalue()


def _turned(orientation: int) -> bytes:
    """Left half dark, right half light, as a camera held upside down or sideways stores it."""
    upright = np.zeros((16, 16, 3), np.uint8)
    upright[:, 8:] = 200
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = {3: np.rot90(upright, 2), 6: np.rot90(upright, 1), 8: np.rot90(upright, -1)}[orientation]
    return _saved(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)


def _is_upright(file: Path) -> bool:
    pixels = read_image(file)
    return bool(pixels[:, :, :8].max() < 100 < pixels[:, :, 8:].min())


def _state(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    """A checkpoint that was changed and sealed again."""

    def apply(file: Path) -> None:
        state = torch.load(file, weights_only=True)
        os.chdir(file.parent)
        file.write_bytes(sealed(change(state) or state))

    return apply


def _config(**values: Any) -> Callable[[Path], Any]:
    """Values of a checkpoint's config by dotted key with __ for a dot; a dictionary takes the place of a node."""

    def change(state: dict[str, Any]) -> None:
        config = json.loads(state["config"])
        for key, value in values.items():
            *parents, last = key.split("__")
            node = config
            for name in parents:
                node = node[name]
            if isinstance(value, dict) and isinstance(node.get(last), dict):
                node[last].update(value)
            else:
                node[last] = value
        state["config"] = json.dumps(config)

    return _state(change)


def _run(*words: str) -> dict[str, Any]:
    return {"_target_": "os.system", "command": f"touch {MARK}", **dict.fromkeys(words)}


def _flip_tensor(file: Path) -> None:
    """One bit of the weights themselves, not of the container."""
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as stored:
        info = max((one for one in stored.infolist() if "/data/" in one.filename), key=lambda one: one.file_size)
        start = info.header_offset + 30 + sum(struct.unpack("<HH", content[info.header_offset + 26 :][:4]))
    content[start + info.file_size // 2] ^= 1
    file.write_bytes(bytes(content))


def _program(file: Path) -> None:
    state = torch.load(file, weights_only=True)
    torch.save({**state, "step": Program(os.system, f"touch {MARK}")}, file)


def _bomb(file: Path) -> None:
    """Zeros where a tensor was, 256 MiB of them in a file of less than one."""
    plain = file.read_bytes()
    with zipfile.ZipFile(io.BytesIO(plain)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        chosen = next(name for name in old.namelist() if "/data/" in name)
        for name in old.namelist():
            with new.open(name, "w") as out:
                for _ in range(256 if name == chosen else 0):
                    out.write(bytes(2**20))
                if name != chosen:
                    out.write(old.read(name))


def _npy_header(text: str, data: bytes = b"") -> bytes:
    header = text.encode() + b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def _npz(file: Path) -> None:
    with file.open("wb") as out:
        np.savez(out, np.zeros((4, 4, 3), np.uint8))


def _fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _loop(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


def _animation(file: Path) -> None:
    frames = [Image.new("RGB", (16, 16), (shade, 0, 0)) for shade in (10, 200)]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:], duration=100)


def _hidden(file: Path) -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[..., :3] = 255
    Image.fromarray(pixels).save(file)


LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
NESTED = b"[" * 100000
DEEP_JSON = {
    f"{reader} of 100,000 brackets": Case(reader, _bytes(NESTED), "either")
    for reader in READERS
    if "json" in reader or reader in ("palette of JSON", "config.yaml, report.py")
}
FOUR_IDS = png(4, 1, 2, 0, b"\x00\x1b")  # 0, 1, 2, 3 in one byte
CASES: dict[str, Case] = {
    # images
    "PNG, empty file": Case("PNG", _bytes(b"")),
    "PNG, cut in the middle": Case("PNG", _edit(lambda content: content[: len(content) // 2])),
    "PNG, cut after the header": Case("PNG", _edit(lambda content: content[:33])),
    "PNG, zero width": Case("PNG", _bytes(png(0, 4, 8, 2, b"\x00"))),
    "PNG, header of 60,000 x 60,000": Case("PNG", _bytes(png(60000, 60000, 8, 2, b"\x00"))),
    "PNG, header of 2,000,000,000 x 1": Case("PNG", _bytes(png(2 * 10**9, 1, 8, 0, b"\x00"))),
    "PNG, compressed text of 64 MiB": Case(
        "PNG",
        lambda file: file.write_bytes(
            file.read_bytes()[:33]
            + _chunk(b"zTXt", b"k\x00\x00" + zlib.compress(bytes(2**26)))
            + file.read_bytes()[33:]
        ),
        "either",
    ),
    "PNG of 16 bits a channel": Case("PNG", _bytes(png(1, 1, 16, 2, b"\x00" + bytes(6))), "either"),
    "PNG of 16 bits, grey": Case("PNG", _bytes(png(1, 1, 16, 0, b"\x00\x01\x02"))),
    "PNG of 1 bit": Case("PNG", _bytes(png(8, 1, 1, 0, b"\x00\xaa")), "read"),
    "PNG, transparent": Case("PNG", _hidden, "either"),
    "PNG, animated": Case("PNG", _animation, "either"),
    "PNG turned by 180 degrees": Case("PNG", _bytes(_turned(3)), "read", _is_upright),
    "PNG turned by 90 degrees": Case("PNG", _bytes(_turned(6)), "read", _is_upright),
    "PNG turned by 270 degrees": Case("PNG", _bytes(_turned(8)), "read", _is_upright),
    "PNG that is a pipe": Case("PNG", _fifo),
    "PNG that is a folder": Case("PNG", _folder),
    "PNG that links to itself": Case("PNG", _loop),
    "PNG that is HTML": Case("PNG", _bytes(b"<!DOCTYPE html><title>404</title>")),
    "JPEG of CMYK": Case("JPEG", _bytes(_saved(Image.new("CMYK", (8, 8)), "JPEG")), "read"),
    "JPEG, progressive": Case("JPEG", _bytes(_saved(Image.new("RGB", (8, 8)), "JPEG", progressive=True)), "read"),
    "TIFF, floating point": Case("TIFF", _bytes(_saved(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF"))),
    "labels of 2 bits": Case(
        "label ids", _bytes(FOUR_IDS), "read", lambda file: LabelReader(4).read(file).flatten().tolist() == [0, 1, 2, 3]
    ),
    "labels of 4 bits": Case(
        "label ids",
        _bytes(png(2, 1, 4, 0, b"\x00\x12")),
        "read",
        lambda file: LabelReader(4).read(file).flatten().tolist() == [1, 2],
    ),
    "labels in a JPEG": Case("label ids", _bytes(_saved(Image.new("L", (8, 8)), "JPEG"))),
    "labels of 16 bits beyond 255": Case("label ids", _bytes(png(1, 1, 16, 0, b"\x00\x01\x01"))),
    "label colours, one unknown": Case("label colours", _bytes(_saved(Image.new("RGB", (8, 8), (1, 2, 3)), "PNG"))),
    "depth map of 8 bits": Case("depth map", _bytes(_saved(Image.new("L", (8, 8)), "PNG"))),
    "instance map in colours": Case("instance map", _bytes(_saved(Image.new("RGB", (8, 8)), "PNG"))),
    # arrays
    "npy, empty file": Case(".npy", _bytes(b"")),
    "npy, open bracket": Case(".npy", _bytes(_npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (1,"))),
    "npy, no dictionary": Case(".npy", _bytes(_npy_header("42"))),
    "npy, an expression": Case(".npy", _bytes(_npy_header("__import__('os').system('touch canary-was-called')"))),
    "npy, shape beyond the file": Case(
        ".npy", _bytes(_npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (99999, 99999, 3), }"))
    ),
    "npy, negative shape": Case(
        ".npy", _bytes(_npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 4, 3), }"))
    ),
    "npy, zero height": Case(".npy", lambda file: np.save(file, np.zeros((0, 4, 3), np.uint8))),
    "npy, objects": Case(".npy", lambda file: np.save(file, np.array([{}]), allow_pickle=True)),
    "npy, floating point": Case(".npy", lambda file: np.save(file, np.zeros((4, 4, 3)))),
    "npy, two dimensions": Case(".npy", lambda file: np.save(file, np.zeros((4, 4), np.uint8))),
    "npy, Fortran order": Case(".npy", lambda file: np.save(file, np.zeros((4, 5, 3), np.uint8, order="F")), "read"),
    "npy that is an npz": Case(".npy", _npz),
    # palettes
    "palette with a byte order mark": Case(
        "palette of text",
        _bytes(b"\xef\xbb\xbf0 1 2 3\n"),
        "read",
        lambda file: read_palette(file) == {(1, 2, 3): 0},
    ),
    "palette, empty": Case("palette of text", _bytes(b"")),
    "palette, of three columns": Case("palette of text", _bytes(b"1 2 3\n")),
    "palette, not UTF-8": Case("palette of text", _bytes(b"0 1 2 3 caf\xe9\n")),
    "palette, NUL bytes": Case("palette of text", _bytes(bytes(64))),
    "palette, one colour twice": Case("palette of text", _bytes(b"0 1 2 3\n1 1 2 3\n")),
    "palette, number of 5,000 digits": Case("palette of text", _bytes(b"0 1 2 " + b"9" * 5000)),
    "palette of JSON, null": Case("palette of JSON", _bytes(b"null")),
    "palette of JSON, numbers": Case("palette of JSON", _bytes(b"[1, 2]")),
    # JSON, YAML and lines
    "manifest, a list": Case("manifest.json", _bytes(b"[]")),
    "manifest, splits null": Case("manifest.json", _json(splits=None)),
    "manifest, names of numbers": Case(
        "manifest.json",
        _json(splits={"train": {"count": 2, "names": [0, 1]}}),
    ),
    "manifest, labels a text": Case("manifest.json", _json(labels="x")),
    "manifest, schema 1 as text": Case("manifest.json", _json(schema="1")),
    "render.json, cut": Case("render.json", _edit(lambda content: content[:20])),
    "render.json, a list": Case("render.json", _bytes(b"[]")),
    "render.json, not UTF-8": Case("render.json", _bytes(b'{"split": "caf\xe9"}')),
    "report, no metrics": Case("report.json, compare", _json(metrics=3)),
    "report, a value of text": Case(
        "report.json, compare", _edit(lambda c: c.replace(b'"value": 1.0', b'"value": "1"'))
    ),
    "report, no protocol": Case("report.json, compare", _edit(lambda c: c.replace(b'"protocol"', b'"other"'))),
    "log, a line that is not UTF-8": Case("log.jsonl, train.py", _edit(lambda c: b"\xff\xfe\n" + c), "read"),
    "log, a line without a step": Case("log.jsonl, train.py", _edit(lambda c: b'{"images": 1}\n' + c), "read"),
    "log, a line of null": Case("log.jsonl, train.py", _edit(lambda c: b"null\n" + c), "read"),
    "log, a step of text": Case("log.jsonl, train.py", _edit(lambda c: b'{"step": "1"}\n' + c), "read"),
    "log, half a line": Case("log.jsonl, train.py", _edit(lambda c: c[:-5]), "read"),
    "log, empty": Case("log.jsonl, train.py", _bytes(b""), "read"),
    "log, NUL bytes": Case("log.jsonl, train.py", _edit(lambda c: c + bytes(512)), "read"),
    "config.yaml, empty": Case("config.yaml, train.py", _bytes(b""), "read"),
    "config.yaml, cut": Case("config.yaml, train.py", _edit(lambda c: c[: len(c) // 2]), "read"),
    "config.yaml, NUL bytes": Case("config.yaml, train.py", _bytes(bytes(100)), "read"),
    "config.yaml, not UTF-8": Case("config.yaml, train.py", _bytes(b"run: caf\xe9\n"), "read"),
    "config.yaml, a Python object": Case(
        "config.yaml, report.py", _bytes(f"!!python/object/apply:os.system ['touch {MARK}']\n".encode())
    ),
    "config.yaml, a billion laughs": Case("config.yaml, report.py", _bytes(LAUGHS.encode())),
    # checkpoints
    "checkpoint, empty file": Case("checkpoint", _bytes(b"")),
    "checkpoint, one bit of a weight": Case("checkpoint", _flip_tensor),
    "checkpoint without config": Case(
        "checkpoint", _state(lambda state: {k: v for k, v in state.items() if k != "config"})
    ),
    "checkpoint, config empty": Case("checkpoint", _state(lambda state: {**state, "config": ""})),
    "checkpoint, config a list": Case("checkpoint", _state(lambda state: {**state, "config": "[]"})),
    "checkpoint, schema as text": Case("checkpoint", _state(lambda state: {**state, "schema": "1"})),
    "checkpoint, step as text": Case("checkpoint", _state(lambda state: {**state, "step": "x"})),
    "checkpoint, step not a number": Case("checkpoint", _state(lambda state: {**state, "step": float("nan")})),
    "checkpoint, negative step": Case("checkpoint", _state(lambda state: {**state, "step": -1})),
    "checkpoint, networks a list": Case("checkpoint", _state(lambda state: {**state, "networks": []})),
    "checkpoint, generator null": Case("checkpoint", _state(lambda state: {**state, "networks": {"generator": None}})),
    "checkpoint, inputs of other keys": Case("checkpoint", _state(lambda state: {**state, "inputs": '{"colour": 1}'})),
    "checkpoint, average a number": Case("checkpoint", _state(lambda state: {**state, "average": 3})),
    "checkpoint, a plain state dict": Case("checkpoint", lambda file: torch.save({"w": torch.zeros(2)}, file)),
    "checkpoint, a module's class": Case("checkpoint", lambda file: torch.save(torch.nn.Linear(2, 2), file)),
    "checkpoint, a pickle that calls": Case("checkpoint", _program),
    "checkpoint, a zip bomb": Case("checkpoint", _bomb),
    "checkpoint, generator is os.system": Case("checkpoint", _config(model__generator=_run())),
    "checkpoint, a nested target": Case("checkpoint", _config(model__generator={"width": _run()})),
    "checkpoint, a target beside": Case(
        "checkpoint", _config(model__generator={"norm": {"_target_": "tests.faults.canary.touch"}})
    ),
    "last.pt of a run, a target beside": Case(
        "last.pt, train.py", _config(model__generator={"norm": {"_target_": "tests.faults.canary.touch"}})
    ),
    "last.pt of a run, the environment": Case(
        "last.pt, train.py", _config(model__generator={"width": "${oc.env:HOME}"})
    ),
    "checkpoint, a target in the data set": Case("checkpoint", _config(dataset={"name": _run()}), "either"),
    "checkpoint, the environment": Case("checkpoint", _config(model__generator={"width": "${oc.env:HOME}"})),
    "checkpoint of 1e9 blocks": Case("checkpoint", _config(model__generator={"blocks": 10**9})),
    "checkpoint of 1e9 channels": Case("checkpoint", _config(model__generator={"width": 10**9})),
    "checkpoint of negative blocks": Case("checkpoint", _config(model__generator={"blocks": -1})),
    # others
    "official weights, a program": Case(
        "any weights", lambda file: torch.save(Program(os.system, f"touch {MARK}"), file)
    ),
    "keypoints, a name twice": Case("keypoint table", _edit(lambda c: c + c.splitlines(keepends=True)[1])),
    "MATLAB, version 7.3": Case(
        "MATLAB lists", _bytes(b"MATLAB 7.3 MAT-file" + bytes(109) + b"\x00\x02IM" + bytes(64))
    ),
    "HDF5, cut": Case("HDF5", _edit(lambda content: content[:2048])),
    **DEEP_JSON,
}


def as_reader(case: Case) -> Reader:
    """For the fuzzer, which reads in a child of bounded memory and time."""

    def make(folder: Path) -> Path:
        valid, name = sample(case.reader)
        shutil.copytree(valid, folder, dirs_exist_ok=True)
        case.change(folder / name)
        return folder / name

    def read(file: Path) -> Any:
        found = READERS[case.reader].read(file)
        if case.holds is not None and not case.holds(file):
            raise AssertionError("read, but not as what it holds")
        return found

    return Reader(make, read, None, starts=READERS[case.reader].starts)


def answer(name: str) -> dict[str, Any]:
    """What the reader does with a case, for JSON and tables."""
    case = CASES[name]
    sample(case.reader)  # before the fork
    with tempfile.TemporaryDirectory() as folder:
        outcome, detail = fuzz_one(as_reader(case), Path(folder))
    good = outcome == case.answer or (case.answer == "either" and outcome in ("read", "refused"))
    return {"name": name, "good": good, "found": f"{outcome}: {detail}"}


def main() -> None:
    """Print every answer; write JSON where asked."""
    options = {"json": "", "name": "", **dict(word.split("=", 1) for word in sys.argv[1:])}
    torch.set_num_threads(1)
    rows = []
    for name in CASES:
        if name.startswith(options["name"]):
            rows.append(answer(name))
            print(f"{'ok    ' if rows[-1]['good'] else 'FAILED'} {name}: {rows[-1]['found']}", flush=True)
    write(options["json"], rows)


if __name__ == "__main__":
    main()
