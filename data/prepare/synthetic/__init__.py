"""Miniature raw trees of the official downloads, for trying prepare.py and for its tests.

Each is written from the published description of the download alone and shares nothing with the code that reads it. A
module here with a function `write(raw, seed=0)` is a raw tree of that name.
"""

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules


def writers() -> dict[str, Callable[..., None]]:
    """`write(raw: Path, seed: int = 0)` of every raw tree, by name: fills the folder `raw`, the same for a seed."""
    modules = {entry.name: import_module(f"{__name__}.{entry.name}") for entry in iter_modules(__path__)}
    return {name: module.write for name, module in sorted(modules.items()) if hasattr(module, "write")}
