"""MoNCE's plan alone, batch 4: `python -m benchmarks.sinkhorn [rounds=5] [threads=2] [small=1] [only=WORD]`.

The transcription makes 50 iterations on plain exponentials by batched products. Where these overflow, the reference is
the logarithm of sums of exponentials in float64.
"""

import math
from collections.abc import Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import plain_nce
from benchmarks.compare import Item, main
from benchmarks.gradients import BATCH, CHANNELS, difference, features
from losses.transport import sinkhorn
from losses.weighting import transport_weights

ITERATIONS = 50
OFFICIAL, TARGETS = {256: 8.0, 1024: 131.0}, {256: 2.0, 1024: 42.0}


def items(small: bool) -> Iterator[Item]:
    """Random features, with which a few iterations are enough; others that need all; small beta."""
    sizes = (16, 32) if small else (256, 1024)
    for patches in sizes:
        yield iterated(f"{patches} patches, beta 0.1", random(patches))
    yield iterated(f"{sizes[-1]} patches in clusters, beta 0.1", clusters(sizes[-1]))
    for beta in (0.01, 0.001):
        yield small_beta(sizes[0], beta)


def random(patches: int) -> Tensor:
    """(BATCH, patches, patches) cosines."""
    query, key = (F.normalize(x, dim=-1) for x in features(patches))
    return query @ key.mT


def clusters(patches: int) -> Tensor:
    """(BATCH, patches, patches) cosines of patches of five kinds, as many of each as it happens."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(5, CHANNELS, generator=generator)
    kinds = torch.randint(5, (2, BATCH, patches), generator=generator)
    query, key = (F.normalize(centres[of] + 0.3 * x, dim=-1) for of, x in zip(kinds, features(patches), strict=True))
    return query @ key.mT


def log_kernel(similarity: Tensor, beta: float) -> Tensor:
    """What our function takes: nothing goes to the diagonal."""
    return (similarity / beta).masked_fill(torch.eye(similarity.shape[1], dtype=torch.bool), -math.inf)


def iterated(name: str, similarity: Tensor, beta: float = 0.1) -> Item:
    """The plain iteration against ours, which stops where all that is left of it changes nothing."""
    patches = similarity.shape[1]
    masked = similarity.masked_fill(torch.eye(patches, dtype=torch.bool), plain_nce.MASKED)
    ours = partial(transport_weights, similarity, "hard", beta, ITERATIONS)

    def check() -> float:
        return difference((ours().exp(),), (plain_nce.plan(masked.double(), beta),))

    def floor(rates: Mapping[str, float]) -> float:
        return 8 * similarity.numel() / rates["memory"] / 1e9  # float32 read and written

    listed = OFFICIAL if "clusters" not in name else {}
    return Item(
        f"Sinkhorn, batch {BATCH}, {name}",
        {"transcription": lambda: plain_nce.plan(masked, beta), "ours": ours},
        check,
        official=listed.get(patches),
        targets={"ours": TARGETS[patches]} if patches in listed else {},
        bound="memory",
        floor=floor,
        remark="checked against the transcription in float64",
    )


def small_beta(patches: int, beta: float) -> Item:
    """Dissimilar patches weighted up, where plain exponentials in float32 overflow."""
    similarity = 1 - random(patches)
    given = log_kernel(similarity, beta)
    plain = plain_nce.plan(similarity, beta)
    share = plain.isnan().float().mean().item()

    def check() -> float:
        return difference((sinkhorn(given, ITERATIONS).exp(),), (in_logarithms(given).exp(),))

    return Item(
        f"Sinkhorn, batch {BATCH}, {patches} patches, beta {beta}, against logarithms in float64",
        {"transcription": lambda: in_logarithms(given), "ours": lambda: sinkhorn(given, ITERATIONS)},
        check,
        remark=f"on plain exponentials {share:.0%} of the plan is NaN; ours is finite and right",
        rounds=3,
    )


def in_logarithms(log_kernel: Tensor) -> Tensor:
    """Logarithm of the plan by the same iteration on logarithms in float64."""
    logs = log_kernel.double()
    g = torch.zeros_like(logs[:, 0])
    for _ in range(ITERATIONS):
        f = -(logs + g.unsqueeze(-2)).logsumexp(-1)
        g = -(logs + f.unsqueeze(-1)).logsumexp(-2)
    return logs + f.unsqueeze(-1) + g.unsqueeze(-2)


if __name__ == "__main__":
    main(items)
