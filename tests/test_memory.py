"""Large blocks stay with the process: glibc's malloc after engine.memory.keep_large_blocks."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FAULTS = """
import resource, sys, torch
from engine.memory import keep_large_blocks
done = keep_large_blocks() if sys.argv[1] == "keep" else None
def faults():
    torch.ones(16 * 2**20)  # 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(12):  # until free blocks are found again
    before = faults()
for _ in range(4):
    last = faults()
print(done, last - before)
"""


def run(word: str, **variables: str) -> tuple[str, int]:
    words = [sys.executable, "-c", FAULTS, word]
    done, faults = subprocess.run(
        words, cwd=ROOT, env=variables, capture_output=True, text=True, check=True
    ).stdout.split()
    return done, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc's malloc")
def test_a_large_block_is_not_mapped_anew():
    assert run("leave")[1] > 4 * 64 * 2**20 / 2**21  # at least one fault for a huge page of each
    assert run("keep") == ("True", pytest.approx(0, abs=20))


def test_the_users_own_settings_are_left_alone():
    assert run("keep", MALLOC_ARENA_MAX="2")[0] == "False"
