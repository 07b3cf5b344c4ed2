"""The typed trunk of train.py's config, and the name of its run folder.

Nothing here imports torch: `--help` and a mistyped key answer at once.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import MISSING, OmegaConf

from engine import schemas
from engine.ranges import DEVICE, PAIR, SEED, WORKERS, ConfigError, OneOf, Range

__all__ = ["ConfigError"]  # its home for all who build and check configs


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

    steps: Annotated[int, Range(0)] | None = None
    minutes: Annotated[float, Range(0, above=True)] | None = None
    epochs: Annotated[int, Range(1)] = 50
    decay_epochs: Annotated[int, Range(0)] = 0
    decay_steps: Annotated[int, Range(0)] = 0
    schedule: Schedule = Schedule.spade
    batch_size: Annotated[int, Range(1)] = 1
    accumulate: Annotated[int, Range(1)] = 1
    lr: Annotated[float, Range(0, above=True)] = 2e-4
    ttur: bool = False
    lr_discriminator: Annotated[float, Range(0, above=True)] | None = None
    betas: Annotated[list[Annotated[float, Range(0, 1, below=True)]], PAIR] = field(
        default_factory=lambda: [0.5, 0.999]
    )
    init: Init = Init.xavier
    init_gain: Annotated[float, Range(0)] = 0.02
    regenerate_fake: bool = False
    pool: Annotated[int, Range(0)] = 0
    decay_crop: bool = True
    ema: Annotated[float, Range(0, 1, below=True)] = 0.0
    limit: Annotated[float, Range(0, above=True)] | None = 1e6
    precision: Precision = Precision.float32
    channels_last: bool | None = None
    compile: bool = False
    workers: Annotated[int, WORKERS] = 2
    device: Annotated[str, DEVICE] = "auto"
    log_every: Annotated[int, Range(1)] = 50
    log_layers: bool = False
    sample_every: Annotated[int, Range(1)] = 500
    samples: Annotated[int, Range(0)] = 6
    save_every: Annotated[int, Range(1)] = 500
    keep: Annotated[int, Range(0)] = 0
    profile: Annotated[int, Range(0)] = 0


@dataclass
class Evaluate:
    """Evaluation during training; docs in configs/train.yaml."""

    every: Annotated[int, Range(0)] = 0
    split: Annotated[str, OneOf("val", "test")] = "val"
    images: Annotated[int, Range(2)] | None = 64
    metrics: list[str] = field(default_factory=lambda: ["fd_lite2"])
    segmenter: str | None = None
    batch_size: Annotated[int, Range(1)] = 16


@dataclass
class Term:
    """One weighted term of an objective; a negative weight would move away from what the term asks for."""

    weight: Annotated[float, Range(0)] = MISSING
    term: Any = MISSING


@dataclass
class Nce:
    """What the losses of the NCE family do unless told otherwise; a setting gives both, an experiment may change them.

    bidirectional: half the sum of both directions (CFL Eq. 5); direction: of WeightNCE's and MoNCE's weights;
    patches: drawn from each layer and image, null for all; weight: of the terms that read it, for recipes to change.
    """

    bidirectional: bool = MISSING
    direction: Annotated[str, OneOf("hard", "easy")] = MISSING
    patches: Annotated[int, Range(1)] | None = MISSING
    weight: Annotated[float, Range(0)] = 1.0


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
    seed: Annotated[int, SEED] = 0
    checkpoint: str | None = None
    code: Any = None
    trust: bool = False
    weights_dir: str | None = None
    offline: bool = False
    nce: Nce = field(default_factory=Nce)
    gan: Annotated[str, OneOf("hinge", "lsgan", "nonsaturating")] = MISSING
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
    """Make the schemas and our resolvers known to Hydra; harmless when called twice."""
    ConfigStore.instance().store(name="schema", node=Config)
    for name, schema in schemas.ENTRIES.items():
        ConfigStore.instance().store(name=f"{name}_schema", node=schema)
    OmegaConf.register_new_resolver("below", below, replace=True)
    OmegaConf.register_new_resolver("label", label, replace=True)
    OmegaConf.register_new_resolver(
        "dashes", lambda path: "default" if path is None else str(path).replace("/", "-"), replace=True
    )
    OmegaConf.register_new_resolver("enlarged", lambda size: [round(side * 286 / 256) for side in size], replace=True)
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
    OmegaConf.register_new_resolver("basename", lambda path: Path(str(path)).expanduser().resolve().name, replace=True)


def below(path: str, key: str) -> str:
    """A part of the run folder's path, which stays below checkpoints/. Raises: ConfigError for one that leaves it."""
    parts = Path(str(path)).parts
    if Path(str(path)).is_absolute() or ".." in parts or "\0" in str(path):
        raise ConfigError(
            f"{key}={path}: the run folder stays below checkpoints/, so {key} is no absolute path and has no '..'; "
            "hydra.run.dir=FOLDER chooses any other folder"
        )
    return str(path)


def trunk_keys(entry: str = "train") -> list[str]:
    """Dotted names of the typed keys of a command, for 'did you mean'."""
    schema: Any = Config if entry == "train" else schemas.ENTRIES[entry]
    found: list[str] = []
    for name, hint in get_type_hints(schema).items():
        inner = getattr(hint, "__dataclass_fields__", {})
        found += [f"{name}.{key}" for key in inner] or [name]
    return found


# Overrides that never change what a step computes, so that a run folder is found again under any of them; and the seed,
# which does, but has a folder of its own below the label's.
NEUTRAL = re.compile(
    r"^[+~]*(experiment|dataset|run|seed|code|trust|weights_dir|offline|dataset\.(root|name|cache)|hydra\..*|hydra/.*"
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
