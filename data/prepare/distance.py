"""Distance maps: how far each pixel of a drawing is from a line, so that thin lines say something everywhere."""

import torch
from scipy.ndimage import distance_transform_cdt
from torch import Tensor

FAR = 255


def distance_map(shape: Tensor) -> Tensor:
    """A third of the distance to the nearest pixel of `shape` along rows and columns, in whole levels up to 255.

    CoCosNet (Zhang et al. 2020, arXiv:2004.05571), released code: L1 distance in pixels, divided by 3, rounded down.
    Args:
        shape: (1, H, W) bool.
    Returns: (1, H, W) uint8; 255 all over where the shape has no pixel.
    """
    if not shape.any():
        return torch.full(shape.shape, FAR, dtype=torch.uint8)
    pixels = torch.from_numpy(distance_transform_cdt(~shape[0].numpy(), metric="taxicab"))
    return (pixels // 3).clamp(max=FAR).to(torch.uint8)[None]
