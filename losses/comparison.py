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
Weights = Literal["spade", "cfl"]
CFL_LAYERS = 5  # of CFL's default layer option, which makes 10 / 5^2 = 0.4 a layer and direction
CFL_STARRED = {"relu2_1", "relu3_1", "relu4_1", "relu5_1"}  # what its VGG19 reads under that option, four layers


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
        layer_weights: one a layer; "spade": 1/32, 1/16, 1/8, 1/4, 1; "cfl": see `cfl_weight`; None: the loss's, else 1.
            SPADE's and the loss's numbers belong to the deepest layers: fewer layers take the last ones, more go on
            with halves.
        reduce: over layers, "sum" or "mean".
        head_init: "xavier" (normal, gain 0.02, bias 0: CUT, CFL) or "pytorch".
        weighted_layers: "all", or "last": the other layers take the loss's `unweighted()`, PatchNCE; None: the loss's,
            else "all".
        taps: names of the encoder's layers, where they have names.
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
        taps: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.pairs = [(str(query), str(key)) for query, key in pairs]
        self.reads = frozenset(name for pair in self.pairs for name in pair)
        self.dense = getattr(loss, "on", "features") == "maps"
        self.patches = patches
        self.reduce = word("reduce", reduce, Reduce)
        layers = len(map_channels if self.dense else channels)
        self.layer_weights = _layer_weights(layer_weights, loss, layers, taps or ())
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
        keys = read(key)  # first, as CFL's code does: an encoder with spectral norms changes with every pass
        layers = list(zip(read(query), keys, strict=True))
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
                query_map, key_map = (project(self.heads[i], _take(at, places)) for at in (query_map, key_map))
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


def project(head: nn.Module, features: Tensor) -> Tensor:
    """What a head makes of features; outside autocast they come to its own precision first."""
    weight = next(head.parameters(), None)
    if weight is not None and not torch.is_autocast_enabled(features.device.type):
        features = features.to(weight.dtype)
    return head(features)


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


def cfl_weight(layers: int, bidirectional: bool, taps: Sequence[str] = ()) -> float:
    """Weight of each layer with which a term of weight 0.8 has the scale of CFL's released code.

    That code adds lambda / L^2 times the loss of every layer and direction, without Eq. 5's half; lambda is 10, L the
    length of its layer option. Here both directions are averaged, and 0.8 is the weight for five layers and both.
    Args:
        taps: names of the layers. Under its default option, of five, the code reads the four starred layers of VGG19.
    """
    listed = CFL_LAYERS if set(taps) == CFL_STARRED else layers
    return (1.0 if bidirectional else 0.5) * (CFL_LAYERS / listed) ** 2


def _layer_weights(
    own: Sequence[float] | Weights | None, loss: nn.Module, layers: int, taps: Sequence[str]
) -> list[float]:
    given = getattr(loss, "layer_weights", None) if own is None else own
    if own is not None and not isinstance(own, str) and len(own) != layers:
        raise ValueError(f"layer_weights has {len(own)} numbers for {layers} layers")
    if isinstance(given, str) and word("layer_weights", given, Weights) == "cfl":
        return [cfl_weight(layers, getattr(loss, "bidirectional", False), taps)] * layers
    if given is None:
        return [1.0] * layers
    weights = [float(weight) for weight in (SPADE_WEIGHTS if given == "spade" else given)][-layers:]
    while len(weights) < layers:
        weights.insert(0, weights[0] / 2)
    return weights
