"""Every setting with every objective that is legal in it, at the smallest size."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.compose import CONFIGS, UNPAIRED

OBJECTIVES = sorted(path.stem for path in (CONFIGS / "objective").glob("*.yaml"))
LEGAL = {
    "paired": ("contrast", "contrast_gan", "gan", "spade"),
    "paired_images": ("contrast", "contrast_gan", "fastcut", "gan", "lsesim", "sesim", "spade"),
    "unpaired": ("cut", "fastcut", "gan", "lsesim", "sesim"),
    "cycle": ("cycle",),
}
PAIRS = {  # what else is legal with other pairs than an objective's own
    "unpaired": ("contrast", "contrast_gan", "spade"),
    "cycle": ("contrast", "contrast_gan", "cut", "fastcut", "spade"),
}
OTHER_PAIRS = {"unpaired": "[[fake,source]]", "cycle": "[[fake,source],[fake_source,target]]"}
PLAIN = (
    "dataset=shapes", "dataset.size=[32,32]", "nce.patches=16", "model.generator.width=2",
    "model.discriminator.width=2", "train.batch_size=2", "train.workers=0", "train.log_every=1", "encoder=conv6",
)  # fmt: skip
VGG = ("encoder=vgg16", "encoder.pretrained=false", "encoder.layers=[relu1_1,relu2_1]")
LSESIM = "unpaired/lsesim"


def settings(pairs: Path) -> dict[str, tuple[str, ...]]:
    """Command lines without objective by setting; `pairs` is a folder that `make_pairs` filled."""
    folder = ("dataset=folder", f"dataset.root={pairs}", "dataset.labels=false")
    unpaired = (*UNPAIRED, "encoder=generator", "train.pool=3")
    return {
        "paired": (*PLAIN, "dataset.lengths={train:8,val:2,test:2}", "setting=paired"),
        "paired_images": (*PLAIN, *folder, "setting=paired"),
        "unpaired": (*unpaired, "setting=unpaired"),
        "cycle": (*unpaired, "setting=cycle"),
    }


def line(words: tuple[str, ...], objective: str) -> tuple[str, ...]:
    """A setting's command line with an objective."""
    words = (*words, "train.samples=0", f"objective={objective}", "loss=patchnce")
    if objective in ("sesim", "lsesim"):
        return (*words, *VGG, "objective.spatial.term.window=8")
    return words if objective in ("cycle", "gan") else (*words, "objective.contrast.term.dim=8")


def combinations(pairs: Path) -> dict[str, tuple[str, ...]]:
    """Command lines of all combinations, by `<setting>/<objective>`."""
    lines = settings(pairs)
    found = {f"{name}/{objective}": line(lines[name], objective) for name in LEGAL for objective in LEGAL[name]}
    for name, objectives in PAIRS.items():
        pair = f"objective.contrast.term.pairs={OTHER_PAIRS[name]}"
        found |= {f"{name}/{objective}": (*line(lines[name], objective), pair) for objective in objectives}
    return found


def make_pairs(root: Path) -> Path:
    """Eight pairs of noise."""
    for side, seed in (("input", 0), ("target", 1)):
        (root / "train" / side).mkdir(parents=True)
        for at in range(8):
            pixels = np.random.default_rng([seed, at]).integers(0, 256, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / "train" / side / f"{at}.png")
    return root


def count_calls(parts: Any, calls: "Counter[str]") -> None:
    """From now on, calls and images of every network by name; passes up to the last tapped layer as `<name>/encode`."""
    networks = {**parts.generators, **parts.discriminators}
    if parts.encoder is not None and parts.encoder.weights != "generator":
        networks["encoder"] = parts.encoder
    for name, network in networks.items():

        def count(_: Any, given: tuple, options: dict, name: str = name) -> None:
            kind = "/encode" if options.get("no_further") else ""
            image = given[1] if name.startswith("discriminator") else given[0]
            calls[name + kind] += 1
            calls[f"{name}{kind} images"] += len(image)

        network.register_forward_pre_hook(count, with_kwargs=True)
