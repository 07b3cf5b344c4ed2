"""A file imports only from floors below its own; data, losses and models do not know each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GROUND = {"errors", "files", "listing", "outputs", "pixels", "records"}
FLOORS = {**dict.fromkeys(GROUND, 0), "data": 1, "losses": 1, "models": 1, "metrics": 2, "engine": 2, "results": 3}
ALLOWED = {  # besides its own folder and the ground
    "data": set(),
    "losses": set(),
    "models": set(),
    "metrics": {"data", "models"},  # of data, DEPTH below alone
    "engine": {"data", "losses", "models"},
    "results": {"data", "losses", "models", "engine", "metrics"},
}


DEPTH = {"data.depth", "data.reading"}  # colours of depth and its files: metrics read back what data wrote


def imported(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found & FLOORS.keys()


@pytest.mark.parametrize("folder", ALLOWED)
def test_no_upward_or_sideways_import(folder):
    for file in (ROOT / folder).rglob("*.py"):
        foreign = imported(file) - GROUND - {folder} - ALLOWED[folder]
        assert not foreign, f"{file.relative_to(ROOT)} imports {', '.join(foreign)}"


def test_metrics_know_no_data_sets():
    for file in (ROOT / "metrics").rglob("*.py"):
        nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
        modules = {node.module for node in nodes if node.module and node.module.split(".")[0] == "data"}
        assert modules <= DEPTH, f"{file.relative_to(ROOT)} imports {', '.join(modules - DEPTH)}"


def test_losses_need_nothing_else_of_ours():
    for file in (ROOT / "losses").rglob("*.py"):
        assert imported(file) <= {"losses"}, file
