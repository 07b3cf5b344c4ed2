"""From an official download to the one layout: `python prepare.py dataset=camvid raw=FOLDER [out=FOLDER]`.

`python prepare.py --help` tells what to download; `dataset=synthetic out=FOLDER` writes a miniature raw tree of each.
"""

import inspect
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from engine.paths import check_raw, early

if __name__ == "__main__":  # before torch is loaded
    early({"raw": check_raw})

from data.prepare import (
    ade20k,
    archives,
    camvid,
    camvid_dusk,
    celebahq,
    cityscapes,
    cityscapes_unpaired,
    deepfashion,
    gta,
    nyu_depth,
    synthetic,
)
from data.prepare.layout import write
from data.prepare.plan import Download, Plan
from engine.config import register
from engine.launch import entry, launch
from errors import UserError

FINDERS: dict[str, Callable[..., Plan]] = {
    "camvid": camvid.find,
    "camvid_dusk": camvid_dusk.find,
    "cityscapes": cityscapes.find,
    "cityscapes_unpaired": cityscapes_unpaired.find,
    "gta": gta.find,
    "ade20k": ade20k.find,
    "nyu_depth": nyu_depth.find,
    "horse2zebra": archives.horse2zebra,
    "winter2summer": archives.winter2summer,
    "celebahq_semantic": celebahq.semantic,
    "celebahq_edge": celebahq.edge,
    "deepfashion": deepfashion.find,
}
DOWNLOADS: dict[str, Download] = {
    "camvid, camvid_dusk": camvid.DOWNLOAD,
    "cityscapes, cityscapes_unpaired": cityscapes.DOWNLOAD,
    "gta": gta.DOWNLOAD,
    "ade20k": ade20k.DOWNLOAD,
    "nyu_depth": nyu_depth.DOWNLOAD,
    "horse2zebra": archives.HORSE2ZEBRA,
    "winter2summer": archives.WINTER2SUMMER,
    "celebahq_semantic, celebahq_edge": celebahq.DOWNLOAD,
    "deepfashion": deepfashion.DOWNLOAD,
}
SYNTHETIC = "synthetic"
OPTIONS = ("split", "cut_compatible", "edges", "keypoints")  # keys that some data sets take: keywords of their finders


def prepare(cfg: DictConfig) -> dict[str, Any]:
    """Finds, checks and writes the data set of `cfg` (configs/prepare.yaml); prints a line and returns the manifest.

    dataset=synthetic writes raw trees instead and returns their folders by name.
    """
    name, out = cfg.dataset.name, Path(cfg.out).expanduser()
    if name == SYNTHETIC:
        return write_synthetic(out)
    if name not in FINDERS:
        raise UserError(f"dataset={name}: nothing to prepare; prepare.py knows {', '.join([*FINDERS, SYNTHETIC])}")
    raw, size = Path(cfg.raw).expanduser(), None if cfg.size is None else (cfg.size[0], cfg.size[1])
    options = options_of(cfg)
    plan = FINDERS[name](raw, cfg.allow_partial, **options)
    manifest = write(plan, raw, out, name, cfg.workers, cfg.allow_partial, size, options)
    counts = ", ".join(f"{split} {record['count']}" for split, record in manifest["splits"].items())
    unit = "pairs" if manifest["paired"] else "images"
    print(f"{name}: {counts} {unit} in {out}; {len(manifest['dropped'])} left out")
    return manifest


def options_of(cfg: DictConfig) -> dict[str, Any]:
    """The data set's own options, with their defaults. Raises: UserError for one that the data set has not."""
    name = cfg.dataset.name
    _raw, _partial, *keywords = inspect.signature(FINDERS[name]).parameters.values()
    options = {keyword.name: keyword.default for keyword in keywords}
    for key in OPTIONS:
        if cfg[key] is not None and key not in options:
            raise UserError(
                f"{key}={cfg[key]}: dataset={name} has no such option; it has {', '.join(options) or 'none'}"
            )
    return {key: default if cfg[key] is None else cfg[key] for key, default in options.items()}


def write_synthetic(out: Path) -> dict[str, Any]:
    """A miniature raw tree of each official download under `out`, for trying things; prints and returns the folders."""
    folders = {}
    for name, writer in synthetic.writers().items():
        if os.path.lexists(out / name):
            raise UserError(f"out={out}: {name} is there already; choose another out, or remove it")
        try:
            writer(out / name)
        except UserError as error:  # a package that this one tree needs
            print(f"{name}: left out: {error}")
            continue
        folders[name] = str(out / name)
        print(f"{name}: raw={out / name}")
    print("none has the official counts: prepare them with allow_partial=true")
    return folders


def downloads() -> str:
    """What --help says of each data set."""
    lines = []
    for name, source in DOWNLOADS.items():
        lines += ["", name]
        for label, text in (("get", source.get), ("weighs", source.weighs), ("licence", source.licence)):
            lines += textwrap.wrap(
                text, 110, break_on_hyphens=False, initial_indent=f"  {label:9}", subsequent_indent=" " * 11
            )
    return "\n".join(lines[1:]).replace("$", "$$")  # Hydra's help is a string.Template


@entry("prepare")
def main(cfg: DictConfig) -> None:
    """The command line."""
    prepare(cfg)


ConfigStore.instance().store(  # a choice of this command alone
    group="dataset", name=SYNTHETIC, node={"name": SYNTHETIC, "root": "${oc.env:DATA_ROOT,datasets}/raw"}
)
OmegaConf.register_new_resolver("downloads", downloads, replace=True)
register()  # the resolvers that configs/dataset uses
if __name__ == "__main__":
    launch(main)
