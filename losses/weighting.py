"""Weights of the negatives: how much each counts, by how similar it is to the query.

Zhan et al. 2022, Modulated Contrast for Versatile Image Synthesis (MoNCE). "hard" gives the similar negatives more
weight, for unpaired images; "easy" the dissimilar ones, for paired images.

Legend: B images, N patches; similarity (B, N, N), whose diagonal is the positives; w_ii = 0 and rows of w sum to 1.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from .nce import precise
from .transport import potentials

Direction = Literal["hard", "easy"]
Cost = Literal["linear", "exp"]
OFFICIAL_DIAGONAL = -10.0  # similarity of a patch and its positive, in place of an infinite cost
OFFICIAL_FLOOR = 1e-8  # added to the weights under the logarithm


def softmax_weights(similarity: Tensor, direction: Direction, beta: float, paired: bool = True) -> Tensor:
    """log w of WeightNCE (Eqs. 2 and 3): softmax over j != i of s_ij / beta (hard) or -s_ij / beta (easy).

    Eq. 3 prints a sum over all j; without j = i the constraint after Eq. 2, that weights of negatives sum to 1, holds.
    Args:
        similarity: (B, N, N); gradients flow through.
        direction: "hard" or "easy".
        beta: temperature of the weights; large ones make them uniform.
        paired: the diagonal is the positives; False: it is negatives like all others, of patches of a third image.
    Returns: (B, N, N) log w, float32 at least, -inf on the diagonal if paired; zeros where N = 1.
    """
    similarity = precise(similarity)
    if similarity.shape[-1] == 1:
        return torch.zeros_like(similarity)
    scores = similarity / (beta if direction == "hard" else -beta)
    return scores.masked_fill(_positives(scores, paired), -math.inf).log_softmax(-1)


def transport_weights(
    similarity: Tensor,
    direction: Direction,
    beta: float,
    iterations: int = 50,
    cost: Cost = "linear",
    official: bool = False,
    paired: bool = True,
) -> Tensor:
    """log w of MoNCE (Eqs. 4 to 6): the entropic transport plan between queries and keys, C_ii infinite if paired.

    Args:
        similarity: (B, N, N); gradients flow through every Sinkhorn iteration.
        direction: "hard" moves weight to similar negatives, "easy" to dissimilar ones.
        beta: as in softmax_weights; the linear cost makes w the doubly stochastic form of those weights.
        iterations: of Sinkhorn; columns of w sum to 1, rows as nearly as it has converged.
        cost: "linear", log K = s / beta (hard) or (1 - s) / beta (easy), as the released code; or "exp", the paper's
            C = exp((1 - s) / beta) (hard) or exp(s / beta) (easy), log K = -C / (mean of C off the diagonal), because
            with the regulariser 1 alone, which the paper does not state, it cannot be solved. The mean is over the
            pairs of finite cost.
        official: the similarity -10 in place of an infinite cost on the diagonal, as the released code (linear only).
        paired: as in softmax_weights.
    Returns: (B, N, N) log w, float32 at least; zeros where N = 1.
    """
    similarity = precise(similarity)
    if similarity.shape[-1] == 1:
        return torch.zeros_like(similarity)
    positives = _positives(similarity, paired)
    if cost == "linear":
        log_kernel = similarity / beta if direction == "hard" else (1 - similarity).div_(beta)
        log_kernel.masked_fill_(positives, OFFICIAL_DIAGONAL / beta if official else -math.inf)
        return _log_plan(log_kernel, iterations)
    exponent = (1 - similarity if direction == "hard" else similarity) / beta
    pairs = similarity.shape[-1] * (similarity.shape[-1] - (1 if paired else 0))
    log_mean = exponent.masked_fill(positives, -math.inf).flatten(1).logsumexp(-1) - math.log(pairs)
    log_kernel = -(exponent - log_mean[:, None, None]).exp()  # of the quotient; C alone overflows at beta 0.01
    return _log_plan(log_kernel.masked_fill(positives, -math.inf), iterations)


def _log_plan(log_kernel: Tensor, iterations: int) -> Tensor:
    """In place of the kernel where no gradient needs it."""
    f, g = (log.to(log_kernel.dtype) for log in potentials(log_kernel, iterations))
    plan = log_kernel.clone() if log_kernel.requires_grad else log_kernel
    return plan.add_(f.unsqueeze(-1)).add_(g.unsqueeze(-2))


def _positives(similarity: Tensor, paired: bool) -> Tensor:
    """(N, N) mask of the pairs that are no negatives."""
    return torch.eye(similarity.shape[-1], dtype=torch.bool, device=similarity.device) & paired
