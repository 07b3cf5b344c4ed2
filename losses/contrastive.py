"""The NCE family: PatchNCE, WeightNCE and MoNCE are one cross-entropy with three weightings of the negatives.

PatchNCE: Park et al. 2020 (CUT), arXiv:2007.15651; both directions and the gradient stops: Andonian et al. 2021 (CFL).
WeightNCE and MoNCE: Zhan et al. 2022, Modulated Contrast for Versatile Image Synthesis. No code of WeightNCE was ever
released; it is written from the paper's Eqs. 2 and 3.

    l_i = -log( exp(s_ii / T) / ( exp(s_ii / T) + sum_{j != i} Q (N-1) w_ij exp(s_ij / T) ) ),    s_ij = query_i . key_j

w_ij = 1 / (N-1), Q = 1: PatchNCE; a softmax over j of +-s_ij / beta: WeightNCE; a transport plan: MoNCE. All are
computed on the (B, N, N) matrix of similarities, whose diagonal is the positives.

Legend: B images, N patches of C channels; T temperature, Q and w weights of the negatives.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .weights import COSTS, DIRECTIONS, OFFICIAL_FLOOR, softmax_weights, transport_weights

BLOCK = 2**20  # logits worked on at a time: few enough to stay in cache, enough to fill the machine
STOPS = ("negatives", "all", "none")


def patch_nce(query: Tensor, key: Tensor, temperature: float = 0.07, detach: str | None = None) -> Tensor:
    """Cross-entropy of each query patch against the key patches of its own image.

    Args:
        query, key: (B, N, C) unit vectors; the key at the query's index is its positive, the others are its negatives.
        temperature: of the softmax, dimensionless.
        detach: where gradients stop; they always flow to the query. "all" (None means the same): the whole key, CUT;
            "negatives": the key as a negative, but not as the positive, CFL Eq. 5; "none": nowhere.
    Returns: (B, N) loss of each query patch in nats, float32 at least; 0 where N = 1.
    Raises: ValueError where the shapes differ or `detach` is another word.
    """
    return _nce(query, key, None, None, temperature, detach)


def weighted_nce(
    query: Tensor, key: Tensor, log_weight: Tensor, temperature: float = 0.07, detach: str | None = None
) -> Tensor:
    """patch_nce with the negative j of query i counted exp(log_weight_ij) times.

    Args:
        query, key, temperature, detach: as in patch_nce.
        log_weight: (B, N, N) log(Q (N-1) w); its diagonal is ignored. Gradients flow to it if it requires them.
    Returns: (B, N) loss of each query patch in nats, float32 at least; 0 where N = 1.
    Raises: ValueError where the shapes differ or `detach` is another word.
    """
    if log_weight.shape != (*query.shape[:2], query.shape[1]):
        raise ValueError(f"log_weight {tuple(log_weight.shape)} does not fit query {tuple(query.shape)}")
    return _nce(query, key, log_weight, None, temperature, detach)


def _nce(
    query: Tensor, key: Tensor, log_weight: Tensor | None, bonus: Tensor | None, temperature: float, detach: str | None
) -> Tensor:
    """The formula; `bonus` (B, N) is added to the positive logits. Weights that are constants take the fused way."""
    if query.dim() != 3 or query.shape != key.shape:
        raise ValueError(f"query {tuple(query.shape)} and key {tuple(key.shape)} are not both (B, N, C)")
    detach = "all" if detach is None else detach
    if detach not in STOPS:
        raise ValueError(f"detach is '{detach}', not one of {', '.join(STOPS)}")
    with torch.autocast(query.device.type, enabled=False):
        query, key = _precise(query), _precise(key)
        positive = key.detach() if detach == "all" else key
        constant = not any(t is not None and t.requires_grad for t in (log_weight, bonus))
        if constant and detach != "none":
            return _FusedNCE.apply(query, positive, log_weight, bonus, temperature)
        logits = query / temperature @ (key if detach == "none" else key.detach()).mT
        if log_weight is not None:
            logits = logits + log_weight.to(logits.dtype)
        positives = (query * positive).sum(-1) / temperature
        if bonus is not None:
            positives = positives + bonus.to(logits.dtype)
        logits = logits.diagonal_scatter(positives, dim1=-2, dim2=-1)
        return -logits.log_softmax(-1).diagonal(dim1=-2, dim2=-1)


class _FusedNCE(torch.autograd.Function):
    """_nce by blocks of rows; the gradient of a row needs no other row, so the forward pass forms it too.

    Nothing of (B, N, N) is kept between the passes, and only one block of it exists at a time. Gradients: to the query,
    and to the key as the positive only.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, log_weight: Tensor | None, bonus: Tensor | None, temperature: float
    ) -> Tensor:
        batch, count, _ = query.shape
        loss = query.new_empty(batch, count)
        surplus = torch.empty_like(loss)  # probability of the positive, less 1
        wanted = any(ctx.needs_input_grad[:2])
        pull = torch.empty_like(query) if wanted else query  # gradient of each row's loss with respect to its query
        size = max(16, BLOCK // (batch * count))
        for start in range(0, count, size):
            rows = slice(start, start + size)
            if log_weight is None:
                logits = torch.baddbmm(query.new_zeros(()), query[:, rows], key.mT, beta=0, alpha=1 / temperature)
            else:
                log_weight_rows = log_weight[:, rows].to(query.dtype)
                logits = torch.baddbmm(log_weight_rows, query[:, rows], key.mT, alpha=1 / temperature)
                logits.diagonal(start, -2, -1).copy_((query[:, rows] * key[:, rows]).sum(-1) / temperature)
            if bonus is not None:
                logits.diagonal(start, -2, -1).add_(bonus[:, rows])
            log_share = logits.log_softmax(-1)
            positive = log_share.diagonal(start, -2, -1)
            loss[:, rows] = -positive
            if wanted:
                share = log_share.exp_()
                positive.sub_(1)
                surplus[:, rows] = positive
                pull[:, rows] = torch.bmm(share, key)
        ctx.save_for_backward(query, pull, surplus)
        ctx.temperature = temperature
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, pull, surplus = ctx.saved_tensors
        gradient = (gradient / ctx.temperature).unsqueeze(-1)
        to_key = gradient * surplus.unsqueeze(-1) * query if ctx.needs_input_grad[1] else None
        return gradient * pull, to_key, None, None, None


class _Contrast(nn.Module):
    """Settings and preparation that the family shares; a subclass gives the loss of every patch, one direction."""

    def __init__(
        self, temperature: float, bidirectional: bool, detach: str | None, normalize: bool, negatives: str
    ) -> None:
        super().__init__()
        self.temperature = _positive("temperature", temperature)
        self.bidirectional = bidirectional
        self.detach = _word("detach", detach or ("negatives" if bidirectional else "all"), STOPS)
        self.normalize = normalize
        self.negatives = _word("negatives", negatives, ("image", "batch"))

    def patches(self, query: Tensor, key: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, N, C) features of the same N places in two images -> mean loss over patches and images, in nats."""
        if query.dim() != 3 or query.shape != key.shape:
            raise ValueError(f"query {tuple(query.shape)} and key {tuple(key.shape)} are not both (B, N, C)")
        with torch.autocast(query.device.type, enabled=False):
            query, key = _precise(query), _precise(key)
            if self.normalize:
                query, key = _unit(query), _unit(key)
            if self.negatives == "batch":
                query, key = query.flatten(0, 1).unsqueeze(0), key.flatten(0, 1).unsqueeze(0)
            loss = self.patches(query, key)
            if self.bidirectional:
                loss = (loss + self.patches(key, query)) / 2
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
        normalize: divide features by their length first, v / (||v|| + 1e-7).
        negatives: "image": the other patches of the same image; "batch": those of all images.
        intra_negatives: CFL's released code: the other patches of the query's own image are negatives too; these pass
            gradient.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        bidirectional: bool = False,
        detach: str | None = None,
        normalize: bool = True,
        negatives: str = "image",
        intra_negatives: bool = False,
    ) -> None:
        super().__init__(temperature, bidirectional, detach, normalize, negatives)
        self.intra_negatives = intra_negatives

    def patches(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, N) loss of each query patch."""
        loss = patch_nce(query, key, self.temperature, self.detach)
        if not self.intra_negatives or query.shape[1] == 1:
            return loss
        positive = (query * (key.detach() if self.detach == "all" else key)).sum(-1) / self.temperature
        diagonal = torch.eye(query.shape[1], dtype=torch.bool, device=query.device)
        own = (query / self.temperature @ query.mT).masked_fill_(diagonal, -math.inf)
        return torch.logaddexp(loss, own.logsumexp(-1) - positive)  # log(Z / p), log(E / p) -> log((Z + E) / p)


class _Weighted(_Contrast):
    detach_weights: bool
    weight_positive = False

    def log_weight(self, similarity: Tensor) -> Tensor:
        raise NotImplementedError

    def patches(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, N) loss of each query patch."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach_weights):
            log_weight = self.log_weight(query @ (key if self.detach == "none" else key.detach()).mT)
            bonus = log_weight.amax(-1) if self.weight_positive else None
        return _nce(query, key, log_weight, bonus, self.temperature, self.detach)


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
        direction: str,
        beta: float = 0.1,
        q: float = 1.0,
        temperature: float = 0.07,
        bidirectional: bool = False,
        detach: str | None = None,
        normalize: bool = True,
        negatives: str = "image",
        detach_weights: bool = True,
    ) -> None:
        super().__init__(temperature, bidirectional, detach, normalize, negatives)
        self.direction = _word("direction", direction, DIRECTIONS)
        self.beta = _positive("beta", beta)
        self.q = _positive("q", q)
        self.detach_weights = detach_weights

    def log_weight(self, similarity: Tensor) -> Tensor:
        """(B, N, N) log(Q (N-1) w)."""
        total = self.q * max(similarity.shape[-1] - 1, 1)
        return softmax_weights(similarity, self.direction, self.beta) + math.log(total)


class MoNCE(_Weighted):
    """Negatives weighted by an optimal transport plan between the patches of both images (MoNCE, Eqs. 4 to 6).

    Each image, layer and direction has its own plan. The last five arguments give the variants of the released code.
    Args:
        direction, beta, q, temperature, bidirectional, detach, normalize, negatives: as in WeightNCE.
        iterations, cost: as in losses.weights.transport_weights.
        detach_weights: the plan is a constant; False lets gradients flow through all Sinkhorn iterations.
        scale: stands for the number of negatives N - 1 in Q (N-1) w; null: that number.
        weight_positive: also multiply the positive by the largest weight of its row.
        weighted_layers: "all", or "last": a contrast term then gives the other layers to PatchNCE.
        official_numerics: similarity -10 in place of an infinite cost on the diagonal, 1e-8 added inside log w.
    """

    def __init__(
        self,
        direction: str,
        beta: float = 0.1,
        q: float = 1.0,
        iterations: int = 50,
        cost: str = "linear",
        temperature: float = 0.07,
        bidirectional: bool = False,
        detach: str | None = None,
        normalize: bool = True,
        negatives: str = "image",
        detach_weights: bool = True,
        scale: float | None = None,
        weight_positive: bool = False,
        weighted_layers: str = "all",
        official_numerics: bool = False,
    ) -> None:
        super().__init__(temperature, bidirectional, detach, normalize, negatives)
        self.direction = _word("direction", direction, DIRECTIONS)
        self.beta = _positive("beta", beta)
        self.q = _positive("q", q)
        self.iterations = int(_positive("iterations", iterations))
        self.cost = _word("cost", cost, COSTS)
        if official_numerics and cost != "linear":
            raise ValueError("official_numerics goes with cost 'linear'; the released code has no other")
        self.detach_weights = detach_weights
        self.scale = scale if scale is None else _positive("scale", scale)
        self.weight_positive = weight_positive
        self.weighted_layers = _word("weighted_layers", weighted_layers, ("all", "last"))
        self.official_numerics = official_numerics

    def log_weight(self, similarity: Tensor) -> Tensor:
        """(B, N, N) log(Q (N-1) w)."""
        total = self.q * (self.scale or max(similarity.shape[-1] - 1, 1))
        log_weight = transport_weights(
            similarity, self.direction, self.beta, self.iterations, self.cost, self.official_numerics
        ).add_(math.log(total))
        if self.official_numerics:
            return torch.logaddexp(log_weight, log_weight.new_tensor(math.log(OFFICIAL_FLOOR)))
        return log_weight


def _precise(features: Tensor) -> Tensor:
    return features.to(torch.promote_types(features.dtype, torch.float32))


def _unit(features: Tensor) -> Tensor:
    return features / (features.norm(dim=-1, keepdim=True) + 1e-7)


def _word(name: str, value: str, words: tuple[str, ...]) -> str:
    if value not in words:
        raise ValueError(f"{name} is '{value}', not one of {', '.join(words)}")
    return value


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} is {value}, not a positive number")
    return value
