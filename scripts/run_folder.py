"""Print the folder that `python train.py WORDS` trains in, without training: python scripts/run_folder.py WORDS.

A second line, `val`, says that its data set has a validation split.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks into scripts/ only

from engine.config import register
from engine.launch import CONFIGS, launch


def run_folder(words: Sequence[str]) -> str:
    """`hydra.run.dir` of train.py for these overrides; relative to the folder that train.py is started in."""
    return str(composed(words).hydra.run.dir)


def has_val(words: Sequence[str]) -> bool:
    """Whether the data set of these overrides has a split val: a folder val/ or valA/ of its root, or generated."""
    dataset = composed(words).dataset
    if "root" not in dataset:
        return bool((dataset.get("lengths") or {}).get("val"))
    root = Path(dataset.root).expanduser()
    return any((root / name).is_dir() for name in ("val", f"val{dataset.get('source', '')}"))


def composed(words: Sequence[str]) -> DictConfig:
    """The config of train.py and Hydra's own."""
    register()
    with initialize_config_dir(str(CONFIGS), version_base=None):
        cfg = compose("train", list(words), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        return cfg


def main() -> None:
    """The command line."""
    print(run_folder(sys.argv[1:]))
    if has_val(sys.argv[1:]):
        print("val")


if __name__ == "__main__":
    launch(main)
