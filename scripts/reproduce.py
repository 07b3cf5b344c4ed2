"""Make the step again in which a run diverged: python scripts/reproduce.py RUN/diverged [code=FILE.py] [trust=true].

Trains from the checkpoint in that folder to the bad step, and compares its losses and gradient norms with those that
ended the run. Of a run of several ranks: torchrun --nproc-per-node=N scripts/reproduce.py RUN/diverged. The folder's
last.pt is then of the step before, from which a debugger can go on with the batch in batch.pt. A bundle is data:
your own classes, with which the run was trained, are named by code=FILE.py, as in every command.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks into scripts/ only

from omegaconf import OmegaConf

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
    words = dict(word.split("=", 1) for word in sys.argv[2:] if "=" in word)
    if len(sys.argv) != len(words) + 2 or not words.keys() <= {"code", "trust"} or sys.argv[1] in ("-h", "--help"):
        print(str(__doc__).strip())
        return
    try:
        from engine.bundle import reproduce
        from engine.distributed import rank
        from engine.trust import Trust
        from train import train

        register()
        trust = Trust.of(OmegaConf.create({"code": words.get("code"), "trust": words.get("trust") == "true"}))
        again, wanted = reproduce(Path(sys.argv[1]), train, trust)
    except UserError as error:
        fail(str(error))
        return
    if rank() == 0:
        print(f"step {again.step} again:", *compared(again.values, wanted), sep="\n")


if __name__ == "__main__":
    launch(main)
