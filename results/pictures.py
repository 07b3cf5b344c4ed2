"""Pictures inside a page: WebP in data URIs, so that it needs no other file; and the samples of a run over training."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from errors import UserError
from pixels import load
from results.collect import Run

Picture = NDArray[np.uint8]  # (H, W, 3)
SMALL = 20_000  # pixels, up to which pictures are kept lossless unless told
GAP = 2  # white pixels between the images of a sample grid
STEPS = 8  # of a sample strip


def strips(run: Run, quality: int | None, inputs: int = 3) -> list[dict[str, Any]]:
    """What a run made of the same few inputs over training, cut out of samples/*.png.

    Returns: for each input its source, `frames` (step and picture, at most STEPS of them) and its target (paired runs).
        Empty where the samples are not the grid that train.py writes.
    """
    size = run.config["dataset"].get("size")
    files = [path for path in sorted((run.folder / "samples").glob("*.png")) if path.stem.isdecimal()]
    if not files or not size:
        return []
    count = min(STEPS, len(files))
    files = [files[at * (len(files) - 1) // max(count - 1, 1)] for at in range(count)]
    grids = [(int(path.stem), cells) for path in files if (cells := cut(read(path), *size))]
    if not grids:
        return []
    found = []
    for row in range(min(inputs, len(grids[0][1]))):
        frames = [(step, cells[row][1]) for step, cells in grids if row < len(cells) and len(cells[row]) > 1]
        first = grids[0][1][row]
        chosen = quality_of(quality, [first[0]])
        found.append(
            {
                "source": encode(first[0], chosen),
                "frames": [{"step": step, "picture": encode(frame, chosen)} for step, frame in frames],
                "target": encode(first[2], chosen) if run.paired and len(first) > 2 else None,
            }
        )
    return found


def cut(grid: Picture | None, height: int, width: int) -> list[list[Picture]]:
    """The images of a sample grid by row; empty where the picture is no grid of images of that size."""
    if grid is None:
        return []
    rows, columns = (grid.shape[0] + GAP) / (height + GAP), (grid.shape[1] + GAP) / (width + GAP)
    if rows != int(rows) or columns != int(columns):
        return []
    tops, lefts = range(0, grid.shape[0], height + GAP), range(0, grid.shape[1], width + GAP)
    return [[grid[top : top + height, left : left + width] for left in lefts] for top in tops]


def encode(image: Picture, quality: int) -> str:
    """A data URI of WebP; quality 100 is lossless."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(
        buffer, "WEBP", lossless=quality == 100, quality=quality, method=4
    )
    return uri(buffer.getvalue(), "image/webp")


def uri(content: bytes, kind: str) -> str:
    """A data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def read(path: Path) -> Picture | None:
    """(H, W, 3), or None for a file that is not there or no picture."""
    try:
        return np.array(load(path))
    except UserError:
        return None


def quality_of(quality: int | None, images: Sequence[Picture | None]) -> int:
    """As asked for, else 100, lossless, for pictures of up to SMALL pixels and 90 for larger ones."""
    largest = max((image.shape[0] * image.shape[1] for image in images if image is not None), default=0)
    return quality if quality is not None else 100 if largest <= SMALL else 90
