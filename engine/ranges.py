"""What a value may be, written beside the field that holds it, and the one function that refuses every other value.

A field of a schema (engine/config.py, engine/schemas.py) and an argument of a constructor say it in the same way:

    batch_size: Annotated[int, Range(1)] = 8
    split: Annotated[str, OneOf("val", "test")] = "test"
    width: Annotated[int, range(1, 4097)] = 64  # in data, losses and models, which import nothing of the engine

Nothing here imports torch.
"""

import math
import os
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from errors import UserError


class ConfigError(UserError):
    """A config that cannot be run; the message names the key and the cure."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included unless `above` or `below` is set."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    why: str = ""

    def allows(self, value: Any) -> bool:
        """Whether a number lies inside."""
        low = value > self.low if self.above else value >= self.low
        return low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        parts = [] if self.low == -math.inf else [f"{'above' if self.above else 'at least'} {self.low:.15g}"]
        if self.high != math.inf:
            parts.append(f"{'below' if self.below else 'at most'} {self.high:.15g}")
        return " and ".join(parts) + (f" ({self.why})" if self.why else "")


@dataclass(frozen=True)
class OneOf:
    """One of some words."""

    words: tuple[str, ...]

    def __init__(self, *words: str) -> None:
        object.__setattr__(self, "words", words)

    def allows(self, value: Any) -> bool:
        """Whether it is one of them."""
        return value in self.words

    def __str__(self) -> str:
        return f"one of {', '.join(self.words)}" if len(self.words) > 1 else self.words[0]


@dataclass(frozen=True)
class Form:
    """Text that a pattern matches whole; `words` describes it."""

    pattern: str
    words: str

    def allows(self, value: Any) -> bool:
        """Whether it matches."""
        return re.fullmatch(self.pattern, value) is not None

    def __str__(self) -> str:
        return self.words


@dataclass(frozen=True)
class Length:
    """A list of `low` to `high` items; `words` describes it."""

    low: int
    high: int
    words: str

    def allows(self, value: Any) -> bool:
        """Whether it has as many."""
        return self.low <= len(value) <= self.high

    def __str__(self) -> str:
        return self.words


Rule = Range | OneOf | Form | Length
CORES = os.cpu_count() or 1
DEVICE = Form(r"auto|cpu|cuda(:\d+)?", "one of auto, cpu, cuda, cuda:0")
WORKERS = Range(0, 16 * CORES, why=f"16 for each of this machine's {CORES} cores")
SEED = Range(0, 2**63 - 1)
PAIR = Length(2, 2, "two numbers")


def check_ranges(cfg: DictConfig | ListConfig, kind: Any = None, path: str = "") -> None:
    """Refuse a number that is not finite, and a value outside of what the field of a schema says.

    Args:
        kind: the schema of an untyped config; None: the one that the config was made from.
    Raises:
        ConfigError: in one line, with the key, the value and what is expected.
    """
    kind = kind or OmegaConf.get_type(cfg)
    hints = typing.get_type_hints(kind, include_extras=True) if is_dataclass(kind) else {}
    for name, value in _items(cfg):
        key = f"{path}.{name}" if path else str(name)
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{key}={value}: must be a finite number")
        plain = OmegaConf.to_container(value, resolve=True) if isinstance(value, ListConfig) else value
        words = outside(plain, hints[name]) if name in hints else None
        if words is not None:
            raise ConfigError(f"{key}={plain}: must be {words}")
        if isinstance(value, DictConfig | ListConfig):
            check_ranges(value, _schema(hints.get(name)), key)


def _items(node: Any) -> Iterator[tuple[Any, Any]]:
    """Keys or positions, and values; a value that is still missing is nobody's mistake yet."""
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        if not OmegaConf.is_missing(node, key):
            yield key, node[key]


def _schema(hint: Any) -> Any:
    """The dataclass of a nested field, None for another."""
    options = [hint, *typing.get_args(hint)]
    return next((option for option in options if isinstance(option, type) and is_dataclass(option)), None)


def rule_of(mark: Any) -> Rule | None:
    """A mark of an `Annotated` as a rule; None for one that is none."""
    if isinstance(mark, range):
        return Range(mark.start, mark.stop - 1)
    return mark if isinstance(mark, Rule) else None


def outside(value: Any, hint: Any) -> str | None:
    """What is expected, in words, where a value of the right type is outside of what its hint allows.

    >>> outside(0, Annotated[int, range(1, 5)]), outside(None, Annotated[int, Range(1)] | None)
    ('at least 1 and at most 4', None)
    >>> outside([1, -1], list[Annotated[int, Range(0)]])
    'at least 0'
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if not any(fits(value, option) for option in arguments) or any(
            fits(value, option) and outside(value, option) is None for option in arguments
        ):
            return None
        inside = [words for option in arguments if fits(value, option) and (words := outside(value, option))]
        others = [option for option in arguments if not fits(value, option)]
        marks = [mark for option in others for mark in typing.get_args(option)[1:]]
        inside += [str(rule) for mark in marks if (rule := rule_of(mark)) is not None]
        return ", or ".join([*inside, *(["null"] if type(None) in arguments else [])])
    if origin is Annotated:
        rules = [rule for rule in map(rule_of, arguments[1:]) if rule is not None]
        if fits(value, arguments[0]):
            broken = next((rule for rule in rules if not rule.allows(value)), None)
            if broken is not None:
                return str(broken)
        return outside(value, arguments[0])
    if origin in (list, Sequence) and isinstance(value, list) and arguments:
        return next((words for item in value if (words := outside(item, arguments[0]))), None)
    if origin is tuple and isinstance(value, list):
        own = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return next((words for item, kind in zip(value, own, strict=False) if (words := outside(item, kind))), None)
    if origin is Mapping and isinstance(value, dict):
        return next((f"{words} ({key})" for key, item in value.items() if (words := outside(item, arguments[1]))), None)
    return None


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain config value fits a type hint; hints that are not about plain values fit everything.

    >>> fits(1, float), fits("1", int), fits([1, 2], tuple[int, int]), fits(None, int | None), fits(True, int)
    (True, False, True, True, False)
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in arguments)
    if origin is Annotated:
        return fits(value, arguments[0])
    if origin is typing.Literal:
        return value in arguments
    if hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint in (str, Path):
        return isinstance(value, str)
    if origin is Mapping:
        return isinstance(value, dict) and all(
            fits(key, arguments[0]) and fits(item, arguments[1]) for key, item in value.items()
        )
    if origin in (list, tuple, Sequence) or hint in (list, tuple):
        if not isinstance(value, list):
            return False
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            return len(value) == len(arguments) and all(map(fits, value, arguments))
        return not arguments or all(fits(item, arguments[0]) for item in value)
    return True
