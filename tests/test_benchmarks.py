"""Every benchmark at its smallest size, and the measuring itself; no time is asserted."""

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch

from benchmarks import busy
from benchmarks.__main__ import names
from benchmarks.compare import Found, Item, extra_memory, in_turns, main, measure, table

FOUND = Found("work", 2e-7, 1e-5, {"transcription": 30.0, "ours": 10.0}, {"transcription": 5.0, "ours": 1.0},
              60.0, {"ours": 21.0}, None, None, None, "")  # fmt: skip


@pytest.mark.parametrize("name", names())
def test_small_benchmarks_agree_and_run(name):
    """Ours equals the transcription, and every variant can be called."""
    seen = set()
    for item in import_module(f"benchmarks.{name}").items(small=True):
        assert item.name not in seen
        seen.add(item.name)
        if item.check is not None:
            assert item.check() <= item.tolerance, item.name
        assert item.functions
        for function in item.functions.values():
            function()
        if item.floor is not None:
            assert item.floor(dict.fromkeys(("convolution", "product", "memory"), 100.0)) > 0
    assert seen


def item(difference: float = 0.0, **changes: object) -> Item:
    return replace(Item("work", {"transcription": int, "ours": int}, lambda: difference), **changes)


@pytest.mark.parametrize("difference", [2e-5, math.inf, math.nan])
def test_a_difference_is_not_timed(difference):
    with pytest.raises(AssertionError, match="work: ours differs from the transcription by"):
        measure(item(difference), 1, {})


@pytest.mark.parametrize("rounds", [1, None])
def test_measured(monkeypatch, rounds):
    """rounds=1 is a single call of each function, which gives time and memory; where short, there are more."""
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in ("transcription", "ours")}
    floor = {"floor": lambda rates: 2 / rates["product"]}
    found = measure(item(1e-6, functions=functions, rounds=rounds, **floor), 2, {"product": 4.0})
    assert found.difference == 1e-6
    assert set(found.milliseconds) == set(found.extra_mb) == {"transcription", "ours"}
    assert found.floor_ms == 500
    assert measure(item(floor=floor["floor"]), 1, {}).floor_ms is None
    if rounds == 1:
        assert calls[:2] == ["transcription", "ours"] and len(calls) > 2
        calls.clear()
        monkeypatch.setattr("benchmarks.compare.SHORT", 0.0)
        measure(item(functions=functions, rounds=1), 2, {})
        assert calls == ["transcription", "ours"]


def test_pieces_share_the_time_of_a_call(monkeypatch):
    monkeypatch.setattr("benchmarks.compare.in_turns", lambda functions, rounds: dict.fromkeys(functions, 0.5))
    assert measure(item(per=100), 1, {}).milliseconds == {"transcription": 5.0, "ours": 5.0}


def test_a_target_is_a_ratio_of_the_older_code():
    assert FOUND.speedup("transcription") == 1
    assert FOUND.speedup("ours") == 3
    assert FOUND.met("ours") is True  # asked for: 60 / 21 = 2.86
    assert replace(FOUND, targets={"ours": 19.0}).met("ours") is False
    assert FOUND.met("transcription") is None
    assert replace(FOUND, official=None).met("ours") is None


def test_a_limit_is_in_milliseconds():
    limited = replace(FOUND, milliseconds={"ours": 10.0}, official=None, targets={}, limit=10.0)
    assert limited.met("ours") is True
    assert replace(limited, limit=9.0).met("ours") is False
    assert "10 ms of 9 ms allowed, NOT MET" in replace(limited, limit=9.0).verdict("ours")


def test_the_table_names_what_was_asked_for():
    lines = table(FOUND, {}).splitlines()
    assert "2e-07" in lines[0]
    assert "3.00 x of 2.86 x asked, met" in lines[2]
    assert "NOT MET" in table(replace(FOUND, targets={"ours": 19.0}), {})


def test_functions_are_called_in_turns():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    assert set(in_turns(functions, rounds=2, warm=1, block=0)) == {"a", "b"}
    assert "".join(calls) == "ababab"


@pytest.mark.skipif(
    torch.cuda.is_available() or not Path("/proc/self/clear_refs").exists(),
    reason="host memory is measured on Linux without CUDA",
)
def test_extra_memory_sees_a_tensor():
    assert 60 < extra_memory(lambda: torch.ones(2**24).sum()) < 100  # 64 MB of float32
    assert extra_memory(int) < 20


def items(small: bool) -> Iterator[Item]:
    yield item(remark="small" if small else "large")
    yield replace(item(), name="other")


def test_command_line(monkeypatch, capsys, tmp_path):
    threads = torch.get_num_threads()
    words = ["rounds=1", f"threads={threads}", "small=1", "only=work", f"json={tmp_path / 'found.json'}"]
    monkeypatch.setattr(sys, "argv", ["benchmark", *words])
    main(items)
    (found,) = json.loads((tmp_path / "found.json").read_text())
    assert Found(**found).remark == "small"
    printed = capsys.readouterr().out
    assert "work" in printed
    assert "other" not in printed


def test_an_unknown_option_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmark", "round=1"])
    with pytest.raises(SystemExit, match="round: a benchmark takes rounds, threads"):
        main(items)


def test_busy_rows_differ_in_openmps_variables_alone(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    own = {
        value: {n: t for n, t in busy.variables(value).items() if "OMP_" in n} for value in ("default", "passive", "9")
    }
    assert own == {"default": busy.NEUTRAL, "passive": {"OMP_WAIT_POLICY": "passive"}, "9": {"GOMP_SPINCOUNT": "9"}}
    times = {"train": [24.0, 25.0, 20.0], "test": [3.0], "evaluate": [5.0]}
    assert "| 9 | 24 | 3 | 5 | 24 | 3 | 5 |" in busy.table({0: {"9": times}, 2: {"9": times}})
