"""How a valid file becomes a damaged or hostile one: bytes, JSON values, and checkpoints with a program inside."""

import copy
import io
import json
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from engine import checkpoint

MARK = "canary-was-called"  # a file in the working folder
NUMBERS = (0, -1, 1, 255, 256, 2**31 - 1, 2**31, 2**63, -(2**63), 10**30, 0.5, float("nan"), float("inf"))
ODD = (None, True, "", "x" * 10000, "\x00", "\ud800", "ä\u0308", "../../escape", [], {}, [[]], {"": 0}, "NaN", "1e999")
TARGETS: tuple[dict[str, Any], ...] = (
    {"_target_": "tests.faults.canary.touch"},
    {"_target_": "os.system", "command": f"touch {MARK}"},
    {"_target_": "builtins.open", "file": MARK, "mode": "w"},
    {"_target_": "shutil.copyfile", "src": "/etc/hostname", "dst": MARK},
    {"_target_": "subprocess.run", "args": ["touch", MARK]},
    {"_target_": "builtins.exec", "_args_": [f"open({MARK!r}, 'w')"]},
    {"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path", "_args_": [MARK]}},
    {"_target_": "torch.hub.load", "repo_or_dir": ".", "model": "touch", "source": "local", "trust_repo": True},
    {"_target_": "numpy.load", "file": "hostile.npy", "allow_pickle": True},
    {"_target_": "hydra.utils.instantiate", "config": {"_target_": "tests.faults.canary.touch"}},
    {"_target_": "hydra.utils.call", "config": {"_target_": "os.system", "command": f"touch {MARK}"}},
    {"_target_": "models.weights.load", "path": "hostile.pt"},
    {"_target_": "functools.partial", "_args_": [{"_target_": "tests.faults.canary.touch"}]},
    {"_target_": "engine.build.build", "cfg": {"_target_": "tests.faults.canary.touch"}},
)
RESOLVERS = ("${oc.env:HOME}", "${oc.env:PATH}", "${oc.decode:'1'}", "${hydra:runtime.cwd}", "${loss}", "${")


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """One to three accidents of a file's bytes."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(content) + 1)
        end = min(len(content), at + rng.choice((1, 2, 4, 16, 256, 4096)))
        kind = rng.randrange(9)
        if kind == 0 and content:
            at = min(at, len(content) - 1)
            content = content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]
        elif kind == 1:
            content = content[:at]
        elif kind == 2:
            content = content[:at] + content[end:]
        elif kind == 3:
            content = content[:at] + rng.randbytes(end - at) + content[end:]
        elif kind == 4:
            content = content[:at] + bytes(end - at) + content[end:]
        elif kind == 5:
            content = content[:at] + rng.randbytes(rng.randrange(1, 64)) + content[at:]
        elif kind == 6:
            content = content[:at] + content[at:end] * rng.choice((2, 100)) + content[end:]
        elif kind == 7:
            number = rng.choice((0, 1, 2**31 - 1, 2**32 - 1)).to_bytes(4, rng.choice(("big", "little")))
            at = rng.randrange(min(64, len(content)) + 1)  # where headers keep sizes
            content = content[:at] + number + content[at + 4 :]
        else:
            content = content + content[:end]
    return content


def mutate_value(value: Any, rng: random.Random) -> Any:
    """One change somewhere in nested dictionaries and lists: another value or type, a key less or more."""
    value = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []
        for key in keys:
            places.append((node, key))
            walk(node[key])

    walk(value)
    if not places or rng.random() < 0.03:
        return rng.choice(ODD)
    node, key = rng.choice(places)
    kind = rng.randrange(6)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[rng.choice(("extra", "", "_target_", "__class__", "_args_"))] = rng.choice(ODD)
    elif kind == 2:
        node[key] = rng.choice(NUMBERS)
    elif kind == 3:
        node[key] = [node[key]] if rng.random() < 0.5 else {"inner": node[key]}
    elif kind == 4:
        other, name = rng.choice(places)
        try:
            node[key] = copy.deepcopy(other[name])
        except (KeyError, IndexError):
            node[key] = None
    else:
        node[key] = rng.choice(ODD)
    return value


def mutate_json(content: bytes, rng: random.Random) -> bytes:
    """A JSON file with another value somewhere, or other bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(content, rng)
    return json.dumps(mutate_value(json.loads(content), rng)).encode("utf-8", "surrogatepass")


def mutate_lines(content: bytes, rng: random.Random) -> bytes:
    """One line of a file of lines damaged: JSON where it is JSON, else bytes."""
    lines = content.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    try:
        json.loads(lines[at])
        lines[at] = mutate_json(lines[at].strip(), rng) + b"\n"
    except ValueError:
        lines[at] = mutate_bytes(lines[at], rng)
    return b"".join(lines)


def mutate_yaml(content: bytes, rng: random.Random) -> bytes:
    """A config.yaml with another value or a program in it; JSON is YAML."""
    import yaml

    if rng.random() < 0.3:
        return mutate_bytes(content, rng)
    return json.dumps(hostile_config(yaml.safe_load(content), rng)).encode("utf-8", "surrogatepass")


def hostile_config(config: Any, rng: random.Random) -> Any:
    """A config with a target, a resolver, a huge size, or any other value somewhere."""
    if rng.random() < 0.4:
        return mutate_value(config, rng)
    config = copy.deepcopy(config)
    places: list[tuple[dict, str]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else ():
            places.append((node, key))
            walk(node[key])

    walk(config)
    node, key = rng.choice(places)
    kind = rng.randrange(4)
    if kind == 0:
        node[key] = copy.deepcopy(rng.choice(TARGETS))
    elif kind == 1:
        targets = [(n, k) for n, k in places if k == "_target_"]
        node, key = rng.choice(targets)
        node.update(copy.deepcopy(rng.choice(TARGETS)))
    elif kind == 2:
        node[key] = rng.choice(RESOLVERS)
    else:
        sizes = [(n, k) for n, k in places if isinstance(n[k], int) and not isinstance(n[k], bool)]
        node, key = rng.choice(sizes)
        node[key] = rng.choice((10**9, 10**6, -1, 0, 2**62))
    return config


class Program:
    """Pickles as a call."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call, self.arguments


def mutate_checkpoint(content: bytes, rng: random.Random) -> bytes:
    """A checkpoint with damaged bytes, another value, a hostile config under a right digest, or a pickle that calls."""
    kind = rng.randrange(7)
    if kind <= 1:
        return mutate_bytes(content, rng)
    state = torch.load(io.BytesIO(content), weights_only=True)
    if kind == 2:
        changed = mutate_value(state, rng)
        if isinstance(changed, dict) and _fits(changed.get("networks"), state["networks"]):
            changed["networks"] = state["networks"]  # other weights under a right seal are no damage
        state = changed
    elif kind in (3, 4):
        state["config"] = json.dumps(hostile_config(json.loads(state["config"]), rng))
    elif kind == 5:
        state["inputs"] = json.dumps(mutate_value(json.loads(state["inputs"]), rng))
    else:
        return hostile_file(state, rng)
    return sealed(state)


def _fits(one: Any, other: Any) -> bool:
    """Whether two nested states have the same keys, and tensors of the same shapes."""
    if isinstance(other, dict):
        return isinstance(one, dict) and one.keys() == other.keys() and all(_fits(one[key], other[key]) for key in one)
    return isinstance(one, torch.Tensor) and one.shape == other.shape


def mutate_state(content: bytes, rng: random.Random) -> bytes:
    """A plain file of torch.save: damaged bytes, a tensor of another shape or type, a name more or less, a program."""
    if rng.random() < 0.4:
        return mutate_bytes(content, rng)
    state = torch.load(io.BytesIO(content), weights_only=True)
    if isinstance(state.get("config"), str) and rng.random() < 0.7:
        state["config"] = json.dumps(mutate_value(json.loads(state["config"]), rng))
    else:
        inner = state.get("weights", state)
        key = rng.choice(list(inner))
        odd = (torch.zeros(0), torch.zeros(3, 3), torch.zeros(1).expand(2**33), torch.full((4, 4, 3, 3), float("nan")))
        kind = rng.randrange(5)
        if kind == 0:
            del inner[key]
        elif kind == 1:
            inner[rng.choice(("extra.weight", "", "model.99999999999.weight", "\x00"))] = inner[key]
        elif kind == 2:
            inner[key] = rng.choice((*odd, None, "text", 3, [1], inner[key].to(torch.int64), inner[key].to_sparse()))
        elif kind == 3:
            inner[key] = inner[key][None]
        else:
            return hostile_file(state, rng)
    made = io.BytesIO()
    torch.save(state, made)
    return made.getvalue()


def sealed(state: Any) -> bytes:
    """As the project itself would write it, with whatever digest it keeps: an attacker can compute that too."""
    path = Path("sealed.pt").absolute()
    checkpoint.write(path, state)
    content = path.read_bytes()
    path.unlink()
    return content


def hostile_file(state: dict[str, Any], rng: random.Random) -> bytes:
    """A file of torch.save that calls a function when it is unpickled, or that unfolds to far more than it takes."""
    import os

    made = io.BytesIO()
    kind = rng.choice((0, 0, 0, 1, 1, 1, 2, 3, 3))
    if kind == 0:
        torch.save({**state, "step": Program(os.system, f"touch {MARK}")}, made)
    elif kind == 1:
        made.write(pickle.dumps(Program(os.system, f"touch {MARK}")))
    elif kind == 2:  # a zip bomb: zeros that take a thousandth of their size
        plain = io.BytesIO()
        torch.save(state, plain)
        with zipfile.ZipFile(plain) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
            names = [name for name in old.namelist() if "/data/" in name]
            chosen = rng.choice(names)
            for name in old.namelist():
                new.writestr(name, bytes(2**27) if name == chosen else old.read(name))
    else:  # tensors that stride over more than their storage holds, or claim a size that nobody has
        huge = torch.zeros(1).expand(2**33)
        torch.save({**state, "networks": {"generator": {"model.1.weight": huge}}}, made)
    return made.getvalue()
