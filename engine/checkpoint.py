"""Checkpoints: written atomically, loaded with weights_only, and refused with a reason where they do not fit."""

import inspect
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO, Any

import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from torch import nn

from engine.config import NEUTRAL, Config, ConfigError
from engine.inputs import Inputs
from engine.paths import locate
from errors import UserError

SCHEMA = 1


def write(path: Path, state: Any, save: Callable[[Any, IO[bytes]], object] | None = None) -> None:
    """Save beside the target, flush to disk, rename: whatever happens, the previous file stays whole.

    Args:
        save: writes `state` into an open file; None: torch.save.
    Raises:
        UserError: on a full or unwritable disk, naming the file; the temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            (save or torch.save)(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        cause = (
            error
            if isinstance(error, OSError)
            else error.__context__
            if isinstance(error.__context__, OSError)
            else None
        )
        if cause is None and "PytorchStreamWriter" not in str(error) and "unexpected pos" not in str(error):
            raise
        raise UserError(
            f"{path}: cannot be written ({cause or error}); free space or change hydra.run.dir; "
            "the previous checkpoint is intact"
        ) from error


def read(path: Path) -> dict[str, Any]:
    """Load one of our checkpoints onto the CPU.

    Raises:
        UserError: for a missing, damaged or foreign file.
    """
    if not path.is_file():
        raise UserError(f"checkpoint={path}: no such file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"checkpoint={path}: not a readable checkpoint ({str(error).splitlines()[0][:120]})") from error
    if not isinstance(state, dict) or "schema" not in state or "networks" not in state:
        raise UserError(f"checkpoint={path}: not a Patchwise checkpoint; a run folder's last.pt is wanted")
    if state["schema"] > SCHEMA:
        raise UserError(
            f"checkpoint={path}: written by a newer version (schema {state['schema']}, this one reads {SCHEMA})"
        )
    return state


def contents(cfg: DictConfig, step: int, inputs: Inputs, **parts: Any) -> dict[str, Any]:
    """Of a checkpoint: what rebuilds its networks without data set or config files, and the `parts` by name."""
    config = json.dumps(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))
    return {"schema": SCHEMA, "step": step, "config": config, "inputs": inputs.json(), **parts}


@dataclass
class Loaded:
    """A checkpoint opened for inference."""

    path: Path
    step: int
    cfg: DictConfig
    inputs: Inputs
    state: dict[str, Any]

    @property
    def selection(self) -> str:
        """How this checkpoint of its run was chosen: last, best(metric, split), or step for any other file."""
        best = self.state.get("best")
        if self.path.name == "best.pt" and best:
            return f"best({best['metric']}, {best['split']})"
        return "last" if self.path.name == "last.pt" else "step"

    @property
    def name(self) -> str:
        """For what is made of it: the step; with `best`, or the stem of a file that no run wrote, such as 0-zebra."""
        if self.path.name == "last.pt" or self.path.stem == f"step_{self.step:08d}":
            return str(self.step)
        return f"{self.step}-{self.path.stem}"

    @property
    def networks(self) -> dict[str, dict[str, torch.Tensor]]:
        """Weights by network and name, for inference: of a generator its moving average, where the run kept one."""
        average: dict[str, torch.Tensor] = self.state.get("average") or {}
        found = dict(self.state["networks"])
        for name in {key.partition(".")[0] for key in average}:
            found[name] = {key.removeprefix(f"{name}."): average[key] for key in average if key.startswith(f"{name}.")}
        return found

    @classmethod
    def open(cls, checkpoint: str, which: str = "last") -> "Loaded":
        """Of a run folder or a file; `which` as `locate` has it."""
        path = locate(checkpoint, which)
        state = read(path)
        return cls(path, state["step"], OmegaConf.create(state["config"]), Inputs.from_json(state["inputs"]), state)


def load_network(network: nn.Module, state: dict[str, torch.Tensor], name: str, source: Path) -> None:
    """Strictly load one network.

    Raises:
        UserError: naming the first difference, when the checkpoint is of another architecture.
    """
    own = network.state_dict()
    if missing := sorted(own.keys() - state.keys()):
        detail = f"it lacks {missing[0]} and {len(missing) - 1} more"
    elif extra := sorted(state.keys() - own.keys()):
        detail = f"it has {extra[0]} and {len(extra) - 1} more that this network has not"
    elif wrong := [key for key in own if own[key].shape != state[key].shape]:
        detail = f"its {wrong[0]} is {tuple(state[wrong[0]].shape)}, this network's is {tuple(own[wrong[0]].shape)}"
    else:
        network.load_state_dict(state)
        return
    raise UserError(
        f"checkpoint={source}: {name} is of another architecture: {detail}; "
        "match model, dataset and encoder of the run that wrote it"
    )


class RunFolder:
    """A run's folder: its config, its checkpoints, and the rule of what may continue it."""

    def __init__(self, path: Path, cfg: DictConfig) -> None:
        self.path = path
        self.cfg = cfg
        self.text = OmegaConf.to_yaml(cfg, resolve=True)

    def prepare(self) -> None:
        """Make the folder and write config.yaml; refuse one whose config differs in anything that changes the result.

        Raises:
            ConfigError: with the first differences.
            UserError: when the path lies below a regular file or cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            blocker = next((p for p in [self.path, *self.path.parents] if p.is_file()), self.path)
            raise UserError(
                f"{self.path}: cannot be made, {blocker} is in the way ({type(error).__name__}); "
                "change run= or hydra.run.dir"
            ) from error
        present = self.path / "config.yaml"
        if present.is_file():
            difference = differences(OmegaConf.create(present.read_text()), OmegaConf.create(self.text))
            if difference:
                raise ConfigError(
                    f"{self.path}: was made with another config ({'; '.join(difference[:4])}); "
                    "choose another run= or seed=, or remove the folder"
                )
        temporary = self.path / ".config.yaml.tmp"
        temporary.write_text(self.text)
        temporary.replace(present)

    def save(self, step: int, inputs: Inputs, keep: int, name: str = "last.pt", **parts: Any) -> None:
        """Write the file `name`; with keep > 0 also step_<n>.pt, of which the newest `keep` stay."""
        state = contents(self.cfg, step, inputs, **parts)
        if keep:
            write(self.path / f"step_{step:08d}.pt", state)
        write(self.path / name, state)
        for old in sorted(self.path.glob("step_*.pt"))[: -keep or None] if keep else []:
            old.unlink()

    def latest(self) -> dict[str, Any] | None:
        """The state to resume from, or None."""
        path = self.path / "last.pt"
        return read(path) if path.is_file() else None


def differences(old: Any, new: Any) -> list[str]:
    """Dotted keys whose values differ, those aside that never change a result: `NEUTRAL` but for the seed, and where
    things lie.

    A key that the old config does not know, because it is younger than the folder, had its default there.
    """
    before, after = _flat(old), _flat(new)
    found = []
    for key in sorted(before.keys() | after.keys()):
        a, b = before.get(key, "absent"), after.get(key, "absent")
        if a == "absent" and b == _default(new, key):
            continue
        neutral = key != "seed" and NEUTRAL.match(key)
        if a != b and not neutral and not key.endswith((".weights_dir", ".offline")):
            found.append(f"{key}: {a} there, {b} here")
    return found


def _default(cfg: Any, key: str) -> Any:
    """What a key is where no config names it: the default of its constructor, or of the trunk's types."""
    path, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, path) if path else cfg
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    if target is None:
        value = OmegaConf.select(OmegaConf.structured(Config), key, default="absent")
    else:
        accepted = inspect.signature(get_object(target)).parameters
        value = accepted[name].default if name in accepted else "absent"
    return value.value if isinstance(value, Enum) else list(value) if isinstance(value, tuple) else value


def _flat(node: Any, path: str = "") -> dict[str, Any]:
    if isinstance(node, DictConfig):
        node = OmegaConf.to_container(node, resolve=True, enum_to_str=True)
    if not isinstance(node, dict) or not node:
        return {path: node}
    return {
        key: value
        for name, child in node.items()
        for key, value in _flat(child, f"{path}.{name}" if path else str(name)).items()
    }


def start_from(checkpoint: str, networks: dict[str, nn.Module]) -> None:
    """Load the weights of another run into the networks of a new one (`checkpoint=` in train.py).

    Raises:
        UserError: when one of them is of another architecture, or none is in the file.
    """
    path = locate(checkpoint)
    saved = read(path)["networks"]
    if "generator" not in saved:
        raise UserError(f"checkpoint={path}: holds no generator")
    for name, network in networks.items():
        if name in saved:
            load_network(network, saved[name], name, path)
