"""Run folders for tests of reports, written by hand: what train.py and evaluate.py leave, without training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from engine.record import grid


def metric_entries(**values: float) -> dict[str, Any]:
    higher = {"miou", "pixacc", "pixacc_all", "classacc"}
    return {name: {"value": value, "better": "higher" if name in higher else "lower"} for name, value in values.items()}


def evaluation(folder: Path, step: int, metrics: dict[str, Any], selection: str = "last", **protocol: Any) -> None:
    """eval/<step>.json in the form of metrics.protocol."""
    side = {"n": 2, "sizes": {"16x16": 2}, "formats": {"PNG": 2}}
    report = {
        "schema": 1,
        "subject": {"fake": str(folder / "eval" / "images" / str(step)), "real": "real", "step": step},
        "protocol": {"fake": side, "real": {**side, **protocol}, "selection": selection, "metrics": {}},
        "floor": None,
        "metrics": metrics,
        "warnings": [],
    }
    name = str(step) if selection == "last" else f"{step}-{selection[:4]}"
    (folder / "eval").mkdir(parents=True, exist_ok=True)
    (folder / "eval" / f"{name}.json").write_text(json.dumps(report))


def make_run(
    folder: Path,
    *,
    run: str = "demo",
    dataset: str = "shapes",
    seed: int = 0,
    paper: dict[str, Any] | None = None,
    loss: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
    log: int = 0,
    **train: Any,
) -> Path:
    """A run folder with a config; `metrics` adds eval/100.json, `log` so many log lines."""
    loss = loss or {"_target_": "losses.contrastive.PatchNCE", "temperature": 0.07}
    config = {
        "run": run,
        "seed": seed,
        "paper": paper,
        "deviations": ["one choice"] if paper else [],
        "train": {"steps": None, "minutes": None, "batch_size": 4, "workers": seed, **train},
        "dataset": {  # whose folder is not there
            "_target_": "data.folders.Paired",
            "_partial_": True,
            "name": dataset,
            "size": [16, 16],
            "root": f"/data{seed}",
        },
        "model": {"generator": {"width": 64}},
        "setting": {"_target_": "engine.settings.Paired"},
        "encoder": {"_target_": "models.backbones.vgg19", "pretrained": True, "weights_dir": None},
        "loss": loss,
        "objective": {"contrast": {"weight": 1, "term": {"loss": loss, "patches": 256}}},
    }
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "environment.json").write_text(json.dumps({"commit": f"c{seed}", "device": "cpu", "ranks": 1}))
    lines = [{"step": at, "images": 4 * at, "contrast": 10 / at, "lr": 1e-3} for at in range(1, log + 1)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if metrics is not None:
        evaluation(folder, 100, metrics)
    return folder


def add_pictures(folder: Path, shades: dict[str, int], truth: int = 100, step: int = 100) -> None:
    """16x16 outputs of one shade each, a truth of another, label maps, and sample grids of steps 0 and `step`."""
    for name, shade in shades.items():
        for kind, value in ((str(step), shade), ("real", truth)):
            _save(folder / "eval" / "images" / kind / f"{name}.png", np.full((16, 16, 3), value, np.uint8))
        _save(folder / "eval" / "images" / "labels" / f"{name}.png", np.ones((16, 16), np.uint8))
    for at in (0, step):
        tiles = [[np.full((16, 16, 3), value, np.uint8) for value in (1, at, truth)] for _ in range(2)]
        _save(folder / "samples" / f"{at:08d}.png", grid(tiles))


def _save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
