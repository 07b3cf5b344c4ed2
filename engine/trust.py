"""What comes out of a file is data: the one way from the config in a file to one that networks are built from.

A checkpoint, a run folder or a report may come from anybody, and a config names constructors (`_target_`), which Hydra
imports and calls. So, before anything is imported:

- A file's text is read as JSON or by YAML's safe loader. Interpolations (`${...}`) are refused: what we write has none.
- A constructor must be one that the YAML files of configs/ name for the same key (`slots`), or one that a module of
  the user's own defines (`code=FILE.py` on the command line); `trust=true` lets every other one in and prints it.
- Types and ranges are those of engine/config.py and of the constructors' own arguments; numbers are finite. So no
  network has more than 1024 blocks or 4096 channels of its first layer before its tensors are compared, without
  memory, with those of the checkpoint (`checkpoint.rehearse`), whose bytes lie in the file (`weights.check_whole`).
  A network that is built from a file takes at most twice the memory of the file; what analyze.py builds beside it
  (encoder, discriminator) at most 1 GiB; an image at most 2**24 pixels.
- What a file says of its machine (dataset.cache, weights_dir, offline, workers, device) is not used: no folder is made
  and no connection is opened for it. dataset.root and dataset.palette are read from, and never written to.

Nothing here imports torch.
"""

import importlib
import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader  # safe, and reads 1e-05 as OmegaConf wrote it
from omegaconf.errors import OmegaConfBaseException

from engine.config import Config
from engine.ranges import ConfigError, check_ranges
from errors import UserError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
GROUPS = ("dataset", "encoder", "loss", "model", "objective", "setting", "protocol", "recipe", "experiment", "budget")
# Of a config in a file: values, nesting, characters, items of a list, keys of a node.
NODES, DEPTH, TEXT, LIST, KEYS = 20_000, 40, 2**20, 512, 128
MACHINE = {  # what a file says of the machine that wrote it, and what stands for it
    "weights_dir": None,
    "offline": True,
    "code": None,
    "trust": False,
    "train.workers": 0,
    "train.device": "auto",
    "dataset.cache": None,
    "encoder.weights_dir": None,
    "encoder.offline": True,
}
Target = tuple[str, str, Mapping[str, Any]]  # the key, the constructor's name, and its node


class Refused(UserError):
    """A file that wants to run what nobody let it."""


@dataclass(frozen=True)
class Trust:
    """Which constructors of a file count beside those of configs/.

    names: of what the user's own modules define. everything: any, printed as they are let in.
    """

    names: frozenset[str] = frozenset()
    everything: bool = False

    @classmethod
    def of(cls, cfg: DictConfig) -> "Trust":
        """What a command says by `code` and `trust`. The modules are imported here.

        Raises: UserError for a module that cannot be imported.
        """
        code = cfg.get("code")
        modules = [] if code is None else [code] if isinstance(code, str) else list(code)
        names = [name for module in modules for name in defined(imported(str(module)))]
        return cls(frozenset(names), bool(cfg.get("trust", False)))


def imported(name: str) -> ModuleType:
    """A module of the user's, by a file or by its name. A file is known by its stem from then on.

    Raises: UserError where it cannot be imported, or where another module has that name.
    """
    if not name.endswith(".py"):
        try:
            return importlib.import_module(name)
        except Exception as error:
            raise UserError(f"code={name}: cannot be imported ({_line(error)}); give a file or a module") from error
    path = Path(name).expanduser().resolve()
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    if not path.is_file():
        raise UserError(f"code={name}: no such file")
    if not path.stem.isidentifier():
        raise UserError(f"code={name}: {path.stem} is no name of a Python module; rename the file")
    other = known or importlib.util.find_spec(path.stem)
    if known is not None or (other is not None and other.origin != str(path)):
        raise UserError(f"code={name}: another module is called {path.stem}; rename the file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[path.stem]
        raise UserError(f"code={name}: cannot be imported ({_line(error)})") from error
    return module


def defined(module: ModuleType) -> list[str]:
    """Full names of the classes and functions that a module itself defines, not of what it imports."""
    return [
        f"{module.__name__}.{name}"
        for name, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__
    ]


def config_of(text: Any, source: str, trust: Trust) -> DictConfig:
    """The config of train.py in a file, typed and checked, from which networks and data sets may be built.

    Args:
        text: JSON or YAML. source: of the file, for messages, such as "checkpoint=last.pt".
    Raises:
        UserError: in one line, for anything that the rules above refuse.
    """
    plain = parsed(text, source)
    admit(plain, source, trust)
    for key in ("dataset", "model", "setting", "encoder", "loss", "objective"):
        empty = plain.get(key) is None and key in ("encoder", "loss")
        if key in plain and not empty and not isinstance(plain[key], dict):
            raise UserError(f"{source}: its config says {key}={shown(str(plain[key]))}, which is no group of settings")
    for name, node in (plain.get("objective") or {}).items():
        if not isinstance(node, dict) or not isinstance(node.get("term"), dict) or "_target_" not in node["term"]:
            raise UserError(f"{source}: its config says no constructor for objective.{shown(name)}.term")
    try:
        cfg = cast(DictConfig, OmegaConf.merge(OmegaConf.structured(Config), plain))
        OmegaConf.set_struct(cfg, False)
        for key, value in MACHINE.items():
            node, _, name = key.rpartition(".")
            held = OmegaConf.select(cfg, node) if node else cfg
            if isinstance(held, DictConfig) and name in held:
                held[name] = value
        check_ranges(cfg)
    except OmegaConfBaseException as error:
        raise UserError(f"{source}: its config is not one of this version ({_line(error)})") from error
    except ConfigError as error:
        raise UserError(f"{source}: its config says {error}") from error
    return cfg


def parsed(text: Any, source: str) -> dict[str, Any]:
    """A config as plain data: nothing in it is resolved, imported or called.

    Raises: UserError for text that is no config, holds interpolations or is too large.
    """
    if not isinstance(text, str) or len(text) > TEXT:
        raise UserError(f"{source}: holds no config of train.py")
    try:
        found = json.loads(text) if text.lstrip().startswith("{") else yaml.load(text, Loader=get_yaml_loader())
        return plain_config(found, source)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{source}: its config cannot be read ({_line(error)})") from error


def plain_config(found: Any, source: str) -> dict[str, Any]:
    """A config out of a file that was read already. Raises: UserError as `parsed`."""
    if not isinstance(found, dict):
        raise UserError(f"{source}: holds no config of train.py")
    for count, (key, value, depth) in enumerate(_walk(found)):
        if count > NODES or depth > DEPTH:
            raise UserError(f"{source}: its config is too large or nested too deeply")
        if isinstance(value, str) and "${" in value:
            raise UserError(
                f"{source}: its config has an interpolation, {shown(key)}={shown(value)}; nothing in a file is "
                "resolved: write its value there"
            )
        if isinstance(value, dict | list) and len(value) > (LIST if isinstance(value, list) else KEYS):
            raise UserError(f"{source}: its config has {len(value)} entries in {shown(key) or 'its first level'}")
        if isinstance(value, dict) and not all(isinstance(name, str) for name in value):
            raise UserError(f"{source}: its config has a key that is no text in {shown(key) or 'its first level'}")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise UserError(f"{source}: its config says {shown(key)}={shown(str(value))}: too large a number")
    return found


def _walk(node: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any, int]]:
    yield path, node, depth
    if depth > DEPTH:
        return
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in children:
        yield from _walk(value, f"{path}.{key}" if path else str(key), depth + 1)


def admit(plain: dict[str, Any], source: str, trust: Trust) -> None:
    """Refuse the constructors of a file that neither configs/ names for the same key nor the user's code defines.

    Raises: Refused, naming the first of them and the cure.
    """
    foreign: list[Target] = [entry for entry in targets(plain) if not _legal(*entry, trust)]
    if not foreign:
        return
    names = list(dict.fromkeys(f"{shown(target)} ({shown(key)})" for key, target, _ in foreign))
    if trust.everything:
        print(f"trust=true: {source} may run {', '.join(names)}", flush=True)
        return
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    raise Refused(
        f"{source}: its config wants to run {', '.join(names[:3])}{more}, which configs/ does not name there; if this "
        "is your own code, add code=FILE.py, the file that defines it; trust=true runs whatever the file names"
    )


def targets(node: Any, path: str = "") -> Iterator[Target]:
    """Every node that Hydra would take for one to call, or whose keys are Hydra's own, at any depth."""
    if isinstance(node, dict):
        if any(key.startswith("_") for key in node):
            yield path, str(node.get("_target_")), node
        for key, value in node.items():
            yield from targets(value, f"{path}.{key}" if path else key)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from targets(value, f"{path}.{index}" if path else str(index))


def _legal(path: str, target: str, node: Mapping[str, Any], trust: Trust) -> bool:
    if target in trust.names and isinstance(node["_target_"], str):
        return True
    return _own(node) == slots().get(_slot(path), {}).get(target)


def ours(cfg: DictConfig, *paths: str) -> bool:
    """Whether the constructors at these keys of a config, and below them, are those that configs/ names there."""
    nodes = {path: OmegaConf.select(cfg, path) for path in paths}
    plain = {path: OmegaConf.to_container(node, resolve=True) for path, node in nodes.items() if node is not None}
    return all(_legal(*entry, Trust()) for path, node in plain.items() for entry in targets(node, path))


def _own(node: Mapping[str, Any]) -> str:
    """Hydra's keys of a node, as text, in which true is not 1."""
    return repr(sorted((key, node[key]) for key in node if key.startswith("_")))


def _slot(path: str) -> str:
    """A key without the name of the term, which is the experiment's to choose."""
    return re.sub(r"^objective\.[^.]+\.", "objective.*.", path)


@cache
def slots() -> dict[str, dict[str, str]]:
    """Key of a config -> constructor -> Hydra's keys of the node (`_own`), as the YAML files of configs/ have them.

    Where a file repeats another key, as objective's terms do by `${loss}`, what that key may name is legal there too.
    """
    found: dict[str, dict[str, str]] = {}
    repeated: list[tuple[str, str]] = []
    for group in GROUPS:
        for file in sorted((CONFIGS / group).rglob("*.yaml")):
            text = file.read_text(encoding="utf-8")
            package = "" if re.match(r"#\s*@package\s+_global_", text) else group
            content = yaml.safe_load(text) or {}
            content = {key: value for key, value in content.items() if key != "defaults"}
            for key, target, node in targets(content, package):
                found.setdefault(_slot(key), {})[target] = _own(node)
            for key, value, _ in _walk(content, package):
                if isinstance(value, str) and (match := re.fullmatch(r"\$\{([\w.]+)\}", value)):
                    repeated.append((_slot(key), match[1]))
    for key, other in repeated:
        if other in found:
            found.setdefault(key, {}).update(found[other])
    return found


def shown(text: str) -> str:
    """Text of a file for a message: short, one line, nothing that a terminal would obey."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return printable if len(printable) <= 80 else f"{printable[:77]}..."


def _line(error: BaseException) -> str:
    return shown((str(error).strip() or type(error).__name__).splitlines()[0])
