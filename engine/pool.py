"""A history of generated images for the discriminator, CycleGAN's pool (Shrivastava et al. 2017, arXiv:1612.07828)."""

import torch
import torch.distributed as dist
from torch import Tensor

from engine.distributed import rank, world
from engine.sampling import mix


class ImagePool:
    """Keeps `size` generated images, detached, and hands out a mixture of old and new ones.

    Until it is full, new images are kept and returned. Then each is, with probability 1/2, exchanged for a random kept
    one, else returned as it is. Size 0 returns everything as it is.

    Every rank takes in the images of all ranks in the order in which one rank would see them, draws alike, and returns
    its own share: the pools are equal on all ranks, and what comes out does not depend on their number.
    Args:
        size: images; seed: of the run.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self.images: list[Tensor] = []

    def exchange(self, new: Tensor, draw: int) -> Tensor:
        """(B, C, H, W) new images to as many for the discriminator; choices are a function of seed and `draw`. Every
        rank must call it, with equally many."""
        new = new.detach()
        if self.size == 0:
            return new
        random = torch.Generator().manual_seed(mix(self.seed, 6, draw))
        out = []
        for image in _of_all_ranks(new):
            if len(self.images) < self.size:
                self.images.append(image.clone())
            elif torch.rand((), generator=random) < 0.5:
                at = int(torch.randint(self.size, (), generator=random))
                kept, self.images[at] = self.images[at], image.clone()
                image = kept
            out.append(image)
        first = rank() * len(new)
        return torch.stack(out[first : first + len(new)])

    def state(self) -> Tensor:
        """(n, C, H, W), the kept images, equal on every rank."""
        return torch.stack(self.images).cpu() if self.images else torch.empty(0, 0, 0, 0)

    def load_state(self, state: Tensor, device: torch.device) -> None:
        """Take saved images over; (ranks, n, C, H, W) of older checkpoints, which kept a pool for each rank, too."""
        if state.numel():
            self.images = list(state.flatten(0, -4)[: self.size].to(device))


def _of_all_ranks(new: Tensor) -> list[Tensor]:
    if world() == 1:
        return list(new)
    every = [new.new_empty(new.shape) for _ in range(world())]
    dist.all_gather(every, new.contiguous())
    last = new.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return [image for images in every for image in images.contiguous(memory_format=layout)]
