"""Faults in real trainings: killed, filled, damaged and started again, a run ends where it would have."""

import os
import random
import shutil
import sys
from pathlib import Path

import pytest

from tests.faults import disk
from tests.faults.results import SOAK, harness
from tests.faults.trials import KINDS, MOMENTS, SETTINGS, plan, possible

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads names of files from /proc")
SEED = os.environ.get("SEED", "0")
PARTS = 4


def judge(rows):
    bad = [row["line"] for row in rows if not row["good"]]
    assert not bad, "\n".join([f"seed {SEED}: {len(bad)} of {len(rows)} broke what docs/promises.md says", *bad])


@pytest.mark.parametrize("part", range(2))
def test_twenty_faults(tmp_path, part):
    judge(harness("", tmp_path / "trials.json", "trials=20", f"seed={SEED}", f"part={part}/2"))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_two_hundred_faults(part):
    count, seed = os.environ.get("FAULTS", "200"), os.environ.get("SEED", "1")
    words = (f"trials={count}", f"seed={seed}", f"part={part}/{PARTS}", f"minutes={10 + int(count) // 5}")
    judge(harness("", SOAK / f"trials-{part}.json", *words, seconds=100000))


def test_a_plan_is_a_function_of_the_seed_and_covers_every_kind_of_moment():
    assert plan(20, 3) == plan(20, 3) != plan(20, 4)
    assert {kind for _, kind, _ in plan(20, 0)} >= set(MOMENTS)
    long = plan(200, 1)
    assert {kind for _, kind, _ in long} == set(KINDS) and {name for *_, name in long} == set(SETTINGS)
    assert all(possible(kind, SETTINGS[name]) for _, kind, name in long)


def in_fork(work):
    """Run `work` in a forked process, which may patch and kill itself; its exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def write(path, text, flush):
    with path.open("w") as file:
        file.write(text)
        if flush:
            file.flush()
            os.fsync(file.fileno())


def test_the_nth_operation_kills(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()

    def work():
        disk.Disk(folder, disk.kill_at(4)).install()
        for name in "abc":  # of each an open and a write
            write(folder / name, name, False)

    assert in_fork(work) == -9
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a": "a", "b": ""}


def test_a_full_disk_refuses_what_takes_space(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()

    def work():
        disk.Disk(folder, disk.full_from(3)).install()
        write(folder / "a", "a", False)
        try:
            write(folder / "b", "b", False)
        except OSError as error:
            (tmp_path / "said").write_text(str(error))

    assert in_fork(work) == 0
    assert "No space left on device" in (tmp_path / "said").read_text() and not (folder / "b").exists()


@pytest.mark.parametrize(("flush", "flush_folder"), [(True, True), (True, False), (False, False)])
def test_a_power_failure_loses_what_was_not_flushed(tmp_path, flush, flush_folder):
    """A rename over an old file: flushed, it stays; else the old file, the new one or parts of it may be there."""
    seen = set()
    for seed in range(12):
        folder, store = tmp_path / f"run{seed}", tmp_path / f"store{seed}"
        folder.mkdir()
        (folder / "a").write_text("old")

        def work(folder=folder, store=store):
            watched = disk.Disk(folder)
            watched.journal = disk.Journal(folder, store)
            watched.install()
            write(folder / "b", "new", flush)
            os.replace(folder / "b", folder / "a")  # noqa: PTH105 - as libraries do
            if flush_folder:
                handle = os.open(folder, os.O_RDONLY)
                os.fsync(handle)

        assert in_fork(work) == 0
        disk.lose_power(folder, store, random.Random(seed))
        assert [path.name for path in folder.iterdir()] == ["a"]
        seen.add((folder / "a").read_text())
        shutil.rmtree(folder)
    wanted = {"new"} if flush_folder else {"old", "new"}
    assert seen == wanted if flush else seen > {"old"}
    assert flush or any(text not in ("old", "new") for text in seen)


def test_json_names_every_result(tmp_path):
    from tests.faults.results import tables

    row = {"kind": "power failure", "setting": "CUT", "outcome": "healed", "traceback": False, "good": True, "line": ""}
    (tmp_path / "trials-0.json").write_text(__import__("json").dumps([row, {**row, "good": False, "line": "1 lost"}]))
    printed = tables(tmp_path)
    assert "power failure       2       2" in printed and "2!" in printed and printed.endswith("1 lost")
    assert tables(Path(tmp_path / "none")) == "no results: make soak makes them"
