"""The adapter of every segmentation network: images in, class ids out."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoders import IMAGENET_MEAN, IMAGENET_STD


class Segmenter:
    """A network and what it takes to feed it. No module itself: an exported program refuses train() and eval().

    Args:
        network: normalised (N, 3, h, w) images to logits (N, K, h', w'), or a dict or tuple that holds them under "out"
            or first. It must be in eval mode.
        num_classes: of the ids that `predict` gives.
        mean, std: of RGB in [0, 1].
        input_size: (height, width) that images are resized to, bilinear with antialiasing; None keeps their own.
        output_map: evaluation id of each of the network's K classes; None keeps them.
    Attributes: those; kind, what network it is; files, where its weights and settings came from.
    """

    kind = "network"
    files: tuple[Path, ...] = ()

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        input_size: Sequence[int] | None = None,
        output_map: Sequence[int] | None = None,
    ) -> None:
        self.network, self.num_classes = network, num_classes
        self.input_size = None if input_size is None else (int(input_size[0]), int(input_size[1]))
        self.mean, self.std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
        self.output_map = None if output_map is None else torch.tensor(output_map)

    def named(self, kind: str, *files: Path) -> "Segmenter":
        """Say what network this is and which files it came from; returns self."""
        self.kind, self.files = kind, files
        return self

    def to(self, device: torch.device | str) -> "Segmenter":
        """Move everything to a device; returns self."""
        self.network.to(device)
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        self.output_map = None if self.output_map is None else self.output_map.to(device)
        return self

    def logits(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) float RGB in [0, 1] to the network's (N, K, H, W), resized bilinearly to the images' size."""
        x = images
        if self.input_size is not None and images.shape[2:] != self.input_size:
            x = F.interpolate(x, self.input_size, mode="bilinear", antialias=True)
        found = self.network((x - self.mean) / self.std)
        if isinstance(found, dict):
            found = found["out"]
        elif isinstance(found, tuple | list):
            found = found[0]
        return F.interpolate(found.float(), images.shape[2:], mode="bilinear")

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) float RGB in [0, 1] to (N, H, W) int64 ids in 0..num_classes-1, at the images' size."""
        ids = self.logits(images).argmax(1)
        return ids if self.output_map is None else self.output_map[ids]
