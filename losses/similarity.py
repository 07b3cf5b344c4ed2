"""Maps of self-similarity, which tell the structure of an image and not its appearance, and their comparison.

Zheng et al. 2021, The Spatially-Correlative Loss (F/LSeSim), arXiv:2104.00854; with all of an image's drawn places as
keys, the content loss of STROTSS: Kolkin et al. 2019, arXiv:1904.12785.

Legend: B images, C channels, H, W size of a layer's features; P queries, K keys of each.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .nce import precise
from .vectors import unit

Mode = Literal["cos", "l1", "strotss"]
Keys = Literal["window", "queries"]
SHARE = 4  # one in SHARE of the keys is compared, those that are most similar to the query in the generated image
EPSILON = 1e-12  # smallest length that a vector is divided by
SHORTEST_ROW = 1e-8  # the same of rows whose cosine is taken, as F.cosine_similarity has it
SMALLEST_SUM = 1e-4  # of a column of distances; those of 256 equal vectors sum to 2e-5, which is float32's rounding


def similarity_map(
    features: Tensor,
    places: Tensor | None,
    keys: Keys = "window",
    window: int = 64,
    cosine: bool = False,
    centre: bool = True,
) -> Tensor:
    """How similar each drawn place of an image is to the places around it, in the features of one layer.

    S = tanh(q . k / (10 C)) of features less their mean over places, or the cosine of the angle between q and k.
    Args:
        features: (B, C, H, W). Gradients flow to queries and keys.
        places: (P) indices into the H * W places, of the queries in every image; None: all.
        keys: "window": those of `windows`; "queries": the P places themselves.
        window: side of the square of keys, in places.
        cosine: the cosine, of vectors divided by max(length, 1e-12), in place of the hyperbolic tangent.
        centre: subtract the mean of every channel first.
    Returns: (B, P, K), float32 at least.
    """
    height, width = features.shape[-2:]
    with torch.autocast(features.device.type, enabled=False):
        vectors = precise(features).flatten(2)  # (B, C, H * W)
        if centre:
            vectors = vectors - vectors.mean(-1, keepdim=True)
        vectors = unit(vectors, 1, least=EPSILON) if cosine else vectors / vectors.shape[1] ** 0.5
        queries = vectors if places is None else vectors.index_select(2, places)
        similarity = queries.mT @ (queries if keys == "queries" else vectors)
        if keys == "window" and (window < height or window < width):
            if places is None:
                places = torch.arange(height * width, device=features.device)
            at = windows(places, height, width, window)
            similarity = similarity.gather(-1, at.expand(len(similarity), -1, -1))
        return similarity if cosine else (similarity / 10).tanh()


def windows(places: Tensor, height: int, width: int, side: int) -> Tensor:
    """(P, K) indices of the keys of each place: a square around it, moved to lie inside the map.

    Along an axis no longer than `side` these are all positions, each axis for itself. An even side has one more
    position before the place than behind it.
    Args:
        places: (P) indices into the height * width places.
    """
    rows = _span(places // width, height, side)
    columns = _span(places % width, width, side)
    return (rows.unsqueeze(-1) * width + columns.unsqueeze(-2)).flatten(-2)


def _span(centre: Tensor, size: int, side: int) -> Tensor:
    """(P, min(side, size)) positions along one axis."""
    side = min(side, size)
    start = (centre - side // 2).clamp(0, size - side)
    return start.unsqueeze(-1) + torch.arange(side, device=centre.device)


def map_loss(fake: Tensor, source: Tensor, mode: Mode = "cos", smooth: bool = True) -> Tensor:
    """Difference of two maps of self-similarity, of the same places of two images -> scalar.

    Only the keys that are most similar to the query in the generated image are compared: both maps are set to 0 where
    `fake` is below its value of rank K // 4, counted from 0 in descending order. Then, averaged over all rows:
    "cos": h(1 - c), c the cosine of the two rows; "l1": h(4 fake - 4 source) of every entry; h(d) is |d|, or if
    `smooth` 0.5 d^2 where |d| < 1 and |d| - 0.5 elsewhere. "strotss": sum over a column of |D - D'| for the distances
    D = 1 - S, each column divided by its sum (no keys are left out, no h).
    Args:
        fake, source: (B, P, K) of generated and input image; for "strotss" (B, P, P). Gradients flow to both.
    Returns: float32 at least.
    """
    fake, source = precise(fake), precise(source)
    if mode == "strotss":
        return (_shares(fake) - _shares(source)).abs().mean() * fake.shape[-2]
    count = fake.shape[-1]
    threshold = fake.detach().kthvalue(count - count // SHARE, dim=-1, keepdim=True).values
    low = fake.detach() < threshold
    fake, source = fake.masked_fill(low, 0), source.masked_fill(low, 0)
    if mode == "l1":
        found, wanted = SHARE * fake, SHARE * source
    else:
        found, given = (unit(rows, least=SHORTEST_ROW, held=False) for rows in (fake, source))
        found = (found * given).sum(-1)
        wanted = torch.ones_like(found)
    return F.smooth_l1_loss(found, wanted) if smooth else F.l1_loss(found, wanted)


def _shares(similarity: Tensor) -> Tensor:
    distance = 1 - similarity
    return distance / distance.sum(-2, keepdim=True).clamp(min=SMALLEST_SUM)
