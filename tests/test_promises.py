"""docs/promises.md names tests that exist, and its counts are written by a program."""

import ast
import re
from pathlib import Path

from tests.faults.table import BLOCK

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "promises.md").read_text()


def test_every_promise_names_tests_that_exist():
    rows = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(rows) > 10
    for row in rows:
        named = re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", row)
        assert named, row
        for file, test in named:
            names = [
                node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)
            ]
            assert (test in names) if test else any(name.startswith("test_") for name in names), f"{file}::{test}"


def test_the_counts_stand_in_one_block():
    assert len(BLOCK.findall(TEXT)) == 1
