"""OpenMP's threads wait with a bound in every command, set before torch is loaded; a user's own choice stays."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from openmp import SPINS, bound_spinning

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = [
    *(path.name for path in sorted(ROOT.glob("*.py")) if "__main__" in path.read_text()),
    *(f"scripts/{path.name}" for path in sorted((ROOT / "scripts").glob("*.py"))),
]
# Each entry in a fork of one interpreter that has Hydra and not torch: at the first import of torch, or at the end of
# the entry's own imports, the fork prints what libgomp would read.
PROBE = """
import os, runpy, sys
import hydra, omegaconf
class Torch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            answer()
def answer():
    print(entry, os.environ.get("GOMP_SPINCOUNT"), flush=True)
    os._exit(0)
sys.meta_path.insert(0, Torch())
for entry in sys.argv[1:]:
    if os.fork() == 0:
        sys.path[0] = os.path.dirname(os.path.abspath(entry))
        runpy.run_path(entry)
        answer()
    os.wait()
"""


def spins(entries, **variables):
    """What each entry has set by the time that it imports torch."""
    names = ("OMP_", "GOMP_", "KMP_", "TORCHELASTIC_")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(names)} | variables
    words = [sys.executable, "-c", PROBE, *entries]
    done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    return dict(line.split() for line in done.stdout.splitlines())


def test_every_entry_sets_the_bound_before_torch():
    assert {"train.py", "test.py", "evaluate.py", "prepare.py", "report.py", "scripts/analyze.py"} <= set(ENTRIES)
    assert spins(ENTRIES) == dict.fromkeys(ENTRIES, SPINS)


def test_a_users_own_value_wins():
    assert spins(["train.py"], GOMP_SPINCOUNT="7") == {"train.py": "7"}
    assert spins(["scripts/analyze.py"], OMP_WAIT_POLICY="passive") == {"scripts/analyze.py": "None"}


@pytest.mark.parametrize(
    ("given", "bound"),
    [
        ({}, True),
        ({"OMP_NUM_THREADS": "2"}, False),
        ({"KMP_BLOCKTIME": "0"}, False),
        ({"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "none"}, True),  # torchrun's, not the user's
        ({"OMP_NUM_THREADS": "2", "TORCHELASTIC_RUN_ID": "none"}, False),
        ({"OMP_WAIT_POLICY": "active", "TORCHELASTIC_RUN_ID": "none"}, False),
    ],
)
def test_what_counts_as_the_users_choice(given, bound):
    environ = dict(given)
    assert bound_spinning(environ) is bound
    assert environ.get("GOMP_SPINCOUNT") == (SPINS if bound else None)
