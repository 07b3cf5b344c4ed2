"""The typed trunk of train.py's config, and the name of its run folder.

Nothing here imports torch: `--help` and a mistyped key answer at once.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import MISSING, OmegaConf

from errors import UserError


class ConfigError(UserError):
    """A config that cannot be run; the message names the key and the cure."""


class Precision(Enum):
    """Of the networks; losses and statistics never go below float32. float64 is for tests of equality."""

    float32 = "float32"
    bf16 = "bf16"
    float64 = "float64"


class Schedule(Enum):
    """Shape of the decay: spade ends at lr/decay in the last epoch, cut at lr/(decay + 1) (methods of the hosts)."""

    spade = "spade"
    cut = "cut"


class Init(str, Enum):
    """Initial weights: Xavier normal (gain `init_gain`; of projection heads 0.02), or PyTorch's own.

    Of generator, discriminator and projection heads; encoders have their own key.
    """

    xavier = "xavier"
    pytorch = "pytorch"


@dataclass
class Train:
    """What every training run has; docs in configs/train.yaml."""

    steps: int | None = None
    minutes: float | None = None
    epochs: int = 50
    decay_epochs: int = 0
    decay_steps: int = 0
    schedule: Schedule = Schedule.spade
    batch_size: int = 1
    accumulate: int = 1
    lr: float = 2e-4
    ttur: bool = False
    lr_discriminator: float | None = None
    betas: list[float] = field(default_factory=lambda: [0.5, 0.999])
    init: Init = Init.xavier
    init_gain: float = 0.02
    regenerate_fake: bool = False
    pool: int = 0
    decay_crop: bool = True
    ema: float = 0.0
    limit: float | None = 1e6
    precision: Precision = Precision.float32
    channels_last: bool | None = None
    compile: bool = False
    workers: int = 2
    device: str = "auto"
    log_every: int = 50
    log_layers: bool = False
    sample_every: int = 500
    samples: int = 6
    save_every: int = 500
    keep: int = 0
    profile: int = 0


@dataclass
class Evaluate:
    """Evaluation during training; docs in configs/train.yaml."""

    every: int = 0
    split: str = "val"
    images: int | None = 64
    metrics: list[str] = field(default_factory=lambda: ["fd_lite2"])
    segmenter: str | None = None
    batch_size: int = 16


@dataclass
class Term:
    """One weighted term of an objective."""

    weight: float = MISSING
    term: Any = MISSING


@dataclass
class Nce:
    """What the losses of the NCE family do unless told otherwise; a setting gives both, an experiment may change them.

    bidirectional: half the sum of both directions (CFL Eq. 5); direction: of WeightNCE's and MoNCE's weights;
    patches: drawn from each layer and image, null for all; weight: of the terms that read it, for recipes to change.
    """

    bidirectional: bool = MISSING
    direction: str = MISSING
    patches: int | None = MISSING
    weight: float = 1.0


@dataclass
class Place:
    """A row of a paper's table ("1", ...) or a curve of a figure ("fig3") and the point of it, beta or Q."""

    table: str = MISSING
    row: str = MISSING
    x: float | None = None


@dataclass
class Paper(Place):
    """What an experiment reproduces of which paper (cfl, monce); `also`: the other places that print the same run."""

    paper: str = MISSING
    also: list[Place] = field(default_factory=list)


@dataclass
class Config:
    """The trunk of train.py's config."""

    run: str = MISSING
    seed: int = 0
    checkpoint: str | None = None
    weights_dir: str | None = None
    offline: bool = False
    nce: Nce = field(default_factory=Nce)
    gan: str = MISSING
    paper: Paper | None = None
    deviations: list[str] = field(default_factory=list)
    deviations_data: list[str] = field(default_factory=list)
    train: Train = field(default_factory=Train)
    evaluate: Evaluate = field(default_factory=Evaluate)
    dataset: Any = MISSING
    model: Any = MISSING
    setting: Any = MISSING
    encoder: Any = None
    loss: Any = None
    objective: dict[str, Term] = field(default_factory=dict)


def register() -> None:
    """Make the schema and our resolvers known to Hydra; harmless when called twice."""
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("label", label, replace=True)
    OmegaConf.register_new_resolver(
        "dashes", lambda path: "default" if path is None else str(path).replace("/", "-"), replace=True
    )
    OmegaConf.register_new_resolver("enlarged", lambda size: [round(side * 286 / 256) for side in size], replace=True)
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
    OmegaConf.register_new_resolver("basename", lambda path: Path(str(path)).expanduser().resolve().name, replace=True)


def trunk_keys() -> list[str]:
    """Dotted names of the typed keys, for 'did you mean'."""
    groups: dict[str, Any] = {"train": Train, "evaluate": Evaluate}
    return [name for name in Config.__dataclass_fields__ if name not in groups] + [
        f"{group}.{name}" for group, types in groups.items() for name in types.__dataclass_fields__
    ]


# Overrides that never change what a step computes, so that a run folder is found again under any of them; and the seed,
# which does, but has a folder of its own below the label's.
NEUTRAL = re.compile(
    r"^[+~]*(experiment|dataset|run|seed|weights_dir|offline|dataset\.(root|name|cache)|hydra\..*|hydra/.*"
    r"|paper|paper\..*|deviations|deviations_data|evaluate\.\w+"
    r"|train\.(steps|epochs|minutes|limit|workers|device|log_every|log_layers|sample_every|samples|save_every|keep|profile))(@|=|$)"
)


def label(overrides: Sequence[str]) -> str:
    """Folder name of the overrides that change the result: sorted, letters, digits and `._+-` only; `base` if none."""
    kept = sorted(word for word in overrides if not NEUTRAL.match(word))
    return _short("+".join(_plain(word) for word in kept) or "base")


def folder_name(name: str) -> str:
    """A name as a folder that can be typed after `checkpoint=`: letters, digits and `._+-` only.

    Where letters are lost, or nothing but dots is left, a digest keeps names apart.
    """
    plain = _plain(str(name))
    if not str(name).isascii() or not plain.strip("."):
        plain = f"{plain.strip('.')}+{_digest(str(name))}".lstrip("+")
    return _short(plain)


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+\-]+", "-", text).strip("-")


def _short(name: str) -> str:
    """File systems allow 255 bytes; the digest keeps long names apart."""
    return name if len(name) <= 120 else f"{name[:110]}+{_digest(name)}"


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]


def task_overrides() -> list[str]:
    """The overrides of the running command, as typed."""
    return list(HydraConfig.get().overrides.task)
