"""Slow twins of the NCE family in float64 scalar loops, and the features of its golden values."""

import math

import torch
from torch import Tensor, nn


def golden_features() -> tuple[Tensor, Tensor]:
    """The unit vectors that the golden values were computed from: (2, 8, 6) float64."""
    b, n, d = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in (2, 8, 6)), indexing="ij")
    first = torch.sin(0.3 + 1.7 * b + 0.9 * n + 0.53 * d + 0.11 * n * d)
    second = torch.cos(0.2 + 1.1 * b + 0.7 * n + 0.31 * d + 0.07 * n * d)
    unit = [v / (v.norm(dim=-1, keepdim=True) + 1e-7) for v in (first, first + 0.5 * second)]
    return unit[0], unit[1]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    features = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return nn.functional.normalize(features, dim=-1).to(dtype)


def reference_nce(
    query: Tensor, key: Tensor, temperature: float, weight: Tensor | None = None, positive: float = 1
) -> Tensor:
    """The formula in scalar loops; `weight` (B, N, N) multiplies the negatives."""
    losses = []
    for b, (queries, keys) in enumerate(zip(query.tolist(), key.tolist(), strict=True)):
        for i, q in enumerate(queries):
            scores = [math.exp(math.fsum(x * y for x, y in zip(q, k, strict=True)) / temperature) for k in keys]
            negatives = [
                score * (1 if weight is None else weight[b, i, j].item()) for j, score in enumerate(scores) if j != i
            ]
            losses.append(-math.log(positive * scores[i] / (positive * scores[i] + math.fsum(negatives))))
    return torch.tensor(losses, dtype=torch.float64).view(query.shape[:2])


def reference_against(
    query: Tensor, key: Tensor, other: Tensor, temperature: float, weights: tuple[Tensor, Tensor, Tensor] | None = None
) -> Tensor:
    """Three blocks in scalar loops: queries and keys, queries and others, keys and others; weights (B, N, N)."""
    blocks = ((query, key), (query, other), (key, other))
    losses = []
    for b in range(len(query)):
        for i in range(query.shape[1]):
            positive, negatives = 0.0, []
            for block, (anchors, partners) in enumerate(blocks):
                for j, partner in enumerate(partners[b].tolist()):
                    product = math.fsum(x * y for x, y in zip(anchors[b, i].tolist(), partner, strict=True))
                    score = math.exp(product / temperature)
                    if block == 0 and i == j:
                        positive = score
                    else:
                        negatives.append(score * (1 if weights is None else weights[block][b, i, j].item()))
            losses.append(-math.log(positive / (positive + math.fsum(negatives))))
    return torch.tensor(losses, dtype=torch.float64).view(query.shape[:2])


def reference_softmax_weights(query: Tensor, key: Tensor, direction: str, beta: float, paired: bool = True) -> Tensor:
    similarity = (query @ key.mT).tolist()
    weights = torch.zeros(len(similarity), query.shape[1], query.shape[1], dtype=torch.float64)
    for b, rows in enumerate(similarity):
        for i, row in enumerate(rows):
            scores = [
                math.exp((s if direction == "hard" else 1 - s) / beta) * (j != i or not paired)
                for j, s in enumerate(row)
            ]
            weights[b, i] = torch.tensor([score / math.fsum(scores) for score in scores], dtype=torch.float64)
    return weights


def reference_plan(
    query: Tensor, key: Tensor, direction: str, beta: float, iterations: int = 50, paired: bool = True
) -> Tensor:
    """u = 1 / (K v), v = 1 / (K^T u) on the plain kernel, in scalar loops."""
    plans = []
    for similarity in query @ key.mT:
        n = len(similarity)
        kernel = [
            [math.exp((s if direction == "hard" else 1 - s) / beta) * (i != j or not paired) for j, s in enumerate(row)]
            for i, row in enumerate(similarity.tolist())
        ]
        v = [1.0] * n
        for _ in range(iterations):
            u = [1 / math.fsum(kernel[i][j] * v[j] for j in range(n)) for i in range(n)]
            v = [1 / math.fsum(kernel[i][j] * u[i] for i in range(n)) for j in range(n)]
        plans.append([[u[i] * kernel[i][j] * v[j] for j in range(n)] for i in range(n)])
    return torch.tensor(plans, dtype=torch.float64)
