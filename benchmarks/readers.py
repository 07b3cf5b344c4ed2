"""Milliseconds an image of every reader: `python -m benchmarks.readers [rounds=5] [threads=2] [small=1] [only=WORD]`.

A call reads some batches through the training's own loader, by 0, 1 and 2 worker processes, whose start is counted, and
augments as training does. What a step takes must be longer than its batch takes here, or training waits for data.
`cached` is the same with dataset.cache after the first epoch. What several workers give is bounded by the cores, and
extra memory leaves their own out.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.compare import Item, main
from benchmarks.images import ids, noise
from data.depth_folders import PairedDepth
from data.folders import Paired
from data.shapes import Shapes
from data.unpaired import Unpaired
from engine.sampling import StepSampler, loader

CLASSES, BATCH, FILES, SECONDS = 30, 4, 8, 0.8
COLORS = [(37 * label % 256, 101 * label % 256, 53 * label % 256) for label in range(CLASSES)]
Make = Callable[..., Any]


def read(data: Any, workers: int, steps: int) -> int:
    """`steps` batches from start to end; the number of images."""
    sampler = StepSampler(len(data), BATCH, 1, 0, 0, steps, 0, 1)
    return sum(len(batch["name"]) for batch in loader(data, sampler, workers, torch.device("cpu")))


def enough(data: Any, small: bool) -> int:
    """Batches that take about SECONDS without workers, so that their start is a small part."""
    read(data, 0, 8)  # every file: into the cache of the operating system, and that of the data set
    begun = time.perf_counter()
    read(data, 0, 2)
    each = (time.perf_counter() - begun) / 2
    return 2 if small else max(8, min(2000, round(SECONDS / each)))


def label_maps(folder: Path, size: tuple[int, int], colored: bool) -> None:
    """Label ids as 8-bit PNGs or as their colours."""
    rng = np.random.default_rng(0)
    table = np.array(COLORS, np.uint8)
    save(folder, lambda: table[ids(*size, CLASSES, rng)] if colored else ids(*size, CLASSES, rng), ".png")


def photos(folder: Path, size: tuple[int, int], suffix: str) -> None:
    """Noise images."""
    rng = np.random.default_rng(1)
    save(folder, lambda: noise(*size, rng), suffix)


def depths(folder: Path, size: tuple[int, int]) -> None:
    """16-bit millimetres."""
    rng = np.random.default_rng(2)
    save(folder, lambda: noise(*size, rng)[..., 0].astype(np.uint16) * 39, ".png")


def save(folder: Path, draw: Callable[[], np.ndarray], suffix: str) -> None:
    """`FILES` images."""
    folder.mkdir(parents=True)
    for index in range(FILES):
        Image.fromarray(draw()).save(folder / f"{index:03d}{suffix}", quality=90)


def data_sets(root: Path, small: bool) -> Iterator[tuple[str, Make]]:
    """What is read, and a function of `cache` that opens it."""
    side = 32 if small else 256
    load, large = side * 286 // 256, (side * 3 // 2, side * 2)
    yield f"shapes, {side // 4}x{side // 4}", lambda: Shapes("train", True, size=(side // 4, side // 4))
    yield f"shapes, {side}x{side}", lambda: Shapes("train", True, size=(side, side))

    common: dict[str, Any] = {"name": "files", "size": (side, side)}
    for suffix, size, load_size in ((".png", (side, side), None), (".jpg", large, (load, load))):
        folder = root / f"labels{suffix}"
        label_maps(folder / "train/input", size, colored=False)
        photos(folder / "train/target", size, suffix)
        how = f"{size[1]}x{size[0]} {suffix[1:].upper()} to {side}x{side}"
        yield (
            f"labels and photos, {how}",
            partial(Paired, "train", True, root=folder, **common, load_size=load_size, classes=CLASSES),
        )

    wide = (side * 4, side * 8)
    folder = root / "street"
    label_maps(folder / "train/input", wide, colored=False)
    photos(folder / "train/target", wide, ".png")
    street: dict[str, Any] = {"name": "street", "size": (side, 2 * side), "classes": CLASSES}
    yield (
        f"labels and photos, {wide[1]}x{wide[0]} PNG to {2 * side}x{side}",
        partial(Paired, "train", True, root=folder, **street),
    )

    folder = root / "colored"
    label_maps(folder / "train/input", large, colored=True)
    photos(folder / "train/target", large, ".jpg")
    palette = root / "palette.txt"
    palette.write_text("".join(f"{label} {r} {g} {b}\n" for label, (r, g, b) in enumerate(COLORS)))
    yield (
        f"coloured labels and photos, {large[1]}x{large[0]} to {side}x{side}",
        partial(Paired, "train", True, root=folder, **common, classes=CLASSES, palette=palette),
    )

    folder = root / "unpaired"
    for name in ("A", "B"):
        photos(folder / "train" / name, (side, side), ".jpg")
    yield (
        f"unpaired photos, {side}x{side} JPG",
        partial(Unpaired, "train", True, root=folder, **common, load_size=(load, load)),
    )

    folder = root / "depth"
    photos(folder / "train/input", large, ".jpg")
    depths(folder / "train/depth", large)
    yield f"photos and depth, {large[1]}x{large[0]}", partial(PairedDepth, "train", True, root=folder, **common)


def items(small: bool) -> Iterator[Item]:
    """One item a data set."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for name, make in data_sets(root, small):
            data = {name: make()}
            if not isinstance(data[name], Shapes):
                data[f"{name}, cached"] = make(cache=root / "cache")
            for title, each in data.items():
                steps = enough(each, small)
                functions = {f"{workers} workers": partial(read, each, workers, steps) for workers in (0, 1, 2)}
                yield Item(title, functions, rounds=1, per=BATCH * steps)


if __name__ == "__main__":
    main(items)
