"""From a config to live objects: the one place that joins networks, encoder, objective and setting."""

import inspect
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig
from torch import nn

from data.folders import MissingSplit
from data.labels import palette_rows
from engine.checks import check, choices, encoded
from engine.config import ConfigError, Init
from engine.distributed import world
from engine.inputs import Inputs
from engine.pool import ImagePool
from engine.sampling import mix
from engine.settings import Judge
from engine.steps import DiscriminatorStep, GeneratorStep, Late, PartsStep, judged
from errors import UserError
from losses.adversarial import DiscriminatorGAN
from losses.objective import Objective
from models.blocks import BatchNorm, init_weights
from models.encoders import Encoder, GeneratorEncoder


@dataclass
class Build:
    """The live objects of a run; `networks` are what a checkpoint holds, by name."""

    generators: dict[str, nn.Module]
    setting: Any
    encoder: Any
    objective: Objective
    discriminators: dict[str, nn.Module]
    generator_step: GeneratorStep
    other_steps: dict[str, Any]  # by the name of their optimizer, in the order in which they are made
    late: Late | None
    pools: dict[str, ImagePool]

    @property
    def generator(self) -> nn.Module:
        """The one from source to target."""
        return self.generators["generator"]

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Everything with a state to keep; a frozen encoder is rebuilt from its own file instead."""
        found = {**self.generators, **self.discriminators, "objective": self.objective}
        if self.encoder is not None and not self.encoder.frozen:
            found["encoder"] = self.encoder
        if "parts" in self.other_steps:
            found["parts"] = self.other_steps["parts"].objective
        return {name: network for name, network in found.items() if len(network.state_dict())}

    @property
    def modules(self) -> list[nn.Module]:
        """Every network and loss, to be moved to a device."""
        found = [*self.generators.values(), *self.discriminators.values(), self.objective, self.encoder, self.late]
        return [module for module in found if module is not None]

    def trained(self) -> list[nn.Parameter]:
        """Parameters of the generator's optimizer: generators, projection heads, and the encoder unless frozen."""
        modules = [*self.generators.values(), self.objective, *([self.encoder] if self.encoder is not None else [])]
        return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]

    def stepped(self, others: bool) -> dict[str, nn.Module]:
        """Networks with parameters that the generator's optimizer steps, or that the `others` do, by name."""
        beside = {*self.discriminators, "parts"}
        chosen = {name: network for name, network in self.networks.items() if (name in beside) is others}
        return {name: network for name, network in chosen.items() if next(network.parameters(), None) is not None}

    def train_others(self, on: bool) -> None:
        """Let discriminators and terms' own parts take gradients, or freeze them for the generator's step."""
        for module in self.other_steps.values():
            module.requires_grad_(on)


def make(node: DictConfig, path: str, **completed: Any) -> Any:
    """Instantiate a leaf of the config; the engine's own arguments complete a `_partial_` one.

    Raises:
        ConfigError: with the leaf's path, for an argument that the constructor does not take, or a value that it
            refuses.
    """
    check(node, path)
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


def settle_channels(cfg: DictConfig, inputs: Inputs) -> None:
    """Write the channels that the training images turned out to have into the config, where it leaves them open: the
    other splits are read with as many, also where all their images are grey."""
    found = {"source_channels": inputs.source_channels, "target_channels": inputs.target_channels}
    if not inputs.labels:
        found["channels"] = inputs.source_channels
    for key in found:
        if key in cfg.dataset and cfg.dataset[key] is None:
            cfg.dataset[key] = found[key]


def settle_palette(cfg: DictConfig) -> None:
    """Replace the path of a palette in the config by its colours: a checkpoint is then read without that file."""
    palette = cfg.dataset.get("palette")
    if isinstance(palette, str):
        cfg.dataset.palette = palette_rows(palette)


def memory_format(cfg: DictConfig, device: torch.device) -> torch.memory_format:
    """Of networks and images in training: train.channels_last, or where that is null what is faster on the device."""
    last = cfg.train.channels_last if cfg.train.channels_last is not None else device.type == "cpu"
    return torch.channels_last if last else torch.contiguous_format


def build_generator(cfg: DictConfig, inputs: Inputs, name: str = "generator") -> nn.Module:
    """A generator of a config with its initial weights, a function of the seed.

    Args:
        name: "generator", from source to target, or "generator_source", which goes back (setting=cycle).
    """
    back = name == "generator_source"
    torch.manual_seed(mix(cfg.seed, 14 if back else 10))
    inputs = inputs.reversed() if back else inputs
    channels = {"channels": inputs.source_channels, "output_channels": inputs.target_channels}
    generator: nn.Module = make(cfg.model.generator, "model.generator", **channels)
    if cfg.train.init == Init.xavier:
        init_weights(generator, gain=cfg.train.init_gain)
    return generator


def build(cfg: DictConfig, inputs: Inputs) -> Build:
    """All networks and losses of a config, initialised from its seed.

    Raises:
        ConfigError: when a term reads a view that nothing makes, or compares views of different scenes, or the data
            set does not fit the setting.
    """
    kind: Any = get_object(cfg.setting._target_)
    check_data(cfg, inputs, kind)
    generators: dict[str, Any] = {
        name: build_generator(cfg, inputs, name)
        for name in ("generator", "generator_source")[: 2 if kind.both_ways else 1]
    }
    generator = generators["generator"]
    images = cfg.train.batch_size // (world() * cfg.train.accumulate)  # of a micro-batch on a rank
    _check_generator(cfg, generator, images)
    encoder = _encoder(cfg, generator, inputs)
    _check_encoder(cfg, encoder, images)
    torch.manual_seed(mix(cfg.seed, 12))
    terms: dict[str, Any] = {name: _term(str(name), node.term, encoder) for name, node in cfg.objective.items()}
    reads = frozenset(name for term in terms.values() for name in term.reads)
    _check_views(cfg, inputs, terms, encoder, kind)
    _check_channels(cfg, inputs, terms, encoder)
    taps = encoder.layers if isinstance(encoder, GeneratorEncoder) else []
    needed = [judge for judge in kind.judges if judged([judge]) & reads]
    wanted = reads.union(judge.fake for judge in needed)
    setting: Any = make(cfg.setting, "setting", **generators, reads=wanted, taps=taps)

    verdicts = judged(kind.judges)
    late = {name for name, term in terms.items() if term.reads & verdicts or getattr(term, "learned", False)}
    plain, after = (
        Objective(
            {n: t for n, t in terms.items() if (n in late) is chosen},
            {n: float(node.weight) for n, node in cfg.objective.items() if (n in late) is chosen},
        )
        for chosen in (False, True)
    )
    discriminators = _discriminators(cfg, inputs, kind, needed)
    pools = {name: ImagePool(cfg.train.pool, mix(cfg.seed, 15, at)) for at, name in enumerate(discriminators)}
    again = frozenset(judge.fake for judge in needed)  # read by the steps beside the generator's
    again = again.union(*(term.reads for term in terms.values() if getattr(term, "learned", False)))
    other_steps: dict[str, Any] = {}
    if any(getattr(term, "learned", False) for term in terms.values()):
        other_steps["parts"] = PartsStep(after)
    if needed:
        modes = {term.mode for term in terms.values() if hasattr(term, "score")} or {cfg.gan}
        if len(modes) > 1:
            raise ConfigError(
                f"objective: GAN terms of different modes ({', '.join(sorted(modes))}); discriminators have one loss"
            )
        loss = DiscriminatorGAN(mode=modes.pop())
        other_steps["discriminator"] = DiscriminatorStep(needed, discriminators, pools, loss, kind.conditional)
    return Build(
        generators,
        setting,
        encoder,
        plain,
        discriminators,
        GeneratorStep(setting, encoder, plain, cfg.train.log_layers, again),
        other_steps,
        Late(needed, discriminators, after, kind.conditional) if late else None,
        pools,
    )


def check_data(cfg: DictConfig, inputs: Inputs, kind: Any) -> None:
    """Raises: ConfigError where a setting, of class `kind`, cannot use what the data set gives."""
    name, setting = cfg.dataset.name, kind.__name__.lower()
    if kind.images_only and inputs.labels:
        raise ConfigError(
            f"setting={setting}: translates images into images, but dataset={name} gives label ids; choose a data set "
            f"of images ({choices('dataset')}), dataset.labels=false, or setting=paired"
        )
    if not kind.images_only and not inputs.aligned:
        raise ConfigError(
            f"setting={setting}: compares the generated image with its target, but dataset={name} has no pairs; "
            "choose setting=unpaired or cycle"
        )


def _check_views(cfg: DictConfig, inputs: Inputs, terms: dict[str, Any], encoder: Any, kind: Any) -> None:
    setting = kind.__name__.lower()
    for name, term in terms.items():
        if unknown := set(term.reads) - set(kind.views) - judged(kind.judges):
            made = ", ".join(kind.views)
            raise ConfigError(f"objective.{name}: no view '{min(unknown)}'; setting={setting} makes {made}")
        for pair in getattr(term, "pairs", ()):
            if set(pair) <= set(kind.views) and not any(set(pair) <= group for group in kind.aligned):
                raise ConfigError(
                    f"objective.{name}: compares {' with '.join(pair)}, which show different scenes in "
                    f"setting={setting}; choose objective=cut, cycle or sesim, or other pairs"
                )
            if inputs.labels and "source" in pair:
                raise ConfigError(
                    f"objective.{name}: compares {' with '.join(pair)}, but dataset={cfg.dataset.name} has label ids "
                    "for sources; compare with target, or choose a data set of images"
                )
            if cfg.setting.get("flip_equivariance", False) and not encoded(cfg.objective[name].term):
                raise ConfigError(
                    f"objective.{name}: compares images place by place, half of which setting.flip_equivariance=true "
                    "mirrors; set it to false, or drop the term"
                )
        if getattr(term, "fixed_encoder", False) and not encoder.frozen:
            raise ConfigError(
                f"objective.{name}: compares the features of a fixed network, but this encoder ({encoder.weights}) is "
                "trained; set encoder.frozen=true, or choose encoder=vgg16"
            )
    second = ("fake_source", "identity_source", "cycled_")  # views that the second generator has a part in
    if kind.both_ways and not any(name.startswith(second) for term in terms.values() for name in term.reads):
        raise ConfigError(
            f"setting={setting}: no term reads what the second generator makes; choose objective=cycle, or "
            "setting=unpaired"
        )


def _check_channels(cfg: DictConfig, inputs: Inputs, terms: dict[str, Any], encoder: Any) -> None:
    a, b = inputs.source_channels, inputs.target_channels
    taken = getattr(encoder, "image_channels", None)
    for name, term in terms.items():
        if taken is None or not encoded(cfg.objective[name].term):
            continue
        # what a generator makes of its own domain, or back, has the channels of the other side
        given = {b if view in ("target", "fake", "identity", "cycled_target") else a for view in term.reads}
        if getattr(getattr(term, "loss", None), "on", "") == "maps" and encoder.map_channels != encoder.channels:
            continue  # pixels compared as images
        if unlike := sorted(given - {1, taken}):
            raise ConfigError(
                f"objective.{name}: the encoder takes images of {taken} channels, or grey ones, but this data set has "
                f"images of {unlike[0]}; choose encoder=generator, or encoder=pixel encoder.image_channels={unlike[0]}"
            )
    for name, term in terms.items():
        if a != b and term.reads & {"identity", "identity_source"}:
            raise ConfigError(
                f"objective.{name}: reads what a generator makes of its own target domain, but sources have {a} and "
                f"targets {b} channels; {repeat_grey(cfg, inputs)}drop it ('~objective.{name}'), or choose an "
                "objective without identity"
            )


def _check_generator(cfg: DictConfig, generator: Any, images: int) -> None:
    """Raises: ConfigError where a generator cannot be trained on images of dataset.size, so many in a micro-batch."""
    norms = [module for module in generator.modules() if isinstance(module, BatchNorm)]
    joined = images * world() if all(norm.sync for norm in norms) else images
    if hasattr(generator, "check_size"):
        try:
            generator.check_size(*cfg.dataset.size, **({"images": joined} if norms else {}))
        except ValueError as error:
            raise ConfigError(f"dataset.size={list(cfg.dataset.size)}: {error}") from error


def _check_encoder(cfg: DictConfig, encoder: Any, images: int) -> None:
    """Raises: ConfigError where the encoder cannot take so many images of dataset.size; tried without values."""
    if not isinstance(encoder, Encoder):
        return
    shape = (images, encoder.image_channels, *cfg.dataset.size)
    state = {**dict(encoder.named_parameters()), **dict(encoder.named_buffers())}
    try:
        with torch.no_grad():
            meta = {name: value.to("meta") for name, value in state.items()}
            torch.func.functional_call(encoder, meta, torch.empty(shape, device="meta"))
    except NotImplementedError:  # an operation that the meta device does not have: the first step will tell
        pass
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        if "more than 1 value per channel" in reason:
            reason = (
                f"with train.batch_size={cfg.train.batch_size} a norm of the encoder has a single value of a channel; "
                "take larger images, a larger encoder.size, more images, or fewer encoder.layers"
            )
        raise ConfigError(f"dataset.size={list(cfg.dataset.size)}: {reason}") from error


def repeat_grey(cfg: DictConfig, inputs: Inputs) -> str:
    """The key that reads the grey side of a data set as colour images where the other side has these, for messages."""
    a, b = inputs.source_channels, inputs.target_channels
    keys = {(1, 3): ("source_channels", "channels"), (3, 1): ("target_channels",)}.get((a, b), ())
    known = [key for key in keys if key in cfg.dataset and not inputs.labels]
    return f"set dataset.{known[0]}=3, which reads grey images as colour ones, or " if known else ""


def _encoder(cfg: DictConfig, generator: nn.Module, inputs: Inputs) -> Any:
    if not any(encoded(node.term) for node in cfg.objective.values()):
        return None
    torch.manual_seed(mix(cfg.seed, 11))
    completed = {"generator": generator} if cfg.encoder.get("_partial_", False) else {}
    if completed and (cure := repeat_grey(cfg, inputs)):
        raise ConfigError(
            f"encoder=generator: encodes the images of both sides, but sources have {inputs.source_channels} and "
            f"targets {inputs.target_channels} channels; {cure}choose another encoder"
        )
    return make(cfg.encoder, "encoder", **completed)


def _discriminators(cfg: DictConfig, inputs: Inputs, kind: Any, needed: list[Judge]) -> dict[str, nn.Module]:
    made: dict[str, nn.Module] = {}
    for judge in needed:
        torch.manual_seed(mix(cfg.seed, 13 + 2 * kind.judges.index(judge)))
        image = inputs.source_channels if judge.real == "source" else inputs.target_channels
        seen = image + (inputs.source_channels if kind.conditional else 0)
        discriminator = make(cfg.model.discriminator, "model.discriminator", channels=seen, image_channels=image)
        if cfg.train.init == Init.xavier:
            init_weights(discriminator, gain=cfg.train.init_gain)
        if min(cfg.dataset.size) < (smallest := getattr(discriminator, "smallest", 0)):
            raise ConfigError(
                f"dataset.size={list(cfg.dataset.size)}: the discriminator takes images from {smallest} "
                "pixels a side on; choose a larger size, or fewer model.discriminator.stages"
            )
        made[judge.network] = discriminator
    return made


def _term(name: str, node: DictConfig, encoder: Any) -> Any:
    known = {"channels": encoder.channels, "map_channels": encoder.map_channels} if encoder is not None else {}
    known["taps"] = [str(layer) for layer in getattr(encoder, "layers", ())]
    accepted = inspect.signature(get_object(node._target_)).parameters
    return make(node, f"objective.{name}", **{key: value for key, value in known.items() if key in accepted})


@dataclass
class Rates:
    """Adam of the generators and their helpers, of the discriminators, and of terms' own parts, by name, with their
    full learning rates.

    TTUR (SPADE): generator lr/2, discriminator 2 lr. Projection heads and a trained encoder are in the generator's
    optimizer; terms' own parts (LSeSim) have one of their own at the same rate.
    """

    optimizers: dict[str, torch.optim.Adam]
    base: dict[str, float]

    @classmethod
    def of(cls, cfg: DictConfig, parts: Build) -> "Rates":
        """All optimizers, fused: one kernel a step on a GPU, one pass over memory on a CPU."""
        train = cfg.train
        rate = train.lr / 2 if train.ttur else train.lr
        second = train.lr * 2 if train.ttur else train.lr if train.lr_discriminator is None else train.lr_discriminator
        adam = partial(torch.optim.Adam, betas=tuple(train.betas), fused=True)
        base = {"generator": rate}
        found = {"generator": adam(parts.trained(), lr=rate)}
        for name, step in parts.other_steps.items():
            base[name] = second if name == "discriminator" else rate
            found[name] = adam(step.parameters(), lr=base[name])
        return cls(found, base)

    def scale(self, factor: float) -> float:
        """Set all learning rates to factor times their full value; returns the generator's."""
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.base[name] * factor
        return self.base["generator"] * factor
