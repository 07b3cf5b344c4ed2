"""How similar patches are that a run compares, and how much each would count as a negative.

Zhan et al. 2022 (MoNCE): Fig. 2 for the histograms, Eqs. 2 to 6 for the weights.
Legend: B images, N places, C channels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from losses.comparison import Comparison
from losses.objective import Views
from losses.weighting import Direction, softmax_weights, transport_weights

BINS = 100


@torch.inference_mode()
def similarity(term: Comparison, layer: int, query: Tensor, key: Tensor, places: Tensor | None) -> Tensor:
    """(B, N, N) cosine similarity of some places of two feature maps (B, C, H, W), after the term's head."""
    drawn = [one.flatten(2).mT if places is None else one.flatten(2)[..., places].mT for one in (query, key)]
    headed = drawn if term.dense else [term.heads[layer](one) for one in drawn]  # (B, N, C)
    first, second = (one.float() / (one.float().norm(dim=-1, keepdim=True) + 1e-7) for one in headed)
    return first @ second.mT


class Tally:
    """Histograms of positives and negatives over [-1, 1], summed over images; each image counts by its patches."""

    def __init__(self) -> None:
        self.counts = torch.zeros(2, BINS, dtype=torch.float64)
        self.moments = torch.zeros(2, 3, dtype=torch.float64)  # number, sum, sum of squares
        self.ranks = torch.zeros(2, dtype=torch.float64)

    def add(self, similarities: Tensor) -> None:
        """(B, N, N), the positives on the diagonal."""
        own = torch.eye(similarities.shape[-1], dtype=torch.bool, device=similarities.device)
        positives = similarities.diagonal(dim1=-2, dim2=-1)
        lower = (similarities < positives.unsqueeze(-1)).sum(-1) / max(1, similarities.shape[-1] - 1)
        self.ranks += torch.stack([lower.double().sum().cpu(), torch.tensor(lower.numel(), dtype=torch.float64)])
        for at, values in enumerate((positives, similarities[:, ~own])):
            values = values.double().flatten().clamp(-1, 1).cpu()
            self.counts[at] += torch.histogram(values, BINS, range=(-1, 1)).hist
            self.moments[at] += torch.stack([values.new_tensor(len(values)), values.sum(), values.square().sum()])

    def result(self) -> dict[str, Any]:
        """Bin edges, densities of area 1, their overlap (the area under both), numbers, means and deviations; `rank`,
        the share of a patch's negatives that are less similar than its positive, which knows no bins."""
        width = 2 / BINS
        density = self.counts / (self.counts.sum(1, keepdim=True).clamp(min=1) * width)
        number, total, squares = self.moments.unbind(1)
        mean = total / number.clamp(min=1)
        sd = (squares / number.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
        sides = {
            f"{name}_{what}": float(values[at])
            for at, name in enumerate(("positive", "negative"))
            for what, values in (("count", number), ("mean", mean), ("sd", sd))
        }
        return {
            "edges": [round(-1 + width * at, 6) for at in range(BINS + 1)],
            "positive": [float(f"{value:.6g}") for value in density[0]],
            "negative": [float(f"{value:.6g}") for value in density[1]],
            "overlap": float(density.amin(0).sum() * width),
            "rank": float(self.ranks[0] / self.ranks[1].clamp(min=1)),
            **sides,
        }


def weights(
    term: Comparison,
    views: Views,
    query: str,
    key: str,
    layers: Sequence[str],
    *,
    patch: Sequence[float],
    places: int,
    direction: Direction,
    beta: float | None,
) -> dict[str, Any]:
    """How often each place counts as a negative of the chosen patch, in units of PatchNCE's 1, by layer.

    WeightNCE's and MoNCE's weights among a regular grid of places, those of the run's loss where it has any.
    Args:
        query, key: views; layers: names, for the reader. patch: shares of height and width. places: of a grid, at most.
        direction, beta: of the weights; beta None is the loss's own, else 0.1.
    """
    loss = term.loss
    beta = float(getattr(loss, "beta", 0.1)) if beta is None else beta
    iterations: int = getattr(loss, "iterations", 50)
    cost: Any = getattr(loss, "cost", "linear")
    found = []
    for at, layer in enumerate(layers):
        first, second = views.features(query)[at], views.features(key)[at]
        rows, columns = grid(first.shape[-2], first.shape[-1], places)
        at_places = (rows[:, None] * first.shape[-1] + columns).flatten().to(first.device)
        own = [min(len(line) - 1, int(share * len(line))) for share, line in zip(patch, (rows, columns), strict=True)]
        index = own[0] * len(columns) + own[1]
        between = similarity(term, at, first, second, at_places)
        negatives = between.shape[-1] - 1
        weighted = {
            "weightnce": softmax_weights(between, direction, beta)[0, index].exp() * negatives,
            "monce": transport_weights(between, direction, beta, iterations, cost)[0, index].exp() * negatives,
        }
        shape = (len(rows), len(columns))
        maps = {"similarity": between[0, index], **weighted}
        shown = {name: _nested(values, shape) for name, values in maps.items()}
        found.append({"name": layer, "grid": list(shape), "place": own, **shown})
    return {
        "patch": list(patch),
        "direction": direction,
        "beta": beta,
        "iterations": iterations,
        "cost": cost,
        "layers": found,
    }


def grid(height: int, width: int, places: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of a regular grid of at most so many places."""
    stride = next(s for s in range(1, height + width) if -(-height // s) * -(-width // s) <= places)
    rows, columns = (torch.arange((side - 1) % stride // 2, side, stride) for side in (height, width))
    return rows, columns


def _nested(values: Tensor, shape: tuple[int, int]) -> list[list[float]]:
    return [[float(f"{value:.4g}") for value in row] for row in values.double().cpu().view(shape).tolist()]
