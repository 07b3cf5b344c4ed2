"""Settings: which images a step makes out of a batch. A setting knows no loss.

Paired: SPADE, CFL and the paired half of MoNCE. Unpaired: CUT (Park et al. 2020, arXiv:2007.15651), its FastCUT and
F/LSeSim. Cycle: CycleGAN (Zhu et al. 2017, arXiv:1703.10593). Shapes: images are (B, C, H, W) in [-1, 1].
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Judge:
    """A discriminator of a setting: which images it tells apart, and how the views of its verdicts are called.

    network: its name in checkpoints and logs; fake, real: views; suffix: of fake<suffix>_score, real<suffix>_stages...
    """

    network: str
    fake: str
    real: str
    suffix: str = ""

    def names(self) -> dict[tuple[str, str], str]:
        """(side, kind) to the name of the view, side fake or real, kind score or stages."""
        return {
            (side, kind): f"{side}{self.suffix}_{kind}" for side in ("fake", "real") for kind in ("score", "stages")
        }


@dataclass
class Images:
    """What a setting makes: views by name; features that the generator's own pass gave on the way, by view; and the
    views whose features lie mirrored, to be turned back before a comparison."""

    tensors: dict[str, Any]
    given: dict[str, list[Tensor]] = field(default_factory=dict)
    mirrored: frozenset[str] = frozenset()


class Paired(nn.Module):
    """fake = G(source), to be compared with target.

    Args:
        generator: maps the semantic map or source image to an image in [-1, 1].
        reads: names of the views that terms read or discriminators judge; further views than these need not be made.
        taps: layers of the generator that the encoder reads; none here, an encoder pass of its own makes them.
    """

    views = ("source", "target", "fake")
    aligned = (frozenset({"source", "target", "fake"}),)  # views that show the same scene place by place
    judges = (Judge("discriminator", "fake", "target"),)
    conditional = True  # the discriminator sees the source beside the image
    discriminator_first = False  # SPADE steps the generator first
    both_ways = False
    images_only = False  # the source may be label ids

    def __init__(self, generator: nn.Module, reads: Collection[str] = (), taps: Sequence[int] = ()) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, batch: Mapping[str, Any], draw: int = 0, only: Collection[str] | None = None) -> Images:
        """The views of a batch; `draw` seeds what is random, nothing here; `only`: names of what to make."""
        source = batch["source"]
        return Images({"source": source, "target": batch["target"], "fake": self.generator(source)})


class Unpaired(nn.Module):
    """fake = G(source), to be compared with source; identity = G(target), with target, where a term reads it.

    Source and target go through the generator as one batch, and where the encoder is the generator itself, their
    features are taken from that pass.

    Args:
        generator, reads, taps: as `Paired`.
        flip_equivariance: FastCUT: in half of the steps the generator sees all images mirrored, and the features of
            what it makes are mirrored back before they are compared.
    """

    views = ("source", "target", "fake", "identity")
    aligned = (frozenset({"source", "fake"}), frozenset({"target", "identity"}))
    judges = (Judge("discriminator", "fake", "target"),)
    conditional = False
    discriminator_first = True  # CUT and F/LSeSim
    both_ways = False
    images_only = True

    def __init__(
        self,
        generator: nn.Module,
        reads: Collection[str] = (),
        taps: Sequence[int] = (),
        flip_equivariance: bool = False,
    ) -> None:
        super().__init__()
        self.generator: Any = generator
        self.inputs = ["source", "target"] if "identity" in reads else ["source"]
        self.outputs = ["fake", "identity"][: len(self.inputs)]
        self.taps, self.flip_equivariance = list(taps), flip_equivariance

    def forward(self, batch: Mapping[str, Any], draw: int = 0, only: Collection[str] | None = None) -> Images:
        """The views of a batch; `draw` seeds the coin of flip equivariance, one for the whole batch; `only`: names of
        what to make, without features."""
        both = only is None or "identity" in only
        inputs, outputs = (self.inputs, self.outputs) if both else (["source"], ["fake"])
        flip = self.flip_equivariance and int(torch.randint(2, (), generator=torch.Generator().manual_seed(draw))) == 1
        seen = torch.cat([batch[name] for name in inputs])
        if flip:
            seen = seen.flip(-1)
        features: list[Tensor] = []
        if self.taps and not flip and only is None:
            made, features = self.generator.tapped(seen, self.taps)
        else:
            made = self.generator(seen)
        parts = len(inputs)
        tensors = {"source": batch["source"], "target": batch["target"]}
        tensors |= dict(zip(outputs, made.chunk(parts), strict=True))
        given = zip(*(layer.chunk(parts) for layer in features), strict=True)
        return Images(
            tensors,
            {name: list(layers) for name, layers in zip(inputs, given, strict=False)},
            frozenset(outputs if flip else ()),
        )


class Cycle(nn.Module):
    """Both ways: fake = G(source), fake_source = G_source(target), the way back of each, and what each generator makes
    of its own domain. Views that no term reads are not made.

    Args:
        generator, reads, taps: as `Paired`. generator_source: from the target's domain to the source's.
    """

    views = (
        "source",
        "target",
        "fake",
        "fake_source",
        "cycled_source",
        "cycled_target",
        "identity",
        "identity_source",
    )
    aligned = (
        frozenset({"source", "fake", "cycled_source", "identity_source"}),
        frozenset({"target", "fake_source", "cycled_target", "identity"}),
    )
    judges = (
        Judge("discriminator", "fake", "target"),
        Judge("discriminator_source", "fake_source", "source", "_source"),
    )
    conditional = False
    discriminator_first = False  # CycleGAN steps the generators first
    both_ways = True
    images_only = True

    def __init__(
        self,
        generator: nn.Module,
        generator_source: nn.Module,
        reads: Collection[str] = (),
        taps: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.generator, self.generator_source = generator, generator_source
        self.reads = self._with_way(reads)

    def forward(self, batch: Mapping[str, Any], draw: int = 0, only: Collection[str] | None = None) -> Images:
        """The views of a batch; `draw` seeds what is random, nothing here; `only`: names of what to make."""
        source, target = batch["source"], batch["target"]
        reads = self._with_way(only) if only is not None else self.reads
        # What one generator makes of several views goes through it as one batch.
        made = self._translate(self.generator, {"fake": source, "identity": target}, reads)
        made |= self._translate(self.generator_source, {"fake_source": target, "identity_source": source}, reads)
        if "cycled_source" in reads:
            made["cycled_source"] = self.generator_source(made["fake"])
        if "cycled_target" in reads:
            made["cycled_target"] = self.generator(made["fake_source"])
        return Images({"source": source, "target": target, **made})

    @staticmethod
    def _with_way(reads: Collection[str]) -> frozenset[str]:
        """Names of views, and of the fakes that cycled ones are made of."""
        way = {"cycled_source": "fake", "cycled_target": "fake_source"}
        return frozenset(reads) | {fake for cycled, fake in way.items() if cycled in reads}

    @staticmethod
    def _translate(generator: nn.Module, wanted: dict[str, Tensor], reads: Collection[str]) -> dict[str, Tensor]:
        names = [name for name in wanted if name in reads]
        if not names:
            return {}
        images = generator(torch.cat([wanted[name] for name in names]))
        return dict(zip(names, images.chunk(len(names)), strict=True))
