"""Every setting with every objective, at the smallest size: which are legal is asked of the engine itself."""

from pathlib import Path

import numpy as np
from PIL import Image

from engine.build import build, build_dataset
from engine.checks import validate
from engine.config import ConfigError
from engine.inputs import Inputs
from tests.compose import CONFIGS, UNPAIRED, config

OBJECTIVES = sorted(path.stem for path in (CONFIGS / "objective").glob("*.yaml"))
SIZES = ("dataset.size=[32,32]", "nce.patches=16", "model.generator.width=2", "model.discriminator.width=2")
PLAIN = (*SIZES, "train.batch_size=2", "train.workers=0", "train.samples=0", "train.log_every=1", "dataset=shapes")
LENGTHS = "dataset.lengths={train:8,val:2,test:2}"
VGG = ("encoder=vgg16", "encoder.pretrained=false", "encoder.layers=[relu1_1,relu2_1]")
ENCODERS = {"sesim": VGG, "lsesim": (*VGG, "objective.spatial.term.window=8")}


def settings(pairs: Path) -> dict[str, tuple[str, ...]]:
    """Command lines without objective by setting; `pairs` is a folder that `make_pairs` filled."""
    folder = ("dataset=folder", f"dataset.root={pairs}", "dataset.labels=false")
    return {
        "paired": (*PLAIN, LENGTHS, "setting=paired", "encoder=conv6"),
        "paired_images": (*PLAIN, *folder, "setting=paired", "encoder=conv6"),
        "unpaired": (*UNPAIRED, "train.samples=0", "setting=unpaired", "encoder=generator"),
        "cycle": (*UNPAIRED, "train.samples=0", "setting=cycle", "encoder=generator", "train.pool=3"),
    }


def make_pairs(root: Path) -> Path:
    """Eight pairs of noise."""
    for side, seed in (("input", 0), ("target", 1)):
        (root / "train" / side).mkdir(parents=True)
        for at in range(8):
            pixels = np.random.default_rng([seed, at]).integers(0, 256, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / "train" / side / f"{at}.png")
    return root


def combinations(pairs: Path) -> dict[str, tuple[str, ...]]:
    """Command lines of all combinations that the engine builds, by `<setting>/<objective>`, in one order."""
    found = {}
    for setting, words in settings(pairs).items():
        for objective in OBJECTIVES:
            line = (*words, f"objective={objective}", *ENCODERS.get(objective, ()))
            if "contrast" in config(*line).objective:
                line = (*line, "objective.contrast.term.dim=8")
            for loss in ("patchnce", "none"):
                try:
                    cfg = config(*line, f"loss={loss}")
                    validate(cfg)
                    build(cfg, Inputs.of(build_dataset(cfg, "train", augment=True)))
                except ConfigError:
                    continue
                found[f"{setting}/{objective}"] = (*line, f"loss={loss}")
                break
    return found
