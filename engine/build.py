"""From a config to live objects: the one place that joins networks, encoder, objective and setting."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from data.folders import MissingSplit
from engine.checks import encoded
from engine.config import ConfigError, Init
from engine.inputs import Inputs
from engine.sampling import mix
from engine.steps import JUDGED, Adversarial, DiscriminatorStep
from errors import UserError
from losses.adversarial import DiscriminatorGAN
from losses.objective import Objective
from models.blocks import init_weights


@dataclass
class Build:
    """The live objects of a run; `networks` are what a checkpoint holds, by name."""

    generator: nn.Module
    setting: nn.Module
    encoder: nn.Module | None
    objective: Objective
    discriminator: nn.Module | None
    discriminator_step: DiscriminatorStep | None
    adversarial: Adversarial | None

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Everything with a state to keep; a frozen encoder is rebuilt from its own file instead."""
        found = {"generator": self.generator, "discriminator": self.discriminator, "objective": self.objective}
        if self.encoder is not None and not self.encoder.frozen:
            found["encoder"] = self.encoder
        return {name: network for name, network in found.items() if network is not None and len(network.state_dict())}

    def trained(self) -> list[nn.Parameter]:
        """Parameters of the generator's optimizer: generator, projection heads, and the encoder unless frozen."""
        modules = [self.generator, self.objective, *([self.encoder] if self.encoder is not None else [])]
        return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]


def make(node: DictConfig, path: str, **completed: Any) -> Any:
    """Instantiate a leaf of the config; the engine's own arguments complete a `_partial_` one.

    Raises:
        ConfigError: with the leaf's path, when a constructor refuses a value.
    """
    try:
        made = instantiate(node)
        return made(**completed) if node.get("_partial_", False) else made
    except UserError:
        raise
    except (InstantiationException, ValueError) as error:
        cause: BaseException | None = error
        while isinstance(cause, InstantiationException):
            cause = cause.__cause__
        if isinstance(cause, UserError):
            raise cause from error
        if isinstance(cause, ValueError):
            raise ConfigError(f"{path}: {cause}") from error
        raise


def build_dataset(cfg: DictConfig, split: str, augment: bool) -> Any:
    """The data set of a config, one split of it."""
    return make(cfg.dataset, "dataset", split=split, augment=augment)


def held_out(cfg: DictConfig) -> Any:
    """The validation split, or the test split of a data set that has no other."""
    try:
        return build_dataset(cfg, "val", augment=False)
    except MissingSplit:
        return build_dataset(cfg, "test", augment=False)


def build_generator(cfg: DictConfig, inputs: Inputs) -> nn.Module:
    """The generator of a config with its initial weights, a function of the seed."""
    torch.manual_seed(mix(cfg.seed, 10))
    generator = instantiate(cfg.model.generator)(
        channels=inputs.source_channels, output_channels=inputs.target_channels
    )
    if cfg.train.init == Init.xavier:
        init_weights(generator, gain=cfg.train.init_gain)
    return generator


def build(cfg: DictConfig, inputs: Inputs) -> Build:
    """All networks and losses of a config, initialised from its seed.

    Raises:
        ConfigError: when a term reads a view that nothing makes.
    """
    generator: Any = build_generator(cfg, inputs)
    if "size" in cfg.dataset and hasattr(generator, "check_size"):
        try:
            generator.check_size(*cfg.dataset.size)
        except ValueError as error:
            raise ConfigError(f"dataset.size={list(cfg.dataset.size)}: {error}") from error
    setting: Any = make(cfg.setting, "setting", generator=generator)
    torch.manual_seed(mix(cfg.seed, 11))
    encoder = make(cfg.encoder, "encoder") if any(encoded(node.term) for node in cfg.objective.values()) else None
    torch.manual_seed(mix(cfg.seed, 12))
    terms: dict[str, Any] = {name: _term(str(name), node.term, encoder) for name, node in cfg.objective.items()}
    weights = {name: float(node.weight) for name, node in cfg.objective.items()}
    for name, term in terms.items():
        unknown = set(term.reads) - set(setting.views) - JUDGED
        if unknown:
            made = ", ".join(setting.views)
            raise ConfigError(f"objective.{name}: no view '{min(unknown)}'; this setting makes {made}")
    judged = {name for name, term in terms.items() if term.reads & JUDGED}
    plain = Objective(
        {n: t for n, t in terms.items() if n not in judged}, {n: w for n, w in weights.items() if n not in judged}
    )
    built = Build(generator, setting, encoder, plain, None, None, None)
    if judged:
        torch.manual_seed(mix(cfg.seed, 13))
        seen = inputs.target_channels + (inputs.source_channels if setting.conditional else 0)
        built.discriminator = make(cfg.model.discriminator, "model.discriminator", channels=seen)
        if cfg.train.init == Init.xavier:
            init_weights(built.discriminator, gain=cfg.train.init_gain)
        modes = {term.mode for name, term in terms.items() if name in judged and hasattr(term, "mode")} or {"hinge"}
        if len(modes) > 1:
            raise ConfigError(
                f"objective: GAN terms of different modes ({', '.join(sorted(modes))}); one discriminator has one loss"
            )
        adversarial = Objective(
            {n: terms[n] for n in terms if n in judged}, {n: weights[n] for n in terms if n in judged}
        )
        built.discriminator_step = DiscriminatorStep(built.discriminator, DiscriminatorGAN(mode=modes.pop()))
        built.adversarial = Adversarial(built.discriminator, adversarial)
    return built


def _term(name: str, node: DictConfig, encoder: nn.Module | None) -> Any:
    known = {"channels": encoder.channels, "map_channels": encoder.map_channels} if encoder is not None else {}
    return make(node, f"objective.{name}", **(known if encoded(node) else {}))


@dataclass
class Rates:
    """Adam of the generator and its helpers, Adam of the discriminator, and their full learning rates.

    TTUR (SPADE): generator lr/2, discriminator 2 lr. Projection heads and a trained encoder share the generator's.
    """

    generator: torch.optim.Adam
    discriminator: torch.optim.Adam | None
    base: dict[str, float]

    @classmethod
    def of(cls, cfg: DictConfig, parts: Build) -> "Rates":
        """Both optimizers, fused: one kernel a step on a GPU, one pass over memory on a CPU."""
        train = cfg.train
        rates = {
            "generator": train.lr / 2 if train.ttur else train.lr,
            "discriminator": train.lr * 2 if train.ttur else train.lr_discriminator or train.lr,
        }
        adam = partial(torch.optim.Adam, betas=tuple(train.betas), fused=True)
        second = (
            adam(parts.discriminator.parameters(), lr=rates["discriminator"])
            if parts.discriminator is not None
            else None
        )
        return cls(adam(parts.trained(), lr=rates["generator"]), second, rates)

    @property
    def optimizers(self) -> dict[str, torch.optim.Adam]:
        """By name, for checkpoints."""
        return {"generator": self.generator} | (
            {"discriminator": self.discriminator} if self.discriminator is not None else {}
        )

    def scale(self, factor: float) -> float:
        """Set all learning rates to factor times their full value; returns the generator's."""
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.base[name] * factor
        return self.base["generator"] * factor
