"""Configs for tests, composed as a command line would."""

import importlib.util
from pathlib import Path
from types import ModuleType

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


def entry_file(file: str) -> ModuleType:
    """An entry file as a module; `import test` would find Python's own."""
    spec = importlib.util.spec_from_file_location(f"entry_{file.removesuffix('.py')}", CONFIGS.parent / file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config(*overrides: str, name: str = "train") -> DictConfig:
    """The composed config of train.py, or of another entry file; `run` needs a value that Hydra's job would give."""
    register()
    with initialize_config_dir(str(CONFIGS), version_base=None):
        return compose(name, [*overrides, *(["run=test"] if name == "train" else [])])
