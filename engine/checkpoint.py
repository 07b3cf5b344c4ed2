"""Checkpoints: written atomically, sealed by a digest, loaded with weights_only, refused with a reason where they do
not fit, and replaced by an older one where the newest is damaged."""

import inspect
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO, Any

import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from engine import seal
from engine.config import NEUTRAL, Config, ConfigError
from engine.fingerprint import Data, below_data_root
from engine.inputs import Inputs
from engine.lock import FolderLock
from engine.paths import locate
from engine.trust import Trust, config_of, parsed, shown
from errors import UserError
from files import alive, atomically, sweep, write_text
from models.weights import check_whole

SCHEMA = 1
LOCK = "train.lock"
# Temporary files of versions before `files.atomically`.
OLD_TEMPORARY = re.compile(r"\.(?:[\w.+-]+\.pt\.(?P<pid>\d+)|config\.yaml|[\w.+-]+\.png)\.tmp|log\.tmp")


class Damaged(UserError):
    """A file that is no whole checkpoint; `reason` is for a message that names the file itself."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"checkpoint={path}: {reason}")
        self.reason = reason


def write(path: Path, state: Any, save: Callable[[Any, IO[bytes]], object] | None = None) -> None:
    """Save beside the target, flush to disk, rename: whatever happens, the previous file stays whole.

    Args:
        save: writes `state` into an open file; None: torch.save, and the file is sealed.
    Raises:
        UserError: on a full or unwritable disk, naming the file; the temporary file is removed.
    """
    try:
        with atomically(path) as file:
            (save or torch.save)(state, file)
            if save is None:
                file.flush()
                seal.seal(Path(file.name))
    except (OSError, RuntimeError) as error:
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
        Damaged: for a file that is damaged, foreign or not finite.
        UserError: for a missing file, or one of a newer version.
    """
    if not path.is_file():
        raise UserError(f"checkpoint={path}: no such file")
    try:
        with path.open("rb") as file:
            sealed = seal.check(file)
            file.seek(0)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes of any kind make zipfile and torch raise errors of any kind
        text = (str(error).splitlines() or [""])[0][:120] or type(error).__name__
        raise Damaged(path, f"not a readable checkpoint ({text})") from error
    if not isinstance(state, dict) or "schema" not in state or "networks" not in state:
        raise Damaged(path, "not a Patchwise checkpoint; a run folder's last.pt is wanted")
    schema = state["schema"]
    if type(schema) is int and schema > SCHEMA:
        raise UserError(f"checkpoint={path}: written by a newer version (schema {schema}, this one reads {SCHEMA})")
    if problem := _problem(state):
        raise Damaged(path, problem)
    if not sealed:
        print(f"{path}: has no digest of this project's; only the CRCs of its records were checked")
    return state


def _problem(state: Mapping[str, Any]) -> str | None:
    """What keeps this content from being a checkpoint's, or None."""
    for key, kind, words in (
        ("schema", int, "a whole number"),
        ("step", int, "a whole number"),
        ("config", str, "a text"),
        ("inputs", str, "a text"),
        ("networks", dict, "weights by network"),
    ):
        if key not in state:
            return f"not a whole checkpoint: it has no {key}"
        if type(state[key]) is not kind:
            return f"not a whole checkpoint: its {key} is {str(state[key])[:40]!r}, {words} was expected"
    if not 0 <= state["step"] < 2**53 or state["schema"] < 1:
        return f"not a whole checkpoint: step {str(state['step'])[:40]}, schema {state['schema']}"
    for name, network in state["networks"].items():
        if not isinstance(network, dict) or not all(isinstance(value, Tensor) for value in network.values()):
            return f"not a whole checkpoint: its network {str(name)[:40]} is no set of tensors by name"
    try:
        Inputs.from_json(state["inputs"])
        config = json.loads(state["config"])
    except (ValueError, RecursionError) as error:
        return f"not a whole checkpoint: {str(error)[:120]}"
    if not isinstance(config, dict) or not isinstance(config.get("dataset"), dict):
        return "not a whole checkpoint: its config has no dataset"
    for key in ("networks", "average", "optimizers"):
        for name, value in _tensors(state.get(key), key):
            if value.layout is not torch.strided or value.device.type != "cpu":
                return f"not a whole checkpoint: {name} is no plain tensor"
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                return f"not a whole checkpoint: {name} is larger than what is stored of it"
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                return f"{name} holds a NaN or an infinity, so training went wrong before; choose an older checkpoint"
    return None


def _tensors(node: Any, path: str, depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of nested dicts, with its dotted path."""
    if isinstance(node, Tensor):
        yield path, node
    elif isinstance(node, dict) and depth < 5:
        for key, value in node.items():
            yield from _tensors(value, f"{path}.{key}", depth + 1)


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
        for name in dict.fromkeys(key.partition(".")[0] for key in average):
            found[name] = {key.removeprefix(f"{name}."): average[key] for key in average if key.startswith(f"{name}.")}
        return found

    @classmethod
    def open(
        cls,
        checkpoint: str,
        which: str = "last",
        dataset: Mapping[str, Any] | None = None,
        trust: Trust | None = None,
    ) -> "Loaded":
        """Of a run folder or a file; the one way to what networks are built from, for every command.

        Args:
            which: as `locate` has it.
            dataset: keys of the config's data set that the command sets anew, such as its root; null leaves one as it
                is. Where none is given, a root below DATA_ROOT is looked for below the present DATA_ROOT.
            trust: which constructors the file may name beside those of configs/, as the command line says.
        Raises:
            UserError: for a file that is not one of ours, or may not run what it names (engine/trust.py).
        """
        path = locate(checkpoint, which)
        try:
            state = read(path)
        except Damaged as error:
            others = [*path.parent.glob("step_*.pt"), path.with_name("previous.pt"), path.with_name("best.pt")]
            found = [other.name for other in others if other != path and other.is_file()]
            if path.name not in ("last.pt", "best.pt") or not found:
                raise
            raise UserError(f"{error}; others are there: {', '.join(found)}; training again repairs last.pt") from error
        source = f"checkpoint={path}"
        cfg = config_of(state["config"], source, trust or Trust())
        for name, held in [*state["networks"].items(), ("average", state.get("average") or {})]:
            if not isinstance(held, dict) or not all(isinstance(key, str) for key in (name, *held)):
                raise UserError(f"{source}: its weights have names that are no text; the file is damaged")
            check_whole(held, f"{source}: its {shown(name)}")
        best = state.get("best")
        whole = best is None or (
            isinstance(best, dict) and all(isinstance(best.get(k), str) for k in ("metric", "split"))
        )
        if not whole or not isinstance(state.get("encoder"), str | None):
            raise UserError(f"{source}: its {'encoder' if whole else 'best'} is no text; the file is damaged")
        inputs = Inputs.from_json(state["inputs"])
        loaded = cls(path, state["step"], cfg, inputs, {"encoder": None, **state})
        place_data(loaded.cfg.dataset, Data.from_json(state.get("data")), dataset or {})
        return loaded


def place_data(config: DictConfig, data: Data | None, given: Mapping[str, Any]) -> None:
    """Point the data set of a checkpoint's config to where its files lie now: `given` wins, then DATA_ROOT.

    Raises: UserError for a given key that the data set has not.
    """
    asked = {key: value for key, value in given.items() if value is not None}
    for key, value in asked.items():
        if key not in config:
            raise UserError(
                f"dataset.{key}={value}: the data set of this checkpoint, {config.get('name')}, has no {key}"
            )
        config[key] = value
    below = data.below if data is not None else None
    if "root" not in asked and below is not None and "DATA_ROOT" in os.environ:
        config["root"] = str(Path(os.environ["DATA_ROOT"]) / below)


def load_network(network: nn.Module, state: dict[str, torch.Tensor], name: str, source: Path) -> None:
    """Strictly load one network.

    Raises:
        UserError: naming the first difference, when the checkpoint is of another architecture.
    """
    compare(network, state, name, source)
    network.load_state_dict(state)


def rehearse(make: Callable[[], nn.Module], state: dict[str, torch.Tensor], name: str, source: Path) -> None:
    """Build a network without memory, and refuse it as `load_network` does: what a config says of sizes takes no more
    memory than the tensors of its checkpoint have. `make` must be free of files and of random numbers' order."""
    with torch.device("meta"):
        compare(make(), state, name, source)


def compare(network: nn.Module, state: dict[str, torch.Tensor], name: str, source: Path) -> None:
    """Raises: UserError naming the first difference, when the checkpoint is of another architecture."""
    own = network.state_dict()
    if missing := sorted(own.keys() - state.keys()):
        detail = f"it lacks {missing[0]} and {len(missing) - 1} more"
    elif extra := sorted(state.keys() - own.keys()):
        detail = f"it has {extra[0]} and {len(extra) - 1} more that this network has not"
    elif wrong := [key for key in own if own[key].shape != state[key].shape]:
        detail = f"its {wrong[0]} is {tuple(state[wrong[0]].shape)}, this network's is {tuple(own[wrong[0]].shape)}"
    else:
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
        self.data: Data | None = None

    def prepare(self, dataset: Any) -> bool:
        """Write config.yaml and data.json; refuse a folder whose config differs in anything that changes the result,
        or whose checkpoint was trained on other data. A damaged last.pt is replaced by the newest whole checkpoint.

        Returns: whether there is a checkpoint to go on from.
        Raises:
            ConfigError: with the first differences of the config.
            UserError: for other data, or where no checkpoint is whole.
        """
        self.data = Data.of(dataset, below_data_root(_raw_root(self.cfg)))
        state = self._repaired()
        self._check_config(state)
        if state is not None:
            self._check_data(Data.from_json(state.get("data")))
        write_text(self.path / "config.yaml", self.text)
        self.data.write(self.path)
        return state is not None

    def _check_config(self, state: Mapping[str, Any] | None) -> None:
        """Compare with the checkpoint's config, which has a digest, or where there is none with config.yaml."""
        present = self.path / "config.yaml"
        kept, own = _config_of(present), OmegaConf.create(self.text)
        if state is not None:
            saved = parsed(state["config"], f"checkpoint={self.path / 'last.pt'}")
            if present.is_file() and (kept is None or differences(kept, saved, own)):
                print(f"{present}: is damaged or was edited; rebuilt from last.pt")
            kept = saved
        elif kept is None and present.is_file():
            print(f"{present}: is damaged; written anew, as no checkpoint is there yet")
        difference = [] if kept is None else differences(kept, own)
        if difference:
            raise ConfigError(
                f"{self.path}: was made with another config ({'; '.join(difference[:4])}); "
                "choose another run= or seed=, or remove the folder"
            )

    def _check_data(self, before: Data | None) -> None:
        """Raises: UserError where the checkpoint was trained on other images."""
        assert self.data is not None
        if before is None or before.fingerprint is None:
            if self.data.fingerprint is not None:
                print(f"{self.path}: its checkpoint does not say which images it was trained on; going on with these")
            return
        listed = Data.read(self.path)
        if listed is not None and listed.fingerprint == before.fingerprint:
            before = listed
        if self.data.fingerprint is not None and (difference := before.difference(self.data)):
            back = "put those back" if before.root == self.data.root else f"set dataset.root={before.root}"
            raise UserError(
                f"{self.path}: was trained on other images: {difference}; {back}, or choose another run= (with "
                f"checkpoint={self.path} it begins from these weights)"
            )

    def save(self, step: int, inputs: Inputs, keep: int, name: str = "last.pt", **parts: Any) -> None:
        """Write the file `name`; with keep > 0 also step_<n>.pt, of which the newest `keep` stay.

        The last.pt before this one stays as previous.pt: a hard link, which takes no time.
        """
        data = {} if self.data is None else {"data": self.data.json()}
        state = contents(self.cfg, step, inputs, **data, **parts)
        if keep:
            write(self.path / f"step_{step:08d}.pt", state)
        if name == "last.pt":
            with suppress(OSError):  # none yet, or a file system without links
                _link(self.path / name, self.path / "previous.pt")
        write(self.path / name, state)
        for old in sorted(self.path.glob("step_*.pt"))[: -keep or None] if keep else []:
            old.unlink()

    def latest(self) -> dict[str, Any] | None:
        """The state to resume from, or None."""
        path = self.path / "last.pt"
        return read(path) if path.is_file() else None

    def _repaired(self) -> dict[str, Any] | None:
        """`latest`; a last.pt that is damaged or gone is replaced by the newest whole one of the others, if any."""
        path = self.path / "last.pt"
        try:
            if (state := self.latest()) is not None:
                return state
            problem = "is gone"
        except Damaged as error:
            problem = f"is damaged ({error.reason})"
        source, newest = path, None
        for other in [path.with_name("previous.pt"), path.with_name("best.pt"), *self.path.glob("step_*.pt")]:
            with suppress(UserError):
                state = read(other)
                if newest is None or state["step"] > newest["step"]:
                    source, newest = other, state
        if newest is None:
            if path.is_file():
                raise UserError(
                    f"{path}: {problem}, and no other checkpoint of this run is whole; move it away to begin at step 0"
                )
            return None
        if path.is_file():
            path.replace(path.with_name("last.pt.damaged"))
            problem += ", kept as last.pt.damaged"
        try:
            _link(source, path)
        except OSError:  # a file system without links
            with source.open("rb") as whole, atomically(path) as file:
                shutil.copyfileobj(whole, file)
        print(f"{path}: {problem}; goes on from {source.name}, step {newest['step']}")
        return newest

    def best(self, state: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """What a state says of best.pt; None, with a line, where that file is damaged or gone."""
        found = None if state is None else state.get("best")
        wanted = {"metric", "split", "images", "step", "value", "merit"}
        if not isinstance(found, dict) or not found.keys() >= wanted or not isinstance(found["merit"], int | float):
            return None
        path = self.path / "best.pt"
        try:
            with path.open("rb") as file:
                seal.check(file)
        except FileNotFoundError:
            problem = "is gone"
        except Exception as error:  # as in `read`
            path.replace(path.with_name("best.pt.damaged"))
            problem = f"is damaged ({str(error)[:120]}), kept as best.pt.damaged"
        else:
            return found
        print(f"{path}: {problem}; the next evaluation is the best so far again")
        return None


@contextmanager
def claim(folder: Path) -> Iterator[FolderLock]:
    """Make a run folder and train in it alone, without what processes that were killed there left behind.

    Raises: UserError naming the process that trains there already, or where the folder cannot be made or written.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        blocker = next((p for p in [folder, *folder.parents] if p.is_file()), folder)
        raise UserError(
            f"{folder}: cannot be made, {blocker} is in the way ({type(error).__name__}); change run= or hydra.run.dir"
        ) from error
    try:
        with FolderLock(folder / LOCK, "training", "choose another run= or hydra.run.dir, or wait for its end") as lock:
            places = [folder, folder / "samples", folder / "eval", *(folder / "eval").glob("*/")]
            clean(places)
            try:
                yield lock
            finally:
                clean(places)
    finally:  # what was refused leaves no empty folder
        with suppress(OSError):
            for place in made:
                place.rmdir()


def clean(places: list[Path]) -> None:
    """Remove temporary files of dead processes from the folders of a run that nobody else trains in."""
    for place in places:
        with suppress(OSError):
            sweep(place)
            for path in sorted(place.iterdir()):
                found = OLD_TEMPORARY.fullmatch(path.name)
                if found and not (found["pid"] and alive(int(found["pid"]))):
                    path.unlink()


def restore(
    state: Mapping[str, Any],
    path: Path,
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    average: Any,
    pools: Mapping[str, Any],
    device: torch.device,
) -> None:
    """Put a run's state back: weights by network, optimizers and image pools by name, and the moving average, if any.

    Raises: UserError for a file without these, or of other shapes.
    """
    for name, network in networks.items():
        if name not in state["networks"]:
            raise UserError(f"checkpoint={path}: holds no network {name}; {_START}")
        load_network(network, state["networks"][name], name, path)
    try:
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
            for parameter, values in optimizer.state.items():
                if any(value.numel() not in (1, parameter.numel()) for value in values.values()):
                    raise ValueError(f"the optimizer {name} is of other shapes")
        if average is not None:
            average.load_state_dict(state["average"])
        for name, images in state.get("pools", {}).items():
            pools[name].load_state(images, device)
        if type(state["record"]["count"]) is not int:
            raise ValueError("its sums of logged values are damaged")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        raise UserError(
            f"checkpoint={path}: no run can go on from it ({type(error).__name__}: {error}); {_START}"
        ) from error


_START = "start a new run from its weights: checkpoint=FILE with another run="


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, in place of what had that name. Raises: OSError where links cannot be made."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    os.link(source, temporary)
    temporary.replace(target)


def _raw_root(cfg: DictConfig) -> Any:
    """dataset.root as the config has it, unresolved."""
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    return raw["dataset"].get("root")


def _config_of(path: Path) -> dict[str, Any] | None:
    """A config.yaml as plain values, nothing resolved; None for a file that is missing, damaged or no run's config."""
    try:
        found = parsed(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError, UserError):
        return None
    return found if isinstance(found.get("dataset"), dict) else None


def differences(old: Any, new: Any, own: Any = None) -> list[str]:
    """Dotted keys whose values differ, those aside that never change a result: `NEUTRAL` but for the seed, and where
    things lie.

    A key that the old config does not know, because it is younger than the folder, had its default there. Defaults are
    those of the constructors in `own` (None: new), the command's config: what a file names is not imported.
    """
    before, after = _flat(old), _flat(new)
    found = []
    for key in sorted(before.keys() | after.keys()):
        a, b = before.get(key, "absent"), after.get(key, "absent")
        if a == "absent" and b == _default(new if own is None else own, key):
            continue
        neutral = key != "seed" and NEUTRAL.match(key)
        if a != b and not neutral and not key.endswith((".weights_dir", ".offline")):
            found.append(f"{key}: {str(a)[:60]} there, {str(b)[:60]} here")
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
