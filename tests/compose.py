"""Configs for tests, composed as a command line would."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from engine.config import register

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
TINY = (  # the smallest run that still has every part
    "encoder=conv6",
    "train.steps=2",
    "train.batch_size=2",
    "train.workers=0",
    "train.samples=1",
    "train.log_every=1",
    "dataset.size=[64,64]",
    "dataset.lengths={train:8,val:2,test:2}",
    "model.generator.width=2",
    "model.discriminator.width=2",
    "nce.patches=16",
    "objective.contrast.term.dim=8",
)

UNPAIRED = (  # the smallest run of CUT's networks; setting, objective, loss and encoder are the test's
    "model=cut",
    "dataset=shapes_unpaired",
    "train.steps=2",
    "train.batch_size=2",
    "train.workers=0",
    "train.samples=1",
    "train.log_every=1",
    "dataset.size=[32,32]",
    "dataset.lengths={train:8,val:2,test:2}",
    "model.generator.width=2",
    "model.generator.blocks=5",
    "model.discriminator.width=2",
    "nce.patches=16",
)


def config(*overrides: str, name: str = "train") -> DictConfig:
    """The composed config of train.py, or of another entry file; `run` needs a value that Hydra's job would give."""
    register()
    with initialize_config_dir(str(CONFIGS), version_base=None):
        return compose(name, [*overrides, *(["run=test"] if name == "train" else [])])
