"""PatchNCE, WeightNCE and MoNCE as modules: one cross-entropy with three weightings of the negatives.

PatchNCE: Park et al. 2020 (CUT), arXiv:2007.15651; both directions: Andonian et al. 2021 (CFL). WeightNCE and MoNCE:
Zhan et al. 2022, Modulated Contrast for Versatile Image Synthesis. No code of WeightNCE was ever released; it is
written from the paper. The formula is in nce.py: weights uniform for PatchNCE, a softmax of the similarities for
WeightNCE, a transport plan for MoNCE. All act on the (B, N, N) similarities, whose diagonal is the positives.

Legend: B images, N patches of C channels.
"""

import math
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from .nce import Stop, nce, patch_nce, precise, weighted_nce
from .vectors import unit
from .weighting import OFFICIAL_FLOOR, Cost, Direction, softmax_weights, transport_weights
from .words import word

__all__ = ["MoNCE", "PatchNCE", "WeightNCE", "patch_nce", "weighted_nce"]

Negatives = Literal["image", "batch"]
Layers = Literal["all", "last"]
EPSILON = 1e-7  # added to the length of a feature vector before it is divided by it (CUT)


class _Contrast(nn.Module):
    """Settings and preparation that the family shares; a subclass gives the loss of every patch, one direction."""

    def __init__(
        self, temperature: float, bidirectional: bool, detach: Stop | None, normalize: bool, negatives: Negatives
    ) -> None:
        super().__init__()
        self.temperature = _positive("temperature", temperature)
        self.bidirectional = bidirectional
        self.detach: Stop = word("detach", detach or ("negatives" if bidirectional else "all"), Stop)
        self.normalize = normalize
        self.negatives = word("negatives", negatives, Negatives)

    def patches(self, query: Tensor, key: Tensor, detach: Stop, extra: Tensor | None = None) -> Tensor:
        """(B, N) loss of each query patch; `detach` and `extra` as in losses.nce.nce."""
        raise NotImplementedError

    def further(self, anchor: Tensor, other: Tensor) -> Tensor:
        """(B, N) logarithm of what all N patches of `other` add to the denominator of each anchor, as negatives."""
        raise NotImplementedError

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, N, C) features of the same N places in two images -> mean loss over patches and images, in nats."""
        return torch.stack(self.directions(query, key)).mean()

    def directions(self, query: Tensor, key: Tensor) -> list[Tensor]:
        """The same for query -> key and, where bidirectional, key -> query: what forward is the mean of."""
        if query.dim() != 3 or query.shape != key.shape:
            raise ValueError(f"query {tuple(query.shape)} and key {tuple(key.shape)} are not both (B, N, C)")
        with torch.autocast(query.device.type, enabled=False):
            query, key = precise(query), precise(key)
            if self.normalize:
                query, key = unit(query, plus=EPSILON), unit(key, plus=EPSILON)
            if self.negatives == "batch":
                query, key = query.flatten(0, 1).unsqueeze(0), key.flatten(0, 1).unsqueeze(0)
            pairs = [(query, key), (key, query)] if self.bidirectional else [(query, key)]
            return [self.patches(*pair, self.detach).mean() for pair in pairs]

    def against(self, query: Tensor, key: Tensor, other: Tensor) -> Tensor:
        """The loss with the patches of a third image as further negatives, in F-LSeSim's form (arXiv:2104.00854).

            l_i = -log( p_i / ( p_i + sum_{j != i} a_ij exp(query_i . key_j / T) + sum_j b_ij exp(query_i . other_j / T)
                                                                               + sum_j c_ij exp(key_i . other_j / T) ) )

        with p_i = exp(query_i . key_i / T). The weights a are those of forward; b and c have no positive to leave out:
        their rows run over all N columns and sum to Q N. `detach` does not count: gradients flow to all three images.
        Args:
            query, key, other: (B, N, C) unit vectors, taken as they are, whatever `normalize` says.
        Returns: mean over patches and images, in nats, float32 at least.
        Raises: ValueError where the shapes differ.
        """
        if query.dim() != 3 or not query.shape == key.shape == other.shape:
            shapes = f"query {tuple(query.shape)}, key {tuple(key.shape)} and other {tuple(other.shape)}"
            raise ValueError(f"{shapes} are not all (B, N, C)")
        with torch.autocast(query.device.type, enabled=False):
            query, key, other = precise(query), precise(key), precise(other)
            if self.negatives == "batch":
                query, key, other = (rows.flatten(0, 1).unsqueeze(0) for rows in (query, key, other))
            extra = torch.logaddexp(self.further(query, other), self.further(key, other))
            loss = self.patches(query, key, "none", extra)
            if self.bidirectional:
                loss = (loss + self.patches(key, query, "none", extra)) / 2
            return loss.mean()

    def unweighted(self) -> "PatchNCE":
        """PatchNCE with the same settings, for layers that are not to be weighted."""
        return PatchNCE(self.temperature, self.bidirectional, self.detach, self.normalize, self.negatives)

    def extra_repr(self) -> str:
        settings = [name for name in vars(self) if not name.startswith("_") and name != "training"]
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in settings)


class PatchNCE(_Contrast):
    """Every negative counts once: CUT (arXiv:2007.15651); with both directions, CFL's Eq. 5.

    Args:
        temperature: of the softmax over patches.
        bidirectional: half the sum of query -> key and key -> query, in place of the first alone.
        detach: where gradients stop, see patch_nce; None: "negatives" if bidirectional (CFL), else "all" (CUT).
        normalize: divide features by their length first, v / (||v|| + 1e-7); see losses.vectors.unit.
        negatives: "image": the other patches of the same image; "batch": those of all images.
        intra_negatives: CFL's released code: the other patches of the query's own image are negatives too; these pass
            gradient.
        q: total weight of the negatives in units of their number (MoNCE, Fig. 7).
        layer_weights: "cfl": a contrast term gives all layers and directions the scale of CFL's released code
            (losses.comparison.cfl_weight); None: what the term says.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        bidirectional: bool = False,
        detach: Stop | None = None,
        normalize: bool = True,
        negatives: Negatives = "image",
        intra_negatives: bool = False,
        q: float = 1.0,
        layer_weights: Literal["cfl"] | None = None,
    ) -> None:
        super().__init__(temperature, bidirectional, detach, normalize, negatives)
        self.layer_weights = layer_weights and word("layer_weights", layer_weights, Literal["cfl"])
        self.intra_negatives = intra_negatives
        self.q = _positive("q", q)

    def patches(self, query: Tensor, key: Tensor, detach: Stop, extra: Tensor | None = None) -> Tensor:
        if self.intra_negatives and query.shape[1] > 1:
            diagonal = torch.eye(query.shape[1], dtype=torch.bool, device=query.device)
            own = (query / self.temperature @ query.mT).masked_fill_(diagonal, -math.inf).logsumexp(-1)
            extra = own if extra is None else torch.logaddexp(extra, own)
        # the sum of the negatives times Q is the positive divided by Q
        bonus = None if self.q == 1 else query.new_full(query.shape[:2], -math.log(self.q))
        return nce(query, key, None, bonus, self.temperature, detach, extra)

    def further(self, anchor: Tensor, other: Tensor) -> Tensor:
        return (anchor / self.temperature @ other.mT).logsumexp(-1)


class _Weighted(_Contrast):
    detach_weights: bool
    weight_positive = False

    def log_weight(self, similarity: Tensor, paired: bool = True) -> Tensor:
        """(B, N, N) log of the weights of all pairs; `paired` leaves the positives, on the diagonal, out."""
        raise NotImplementedError

    def patches(self, query: Tensor, key: Tensor, detach: Stop, extra: Tensor | None = None) -> Tensor:
        similarity = query @ (key if detach == "none" else key.detach()).mT
        with self._gradients():
            log_weight = self.log_weight(similarity)
            bonus = log_weight.amax(-1) if self.weight_positive else None
        return nce(query, key, log_weight, bonus, self.temperature, detach, extra, similarity)

    def further(self, anchor: Tensor, other: Tensor) -> Tensor:
        similarity = anchor @ other.mT
        with self._gradients():
            log_weight = self.log_weight(similarity, paired=False)
        return (similarity / self.temperature + log_weight.to(similarity.dtype)).logsumexp(-1)

    def _gradients(self) -> torch.set_grad_enabled:
        return torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach_weights)


class WeightNCE(_Weighted):
    """Negatives weighted by a softmax of their similarity (MoNCE, Eqs. 2 and 3).

    Args:
        direction: "hard" weights similar negatives up (unpaired images), "easy" dissimilar ones (paired images).
        beta: temperature of the weights.
        q: total weight of the negatives in units of their number, Q of Eq. 2.
        temperature, bidirectional, detach, normalize, negatives: as in PatchNCE.
        detach_weights: weights are constants; False lets gradients flow through them too.
    """

    def __init__(
        self,
        direction: Direction,
        beta: float = 0.1,
        q: float = 1.0,
        temperature: float = 0.07,
        bidirectional: bool = False,
        detach: Stop | None = None,
        normalize: bool = True,
        negatives: Negatives = "image",
        detach_weights: bool = True,
    ) -> None:
        super().__init__(temperature, bidirectional, detach, normalize, negatives)
        self.direction = word("direction", direction, Direction)
        self.beta = _positive("beta", beta)
        self.q = _positive("q", q)
        self.detach_weights = detach_weights

    def log_weight(self, similarity: Tensor, paired: bool = True) -> Tensor:
        """(B, N, N) log(Q (N-1) w), or log(Q N w) if not paired."""
        total = self.q * _negatives(similarity, paired)
        return softmax_weights(similarity, self.direction, self.beta, paired) + math.log(total)


class MoNCE(_Weighted):
    """Negatives weighted by an optimal transport plan between the patches of both images (MoNCE, Eqs. 4 to 6).

    Each image, layer and direction has its own plan. The last five arguments give the variants of the released code.
    Args:
        direction, beta, q, temperature, bidirectional, detach, normalize, negatives: as in WeightNCE.
        iterations, cost: as in losses.weighting.transport_weights.
        detach_weights: the plan is a constant; False lets gradients flow through all Sinkhorn iterations.
        scale: stands for the number of negatives, N - 1 in Q (N-1) w; null: that number.
        weight_positive: also multiply the positive by the largest weight of its row.
        weighted_layers: "all", or "last": a contrast term then gives the other layers to PatchNCE.
        official_numerics: similarity -10 in place of an infinite cost on the diagonal, 1e-8 added inside log w.
    """

    def __init__(
        self,
        direction: Direction,
        beta: float = 0.1,
        q: float = 1.0,
        iterations: Annotated[int, range(1, 10001)] = 50,
        cost: Cost = "linear",
        temperature: float = 0.07,
        bidirectional: bool = False,
        detach: Stop | None = None,
        normalize: bool = True,
        negatives: Negatives = "image",
        detach_weights: bool = True,
        scale: float | None = None,
        weight_positive: bool = False,
        weighted_layers: Layers = "all",
        official_numerics: bool = False,
    ) -> None:
        super().__init__(temperature, bidirectional, detach, normalize, negatives)
        self.direction = word("direction", direction, Direction)
        self.beta = _positive("beta", beta)
        self.q = _positive("q", q)
        self.iterations = int(_positive("iterations", iterations))
        self.cost = word("cost", cost, Cost)
        if official_numerics and cost != "linear":
            raise ValueError("official_numerics goes with cost 'linear'; the released code has no other")
        self.detach_weights = detach_weights
        self.scale = scale if scale is None else _positive("scale", scale)
        self.weight_positive = weight_positive
        self.weighted_layers = word("weighted_layers", weighted_layers, Layers)
        self.official_numerics = official_numerics

    def log_weight(self, similarity: Tensor, paired: bool = True) -> Tensor:
        """(B, N, N) log(Q (N-1) w), or log(Q N w) if not paired."""
        total = self.q * (self.scale or _negatives(similarity, paired))
        log_weight = transport_weights(
            similarity, self.direction, self.beta, self.iterations, self.cost, self.official_numerics, paired
        ).add_(math.log(total))
        if self.official_numerics:
            return torch.logaddexp(log_weight, log_weight.new_full((), math.log(OFFICIAL_FLOOR)))
        return log_weight


def _negatives(similarity: Tensor, paired: bool) -> int:
    count = similarity.shape[-1]
    return max(count - 1, 1) if paired else count


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} is {value}, not a positive number")
    return value
