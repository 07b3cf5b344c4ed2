"""The contrastive losses transcribed plainly from their description: what ours are timed against.

PatchNCE (Park et al. 2020, arXiv:2007.15651): the product of all patches with the diagonal masked, the positive put in
front, cross-entropy over (B N, N + 1) logits. MoNCE (Zhan et al. 2022) adds a plan to it: Sinkhorn on plain
exponentials with batched products, which autograd goes back through.

Legend: B images, N patches of C channels; eps what MoNCE's code calls beta.
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.07
MASKED = -10.0  # similarity of a patch and its positive among the negatives


def unit(x: Tensor) -> Tensor:
    """Divide the last axis by its length."""
    return x / (x.norm(dim=-1, keepdim=True) + 1e-7)


def plan(similarity: Tensor, eps: float, iterations: int = 50) -> Tensor:
    """(B, N, N) transport plan of the kernel exp(similarity / eps)."""
    kernel = torch.exp(similarity / eps)
    u = v = similarity.new_ones(*similarity.shape[:2], 1)
    for _ in range(iterations):
        u = 1 / torch.bmm(kernel, v)
        v = 1 / torch.bmm(kernel.transpose(1, 2), u)
    return u * kernel * v.transpose(1, 2)


def patch_nce(query: Tensor, key: Tensor) -> Tensor:
    """Scalar loss of (B, N, C) features; gradients to the query."""
    query, key = unit(query), unit(key).detach()
    return _cross_entropy(query, key, torch.bmm(query, key.transpose(1, 2)))


def mo_nce(query: Tensor, key: Tensor, eps: float = 0.1, detach_weights: bool = False) -> Tensor:
    """As patch_nce, similar negatives weighted up by the plan."""
    query, key = unit(query), unit(key).detach()
    similarity = torch.bmm(query, key.transpose(1, 2))
    with torch.no_grad() if detach_weights else nullcontext():
        weight = plan(_masked(similarity), eps) * (query.shape[1] - 1) + 1e-8
    return _cross_entropy(query, key, similarity + TEMPERATURE * torch.log(weight))


def weight_nce(query: Tensor, key: Tensor, beta: float = 0.1) -> Tensor:
    """As patch_nce, similar negatives weighted up by a constant softmax of their similarities."""
    query, key = unit(query), unit(key).detach()
    similarity = torch.bmm(query, key.transpose(1, 2))
    with torch.no_grad():
        weight = torch.softmax(_masked(similarity) / beta, -1) * (query.shape[1] - 1) + 1e-8
    return _cross_entropy(query, key, similarity + TEMPERATURE * torch.log(weight))


def cfl(query: Tensor, key: Tensor) -> Tensor:
    """Both directions of PatchNCE, gradient stopped at negatives alone; mean of the two."""
    query, key = unit(query), unit(key)
    pairs = ((query, key), (key, query))
    return sum(_cross_entropy(a, b, torch.bmm(a, b.detach().transpose(1, 2))) for a, b in pairs) / 2


def _masked(similarity: Tensor) -> Tensor:
    return similarity.masked_fill(torch.eye(similarity.shape[1], dtype=torch.bool)[None], MASKED)


def _cross_entropy(query: Tensor, key: Tensor, negative: Tensor) -> Tensor:
    flat, channels = negative.shape[0] * negative.shape[1], query.shape[2]
    positive = torch.bmm(query.reshape(flat, 1, channels), key.reshape(flat, channels, 1)).view(flat, 1)
    logits = torch.cat([positive, _masked(negative).reshape(flat, -1)], 1) / TEMPERATURE
    return F.cross_entropy(logits, torch.zeros(flat, dtype=torch.long))
