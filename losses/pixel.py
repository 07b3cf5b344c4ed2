"""Mean absolute differences of images: the cycle and identity terms of CycleGAN (Zhu et al. 2017, arXiv:1703.10593)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .nce import precise
from .objective import Views


def difference(query: Tensor, key: Tensor) -> Tensor:
    """mean |query - key| over tensors of the same shape -> scalar, float32 at least; gradients flow to both.

    Raises: ValueError where the shapes differ.
    """
    if query.shape != key.shape:
        raise ValueError(f"query {tuple(query.shape)} and key {tuple(key.shape)} differ")
    with torch.autocast(query.device.type, enabled=False):
        return (precise(query) - precise(key)).abs().mean()


class PixelL1(nn.Module):
    """Sum over pairs of images of mean |query - key|: CycleGAN adds both directions and takes no mean of them.

    Gradients flow to both images of a pair, where they have a graph.
    Args:
        pairs: [query view, key view] names.
    """

    def __init__(self, pairs: Sequence[Sequence[str]]) -> None:
        super().__init__()
        self.pairs = [(str(query), str(key)) for query, key in pairs]
        self.reads = frozenset(name for pair in self.pairs for name in pair)

    def forward(self, views: Views) -> Tensor:
        """Views -> scalar, float32 at least.

        Raises: ValueError naming a pair of views of different shapes.
        """
        for query, key in self.pairs:
            if views[query].shape != views[key].shape:
                raise ValueError(f"'{query}' {tuple(views[query].shape)} and '{key}' {tuple(views[key].shape)} differ")
        return torch.stack([difference(views[query], views[key]) for query, key in self.pairs]).sum()
