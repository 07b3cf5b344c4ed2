"""Print the folder that `python train.py WORDS` trains in, without training: python scripts/run_folder.py WORDS."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks into scripts/ only

from engine.config import register
from engine.launch import CONFIGS, launch


def run_folder(words: Sequence[str]) -> str:
    """`hydra.run.dir` of train.py for these overrides; relative to the folder that train.py is started in."""
    register()
    with initialize_config_dir(str(CONFIGS), version_base=None):
        cfg = compose("train", list(words), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        return str(cfg.hydra.run.dir)


def main() -> None:
    """The command line."""
    print(run_folder(sys.argv[1:]))


if __name__ == "__main__":
    launch(main)
