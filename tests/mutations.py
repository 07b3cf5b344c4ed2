"""Broken copies of a JSON value and of a text: every part replaced by others, removed, doubled, or cut."""

import copy
import json
from collections.abc import Iterator
from typing import Any

OTHERS: tuple[Any, ...] = (
    None, True, -1, 10**30, 0.5, float("nan"), "", "../x", "\ud800", [], [None], {}, {"a": {"b": []}},
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every part of a value, the value itself first."""
    yield path
    inner: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, (*path, key))


def mutated(value: Any) -> Iterator[str]:
    """JSON texts of `value` with one part replaced or removed."""
    for path in places(value):
        for other in OTHERS:
            yield json.dumps(_with(value, path, lambda holder, key, other=other: holder.__setitem__(key, other)))
        if path:
            yield json.dumps(_with(value, path, lambda holder, key: holder.__delitem__(key)))


def damaged(text: bytes) -> Iterator[bytes]:
    """Texts that are cut, repeated, hollow, nested without end, or no UTF-8."""
    yield from (text[: len(text) * share // 5] for share in range(5))
    yield from (text + text, b"\xff" + text, b"\xef\xbb\xbf" + text, b"\0" * 50, b"[" * 100_000, b"1" * 5000)
    yield text.replace(b":", b",", 1)
    yield text.replace(b'"', b"'")


def _with(value: Any, path: tuple[Any, ...], change: Any) -> Any:
    root = [copy.deepcopy(value)]
    holder: Any = root
    for key in (0, *path)[:-1]:
        holder = holder[key]
    try:
        change(holder, (0, *path)[-1])
    except (KeyError, IndexError):
        return root[0]
    return root[0] if root else None
