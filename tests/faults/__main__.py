"""The harness by hand: `python -m tests.faults [trials=20] [seed=0] [only=NUMBER] [kind=...] [setting=...] [keep=DIR]`."""

import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.faults.commands import warm
from tests.faults.trials import Harness, plan

if __name__ == "__main__":
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    warm()
    seed = int(given.get("seed", 0))
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(given.get("keep", scratch))
        harness = Harness(place, seed)
        for number, kind, setting in plan(int(given.get("trials", 20)), seed, given.get("kind", ""), given.get("setting", "")):
            if "only" in given and number != int(given["only"]):
                continue
            trial = harness.trial(number, kind, setting)
            print(f"{trial.number:3d} {trial.outcome}{' TRACEBACK' if trial.traceback else '':10s} {kind} | {setting} | {trial.seconds:.1f} s | {trial.detail}", flush=True)
