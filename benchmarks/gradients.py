"""A loss of drawn features with its gradient: what the benchmarks of contrastive losses time and compare."""

from collections.abc import Callable

import torch
from torch import Tensor

BATCH, CHANNELS = 4, 256
Loss = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[], tuple[Tensor, Tensor]]


def features(patches: int) -> tuple[Tensor, Tensor]:
    """Query and key (BATCH, patches, CHANNELS), normally distributed."""
    generator = torch.Generator().manual_seed(patches)
    query, key = torch.randn(2, BATCH, patches, CHANNELS, generator=generator)
    return query, key


def step(loss: Loss, query: Tensor, key: Tensor) -> Step:
    """A function that gives the loss, and its gradient with respect to the query."""
    query = query.clone().requires_grad_()

    def forward_and_backward() -> tuple[Tensor, Tensor]:
        value = loss(query, key)
        return value.detach(), torch.autograd.grad(value, query)[0]

    return forward_and_backward


def difference(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """The largest difference of two tensors in units of the largest entry expected; of all pairs the worst."""
    return max((a - b).abs().max().div(b.abs().max()).item() for a, b in zip(found, expected, strict=True))
