"""Official weights as a checkpoint of ours: import_checkpoint.py latest_net_G.pth [MORE.pth ...] OUT.pt [WORD ...].

Takes SPADE's, CFL's, CUT's and MoNCE's generators (*_net_G.pth), and with one its discriminator (*_net_D.pth) and CUT's
projection heads (*_net_F.pth). What the files tell (widths, blocks, channels) is read off them; the rest are words of
train.py, of which SPADE needs `dataset=`, as its input channels do not say what they mean; nor can one see whether it
doubles five times (normal) or six (more: Cityscapes and GTA, by themselves):

    import_checkpoint.py latest_net_G.pth ade20k.pt dataset=ade20k
    import_checkpoint.py latest_net_G.pth faces.pt dataset=folder dataset.classes=19 model.generator.upsampling=more
    import_checkpoint.py latest_net_G.pth latest_net_D.pth latest_net_F.pth zebra.pt dataset=horse2zebra

Then `test.py checkpoint=OUT.pt input=FOLDER`, `evaluate.py checkpoint=OUT.pt`, `train.py checkpoint=OUT.pt ...`.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks into scripts/ only

import openmp  # noqa: F401 - before torch

# isort: split
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import DictConfig
from torch import Tensor, nn

from data.sources import Sources
from engine.build import build, build_generator, check_data, settle_channels
from engine.checkpoint import contents, read, write
from engine.config import register
from engine.inputs import Inputs
from engine.launch import CONFIGS, fail, launch
from errors import UserError
from losses.comparison import Comparison
from models.official import convert, recognise
from models.resnet import LAYERS
from models.weights import read_state

HOSTS = {  # the words that come before the user's own
    "spade": ["protocol=spade", "model=spade", "objective=gan", "encoder=pixel"],
    "cut": ["experiment=cut"],
}


@dataclass
class Official:
    """A file of the old repositories: its state dict, and what `recognise` tells of it."""

    path: Path
    state: dict[str, Tensor]
    kind: str
    model: str
    settings: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Official":
        """Raises: UserError for a file that is none."""
        state = read_state(path, "official file")
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise UserError(f"{path}: holds no plain state dict, as official files do")
        state = {str(key).removeprefix("module."): value for key, value in state.items()}
        try:
            return cls(path, state, *recognise(state))
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    def words(self) -> list[str]:
        """Of train.py, for a network of these settings."""
        known = {key: value for key, value in self.settings.items() if "channels" not in key}
        words = [f"model.{self.kind}.{key}={str(value).lower()}" for key, value in known.items()]
        if (self.kind, self.model) == ("generator", "cut"):
            words.append(f"encoder.layers={LAYERS[self.settings['antialias']]}")
        return words


def import_checkpoint(sources: Sequence[Path], out: Path, words: Sequence[str] = ()) -> Path:
    """Write a checkpoint of the networks in `sources`; returns its path.

    Args:
        sources: one generator, and at most one discriminator and one set of projection heads.
        words: overrides of train.py's config.
    Raises:
        UserError: for a file that is not official, or does not fit the others or the words.
    """
    files = {file.kind: file for file in map(Official.read, sources)}
    if len(files) < len(sources) or "generator" not in files:
        raise UserError(
            f"{', '.join(map(str, sources))}: one generator was wanted, with at most one discriminator and one set of "
            "heads; both ways of a CycleGAN are imported one by one"
        )
    source = files["generator"]
    if source.model == "spade" and not any(word.startswith("dataset=") for word in words):
        raise UserError(
            f"{source.path}: takes {source.settings['channels']} channels; say what they are: dataset=ade20k is 151, "
            "dataset=cityscapes 36; your own: dataset=folder dataset.classes=K, with dataset.ignore=ID and "
            "dataset.instance=true one more each, or dataset=folder dataset.labels=false"
        )
    register()
    asked = [word for file in files.values() for word in file.words()]
    with initialize_config_dir(str(CONFIGS), version_base=None):
        run = re.sub(r"[^A-Za-z0-9._+\-]+", "-", out.stem)
        cfg = compose("train", [*HOSTS[source.model], *asked, f"run={run}", *words])
    inputs = declared(cfg, source)
    check_data(cfg, inputs, get_object(cfg.setting._target_))
    settle_channels(cfg, inputs)
    networks = {"generator": fitted(build_generator(cfg, inputs), source)}
    if len(files) > 1:
        parts = build(cfg, inputs)
        if "discriminator" in files:
            if "discriminator" not in parts.discriminators:
                raise _homeless(files["discriminator"], "objective=contrast_gan")
            fitted(parts.discriminators["discriminator"], files["discriminator"])
            networks["discriminator"] = parts.discriminators["discriminator"]
        if "heads" in files:
            terms = [term for term in parts.objective.modules() if isinstance(term, Comparison) and len(term.heads)]
            if not terms:
                raise _homeless(files["heads"], "objective=cut encoder=generator")
            fitted(terms[0], files["heads"])
            networks["objective"] = parts.objective
    states = {name: network.state_dict() for name, network in networks.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    write(out, contents(cfg, 0, inputs, networks=states, encoder=None))
    if not inputs.labels and inputs.source_channels not in (1, 3):
        print("note: its inputs are read in [-1, 1] here; code made from CoCosNet's has such maps in [0, 1]")
    size = sum(parameter.numel() for parameter in networks["generator"].parameters())
    print(f"{out}: {', '.join(networks)}; {size:,} generator parameters, {source.model}, dataset={cfg.dataset.name}")
    return out


def declared(cfg: DictConfig, source: Official) -> Inputs:
    """What the config's data set would give a generator, without its files. Raises: UserError where they disagree."""
    dataset, channels = cfg.dataset, source.settings["channels"]
    kind = get_object(dataset._target_)
    if "root" not in dataset:
        raise UserError(f"dataset={dataset.name}: is generated, and no official network was trained on it")
    reader = Sources(
        dataset.get("labels", getattr(kind, "labels", False)),
        dataset.get("classes"),
        dataset.get("ignore"),
        dataset.get("palette"),
        dataset.get("instance", False),
        channels,
    )
    if reader.source_channels != channels:
        raise UserError(
            f"{source.path}: takes {channels} channels, where dataset={dataset.name} makes {reader.source_channels}: "
            f"dataset.classes={reader.classes}, one more for dataset.ignore={reader.ignore}, one more for edges with "
            f"dataset.instance={str(reader.instance).lower()}; change these, or dataset="
        )
    for key, found in (
        ("channels", channels),
        ("source_channels", channels),
        ("target_channels", source.settings["output_channels"]),
    ):
        if not reader.labels and dataset.get(key) not in (None, found):
            raise UserError(f"{source.path}: has {found} where dataset.{key}={dataset[key]}; change it, or dataset=")
    return Inputs(
        source_channels=channels,
        target_channels=source.settings["output_channels"],
        labels=reader.labels,
        classes=reader.classes,
        ignore=reader.ignore,
        instance=reader.instance,
        aligned=kind.aligned,
    )


def fitted(network: nn.Module, file: Official) -> nn.Module:
    """The network with the file's weights. Raises: UserError where it is of another architecture."""
    try:
        network.load_state_dict(convert(file.state, network))
    except UserError as error:
        raise UserError(f"{file.path}: {error}") from error
    return network


def _homeless(file: Official, words: str) -> UserError:
    held = {"discriminator": "a discriminator", "heads": "projection heads"}[file.kind]
    return UserError(f"{file.path}: holds {held}, which this config has not; add {words}, or leave the file out")


def target(paths: Sequence[Path]) -> Path:
    """The last of the paths, to be written. Raises: UserError where it is none to write to."""
    if len(paths) < 2 or paths[-1].suffix != ".pt":
        came = ", ".join(map(str, paths)) or "none"
        raise UserError(f"files: {came}; wanted: one or more official files, then OUT.pt, the checkpoint to write")
    if paths[-1].exists():
        read(paths[-1])  # refuses what is no checkpoint of ours
    return paths[-1]


def main() -> None:
    """The command line."""
    if {"-h", "--help"} & set(sys.argv) or len(sys.argv) == 1:
        print(str(__doc__).strip())
        return
    files = [word for word in sys.argv[1:] if word.endswith((".pt", ".pth"))]
    paths = [Path(word) for word in files if "=" not in word or Path(word).exists()]
    words = [word for word in sys.argv[1:] if Path(word) not in paths]
    try:
        import_checkpoint(paths[:-1], target(paths), words)
    except UserError as error:
        fail(str(error))


if __name__ == "__main__":
    launch(main)
