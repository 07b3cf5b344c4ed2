"""Two processes whose strings hash apart train to the same bits, every setting with every objective; and no network is
called for nobody."""

import ast
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from engine import build as building
from engine.build import build, build_dataset
from engine.checks import validate
from engine.config import ConfigError
from engine.inputs import Inputs
from tests.combinations import LEGAL, LSESIM, OBJECTIVES, combinations, count_calls, line, make_pairs, settings
from tests.compose import config
from train import train

ROOT = Path(__file__).resolve().parents[1]
NAMES = list(combinations(Path()))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hash_seed")
    make_pairs(folder / "pairs")
    for seed, name in enumerate(("first", "second")):
        words = [sys.executable, "-m", "tests.hash_seed", str(folder), name]
        done = subprocess.run(
            words,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{name}.json").read_text()) for name in ("first", "second")]


@pytest.mark.parametrize("name", NAMES)
def test_two_hash_seeds_are_bit_equal(found, name):
    first, second = found
    assert first[name] == second[name]


def test_a_run_that_goes_on_under_another_hash_seed_is_bit_equal(found):
    first, second = found
    assert second["resumed"]["digest"] == first[LSESIM]["digest"]


# Calls and images of one step on two images. A discriminator sees the fakes, and in its own step fakes and reals, four;
# with feature matching (spade) four both times. "/encode" goes up to the last layer that is tapped.
JUDGED, BACK = {"discriminator": (2, 6)}, {"generator_source": (1, 2), "generator/encode": (4, 8)}
PASSES = {
    "paired/contrast": {"generator": (1, 2), "encoder": (2, 4)},
    "paired/contrast_gan": {"generator": (1, 2), "encoder": (2, 4), **JUDGED},
    "paired/gan": {"generator": (1, 2), **JUDGED},
    "paired/spade": {"generator": (1, 2), "encoder": (2, 4), "discriminator": (2, 8)},
    "paired_images/contrast": {"generator": (1, 2), "encoder": (2, 4)},
    "paired_images/contrast_gan": {"generator": (1, 2), "encoder": (2, 4), **JUDGED},
    "paired_images/fastcut": {"generator": (1, 2), "encoder": (2, 4), **JUDGED},
    "paired_images/gan": {"generator": (1, 2), **JUDGED},
    "paired_images/lsesim": {"generator": (1, 2), **JUDGED, "encoder": (7, 14)},
    "paired_images/sesim": {"generator": (1, 2), "encoder": (2, 4), **JUDGED},
    "paired_images/spade": {"generator": (1, 2), "encoder": (2, 4), "discriminator": (2, 8)},
    "unpaired/cut": {"generator": (1, 4), "generator/encode": (2, 4), **JUDGED},
    "unpaired/fastcut": {"generator": (1, 2), "generator/encode": (1, 2), **JUDGED},
    "unpaired/gan": {"generator": (1, 2), **JUDGED},
    "unpaired/lsesim": {"generator": (1, 2), "encoder": (5, 10), **JUDGED},
    "unpaired/sesim": {"generator": (1, 2), "encoder": (2, 4), **JUDGED},
    "cycle/cycle": {
        "generator": (2, 6),
        "generator_source": (2, 6),
        **JUDGED,
        "discriminator_source": (2, 6),
    },
    "unpaired/contrast": {"generator": (1, 2), "generator/encode": (1, 2)},
    "unpaired/contrast_gan": {"generator": (1, 2), "generator/encode": (1, 2), **JUDGED},
    "unpaired/spade": {"generator": (1, 2), "generator/encode": (1, 2), "discriminator": (2, 8)},
    "cycle/contrast": {"generator": (1, 2), **BACK},
    "cycle/contrast_gan": {
        "generator": (1, 2),
        "generator_source": (1, 2),
        "generator/encode": (4, 8),
        **JUDGED,
    },
    "cycle/cut": {"generator": (1, 2), **BACK, **JUDGED},
    "cycle/fastcut": {
        "generator": (1, 2),
        "generator_source": (1, 2),
        "generator/encode": (4, 8),
        **JUDGED,
    },
    "cycle/spade": {
        "generator": (1, 2),
        "generator_source": (1, 2),
        "generator/encode": (4, 8),
        "discriminator": (2, 8),
    },
}


@pytest.mark.parametrize("name", NAMES)
def test_no_pass_is_made_for_nobody(found, name):
    assert per_step(found[0][name]["calls"], 2) == PASSES[name]


def per_step(calls, steps):
    return {
        name: (calls[name] / steps, calls[f"{name} images"] / steps) for name in calls if not name.endswith("images")
    }


@pytest.mark.parametrize(
    ("name", "words", "passes"),
    [
        ("paired/contrast", ("train.regenerate_fake=true",), {"generator": (1, 2), "encoder": (2, 4)}),
        ("paired/gan", ("train.regenerate_fake=true",), {"generator": (2, 4), "discriminator": (2, 6)}),
        (
            "unpaired/contrast",  # without a discriminator no micro-batch is made beforehand
            ("train.accumulate=2",),
            {"generator": (2, 2), "generator/encode": (2, 2)},
        ),
        ("unpaired/gan", ("train.accumulate=2",), {"generator": (4, 4), "discriminator": (4, 6)}),
        (
            "cycle/contrast_gan",  # the second generator's images are judged by nobody
            ("train.regenerate_fake=true",),
            {"generator": (2, 4), "generator_source": (1, 2), "generator/encode": (4, 8), "discriminator": (2, 6)},
        ),
    ],
)
def test_images_are_made_again_only_for_a_discriminator(tmp_path, monkeypatch, name, words, passes):
    calls: Counter[str] = Counter()

    def counted(cfg, inputs):
        parts = build(cfg, inputs)
        count_calls(parts, calls)
        return parts

    monkeypatch.setattr(building, "build", counted)
    train(config(*combinations(tmp_path)[name], *words, "train.steps=1"), tmp_path / "run")
    assert per_step(calls, 1) == passes


@pytest.mark.slow
@pytest.mark.parametrize("setting", LEGAL)
def test_no_other_combination_is_legal(tmp_path, setting):
    words = settings(make_pairs(tmp_path))[setting]
    for objective in set(OBJECTIVES) - set(LEGAL[setting]):
        with pytest.raises(ConfigError):
            cfg = config(*line(words, objective))
            validate(cfg)
            build(cfg, Inputs.of(build_dataset(cfg, "train", augment=True)))


# ---------------------------------------------------------------- the source


UNORDERED = {"set", "frozenset"}
FOLDERS = {"glob", "rglob", "iterdir", "scandir", "listdir"}
KEEPS = {"sorted", "any", "all", "len", "set", "frozenset", "min", "max", "sum"}  # whose result has no order, or one


def is_unordered(node: ast.expr, names: set[str]) -> bool:
    """Whether what an expression gives comes in an order of its own: sets, differences of keys, folders."""
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Name):
        return node.id in names
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub | ast.BitAnd | ast.BitOr | ast.BitXor):
        return any(is_unordered(side, names) or is_keys(side) for side in (node.left, node.right))
    if isinstance(node, ast.Call):
        called = node.func
        name = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
        return name in UNORDERED | FOLDERS or name in ("union", "intersection", "difference", "symmetric_difference")
    return False


def is_keys(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "keys"


def unordered_loops(tree: ast.AST) -> list[int]:
    """Lines of loops over such an expression, or over a name that the same function gave one to, whose order counts."""
    found = []
    for scope in ast.walk(tree):
        if not isinstance(scope, ast.FunctionDef | ast.Module):
            continue
        inside = list(ast.walk(scope))
        names = {
            target.id
            for node in inside
            if isinstance(node, ast.Assign) and is_unordered(node.value, set())
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        free = {  # comprehensions that are given to a function whose result keeps nothing of the order
            id(argument)
            for node in inside
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KEEPS
            for argument in node.args
        }
        for node in inside:
            loops = [node.iter] if isinstance(node, ast.For) else []
            if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp) and id(node) not in free:
                loops += [generator.iter for generator in node.generators]
            found += [loop.lineno for loop in loops if is_unordered(loop, names if scope is not tree else set())]
    return sorted(set(found))


ALLOWED = {  # loops whose result does not depend on their order
    "files.py": "removes leftovers, each for itself",
    "metrics/images.py": "sorted in the return",
    "results/page.py": "the largest is taken",
    "results/collect.py": "the largest is taken, and names are sorted",
    "models/drn.py": "a message, sorted",
    "data/prepare/gta.py": "a table by name, read by name",
}


def test_no_loop_goes_over_a_set_or_in_a_folders_own_order():
    found = {}
    for folder in ("engine", "losses", "models", "data", "metrics", "results", "."):
        for file in sorted((ROOT / folder).glob("*.py") if folder == "." else (ROOT / folder).rglob("*.py")):
            if lines := unordered_loops(ast.parse(file.read_text())):
                found[file.relative_to(ROOT).as_posix()] = lines
    assert {name: lines for name, lines in found.items() if name not in ALLOWED} == {}


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("for x in {1, 2}: pass", [1]),
        ("a = [x for x in set(b)]", [1]),
        ("a = {x: 1 for x in b.keys() - c}", [1]),
        ("def f(b):\n    read = {x for x in b}\n    return {x: 1 for x in read}", [3]),
        ("for x in path.glob('*'): pass", [1]),
        ("for x in sorted(path.glob('*')): pass", []),
        ("any(x for x in {1, 2})", []),
        ("a = {x for x in {1, 2}}", []),
        ("for x in b.keys(): pass", []),
    ],
)
def test_such_loops_are_found(code, lines):
    assert unordered_loops(ast.parse(code)) == lines
