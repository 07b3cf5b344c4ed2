"""Official weights as a checkpoint of ours: import_checkpoint.py latest_net_G.pth [MORE.pth ...] OUT.pt [WORD ...].

Takes SPADE's, CFL's, CUT's and MoNCE's generators (*_net_G.pth), and with one its discriminator (*_net_D.pth) and CUT's
projection heads (*_net_F.pth). What the files tell (widths, blocks, channels) is read off them; the rest are words of
train.py, of which SPADE needs `dataset=`, as its input channels do not say what they mean; nor can one see whether it
doubles five times (normal) or six (more: Cityscapes, by itself):

    import_checkpoint.py latest_net_G.pth ade20k.pt dataset=ade20k
    import_checkpoint.py latest_net_G.pth coco.pt dataset=folder dataset.classes=182 dataset.ignore=255 \
        dataset.instance=true
    import_checkpoint.py latest_net_G.pth faces.pt dataset=folder dataset.classes=19 model.generator.upsampling=more
    import_checkpoint.py latest_net_G.pth latest_net_D.pth latest_net_F.pth zebra.pt dataset=horse2zebra

The order of label channels is the data set's: ORDERS says where the official one differs and is changed on import, and
where it is not known, which is refused. dataset=folder keeps the channels of the file: channel i is id i, then
dataset.ignore, then edges, as SPADE reads COCO-Stuff and custom data.

Then `test.py checkpoint=OUT.pt input=FOLDER`, `evaluate.py checkpoint=OUT.pt`, `train.py checkpoint=OUT.pt ...`.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks into scripts/ only

from engine.paths import early_files

if __name__ == "__main__":  # before torch is loaded
    early_files((".pt", ".pth"))

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import DictConfig, open_dict
from torch import Tensor, nn

from data.sources import Sources
from engine.build import Build, build, build_generator, check_data, settle_channels, settle_palette
from engine.checkpoint import contents, read, write
from engine.checks import validate
from engine.config import register
from engine.inputs import Inputs
from engine.launch import CONFIGS, fail, launch
from engine.trust import Trust
from errors import UserError
from files import refuse_overlap
from losses.comparison import Comparison
from models.blocks import SpectralConv2d
from models.official import convert, plain, recognise, reorder
from models.resnet import LAYERS
from models.weights import read_state

HOSTS = {  # the words that come before the user's own
    "spade": ["protocol=spade", "model=spade", "objective=gan", "encoder=pixel"],
    "cut": ["experiment=cut"],
}

UNKNOWN = "dataset=folder takes the channels as the file has them, with"
# Of every data set: None where official channels are ours; for each label channel of ours its official one; or why the
# official order is not known. Edges and images come after the labels, there and here.
ORDERS: dict[str, list[int] | str | None] = {
    "ade20k": [*range(1, 151), 0],  # official: unknown in 0, class c in c; here: class c in c - 1, unknown last
    "cityscapes": None,  # label ids
    "folder": None,
    "gta": f"CFL released no loader for GTA; {UNKNOWN} dataset.classes=35 for Cityscapes' label ids",
    "camvid": f"no official code reads CamVid; {UNKNOWN} dataset.classes=12 for its ids",
    "celebahq_semantic": "MoNCE's released code sets two channels a pixel, the part's and one of the glasses', where "
    f"one is set here, and its ids are those of CoCosNet's files; {UNKNOWN} dataset.classes=19",
    "celebahq_edge": f"MoNCE released no code for edges, and CoCosNet's are in [0, 1], here in [-1, 1]; {UNKNOWN} "
    "dataset.labels=false",
    "deepfashion": f"MoNCE released no code for joints, and CoCosNet's are in [0, 1], here in [-1, 1]; {UNKNOWN} "
    "dataset.labels=false",
    # images, red first
    "nyu_depth": None,
    "camvid_dusk": None,
    "camvid_unpaired": None,
    "cityscapes_unpaired": None,
    "horse2zebra": None,
    "unpaired_folder": None,
    "winter2summer": None,
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
        if not isinstance(state, dict):
            raise UserError(f"{path}: holds no plain state dict, as official files do")
        try:
            state = plain(state)
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
        UserError: for a file that is not official, or does not fit the others or the words, and for a data set whose
            official order of channels is not known.
    """
    refuse_overlap("OUT", out, {str(path): path for path in sources})
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
    told = {key: value for key, _, value in (word.partition("=") for word in asked) if key.startswith("model.")}
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        if told.get(key, value) != value:
            raise UserError(f"{word}: the files have {key}={told[key]}; leave the word out")
    cfg, choice = composed([*HOSTS[source.model], *asked, f"run={re.sub(r'[^A-Za-z0-9._+-]+', '-', out.stem)}", *words])
    if isinstance(ORDERS.get(choice), str):
        raise UserError(f"{source.path}: dataset={choice}: its official channels are not known: {ORDERS[choice]}")
    Trust.of(cfg)  # imports the modules of `code`
    validate(cfg)
    settle_palette(cfg)
    inputs = declared(cfg, source)
    check_data(cfg, inputs, get_object(cfg.setting._target_))
    settle_channels(cfg, inputs)
    order = official_order(choice, inputs, source)
    if order is not None:
        for file in files.values():
            file.state = reorder(file.state, order)
    with torch.device("meta"):  # sizes first: a damaged file can ask for any amount of memory
        taken(build_networks(cfg, inputs, files), files)
    networks = taken(build_networks(cfg, inputs, files), files)
    states = {name: network.state_dict() for name, network in networks.items()}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: its folder cannot be made ({error.strerror}); name another file") from error
    write(out, contents(cfg, 0, inputs, networks=states, encoder=None))
    if not inputs.labels and inputs.source_channels not in (1, 3):
        print("note: its inputs are read in [-1, 1] here; code made from CoCosNet's has such maps in [0, 1]")
    if order is not None:
        print(
            f"note: its label channels are in the official order of {choice} and were put into this project's; where "
            f"yours had that already: dataset=folder dataset.classes={inputs.classes} dataset.ignore={inputs.ignore}"
        )
    size = sum(parameter.numel() for parameter in networks["generator"].parameters())
    print(f"{out}: {', '.join(networks)}; {size:,} generator parameters, {source.model}, dataset={cfg.dataset.name}")
    return out


def composed(words: list[str]) -> tuple[DictConfig, str]:
    """The config of train.py for these words, and the word of its data set. Raises: UserError, or Hydra's errors."""
    try:
        with initialize_config_dir(str(CONFIGS), version_base=None):
            cfg = compose("train", words, return_hydra_config=True)
    except ValueError as error:  # Hydra's own, of a group such as dataset=5
        raise UserError(f"{' '.join(words)}: {str(error).splitlines()[0]}") from error
    choice = str(cfg.hydra.runtime.choices.dataset)
    with open_dict(cfg):
        del cfg.hydra
    return cfg, choice


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


def official_order(choice: str, inputs: Inputs, source: Official) -> list[int] | None:
    """For each label channel of the data set `choice` its index in official networks; None where both are one.

    Raises: UserError where the words gave the data set other classes than it has.
    """
    order = ORDERS.get(choice)
    if not isinstance(order, list):
        return None
    labels = inputs.source_channels - inputs.instance if inputs.labels else 0
    if source.model != "spade" or labels != len(order) or inputs.ignore is None:
        raise UserError(
            f"{source.path}: dataset={choice}: the official order of channels is that of a SPADE network on "
            f"{len(order) - 1} classes and one for unknown, where dataset.classes={inputs.classes} and "
            f"dataset.ignore={inputs.ignore}; {UNKNOWN} any of these"
        )
    return order


def build_networks(cfg: DictConfig, inputs: Inputs, files: Mapping[str, Official]) -> dict[str, nn.Module]:
    """The networks that the files are for, by their names in a checkpoint. Raises: UserError for one without a home."""
    if set(files) == {"generator"}:
        return {"generator": build_generator(cfg, inputs)}
    parts: Build = build(cfg, inputs)
    networks: dict[str, nn.Module] = {"generator": parts.generator}
    if "discriminator" in files:
        if "discriminator" not in parts.discriminators:
            raise _homeless(files["discriminator"], "objective=contrast_gan")
        networks["discriminator"] = parts.discriminators["discriminator"]
    if "heads" in files:
        if not heads_of(parts.objective):
            raise _homeless(files["heads"], "objective=cut encoder=generator")
        networks["objective"] = parts.objective
    return networks


def heads_of(objective: nn.Module) -> list[Comparison]:
    """The terms of an objective that have projection heads."""
    return [term for term in objective.modules() if isinstance(term, Comparison) and len(term.heads)]


def taken(networks: dict[str, nn.Module], files: Mapping[str, Official]) -> dict[str, nn.Module]:
    """The networks with the files' weights; on the meta device, which holds none, only their shapes are compared.

    Raises: UserError where a file is of another architecture, or its spectral norm divides by zero.
    """
    for name, network in networks.items():
        file = files["heads" if name == "objective" else name]
        network = heads_of(network)[0] if name == "objective" else network
        try:
            state = convert(file.state, network)
        except UserError as error:
            raise UserError(f"{file.path}: {error}") from error
        if next(network.parameters()).is_meta:
            continue
        network.load_state_dict(state)
        normed = {key: layer for key, layer in network.named_modules() if isinstance(layer, SpectralConv2d)}
        for key, layer in normed.items():
            if not layer.eval().normalized_weight().isfinite().all():
                raise UserError(f"{file.path}: {key}: weight, u and v give no spectral norm; the file is damaged")
    return networks


def _homeless(file: Official, words: str) -> UserError:
    held = {"discriminator": "a discriminator", "heads": "projection heads"}[file.kind]
    return UserError(f"{file.path}: holds {held}, which this config has not; add {words}, or leave the file out")


def target(paths: Sequence[Path]) -> Path:
    """The last of the paths, to be written. Raises: UserError where it is none to write to."""
    if len(paths) < 2 or paths[-1].suffix != ".pt":
        came = ", ".join(map(str, paths)) or "none"
        raise UserError(f"files: {came}; wanted: one or more official files, then OUT.pt, the checkpoint to write")
    if paths[-1].exists() and paths[-1].resolve() not in [path.resolve() for path in paths[:-1]]:
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
