"""What every run made of the same inputs, side by side, and a score of each output."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hydra.errors import HydraException
from numpy.typing import NDArray
from omegaconf.errors import OmegaConfBaseException

from engine.trust import Refused, Trust, config_of
from errors import UserError
from outputs import select
from pixels import ids_of, opened
from results.collect import Run
from results.pictures import Picture, encode, quality_of, read

BLOCK = 8  # pixels a side that are averaged before the coarse score
SCORES = {
    "l1": "L1 to the truth: mean |output - truth| over pixels and channels, in levels of 0..255. It forgives blur.",
    "coarse": f"The same after averaging {BLOCK}x{BLOCK} pixels: layout and colour, blind to texture.",
    "change": "Change: mean |output - source|, in levels of 0..255. No truth exists, so this is no quality.",
}


@dataclass
class Item:
    """One input: its pictures as data URIs, one output a run, and the scores of each output (None: no such output)."""

    name: str
    source: str | None
    truth: str | None
    outputs: list[str | None]
    scores: dict[str, list[float | None]]


@dataclass
class Gallery:
    """Runs on one data set at one size. `total` is the number of names that any run has, `items` are some of them.

    `means` are over those images of a run that could be scored, `counts` of them.
    """

    dataset: str
    size: str
    runs: list[Run]
    paired: bool
    items: list[Item] = field(default_factory=list)
    means: dict[str, list[float | None]] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)
    total: int = 0
    left_out: int = 0
    format: str = ""

    @property
    def across(self) -> int:
        """Pictures of an input."""
        ends = [picture for item in self.items[:1] for picture in (item.source, item.truth)]
        return len(self.runs) + sum(picture is not None for picture in ends)


def galleries(
    runs: Sequence[Run],
    images: int | None,
    columns: int,
    quality: int | None,
    warnings: list[str],
    trust: Trust | None = None,
) -> list[Gallery]:
    """A gallery for each data set and size that has rendered images.

    Args:
        images: at most so many inputs, evenly spaced in the order of names; None: all.
        columns: at most so many runs; the first seed of every experiment goes first.
        quality: of WebP, 100 is lossless; None: lossless up to SMALL pixels, else 90.
        trust: whose data sets a run's config may name, see engine/trust.py.
    """
    kinds: dict[tuple[str, str, bool], list[Run]] = {}
    for run in runs:
        if run.images() is not None:
            size = "x".join(str(side) for side in reversed(run.config["dataset"].get("size") or ()))
            kinds.setdefault((run.dataset, size, run.paired), []).append(run)
    return [
        _gallery(kind, found, images, columns, quality, warnings, trust or Trust()) for kind, found in kinds.items()
    ]


def _gallery(
    kind: tuple[str, str, bool],
    found: list[Run],
    images: int | None,
    columns: int,
    quality: int | None,
    warnings: list[str],
    trust: Trust,
) -> Gallery:
    seen: dict[Any, int] = {}
    order: list[tuple[int, int, Run]] = []
    for run in found:  # the first seed of every experiment, then the second ...
        experiment = run.folder.parent
        seen[experiment] = seen.get(experiment, -1) + 1
        order.append((seen[experiment], len(order), run))
    shown = [run for _, at, run in sorted(order, key=lambda entry: entry[:2])][:columns]
    shown = [run for run in found if run in shown]
    gallery = Gallery(*kind[:2], shown, kind[2], left_out=len(found) - len(shown))
    folders = [folder for run in shown if (folder := run.images()) is not None]
    listed = [_images(folder, warnings) for folder in folders]
    names = sorted(set[str]().union(*listed))
    gallery.total = len(names)
    count = len(names) if images is None else min(images, len(names))
    picked = {names[at * len(names) // count] for at in range(count)}
    source_of = sources(shown[0], warnings, trust)
    reals = [run.folder / "eval" / "images" / "real" for run in shown]
    sums: dict[str, list[list[float]]] = {}
    for name in names:
        outputs = [read(folder / name) if name in held else None for folder, held in zip(folders, listed, strict=True)]
        truths = (read(folder / name) for folder in reals) if gallery.paired else ()
        truth = next((picture for picture in truths if picture is not None), None)
        source = source_of(name.removesuffix(".png"))
        scores = _scores(outputs, truth, source)
        for key, values in scores.items():
            means = sums.setdefault(key, [[] for _ in shown])
            for at, value in enumerate(values):
                means[at] += [] if value is None else [value]
        if name in picked:
            chosen = quality_of(quality, outputs)
            gallery.format = "lossless WebP" if chosen == 100 else f"WebP, quality {chosen}"
            uris = [None if output is None else encode(output, chosen) for output in outputs]
            ends = [None if picture is None else encode(picture, chosen) for picture in (source, truth)]
            gallery.items.append(Item(name.removesuffix(".png"), ends[0], ends[1], uris, scores))
    gallery.means = {key: [_mean(values) for values in means] for key, means in sums.items()}
    gallery.counts = [len(values) for values in next(iter(sums.values()), [])]
    return gallery


def _images(folder: Path, warnings: list[str]) -> set[str]:
    """The images that belong to a folder; none where its evaluation did not finish."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    try:
        names, left_out = select("images", folder, found)
    except UserError as error:
        warnings.append(f"{error}; its images are not shown")
        return set()
    warnings.extend(left_out)
    return names


def sources(run: Run, warnings: list[str], trust: Trust) -> Callable[[str], Picture | None]:
    """From an input's name to its picture: from the data set, if it can be opened here, else the label maps that were
    kept for the evaluation; None where there are neither."""
    from data.labels import colorize
    from engine.build import build_dataset
    from engine.checkpoint import place_data
    from engine.fingerprint import Data
    from engine.inputs import Inputs
    from engine.render import picture, source_picture

    try:
        text = json.dumps({"dataset": run.config["dataset"]})
        config = config_of(text, str(run.folder / "config.yaml"), trust)
        place_data(config.dataset, Data.read(run.folder), {})
        root = config.dataset.get("root")
        if root is not None and not Path(root).expanduser().is_dir():
            raise UserError(f"{root}: no such folder; set DATA_ROOT to the folder that holds it")
        dataset = build_dataset(config, "test", augment=False)
        inputs, items = Inputs.of(dataset), dataset.sources()
        at = {name: index for index, name in enumerate(items.names)} if hasattr(items, "names") else None
        at = at or {items[index]["name"]: index for index in range(len(items))}

        def source(name: str) -> Picture | None:
            try:
                return source_picture(items[at[name]]["source"], inputs, run.dataset) if name in at else None
            except (UserError, OSError, ValueError) as error:
                warnings.append(f"{run.dataset}: the source of {name} cannot be read ({_reason(error)})")
                return None

        return source
    except (UserError, HydraException, OmegaConfBaseException, KeyError, TypeError, ValueError, OSError) as error:
        kept = run.folder / "eval" / "images" / "labels"
        if isinstance(error, Refused):
            warnings.append(str(error))
        elif not kept.is_dir():
            warnings.append(f"{run.dataset}: sources are not shown, its data cannot be opened here ({_reason(error)})")
        if not kept.is_dir():
            return lambda name: None
    import torch

    def label_map(name: str) -> Picture | None:
        path = kept / f"{name}.png"
        if not path.is_file():
            return None
        try:
            with opened(path) as image:
                ids = ids_of(path, image)
            return picture(colorize(torch.from_numpy(ids)[None], run.dataset))
        except (UserError, ValueError, TypeError, IndexError, RuntimeError) as error:
            warnings.append(f"{path}: no label map ({_reason(error)}); its source is not shown")
            return None

    return label_map


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__


def l1(a: Picture, b: Picture) -> float:
    """Mean absolute difference in levels."""
    return float(np.abs(a.astype(np.float64) - b).mean())


def coarse(image: Picture) -> NDArray[np.float64]:
    """(H, W, 3) to means over blocks of BLOCK x BLOCK pixels; what is left over at the end of an axis is dropped."""
    height, width = (side // BLOCK * BLOCK for side in image.shape[:2])
    blocks = image[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK, 3)
    return blocks.mean((1, 3), dtype=np.float64)


def _scores(
    outputs: list[Picture | None], truth: Picture | None, source: Picture | None
) -> dict[str, list[float | None]]:
    def each(reference: Picture | None, score: Callable[[Picture, Picture], float]) -> list[float | None]:
        assert reference is not None
        return [None if out is None or out.shape != reference.shape else score(out, reference) for out in outputs]

    if truth is not None:
        found = {"l1": each(truth, l1)}
        if min(truth.shape[:2]) >= BLOCK:
            found["coarse"] = each(truth, lambda a, b: float(np.abs(coarse(a) - coarse(b)).mean()))
        return found
    return {} if source is None else {"change": each(source, l1)}


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
