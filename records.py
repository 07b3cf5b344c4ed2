"""JSON files that commands read back: parsed strictly, their shape checked, every fault a ValueError of one line."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

Shape = type | tuple[Any, ...] | list[Any] | dict[str, Any]
NUMBER = (int, float)
OPTIONAL = (int, float, type(None))
PARTS = 100_000  # of a YAML file
DIGITS = 18  # of a whole number: more overflow 64 bits, and some a float


def load(path: Path, names: bool = False) -> Any:
    """The value in a JSON file.

    Args:
        names: it lists names of files, which need not be UTF-8: such bytes are what Python makes of them, U+DC80 on.
    Raises: OSError; ValueError for what is no UTF-8 or no JSON, and for values that cannot be shown or written again.
    """
    return parse(path.read_bytes(), names=names)


def parse(text: bytes, finite: bool = True, names: bool = False) -> Any:
    """The value of a JSON text. Raises: ValueError.

    Args:
        finite: refuse NaN and infinity, which Python writes but JSON does not know.
        names: as for `load`.
    """
    number = _finite if finite else float
    try:
        value = json.loads(text.decode(), parse_int=_whole, parse_float=number, parse_constant=number)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if b"\\ud" in text.lower():  # half of a surrogate pair is a legal string in Python, and cannot be encoded
        json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape" if names else "strict")
    return value


def load_yaml(path: Path) -> Any:
    """The value in a YAML file, as JSON would hold it: no dates, no sets, keys of text.

    Raises: OSError; ValueError as `load`, and for more than `PARTS` parts, aliases counted as often as they are used.
    """
    try:
        value = yaml.safe_load(path.read_bytes().decode())
        _count(value, [PARTS])
        return parse(json.dumps(value).encode())
    except (yaml.YAMLError, TypeError, RecursionError) as error:
        raise ValueError(one_line(error)) from error


def check_shape(value: Any, shape: Shape, where: str = "") -> None:
    """Compare a value with a type or types; a list of one shape; or a dictionary of shapes by key.

    In a dictionary `key?` may be absent, and the key `*` stands for the values of all keys that are not named.
    Raises: ValueError that names the place.
    """
    if isinstance(shape, list):
        check_shape(value, list, where)
        for at, inner in enumerate(value):
            check_shape(inner, shape[0], f"{where}[{at}]")
    elif isinstance(shape, dict):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where or 'it'} is no object")
        named = {key.removesuffix("?"): key for key in shape if key != "*"}
        for name, key in named.items():
            if name in value:
                check_shape(value[name], shape[key], f"{where}.{name}".lstrip("."))
            elif name == key:
                raise ValueError(f"{where or 'it'} has no {name}")
        for name in value.keys() - named.keys() if "*" in shape else ():
            check_shape(value[name], shape["*"], f"{where}.{name}".lstrip("."))
    elif not isinstance(value, shape) or (isinstance(value, bool) and not _holds_bool(shape)):
        raise ValueError(f"{where or 'it'} is {str(value)[:40]!r}")


def one_line(error: Exception) -> str:
    """The message of an error without line breaks, at most 160 characters."""
    return " ".join((str(error) or type(error).__name__).split())[:160]


def _count(value: Any, left: list[int]) -> None:
    left[0] -= 1
    if left[0] < 0:
        raise ValueError(f"more than {PARTS} parts")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _count(inner, left)


def _holds_bool(shape: Any) -> bool:
    return shape is bool or (isinstance(shape, tuple) and bool in shape)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


def _whole(text: str) -> int:
    if len(text.lstrip("-")) > DIGITS:
        raise ValueError(f"a whole number of {len(text)} digits")
    return int(text)
