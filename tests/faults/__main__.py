"""The harness by hand: `python -m tests.faults [trials=20] [seed=0] [only=NUMBER] [kind=...] [setting=...] [keep=DIR]`.

`kind` and `setting` are the beginnings of names in trials.py; with `keep`, what a bad trial left stays there.
"""

import sys
import tempfile
from pathlib import Path

from tests.faults.commands import warm
from tests.faults.trials import Harness, plan


def main() -> None:
    """Print a line a trial."""
    options = {"trials": "20", "seed": "0", "only": "", "kind": "", "setting": "", "keep": ""}
    options |= dict(word.split("=", 1) for word in sys.argv[1:])
    warm()
    seed = int(options["seed"])
    with tempfile.TemporaryDirectory() as scratch:
        harness = Harness(Path(options["keep"] or scratch), seed)
        for number, kind, setting in plan(int(options["trials"]), seed, options["kind"], options["setting"]):
            if options["only"] and number != int(options["only"]):
                continue
            trial = harness.trial(number, kind, setting)
            print(trial.line(), flush=True)


if __name__ == "__main__":
    main()
