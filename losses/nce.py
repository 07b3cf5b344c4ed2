"""InfoNCE over the patches of an image, with or without weights on the negatives; its one formula.

Park et al. 2020 (CUT), arXiv:2007.15651; gradient stops of Andonian et al. 2021 (CFL); weights of Zhan et al. 2022
(MoNCE):

    l_i = -log( exp(s_ii / T) / ( exp(s_ii / T) + sum_{j != i} Q (N-1) w_ij exp(s_ij / T) ) ),    s_ij = query_i . key_j

which is the cross-entropy of the logits s_ij / T + log(Q (N-1) w_ij) against the diagonal.

Legend: B images, N patches of C channels; T temperature.
"""

from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Stop = Literal["negatives", "all", "none"]
CPU_BLOCK = 2**20  # logits worked on at a time: on a CPU few enough to stay in its cache,
GPU_BLOCK = 2**24  # on a GPU enough to fill it


def patch_nce(query: Tensor, key: Tensor, temperature: float = 0.07, detach: Stop | None = None) -> Tensor:
    """Cross-entropy of each query patch against the key patches of its own image.

    Args:
        query, key: (B, N, C) unit vectors; the key at the query's index is its positive, the others are its negatives.
        temperature: of the softmax, dimensionless.
        detach: where gradients stop; they always flow to the query. "all" (None means the same): the whole key, CUT;
            "negatives": the key as a negative, but not as the positive, CFL Eq. 5; "none": nowhere.
    Returns: (B, N) loss of each query patch in nats, float32 at least; 0 where N = 1.
    Raises: ValueError where the shapes differ or `detach` is another word.
    """
    return nce(query, key, None, None, temperature, detach)


def weighted_nce(
    query: Tensor, key: Tensor, log_weight: Tensor, temperature: float = 0.07, detach: Stop | None = None
) -> Tensor:
    """patch_nce with the negative j of query i counted exp(log_weight_ij) times.

    Args:
        query, key, temperature, detach: as in patch_nce.
        log_weight: (B, N, N) log(Q (N-1) w); its diagonal is ignored. Gradients flow to it if it requires them.
    Returns: (B, N) loss of each query patch in nats, float32 at least; 0 where N = 1.
    Raises: ValueError where the shapes differ or `detach` is another word.
    """
    return nce(query, key, log_weight, None, temperature, detach)


def nce(
    query: Tensor,
    key: Tensor,
    log_weight: Tensor | None,
    bonus: Tensor | None,
    temperature: float,
    detach: Stop | None,
    extra: Tensor | None = None,
    similarity: Tensor | None = None,
) -> Tensor:
    """weighted_nce, its weights optional; `bonus` (B, N) is added to the positive logits, s_ii / T.

    `extra` (B, N) is the logarithm of what further negatives, with other keys, add to the denominator of each query.
    `similarity` (B, N, N) is query @ key^T where the caller has it already, the key detached as `detach` says.
    """
    if query.dim() != 3 or query.shape != key.shape:
        raise ValueError(f"query {tuple(query.shape)} and key {tuple(key.shape)} are not both (B, N, C)")
    if log_weight is not None and log_weight.shape != (*query.shape[:2], query.shape[1]):
        raise ValueError(f"log_weight {tuple(log_weight.shape)} does not fit query {tuple(query.shape)}")
    if detach not in (None, *get_args(Stop)):
        raise ValueError(f"detach is '{detach}', not one of {', '.join(get_args(Stop))}")
    with torch.autocast(query.device.type, enabled=False):
        query, key = precise(query), precise(key)
        positive = key.detach() if detach in (None, "all") else key
        constant = not any(t is not None and t.requires_grad for t in (log_weight, bonus))
        fused = constant and detach != "none"
        if fused and extra is None:
            return _FusedNCE.apply(query, positive, similarity, log_weight, bonus, temperature)
        positives = (query * positive).sum(-1) / temperature
        if bonus is not None:
            positives = positives + bonus.to(positives.dtype)
        if fused:
            loss = _FusedNCE.apply(query, positive, similarity, log_weight, bonus, temperature)
        else:
            if similarity is None:
                similarity = query @ (key if detach == "none" else key.detach()).mT  # (B, N, N)
            logits = similarity / temperature
            if log_weight is not None:
                logits = logits + log_weight.to(logits.dtype)
            logits = logits.diagonal_scatter(positives, dim1=-2, dim2=-1)
            loss = -logits.log_softmax(-1).diagonal(dim1=-2, dim2=-1)
        # log(Z / p) and log(E / p) make log((Z + E) / p)
        return loss if extra is None else torch.logaddexp(loss, extra.to(loss.dtype) - positives)


class _FusedNCE(torch.autograd.Function):
    """The same for constant weights, by blocks of rows: the gradient of a row needs no other row, so the forward pass
    forms it too, and no (B, N, N) tensor of logits ever exists. Gradients to the query, and to the key as the positive.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        similarity: Tensor | None,
        log_weight: Tensor | None,
        bonus: Tensor | None,
        temperature: float,
    ) -> Tensor:
        loss = query.new_empty(query.shape[:2])
        surplus = torch.empty_like(loss)  # probability of the positive, less 1
        wanted = any(ctx.needs_input_grad[:2])
        pull = torch.empty_like(query) if wanted else query  # gradient of each row's loss with respect to its query
        for at in _blocks(query):
            images, rows = at
            if similarity is None:  # (images, rows, N)
                logits = torch.baddbmm(query.new_zeros(()), query[at], key[images].mT, beta=0, alpha=1 / temperature)
            else:
                logits = similarity[at] / temperature
            positive = logits.diagonal(rows.start, -2, -1)
            if log_weight is not None:
                unweighted = positive.clone()
                logits.add_(log_weight[at])
                positive.copy_(unweighted)
            if bonus is not None:
                positive.add_(bonus[at])
            largest = logits.amax(-1, keepdim=True)
            loss[at] = largest.squeeze(-1) - positive
            share = logits.sub_(largest).exp_()  # in place, and `positive` with it
            own = positive.clone()
            positive.zero_()
            others = share.sum(-1)
            total = others + own
            loss[at] += total.log()
            if wanted:
                positive.copy_(-others)  # a small share of the others would be lost in own / total - 1
                surplus[at] = -others / total
                pull[at] = torch.bmm(share, key[images]).div_(total.unsqueeze(-1))
        ctx.save_for_backward(query, pull, surplus)
        ctx.temperature = temperature
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, pull, surplus = ctx.saved_tensors
        gradient = (gradient / ctx.temperature).unsqueeze(-1)
        to_key = gradient * surplus.unsqueeze(-1) * query if ctx.needs_input_grad[1] else None
        return gradient * pull, to_key, None, None, None, None


def _blocks(query: Tensor) -> Iterator[tuple[slice, slice]]:
    """Images and rows to work on at a time: several images where they are small, else some rows of one, which makes the
    products larger than the same rows of all would."""
    batch, count, _ = query.shape
    size = CPU_BLOCK if query.device.type == "cpu" else GPU_BLOCK
    images = min(batch, max(1, size // count**2))
    rows = max(16, size // (images * count))
    for first in range(0, batch, images):
        for start in range(0, count, rows):
            yield slice(first, first + images), slice(start, start + rows)


def precise(features: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if it is that already."""
    return features.to(torch.promote_types(features.dtype, torch.float32))
