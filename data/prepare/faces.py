"""Drawings of faces from the masks of their parts: label maps, and edges with distances to them.

CelebAMask-HQ (Lee et al. 2020, arXiv:1907.11922) gives a mask for each part that a face has; the edge drawing is that
of CoCosNet (Zhang et al. 2020, arXiv:2004.05571), released code.
Masks: (1, H, W) bool, by name of the part.
"""

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.labels import instance_edges
from data.prepare.distance import distance_map

# The official order: a part's id is its position from 1 on, and it is painted over those before it; 0 is background.
PARTS = (
    "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth", "u_lip", "l_lip", "hair",
    "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip
OUTLINED = (
    "skin", "l_brow", "r_brow", "l_eye", "r_eye", "l_ear", "r_ear", "nose", "u_lip", "mouth", "l_lip", "eye_g", "hair",
)  # fmt: skip


def label_map(masks: Mapping[str, Tensor]) -> Tensor:
    """(1, H, W) uint8 ids 0..18 of one mask at least."""
    ids = torch.zeros_like(next(iter(masks.values())), dtype=torch.uint8)
    for label, part in enumerate(PARTS, 1):
        if part in masks:
            ids[masks[part]] = label
    return ids


def outline(mask: Tensor) -> Tensor:
    """(1, H, W) bool: pixels on either side of the mask's boundary, by their four neighbours."""
    return instance_edges(mask[None].to(torch.uint8))[0].bool()


def contours(photo: Tensor) -> Tensor:
    """(1, H, W) bool: Canny edges, sigma 1, of a (3, H, W) uint8 photo in grey."""
    from skimage.feature import canny

    grey = Image.fromarray(photo.movedim(0, -1).contiguous().numpy()).convert("L")
    return torch.from_numpy(canny(np.array(grey)))[None]


def edge_drawing(masks: Mapping[str, Tensor], photo: Tensor) -> Tensor:
    """The 15 channels of CoCosNet's edges at the size of masks and photo, (15, H, W) uint8.

    0: outlines of the 13 parts and, outside of the face, the photo's contours, 0 or 255. 1..13: distance to the outline
    of each part (`distance_map`). 14: the outlines alone. Hair lies outside of the face, even over other parts.
    """
    nothing = torch.zeros(1, *photo.shape[-2:], dtype=torch.bool)
    lines = [outline(masks[part]) if part in masks else nothing for part in OUTLINED]
    outlines = torch.stack(lines).any(0)
    face = torch.stack([masks.get(part, nothing) for part in OUTLINED if part != "hair"]).any(0)
    face = face & ~masks.get("hair", nothing)
    everything = outlines | (contours(photo) & ~face)
    return torch.cat([_white(everything), *(distance_map(line) for line in lines), _white(outlines)])


def _white(lines: Tensor) -> Tensor:
    return lines.to(torch.uint8) * 255
