"""`check` covers the leaves that `_target_` names; `validate` refuses what cannot be run, before any data is read.

Nothing here imports torch itself; looking a target up imports the module that holds it.
"""

import inspect
import types
import typing
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

from engine.config import Config
from engine.ranges import ConfigError, check_ranges, fits, outside


def check(node: Any, path: str = "") -> None:
    """Compare every `_target_` node with the signature it names: unknown keys, missing arguments, plain types.

    Raises:
        ConfigError: naming the path and the cure. Arguments without a value in a `_partial_` node are the
            engine's to complete.
    """
    if not isinstance(node, DictConfig | ListConfig):
        raise ConfigError(f"{path}={node}: must be a constructor with its arguments")
    keys: list[Any] = list(node) if isinstance(node, DictConfig) else list(range(len(node)))
    for key in keys:
        if OmegaConf.is_missing(node, key):
            raise ConfigError(
                f"{path}.{key}: no value; set {path}.{key}=..." if path else f"{key}: no value; set {key}=..."
            )
        if isinstance(node[key], DictConfig | ListConfig):
            check(node[key], f"{path}.{key}" if path else str(key))
    if not isinstance(node, DictConfig) or "_target_" not in node:
        return
    try:
        target = get_object(node._target_)
    except Exception as error:
        raise ConfigError(f"{path}._target_: {node._target_} cannot be imported ({error})") from error
    accepted = inspect.signature(target).parameters
    hints = _hints(target)
    for key in node:
        name = str(key)
        if name.startswith("_"):
            continue
        if name not in accepted:
            close = get_close_matches(name, accepted, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"it takes {', '.join(accepted)}"
            raise ConfigError(f"{path}.{name}: {node._target_} takes no '{name}'; {hint}")
        value = node[key]
        plain = OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig | ListConfig) else value
        if name in hints and not fits(plain, hints[name]):
            raise ConfigError(f"{path}.{name}: {plain!r} {wanted(hints[name])}, which {node._target_} wants")
        if name in hints and (words := outside(plain, hints[name])) is not None:
            raise ConfigError(f"{path}.{name}={plain}: must be {words}")
    if not node.get("_partial_", False):
        for name, parameter in accepted.items():
            if (
                parameter.default is parameter.empty
                and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
                and name not in node
            ):
                raise ConfigError(f"{path}.{name}: {node._target_} needs it; set {path}.{name}=...")


def _hints(target: Callable) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    except (NameError, TypeError):
        return {}


def wanted(hint: Any) -> str:
    """What a value of another type is told: the words of a Literal, else the type."""
    if typing.get_origin(hint) is typing.Literal:
        return f"is none of {', '.join(map(str, typing.get_args(hint)))}"
    return f"is not of type {_type_name(hint)}"


def _type_name(hint: Any) -> str:
    """A type hint without what `Annotated` adds to it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_type_name, arguments))
    if origin is typing.Literal or not arguments or origin is None:
        return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
    inner = ", ".join("..." if argument is Ellipsis else _type_name(argument) for argument in arguments)
    return f"{origin.__name__}[{inner}]"


def validate(cfg: DictConfig, world: int = 1, overrides: Sequence[str] = ()) -> None:
    """Refuse values and combinations that cannot be run, before any data is read."""
    check_ranges(cfg, Config)
    check(cfg)
    train = cfg.train
    if train.steps is not None and train.decay_steps > train.steps:
        raise ConfigError(f"train.decay_steps={train.decay_steps}: more than train.steps={train.steps}")
    if train.steps is None and train.decay_steps:
        raise ConfigError(
            f"train.decay_steps={train.decay_steps}: goes with train.steps; with epochs it is train.decay_epochs"
        )
    asked = {word.lstrip("+").partition("=")[0] for word in overrides}
    epochs = sorted(asked & {"train.epochs", "train.decay_epochs", "train.schedule"})
    if epochs and train.steps is not None:
        raise ConfigError(
            f"{epochs[0]}: epochs were asked for, but train.steps={train.steps} ends this run"
            f"{'' if 'train.steps' in asked else ' (the experiment sets it)'}; add train.steps=null"
        )
    if "protocol" in asked and train.steps is not None and not asked & {"experiment", "train.steps"}:
        raise ConfigError(
            f"protocol: experiment=demo, the default, sets train.steps={train.steps} and train.lr={train.lr} after it; "
            "give both, e.g. train.steps=null train.lr=2e-4, or choose another experiment"
        )
    if train.lr_discriminator is not None and train.ttur:
        raise ConfigError("train.lr_discriminator: train.ttur=true sets it already (2 lr); give one of the two")
    if train.batch_size % (world * train.accumulate):
        raise ConfigError(
            f"train.batch_size={train.batch_size}: must divide by ranks ({world}) times "
            f"train.accumulate ({train.accumulate}), "
            f"e.g. {world * train.accumulate * max(1, train.batch_size // (world * train.accumulate))}"
        )
    negatives = cfg.loss.get("negatives") if isinstance(cfg.loss, DictConfig) else None
    if negatives == "batch" and train.batch_size == world * train.accumulate:
        raise ConfigError(
            f"loss.negatives=batch: train.batch_size={train.batch_size} is one image for each rank and micro-batch, "
            "without negatives from other images; enlarge train.batch_size, or choose loss.negatives=image"
        )
    _check_setting(cfg)
    _check_objective(cfg, overrides)


def _check_setting(cfg: DictConfig) -> None:
    kind: Any = get_object(cfg.setting._target_)
    setting = kind.__name__.lower()
    if cfg.train.pool and kind.conditional:
        raise ConfigError(
            f"train.pool={cfg.train.pool}: in setting={setting} an image is judged beside its own source, from which a "
            "pool would part it; set train.pool=0"
        )
    if cfg.train.regenerate_fake and kind.discriminator_first:
        raise ConfigError(
            f"train.regenerate_fake=true: in setting={setting} the discriminator steps before the generator, so that "
            "the image is fresh already; set train.regenerate_fake=false"
        )


def _check_objective(cfg: DictConfig, overrides: Sequence[str]) -> None:
    if not cfg.objective:
        raise ConfigError("objective: has no term; choose one of configs/objective")
    raw: Any = OmegaConf.to_container(cfg.objective, resolve=False)
    reads_loss = [name for name, node in raw.items() if "${loss}" in str(node)]
    none = not (isinstance(cfg.loss, DictConfig) and "_target_" in cfg.loss)
    if none and reads_loss:
        raise ConfigError(
            f"loss=none: objective.{reads_loss[0]} reads the loss; choose objective=gan, "
            f"'~objective.{reads_loss[0]}', or a loss ({choices('loss')})"
        )
    asked = {word.lstrip("+~").partition("=")[0].partition(".")[0] for word in overrides if not word.endswith("=none")}
    if "loss" in asked and not reads_loss:
        raise ConfigError(
            f"loss: was set, but no term of the objective ({', '.join(raw)}) reads it; "
            "choose objective=contrast, contrast_gan, cut or lsesim"
        )
    if "encoder" in asked and not any(encoded(node.term) for node in cfg.objective.values()):
        raise ConfigError(
            f"encoder: was set, but no term of the objective ({', '.join(raw)}) reads it; "
            "choose objective=contrast, contrast_gan, cut or sesim"
        )


def encoded(term: DictConfig) -> bool:
    """Whether a term compares encoder features: its constructor then takes `channels`, completed by the engine."""
    return "channels" in inspect.signature(get_object(term._target_)).parameters


def choices(group: str) -> str:
    """The words of a config group, for messages."""
    folder = Path(__file__).resolve().parents[1] / "configs" / group
    return ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
