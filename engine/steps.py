"""The modules that DDP wraps: one forward makes all losses of one optimizer's networks."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from engine.distributed import rank
from engine.pool import ImagePool
from engine.sampling import mix
from engine.settings import Images, Judge
from losses.objective import Objective, Views


def judged(judges: Collection[Judge]) -> frozenset[str]:
    """Names of all views that the discriminators of a setting make."""
    return frozenset(name for judge in judges for name in judge.names().values())


class GeneratorStep(nn.Module):
    """Setting, encoder and the terms that need nothing but images, under one forward.

    Args:
        log_layers: keep what terms note of their parts. again: names of the views that `fakes` makes.
    """

    def __init__(
        self,
        setting: nn.Module,
        encoder: nn.Module | None,
        objective: Objective,
        log_layers: bool = False,
        again: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.setting, self.encoder, self.objective, self.log_layers = setting, encoder, objective, log_layers
        self.again = frozenset(again)

    def forward(self, batch: Mapping[str, Any], draw: int) -> tuple[dict[str, Tensor], Views]:
        """Weighted terms by name, and the views with their graph. `draw` seeds what is random, equal on every rank."""
        views = self.views(batch, draw)
        return self.objective(views), views

    def views(self, batch: Mapping[str, Any], draw: int) -> Views:
        """The views of a batch, without any term."""
        made: Images = self.setting(batch, draw)
        random = torch.Generator().manual_seed(draw)
        return Views(self.encoder, made.tensors, random, made.given, made.mirrored, self.log_layers)

    def fakes(self, batch: Mapping[str, Any], draw: int) -> Views:
        """The batch and what the steps beside the generator's read of it, without graph and features."""
        with torch.no_grad():
            made: Images = self.setting(batch, draw, only=self.again)
        return Views(self.encoder, made.tensors, torch.Generator().manual_seed(draw), mirrored=made.mirrored)


class DiscriminatorStep(nn.Module):
    """The discriminators' own losses on detached fakes; fake and real go through each as one batch (SPADE).

    Args:
        judges: of the setting; discriminators, pools: by a judge's network name.
        loss: of lists of predictions, real and fake. conditional: discriminators see the source beside the image.
    """

    def __init__(
        self,
        judges: Collection[Judge],
        discriminators: Mapping[str, nn.Module],
        pools: Mapping[str, ImagePool],
        loss: nn.Module,
        conditional: bool,
    ) -> None:
        super().__init__()
        self.judges = [judge for judge in judges if judge.network in discriminators]
        self.discriminators, self.pools = nn.ModuleDict(discriminators), dict(pools)
        self.loss, self.conditional = loss, conditional

    def inputs(self, views: Views, draw: int) -> tuple[dict[str, tuple[Tensor | None, Tensor, Tensor]]]:
        """What `forward` takes; fakes are exchanged with the pools, once a step."""
        condition = views["source"] if self.conditional else None
        return (
            {
                judge.network: (
                    condition,
                    self.pools[judge.network].exchange(views[judge.fake], draw),
                    views[judge.real],
                )
                for judge in self.judges
            },
        )

    def forward(self, images: Mapping[str, tuple[Tensor | None, Tensor, Tensor]]) -> dict[str, Tensor]:
        """Loss by name of the network, of condition, detached fake and real images."""
        losses = {}
        for name, (condition, fake, real) in images.items():
            scales = self.discriminators[name](condition, torch.cat([fake, real.to(fake.dtype)]))
            fakes, reals = zip(*(stages[-1].chunk(2) for stages in scales), strict=True)
            losses[name] = self.loss(list(reals), list(fakes))
        return losses


class PartsStep(nn.Module):
    """What terms train for themselves, such as the projections of LSeSim: losses of an optimizer of their own.

    Args:
        objective: whose learned terms are stepped.
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective
        self.names = [name for name, term in objective.terms.items() if getattr(term, "learned", False)]

    @torch.no_grad()
    def inputs(self, views: Views, draw: int) -> tuple[dict[str, list[Tensor]], int]:
        """What `forward` takes: features of every view that a learned term's own loss reads, without gradient."""
        terms: Any = self.objective.terms
        features: dict[str, list[Tensor]] = {}
        random = torch.Generator().manual_seed(mix(draw, rank()))  # every rank changes its images' colours for itself
        for name in self.names:
            for view, image in terms[name].own_views(views, random).items():
                made = views.features(view) if view in views else views.encoder(image)
                features[view] = [layer.detach() for layer in made]
        return features, draw

    def forward(self, features: Mapping[str, list[Tensor]], draw: int) -> dict[str, Tensor]:
        """Loss of each learned term, named `<term>_own`; `draw` seeds what is random."""
        terms: Any = self.objective.terms
        random = torch.Generator().manual_seed(draw)
        return {f"{name}_own": terms[name].own_loss(features, random) for name in self.names}


class Late(nn.Module):
    """The terms that are evaluated last, with everything but the generator frozen: those that read a discriminator's
    verdicts, and those with parts that have just been stepped.

    Where a term reads the verdicts on real images too (feature matching), fake and real go through the discriminator
    as one batch, as the releases of the SPADE family have it: its spectral norms advance once, and both sides see the
    same weights. Else it sees the fake alone, as in CUT, CycleGAN and F/LSeSim; to the releases of CFL, which judge
    both and drop the real side, that is the same, since instance norm keeps images apart.

    Args:
        judges, discriminators: by the judge's network name; those without a reader are left out.
        objective: the terms. conditional: discriminators see the source beside the image.
    """

    def __init__(
        self,
        judges: Collection[Judge],
        discriminators: Mapping[str, nn.Module],
        objective: Objective,
        conditional: bool,
    ) -> None:
        super().__init__()
        self.judges = [judge for judge in judges if judge.network in discriminators]
        self.discriminators, self.objective = nn.ModuleDict(discriminators), objective
        self.conditional = conditional

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Weighted terms by name; gradients reach generated images only. The real side keeps no graph."""
        condition = views["source"] if self.conditional else None
        for judge in self.judges:
            names = judge.names()
            images = [views[judge.fake]]
            if {names["real", "score"], names["real", "stages"]} & self.objective.reads:
                images.append(views[judge.real].to(images[0].dtype))
            scales = self.discriminators[judge.network](condition, torch.cat(images) if len(images) > 1 else images[0])
            for at, side in enumerate(("fake", "real")[: len(images)]):
                own = [[stage.chunk(len(images))[at] for stage in stages] for stages in scales]
                if side == "real":
                    own = [[stage.detach() for stage in stages] for stages in own]
                views[names[side, "score"]] = [stages[-1] for stages in own]
                views[names[side, "stages"]] = [stages[:-1] for stages in own]
        return self.objective(views)
