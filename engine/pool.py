"""A history of generated images for the discriminator, CycleGAN's pool (Shrivastava et al. 2017, arXiv:1612.07828)."""

import torch
import torch.distributed as dist
from torch import Tensor

from engine.sampling import mix


class ImagePool:
    """Keeps `size` generated images of one rank, detached, and hands out a mixture of old and new ones.

    Until it is full, new images are kept and returned. Then each is, with probability 1/2, exchanged for a random kept
    one, else returned as it is. Size 0 returns everything as it is.
    Args:
        size: images; seed: of the run; rank: of this process, whose draws differ from other ranks'.
    """

    def __init__(self, size: int, seed: int, rank: int = 0) -> None:
        self.size, self.seed, self.rank = size, seed, rank
        self.images: list[Tensor] = []

    def exchange(self, new: Tensor, draw: int) -> Tensor:
        """(B, C, H, W) new images to as many for the discriminator; choices are a function of seed, rank and `draw`."""
        new = new.detach()
        if self.size == 0:
            return new
        random = torch.Generator().manual_seed(mix(self.seed, 6, self.rank, draw))
        out = []
        for image in new:
            if len(self.images) < self.size:
                self.images.append(image.clone())
            elif torch.rand((), generator=random) < 0.5:
                at = int(torch.randint(self.size, (), generator=random))
                kept, self.images[at] = self.images[at], image.clone()
                image = kept
            out.append(image)
        return torch.stack(out)

    def state(self, world: int = 1) -> Tensor:
        """(world, n, C, H, W): the kept images of every rank; every rank must call it. Empty where nothing is kept."""
        if not self.images:  # so on every rank
            return torch.empty(world, 0)
        own = torch.stack(self.images)
        if world == 1:
            return own[None].cpu()
        every = [torch.empty_like(own) for _ in range(world)]
        dist.all_gather(every, own.contiguous())
        return torch.stack(every).cpu()

    def load_state(self, state: Tensor, device: torch.device) -> None:
        """Take saved images over; with another number of ranks than saved, ranks take the saved pools in turn."""
        self.images = [image.to(device) for image in state[self.rank % len(state)]][: self.size]
