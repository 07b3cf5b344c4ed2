"""An experiment is a weighted sum of named terms, and a term compares named views of a batch."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Views(dict[str, Any]):
    """The images and scores of one step by name, and the encoder's features of the images, computed once for all terms.

    Features keep a graph where gradients were on when the views were made, whoever asks for them first.
    Args:
        encoder: image (B, 3, H, W) -> list of (B, C, H, W), one for each layer; its `maps(image)` likewise. None where
            no term reads features.
        tensors: views by name; images (B, 3, H, W) in [-1, 1], scores and stages of a discriminator as lists.
        generator: CPU generator that patch positions are drawn from; None: torch's global one.
        given: features of views that the encoder need not see again, such as those of the pass that made the fake.
        mirrored: views whose features and maps, given ones too, are flipped left-right before they are compared
            (FastCUT's flip equivariance); the images themselves are left as they are.
        log: keep what terms note of their parts, in `log`.
    Raises: LookupError for a view that is not there.
    """

    def __init__(
        self,
        encoder: Any,
        tensors: Mapping[str, Any],
        generator: torch.Generator | None = None,
        given: Mapping[str, list[Tensor]] | None = None,
        mirrored: Iterable[str] = (),
        log: bool = False,
    ) -> None:
        super().__init__(tensors)
        self.log: dict[str, Tensor] | None = {} if log else None
        self.term = ""
        self.encoder = encoder
        self.generator = generator
        self.given = given or {}
        self.mirrored = frozenset(mirrored)
        self._gradients = torch.is_grad_enabled()
        self._features: dict[str, list[Tensor]] = {}
        self._maps: dict[str, list[Tensor]] = {}

    def __missing__(self, name: str) -> Any:
        raise LookupError(f"no view '{name}'; this setting makes {', '.join(self)}")

    def note(self, name: str, value: Tensor) -> None:
        """Keep a scalar that a term is made of, detached, as `<term>/<name>`, where that was asked for."""
        if self.log is not None:
            self.log[f"{self.term}/{name}"] = value.detach()

    def features(self, name: str) -> list[Tensor]:
        """The encoder's features of the view `name`, to draw patches from."""
        if name not in self._features:
            with torch.set_grad_enabled(self._gradients):
                self._features[name] = self._facing(name, self.given.get(name) or self.encoder(self[name]))
        return self._features[name]

    def maps(self, name: str) -> list[Tensor]:
        """What a dense comparison reads: the features, but for pixels the image, not its overlapping patches."""
        if not hasattr(self.encoder, "maps") or self.encoder.map_channels == self.encoder.channels:
            return self.features(name)  # one pass of the network serves both
        if name not in self._maps:
            with torch.set_grad_enabled(self._gradients):
                self._maps[name] = self._facing(name, self.encoder.maps(self[name]))
        return self._maps[name]

    def detached(self) -> "Views":
        """The images without their graph, to be kept until a later step; no features, and no scores."""
        images = {name: image.detach() for name, image in self.items() if isinstance(image, Tensor)}
        return Views(self.encoder, images, self.generator, mirrored=self.mirrored)

    def _facing(self, name: str, features: list[Tensor]) -> list[Tensor]:
        return [layer.flip(-1) for layer in features] if name in self.mirrored else features


class Objective(nn.Module):
    """Weighted, named terms.

    Args:
        terms: modules by name, each called with Views and giving a scalar; `reads` names the views that it needs.
        weights: number of each term.
    Raises: ValueError where the names of terms and weights differ.
    """

    def __init__(self, terms: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        if set(terms) != set(weights):
            raise ValueError(f"terms {', '.join(terms) or 'none'} and weights {', '.join(weights) or 'none'} differ")
        self.terms = nn.ModuleDict(terms)
        self.weights = {name: float(weight) for name, weight in weights.items()}

    @property
    def reads(self) -> frozenset[str]:
        """Names of all views that the terms read."""
        terms: Iterable[Any] = self.terms.values()
        return frozenset(name for term in terms for name in term.reads)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """The weighted value of every term, a scalar by name; their sum is what is minimised."""
        values = {}
        for name, term in self.terms.items():
            views.term = name
            values[name] = self.weights[name] * term(views)
        return values
