"""Make the step again in which a run diverged: python scripts/reproduce.py RUN/diverged.

Trains from the checkpoint in that folder to the bad step, and compares its losses and gradient norms with those that
ended the run. Of a run of several ranks: torchrun --nproc-per-node=N scripts/reproduce.py RUN/diverged. The folder's
last.pt is then of the step before, from which a debugger can go on with the batch in batch.pt.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks into scripts/ only

from engine.config import register
from engine.launch import fail, launch
from errors import UserError


def compared(found: dict[str, float], wanted: dict[str, float]) -> list[str]:
    """A line for each value of the step, and whether it is the recorded one."""
    lines = []
    for name, value in wanted.items():
        here = found.get(name, float("nan"))
        same = here == value or (here != here and value != value)
        lines.append(f"{name}: {here:.9g}, {'as' if same else f'not {value:.9g}, which was'} recorded")
    return lines


def main() -> None:
    """The command line."""
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        print(str(__doc__).strip())
        return
    try:
        from engine.bundle import reproduce
        from engine.distributed import rank
        from train import train

        register()
        again, wanted = reproduce(Path(sys.argv[1]), train)
    except UserError as error:
        fail(str(error))
        return
    if rank() == 0:
        print(f"step {again.step} again:", *compared(again.values, wanted), sep="\n")


if __name__ == "__main__":
    launch(main)
