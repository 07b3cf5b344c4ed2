"""A canvas on which a scene is painted from back to front: colours, labels, instances and depth together.

Coordinates are in image heights, x to the right and y down, so that a scene looks the same at any size in pixels.
"""

import math

import numpy as np

Array = np.ndarray
FAR = 10.0  # metres, the depth of what nothing was painted on


class Canvas:
    """Layers painted from back to front; every layer is confined to the box of pixels that it touches."""

    def __init__(self, height: int, width: int, style: str) -> None:
        self.height, self.width, self.style = height, width, style
        self.x = (np.arange(width, dtype=np.float32)[None] + 0.5) / height  # (1, W), in image heights
        self.y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height  # (H, 1)
        self.color = np.zeros((3, height, width), np.float32)
        self.label = np.zeros((height, width), np.uint8)
        self.instance = np.zeros((height, width), np.int32)
        self.depth = np.full((height, width), FAR, np.float32)
        self.count = 0

    def box(self, left: float, top: float, right: float, bottom: float) -> tuple[slice, slice]:
        """Rows and columns of the pixels of a box given in image heights, with a margin for the soft border."""
        rows = slice(max(0, math.floor(top * self.height) - 2), max(0, math.ceil(bottom * self.height) + 2))
        return rows, slice(max(0, math.floor(left * self.height) - 2), max(0, math.ceil(right * self.height) + 2))

    def blend(self, box: tuple[slice, slice], alpha: Array, color: Array | float) -> None:
        """Mixes `color`, (3, h, w) or broadcast to it, over the canvas with weight `alpha`, (h, w)."""
        under = self.color[:, box[0], box[1]]
        under += alpha * (color - under)

    def paint(self, box: tuple[slice, slice], distance: Array, color: Array, label: int, depth: Array | float) -> None:
        """One object: its colours, borders, label, a new instance id and its depth, where `distance` is negative."""
        pixels = distance * self.height
        self.blend(box, np.clip(0.5 - pixels / 1.5, 0, 1), color)
        if self.style == "b":  # ink along the outline, as wide as the drawing is coarse
            self.blend(box, np.clip(1.3 - np.abs(pixels) / (0.4 + self.height / 100), 0, 1), 0.08)
        inside = distance < 0
        self.label[box][inside] = label
        self.instance[box][inside] = self.count
        self.depth[box] = np.where(inside, depth, self.depth[box])
        self.count += 1
