"""`python -m tests.same BASE [OUT]`: run every case in a commit's tree and in this one, and compare what they wrote.

This tree runs under PYTHONHASHSEED 0 and 1, the other under 0. Compared are checkpoints (every tensor), log.jsonl
without its timing keys, reports of evaluations, manifests and prepared files, images, result tables and composed
configs. What a change renames on purpose stands in `RENAMED` while that change is under way. Exit code 1 where anything
differs.
"""

import csv
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
TIMING = ("images_per_second", "data_wait", "memory_mb", "time")  # of a log line
VOLATILE = ("commit", "commits", "version", "seconds", "time")  # of a report or a manifest
RENAMED: dict[str, str] = {}  # `_target_` in the base -> in this tree, each with its reason in the commit that adds it
PASSED_OVER = ("logs", "tensorboard", "environment.json", "progress.txt", "report.html", "results.tex")


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Where two nested values differ, bit for bit in tensors."""
    if type(one) is not type(other):
        yield f"{path}: {type(one).__name__} and {type(other).__name__}"
    elif isinstance(one, torch.Tensor):
        if one.dtype != other.dtype or one.shape != other.shape:
            yield f"{path}: {one.dtype} {tuple(one.shape)} and {other.dtype} {tuple(other.shape)}"
        elif not torch.equal(one, other):
            yield f"{path}: up to {(one.double() - other.double()).abs().max():.3g} apart"
    elif isinstance(one, dict):
        for key in sorted(one.keys() ^ other.keys(), key=str):
            yield f"{path}.{key}: only in {'the base' if key in one else 'this tree'}"
        for key in one:
            if key in other:
                yield from differences(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            yield f"{path}: {len(one)} and {len(other)} entries"
        for at, (a, b) in enumerate(zip(one, other, strict=False)):
            yield from differences(a, b, f"{path}[{at}]")
    elif one != other and not (one != one and other != other):
        yield f"{path}: {str(one)[:80]} and {str(other)[:80]}"


def renamed(value: Any) -> Any:
    """A config of the base with the targets of this tree."""
    if isinstance(value, dict):
        return {key: renamed(child) for key, child in value.items()}
    if isinstance(value, list):
        return [renamed(child) for child in value]
    return RENAMED.get(value, value) if isinstance(value, str) else value


def steady(value: Any) -> Any:
    """A report without what two equal runs may say differently."""
    if isinstance(value, dict):
        return {key: steady(child) for key, child in value.items() if key not in VOLATILE}
    return [steady(child) for child in value] if isinstance(value, list) else value


def _json(text: str) -> Any:
    return steady(json.loads(text))


def _log(text: str) -> Any:
    rows = [json.loads(line) for line in text.splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMING} for row in rows]


def _table(text: str) -> Any:
    return [
        {key: value for key, value in row.items() if key not in VOLATILE} for row in csv.DictReader(io.StringIO(text))
    ]


def _yaml(text: str) -> Any:
    return renamed(yaml.safe_load(text))


TEXTS: dict[str, Callable[[str], Any]] = {
    ".json": _json,
    ".jsonl": _log,
    ".csv": _table,
    ".yaml": _yaml,
    ".txt": _yaml,  # a composed config
}


def read(path: Path, root: Path) -> Any:
    """The content of a file of a tree whose commands ran in `root`, without what may differ."""
    if path.suffix == ".pt":
        state = torch.load(path, map_location="cpu", weights_only=True)
        if "config" in state:
            state["config"] = renamed(json.loads(state["config"]))
        return state
    if path.suffix in TEXTS:
        return TEXTS[path.suffix](path.read_text().replace(str(root), "ROOT"))
    return path.read_bytes()


def files(out: Path) -> dict[str, Path]:
    """What is compared below a folder, and the composed configs, by relative path."""
    found = {file.relative_to(out).as_posix(): file for file in sorted(out.rglob("*")) if file.is_file()}
    kept = {name: file for name, file in found.items() if not set(Path(name).parts) & set(PASSED_OVER)}
    return kept | {name: file for name, file in found.items() if name.startswith("logs/config/")}


def compare(base: Path, here: Path) -> tuple[Counter[str], list[str]]:
    """Number of files compared by kind, and what differs."""
    ours, theirs, counted = files(here), files(base), Counter[str]()
    found = [f"{name}: only in {'this tree' if name in ours else 'the base'}" for name in sorted(ours.keys() ^ theirs)]
    for name in sorted(ours.keys() & theirs):
        counted["config" if name.startswith("logs/") else theirs[name].suffix] += 1
        try:
            one, other = read(theirs[name], base), read(ours[name], here)
        except Exception as error:
            found.append(f"{name}: cannot be read ({error!r})")
            continue
        found += [f"{name}{difference}" for difference in list(differences(one, other))[:5]]
    return counted, found


def run(tree: Path, out: Path, raw: Path, seed: int) -> bool:
    """All cases in a tree under one PYTHONHASHSEED; whether every command succeeded."""
    own = {
        "PYTHONHASHSEED": str(seed),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PATCHWISE_CACHE": f"{out}-c",
    }
    words = [sys.executable, str(Path(__file__).with_name("tree.py")), str(tree), str(out), str(raw)]
    return subprocess.run(words, env={**os.environ, **own}, check=False).returncode == 0


def main(base: str, folder: Path) -> int:
    """The command; prints a line for each kind of file and for each difference."""
    tree = folder / "tree"
    subprocess.run(["git", "worktree", "add", "--detach", "--force", str(tree), base], cwd=ROOT, check=True)
    try:
        run(tree, folder / "base", folder / "raw", 0)  # draws the raw trees that all read
        with ThreadPoolExecutor(2) as pool:
            jobs = [(tree, "base", 0), (ROOT, "here0", 0), (ROOT, "here1", 1)]
            whole = all(pool.map(lambda job: run(job[0], folder / job[1], folder / "raw", job[2]), jobs))
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)
    differing = 0
    for seed in (0, 1):
        counted, found = compare(folder / "base", folder / f"here{seed}")
        shown = ", ".join(f"{number} {re.sub('^[.]', '', kind)}" for kind, number in sorted(counted.items()))
        print(f"PYTHONHASHSEED={seed}: {shown}; {len(found)} differences from {base}")
        print("".join(f"  {line}\n" for line in found[:200]), end="")
        differing += len(found)
    return int(differing > 0 or not whole)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(main(sys.argv[1], Path(sys.argv[2]).resolve()))
    with tempfile.TemporaryDirectory() as place:
        sys.exit(main(sys.argv[1], Path(place)))
