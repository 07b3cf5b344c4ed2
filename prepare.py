"""From an official download to the one layout: `python prepare.py dataset=camvid raw=FOLDER [out=FOLDER]`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig

from data.prepare import ade20k, camvid, camvid_dusk, cityscapes
from data.prepare.layout import write
from data.prepare.plan import Plan
from engine.config import register
from engine.launch import entry, launch
from errors import UserError

FINDERS: dict[str, Callable[[Path, bool], Plan]] = {
    "camvid": camvid.find,
    "camvid_dusk": camvid_dusk.find,
    "cityscapes": cityscapes.find,
    "ade20k": ade20k.find,
}


@dataclass
class Settings:
    """Types of configs/prepare.yaml."""

    dataset: Any = MISSING
    raw: str = MISSING
    out: str = MISSING
    size: list[int] | None = None
    workers: int = 4
    allow_partial: bool = False


def prepare(cfg: DictConfig) -> dict[str, Any]:
    """Finds, checks and writes the data set of `cfg` (configs/prepare.yaml); prints a line and returns the manifest."""
    name = cfg.dataset.name
    if name not in FINDERS:
        raise UserError(f"dataset={name}: nothing to prepare; prepare.py knows {', '.join(FINDERS)}")
    if cfg.size is not None and len(cfg.size) != 2:
        raise UserError(f"size={list(cfg.size)}: wanted [height,width] or null")
    raw, out, size = (
        Path(cfg.raw).expanduser(),
        Path(cfg.out).expanduser(),
        None if cfg.size is None else (cfg.size[0], cfg.size[1]),
    )
    plan = FINDERS[name](raw, cfg.allow_partial)
    manifest = write(plan, raw, out, name, workers=cfg.workers, allow_partial=cfg.allow_partial, size=size)
    counts = ", ".join(f"{split} {record['count']}" for split, record in manifest["splits"].items())
    unit = "pairs" if manifest["paired"] else "images"
    print(f"{name}: {counts} {unit} in {out}; {len(manifest['dropped'])} left out")
    return manifest


@entry("prepare")
def main(cfg: DictConfig) -> None:
    """The command line."""
    prepare(cfg)


ConfigStore.instance().store(name="prepare_schema", node=Settings)
register()  # the resolvers that configs/dataset uses
if __name__ == "__main__":
    launch(main)
