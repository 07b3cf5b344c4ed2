"""Three plain numbers that tell grey, flat, noisy or streaky outputs at sight, beside those of the real images.

No paper's metric: a check that costs nothing, needs no network and has no direction but "like the real ones". Losses
that average over what is possible give washed-out colours (a small channel range) and blur (a small second difference);
checkerboards and noise give a large second difference. A network that knows its place in the image draws the same
lines at the same place in every image (a large fixed pattern). On CamVid's 101 validation images, reduced to 128x96 by
averaging 2x2 pixels, the first two are 0.061 and 0.118.

Legend: B images, H rows, W columns; pixels in [0, 1].
"""

import torch
from torch import Tensor


class Appearance:
    """Sums over images; in the first two numbers each image counts the same, whatever its size.

    channel_range: mean over pixels of the largest minus the smallest of R, G, B.
    second_difference: mean of |x[i-1] - 2 x[i] + x[i+1]| along columns plus the same along rows, over channels and
        pixels.
    fixed_pattern: of the second differences h of the grey image, the share that all N images of one size have in
        common at the same place, in its unbiased form (N |mean h|^2 - mean |h|^2) / ((N - 1) mean |h|^2): 0 for
        unrelated images, 1 for equal ones; the larger of lines along columns and along rows. 0 where no two images
        share a size.
    """

    def __init__(self) -> None:
        self.n = 0
        self.total = torch.zeros(2, dtype=torch.float64)
        self.lines: dict[tuple[int, int], list[Tensor | float]] = {}  # by size: N, then sum h and sum |h|^2, both ways

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
        grey = x.mean(1).double().cpu()
        sums: list[Tensor | float] = [float(len(images))]
        for axis in (2, 1):
            h = grey.diff(n=2, dim=axis)
            sums += [h.sum(0), h.square().sum().item()]
        known = self.lines.setdefault((x.shape[2], x.shape[3]), [0.0] * 5)
        self.lines[x.shape[2], x.shape[3]] = [a + b for a, b in zip(known, sums, strict=True)]

    def compute(self) -> dict[str, float]:
        """Numbers in [0, 1], [0, 4] and [-1, 1]. Raises ValueError where there was no image."""
        if not self.n:
            raise ValueError("no images")
        spread, bends = (self.total / self.n).tolist()
        shares = [self._share(axis) for axis in (0, 1)]
        return {"channel_range": spread, "second_difference": bends, "fixed_pattern": max(shares)}

    def _share(self, axis: int) -> float:
        """Of lines across one axis, over the sizes that several images have."""
        common = whole = 0.0
        for count, *sums in self.lines.values():
            total, squares = torch.as_tensor(sums[2 * axis]), float(sums[2 * axis + 1])
            if count > 1:
                common += (total.square().sum().item() - squares) / (float(count) - 1)
                whole += squares
        return common / whole if whole else 0.0
