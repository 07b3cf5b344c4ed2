"""Faults in real trainings, by hand: `python -m tests.faults [OPTION ...]` prints a line a trial and the table.

Options: `trials=20 seed=0`; `only=NUMBER` runs one of them again; `kind=` and `setting=` take the beginnings of names
in trials.py; `part=0/2` takes every second setting; `keep=FOLDER` keeps what a bad trial left; `minutes=30` is the
bound; `json=FILE`.
"""

import sys
import tempfile
import time
from pathlib import Path

from tests.faults.commands import warm
from tests.faults.results import trials_table, write
from tests.faults.trials import SETTINGS, Harness, plan


def main() -> None:
    """Print, and write JSON where asked."""
    options = {
        "trials": "20",
        "seed": "0",
        "only": "",
        "kind": "",
        "setting": "",
        "keep": "",
        "part": "0/1",
        "json": "",
    }
    options |= {"minutes": "30", **dict(word.split("=", 1) for word in sys.argv[1:])}
    warm()
    part, parts = (int(number) for number in options["part"].split("/"))
    mine = [name for at, name in enumerate(SETTINGS) if at % parts == part]
    seed, end = int(options["seed"]), time.monotonic() + 60 * float(options["minutes"])
    print(f"seed {seed}", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        harness = Harness(Path(options["keep"] or scratch), seed)
        for number, kind, setting in plan(int(options["trials"]), seed, options["kind"], options["setting"]):
            if setting not in mine or (options["only"] and number != int(options["only"])):
                continue
            if time.monotonic() > end:
                raise SystemExit(f"{options['minutes']} minutes are over at trial {number}")
            rows.append(harness.trial(number, kind, setting).row())
            print(rows[-1]["line"], flush=True)
    print(trials_table(rows))
    write(options["json"], rows)


if __name__ == "__main__":
    main()
