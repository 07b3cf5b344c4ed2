"""The spatially-correlative term: the generated image keeps the self-similarity of its source (F/LSeSim).

Zheng et al. 2021, arXiv:2104.00854. FSeSim compares maps of a fixed network's features; LSeSim first projects these by
small heads, which are trained by a contrastive loss of their own to tell an image's structure from that of others. Any
loss of the NCE family serves there. Random SeSim, a row of MoNCE's table for which no code was released, has as keys
the drawn places alone.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from .comparison import draw_places, project
from .nce import precise
from .objective import Views
from .similarity import EPSILON, Keys, Mode, map_loss, similarity_map
from .vectors import unit
from .words import word


class SelfSimilarity(nn.Module):
    """Mean over layers of map_loss between the self-similarity maps of two images; gradients flow to the first.

    Args:
        pair: [generated view, source view].
        channels: of the encoder's features, one number a layer.
        mode: "cos" (the papers'), "l1" or "strotss", see losses.similarity.map_loss; "strotss" compares cosine
            distances of the plain features, wants keys "queries" and is never learned.
        keys: of each query, "window": the square around it; "queries": the other queries (Random SeSim).
        window: side of that square in places of the layer; larger ones than the layer are all of it. FSeSim has 64,
            LSeSim 32.
        patches: queries drawn from each layer in each call, the same in every image; all where there are fewer, or
            None.
        cosine: maps of cosines and |d|, in place of the tanh of products and a smooth |d|.
        contrast: loss of the NCE family that trains the heads (`own_loss`); None: no heads, FSeSim.
        augment: also train the heads on source and target with changed colours (LSeSim).
        other: view of images of other structure, for the heads.
    Attributes:
        learned: whether there are heads; they are trained by `own_loss` and are to be frozen in `forward`.
        pairs: of views that are compared place by place.
    Raises: ValueError for an unknown word, settings that contradict each other, a loss of another family.
    """

    def __init__(
        self,
        pair: Sequence[str],
        channels: Sequence[int],
        mode: Mode = "cos",
        keys: Keys = "window",
        window: Annotated[int, range(1, 1025)] = 64,
        patches: Annotated[int, range(1, 2**20)] | None = 256,
        cosine: bool = False,
        contrast: nn.Module | None = None,
        augment: bool = False,
        other: str = "target",
    ) -> None:
        super().__init__()
        self.fixed_encoder = True  # a trained one would learn to make all maps alike
        self.fake, self.source = (str(view) for view in pair)
        self.pairs = [(self.fake, self.source)]
        self.mode: Mode = word("mode", mode, Mode)
        self.keys: Keys = word("keys", keys, Keys)
        if window < 1:
            raise ValueError(f"window is {window}, not 1 or more")
        self.window, self.patches, self.cosine = window, patches, cosine
        self.other, self.augment = other, augment
        self.learned = contrast is not None
        if mode == "strotss" and (keys != "queries" or self.learned):
            raise ValueError("mode 'strotss' goes with keys 'queries' and without contrast")
        if augment and not self.learned:
            raise ValueError("augment goes with contrast: changed colours serve to train its heads")
        self.reads = frozenset({self.fake, self.source, *([other] if self.learned else [])})
        self.layers = len(channels)
        self.heads = nn.ModuleList()
        self.contrast: Any = contrast  # of the last layer
        self.early_contrast: Any = contrast  # of the others
        if contrast is not None:
            if not hasattr(contrast, "against"):
                raise ValueError(f"contrast is {type(contrast).__name__}, not one of patchnce, weightnce, monce")
            unweighted: Any = getattr(contrast, "unweighted", None)
            if getattr(contrast, "weighted_layers", "all") == "last":
                self.early_contrast = unweighted()
            self.heads.extend(_head(count) for count in channels)

    def forward(self, views: Views) -> Tensor:
        """Views -> scalar, float32 at least."""
        values = []
        layers = list(zip(views.features(self.fake), views.features(self.source), strict=True))
        self._check(len(layers))
        for i, (fake, source) in enumerate(layers):
            if fake.shape != source.shape:
                shapes = f"'{self.fake}' {tuple(fake.shape)} and '{self.source}' {tuple(source.shape)}"
                raise ValueError(f"layer {i}: {shapes} differ")
            places = draw_places(fake, self.patches, views.generator)
            wanted = self._map(i, source.detach(), places)
            values.append(map_loss(self._map(i, fake, places), wanted, self.mode, smooth=not self.cosine))
        return torch.stack(values).mean()

    def own_views(self, views: Views, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Images whose features `own_loss` wants, without gradient.

        Those under a view's own name are that view, so that features which are there already serve. The others are
        made here: `other` turned by 180 degrees, as in the released code, and with `augment` source and `other` in
        changed colours, drawn from `generator`, which should differ between ranks (None: torch's global one).
        """
        source, other = views[self.source].detach(), views[self.other].detach()
        images = {self.fake: views[self.fake].detach(), self.source: source, f"turned_{self.other}": _turned(other)}
        if self.augment:
            images[f"jittered_{self.source}"] = jitter(source, generator)
            images[f"turned_jittered_{self.other}"] = _turned(jitter(other, generator))
        return images

    def own_loss(self, features: Mapping[str, Sequence[Tensor]], generator: torch.Generator | None) -> Tensor:
        """What the heads minimise: maps of the source's structure are alike, maps of another image are not.

        The rows of the maps of the same place in source and generated image are each other's positives; other rows of
        the latter, and all rows of the turned other image against both, are negatives (`against` of the loss). With
        `augment` the batch is doubled: source in changed colours for the generated image, the other's for the other.
        Args:
            features: of the images of `own_views`, by name. They are detached: gradients flow to the heads only.
            generator: CPU generator that queries are drawn from, once a layer; None: torch's global one.
        Returns: scalar, mean over layers, float32 at least.
        """
        names = [(self.source, self.fake, f"turned_{self.other}")]
        if self.augment:
            names.append((self.source, f"jittered_{self.source}", f"turned_jittered_{self.other}"))
        self._check(len(features[self.source]))
        values = []
        for i in range(self.layers):
            places = draw_places(features[self.source][i], self.patches, generator)
            read = dict.fromkeys(name for row in names for name in row)  # in one order, which sums of gradients keep
            maps = {name: self._map(i, features[name][i].detach(), places) for name in read}
            rows = {name: unit(map_, least=EPSILON) for name, map_ in maps.items()}
            source, fake, other = (torch.cat([rows[name] for name in column]) for column in zip(*names, strict=True))
            contrast = self.contrast if i == self.layers - 1 else self.early_contrast
            values.append(contrast.against(source, fake, other))
        return torch.stack(values).mean()

    def _map(self, layer: int, features: Tensor, places: Tensor | None) -> Tensor:
        if self.learned:
            features = project(self.heads[layer], features)
        plain = self.mode == "strotss"
        return similarity_map(features, places, self.keys, self.window, self.cosine or plain, centre=not plain)

    def _check(self, found: int) -> None:
        if found != self.layers:
            raise ValueError(f"the encoder gives {found} layers, not {self.layers}")


def jitter(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Images in changed colours, each drawn for itself: brightness, contrast, saturation by 0.5, hue by 0.3 (LSeSim).

    Args:
        images: (B, 1 or 3, H, W) in [-1, 1]; grey ones have neither saturation nor hue.
        generator: CPU generator; None: torch's global one.
    Raises: ValueError for another number of channels.
    """
    if images.shape[1] not in (1, 3):
        raise ValueError(f"augment: colours are of images of 1 or 3 channels, not {images.shape[1]}; set augment=false")
    change = v2.ColorJitter(0.5, 0.5, 0.5, 0.3)
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.autocast(images.device.type, enabled=False), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torchvision draws from this one only
        return torch.stack([change(image) for image in (precise(images) + 1) / 2]).mul(2).sub(1).to(images.dtype)


def _turned(images: Tensor) -> Tensor:
    return images.flip(-2, -1)


def _head(channels: int) -> nn.Module:
    """C -> max(32, C // 4), ReLU, the same again; normal with deviation 0.02, bias 0."""
    inner = max(32, channels // 4)
    head = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.ReLU(), nn.Conv2d(inner, inner, 1))
    for parameter in head.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.02)
        else:
            nn.init.zeros_(parameter)
    return head
