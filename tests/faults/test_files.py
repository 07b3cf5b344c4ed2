"""Files that others may have written: broken, mutated and hostile ones end in one line, and never run."""

import os
import sys

import pytest

from tests.faults.results import SOAK, harness

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="bounds memory by RLIMIT_AS and /proc")
PARTS = 4


def judge_fuzz(rows):
    bad = [f"{row['reader']}, case {case}: {what}" for row in rows for case, what in row["bad"].items()]
    assert not bad, "\n".join([f"{len(bad)} cases", *bad])


def judge(rows):
    bad = [f"{row['name']}: {row['found']}" for row in rows if not row["good"]]
    assert not bad, "\n".join([f"{len(bad)} of {len(rows)}", *bad])


def test_what_has_failed_once_is_answered(tmp_path):
    judge(harness("corpus", tmp_path / "corpus.json"))


def test_mutated_files_are_read_or_refused(tmp_path):
    judge_fuzz(harness("fuzz", tmp_path / "fuzz.json", "cases=330", "seed=0"))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_ten_thousand_mutated_files(part):
    seed = os.environ.get("SEED", "1")
    words = ("cases=10000", f"seed={seed}", f"part={part}/{PARTS}")
    judge_fuzz(harness("fuzz", SOAK / f"fuzz-{part}.json", *words, seconds=7200))


@pytest.mark.slow
def test_the_corpus_for_the_tables():
    judge(harness("corpus", SOAK / "corpus-0.json"))


def test_some_wrong_uses_of_every_command(tmp_path):
    rows = harness("wrong_uses", tmp_path / "wrong.json", "every=8")
    judge(rows)
    assert len({row["name"].split()[0] for row in rows}) >= 9


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_every_wrong_use(part):
    judge(harness("wrong_uses", SOAK / f"wrong-{part}.json", f"part={part}/{PARTS}", seconds=7200))
