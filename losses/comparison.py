"""The contrast term: compares pairs of images through an encoder's features, layer by layer.

Patches are drawn and projected as in CUT (Park et al. 2020, arXiv:2007.15651, its PatchSampleF) and CFL (Andonian et
al. 2021). The same term makes the L1 and perceptual rows of CFL's table: a loss with `on = "maps"` compares the whole
feature maps.

Legend: B images, C channels, H, W size of a layer's map; N drawn patches.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from .objective import Views
from .perceptual import SPADE_WEIGHTS
from .words import word

Head = Literal["linear", "mlp", "identity"]
Reduce = Literal["sum", "mean"]
Init = Literal["xavier", "pytorch"]
Layers = Literal["all", "last"]
Weights = Literal["spade"]


class Comparison(nn.Module):
    """sum or mean over layers of weight * loss(query, key), averaged over pairs of views.

    Args:
        loss: (query, key) -> scalar, both (B, N, C); or, with an attribute `on = "maps"`, both (B, C, H, W). It decides
            where gradients stop. Its attributes `layer_weights` and `weighted_layers` count where the arguments of
            that name are None.
        pairs: [query view, key view] names.
        channels: of the encoder's features, one number a layer.
        map_channels: of the encoder's maps.
        patches: places drawn from each layer, the same in every image of the batch, in query and key, anew for each
            pair and call; all where there are fewer, or None.
        head: of each layer, shared by query and key. "linear": C -> dim; "mlp": C -> dim, ReLU, dim -> dim;
            "identity": none. Losses on maps have none.
        dim: channels after the head.
        layer_weights: one a layer; "spade": 1/32, 1/16, 1/8, 1/4, 1; None: the loss's, else 1. SPADE's and the loss's
            belong to the deepest layers: fewer layers take the last ones, more go on with halves.
        reduce: over layers, "sum" or "mean".
        head_init: "xavier" (normal, gain 0.02, bias 0: CUT, CFL) or "pytorch".
        weighted_layers: "all", or "last": the other layers take the loss's `unweighted()`, PatchNCE; None: the loss's,
            else "all".
    Raises: ValueError for an unknown word, a wrong number of layer weights, maps of different sizes.
    """

    def __init__(
        self,
        loss: nn.Module,
        pairs: Sequence[Sequence[str]],
        channels: Sequence[int],
        map_channels: Sequence[int],
        patches: Annotated[int, range(1, 2**20)] | None = 1024,
        head: Head = "linear",
        dim: Annotated[int, range(1, 8193)] = 256,
        layer_weights: Sequence[float] | Weights | None = None,
        reduce: Reduce = "sum",
        head_init: Init = "xavier",
        weighted_layers: Layers | None = None,
    ) -> None:
        super().__init__()
        self.pairs = [(str(query), str(key)) for query, key in pairs]
        self.reads = frozenset(name for pair in self.pairs for name in pair)
        self.dense = getattr(loss, "on", "features") == "maps"
        self.patches = patches
        self.reduce = word("reduce", reduce, Reduce)
        layers = len(map_channels if self.dense else channels)
        self.layer_weights = _layer_weights(layer_weights, getattr(loss, "layer_weights", None), layers)
        word("head", head, Head)
        word("head_init", head_init, Init)
        self.heads = nn.ModuleList()
        if not self.dense:
            self.heads.extend(_head(head, count, dim, head_init) for count in channels)
        weighted = weighted_layers or getattr(loss, "weighted_layers", "all")
        self.loss = self.early_loss = loss  # of the last layer, of the others
        if word("weighted_layers", weighted, Layers) == "last":
            unweighted = getattr(loss, "unweighted", None)
            if unweighted is None:
                raise ValueError(f"weighted_layers is 'last', but {type(loss).__name__} has no weights")
            self.early_loss = unweighted()

    def forward(self, views: Views) -> Tensor:
        """Views -> scalar, float32 at least."""
        total = torch.stack([self.pair(views, query, key) for query, key in self.pairs]).mean()
        return total / len(self.layer_weights) if self.reduce == "mean" else total

    def pair(self, views: Views, query: str, key: str) -> Tensor:
        """The weighted sum over layers for one pair of views."""
        read = views.maps if self.dense else views.features
        layers = list(zip(read(query), read(key), strict=True))
        if len(layers) != len(self.layer_weights):
            raise ValueError(f"the encoder gives {len(layers)} layers, not {len(self.layer_weights)}")
        values = []
        for i, (query_map, key_map) in enumerate(layers):
            if query_map.shape != key_map.shape:
                raise ValueError(
                    f"layer {i}: '{query}' {tuple(query_map.shape)} and '{key}' {tuple(key_map.shape)} differ"
                )
            if not self.dense:
                places = draw_places(query_map, self.patches, views.generator)
                query_map, key_map = (self.heads[i](_take(at, places)) for at in (query_map, key_map))
            loss: Any = self.loss if i == len(layers) - 1 else self.early_loss
            parts = loss.directions(query_map, key_map) if hasattr(loss, "directions") else [loss(query_map, key_map)]
            for (first, second), part in zip(((query, key), (key, query)), parts, strict=False):
                views.note(f"{first}-{second}/{i}", part)
            values.append(self.layer_weights[i] * torch.stack(parts).mean())
        return torch.stack(values).sum()


def draw_places(features: Tensor, patches: int | None, generator: torch.Generator | None) -> Tensor | None:
    """(N) indices into the H * W places of (B, C, H, W), without repetition; None means all, in order.

    Args:
        patches: how many; None: all, as where there are no more.
        generator: CPU generator; None: torch's global one.
    """
    count = features.shape[-2] * features.shape[-1]
    if patches is None or patches >= count:
        return None
    places = torch.randperm(count, generator=generator)[:patches]
    if features.is_cuda:
        places = places.pin_memory()  # or the host would wait for the device
    return places.to(features.device, non_blocking=True)


def _take(features: Tensor, places: Tensor | None) -> Tensor:
    """(B, C, H, W) -> (B, N, C), by the features' own layout, so that the gradient, a map of zeros but for these
    places, comes back in it and need not be converted where others are added to it."""
    if features.is_contiguous(memory_format=torch.channels_last):
        rows = features.permute(0, 2, 3, 1).flatten(1, 2)
        return rows if places is None else rows.index_select(1, places)
    features = features.flatten(2)
    return (features if places is None else features.index_select(2, places)).mT


def _head(kind: Head, channels: int, dim: int, init: Init) -> nn.Module:
    if kind == "identity":
        return nn.Identity()
    linear = nn.Linear(channels, dim)
    head = linear if kind == "linear" else nn.Sequential(linear, nn.ReLU(), nn.Linear(dim, dim))
    for layer in head.modules():
        if init == "xavier" and isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight, gain=0.02)
            nn.init.zeros_(layer.bias)
    return head


def _layer_weights(own: Sequence[float] | Weights | None, of_loss: Sequence[float] | None, layers: int) -> list[float]:
    if isinstance(own, str):
        word("layer_weights", own, Weights)
        of_loss = SPADE_WEIGHTS
    elif own is not None:
        if len(own) != layers:
            raise ValueError(f"layer_weights has {len(own)} numbers for {layers} layers")
        return [float(weight) for weight in own]
    if of_loss is None:
        return [1.0] * layers
    weights = [float(weight) for weight in of_loss][-layers:]
    while len(weights) < layers:
        weights.insert(0, weights[0] / 2)
    return weights
