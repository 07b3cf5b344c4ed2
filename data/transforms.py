"""Joint transforms: label map, instance map and image of a pair are resized, cropped and flipped alike.

The SPADE host's preprocessing (Park et al. 2019, arXiv:1903.07291): bicubic images, nearest labels, one random crop and
flip for all. An item depends on its random key alone, so results are the same for any number of worker processes.
"""

from typing import cast

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from data.example import Example
from errors import UserError


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, H, W) uint8 to (C, *size) uint8, bicubic with antialiasing; as it is where the size fits already."""
    if image.shape[-2:] == size:
        return image
    return v2.functional.resize(image, list(size), v2.InterpolationMode.BICUBIC, antialias=True)


def resize_ids(ids: Tensor, size: tuple[int, int]) -> Tensor:
    """(1, H, W) integers to (1, *size): the id or depth under the centre of each new pixel, never a blend.

    Centres line up with those of `resize_image`; torchvision's nearest takes the upper left corner instead.
    """
    height, width = ids.shape[-2:]
    if (height, width) == size:
        return ids
    rows = ((torch.arange(size[0], dtype=torch.float64) + 0.5) * height / size[0]).long()
    columns = ((torch.arange(size[1], dtype=torch.float64) + 0.5) * width / size[1]).long()
    return ids[:, rows[:, None], columns]


def resize(example: Example, size: tuple[int, int], labels: bool = True) -> Example:
    """Every image of the example to `size`; `labels` says that the source holds ids."""
    resized = dict(example)
    for key in ("source", "target", "instance", "depth", "label"):
        if key in example:
            fit = resize_ids if _holds_ids(key, labels) else resize_image
            resized[key] = fit(example[key], size)  # type: ignore[literal-required]
    return cast(Example, resized)


def _holds_ids(key: str, labels: bool) -> bool:
    return key in ("instance", "depth", "label") or (key == "source" and labels)


def seed_of(key: tuple[int, ...]) -> int:
    """A 63-bit seed, a function of the numbers of `key` alone; keys that differ give unrelated seeds."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


class Augment:
    """Resizes to `load_size`, crops `size` at random, flips left to right with probability 1/2; all images alike.

    Args:
        size: (height, width) of the result.
        load_size: (height, width) before the crop; None resizes to `size` at once.
        flip: whether to flip at all.
        labels: whether the source holds ids.
    Raises: UserError where `load_size` is smaller than `size`.
    """

    def __init__(
        self, size: tuple[int, int], load_size: tuple[int, int] | None = None, flip: bool = True, labels: bool = True
    ) -> None:
        self.size, self.load_size, self.labels = size, load_size or size, labels
        if self.load_size[0] < size[0] or self.load_size[1] < size[1]:
            raise UserError(f"dataset.load_size {list(self.load_size)} is smaller than dataset.size {list(size)}")
        self.crop: list[v2.Transform] = [] if self.load_size == size else [v2.RandomCrop(size)]
        self.flip: list[v2.Transform] = [v2.RandomHorizontalFlip()] * flip

    def resized(self, plain: bool = False) -> tuple[int, int]:
        """(height, width) to which an example is resized first."""
        return self.size if plain else self.load_size

    def __call__(self, example: Example, key: tuple[int, ...], plain: bool = False) -> Example:
        """The example transformed by the random numbers of `key`, (index, draw) and more, not of the global generator.

        `plain` leaves the crop out and resizes to `size` at once, as CUT does while its learning rate decays.
        """
        example = resize(example, self.resized(plain), self.labels)
        steps = self.flip if plain else self.crop + self.flip
        if not steps:
            return example
        wrapped = {
            name: tv_tensors.Mask(value) if _holds_ids(name, self.labels) else tv_tensors.Image(value)
            for name, value in example.items()
            if name != "name"
        }
        seed = seed_of(key)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed CUDA, which is not forked
            for step in steps:
                wrapped = step(wrapped)
        images = {name: value.as_subclass(Tensor) for name, value in wrapped.items()}
        return cast(Example, {"name": example["name"], **images})
