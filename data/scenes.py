"""Generated scenes whose colours nobody can guess from their layout: the case that image-to-image papers argue about.

A label map allows many images. Where they are equally likely, the image of least L1 error is their pixel-wise median
(Andonian et al. 2021, CFL, section 1, show the grey results). Here every object draws its own saturated colour from a
distribution symmetric about mid-grey, so that the median is grey although no image is. The texture tells the class.

A scene is drawn from back to front from signed distances (negative inside, in units of the image height), with soft
borders, in numpy alone; its layout and colours depend on the random numbers, never on the size in pixels.
"""

import colorsys
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from data.canvas import FAR, Array, Canvas

CLASSES = ("sky", "ground", "hill", "disc", "box", "triangle", "stripes", "figure")
SKY, GROUND, HILL, DISC, BOX, TRIANGLE, STRIPES, FIGURE = range(len(CLASSES))
EYE = 0.8  # depth in metres of a point of the ground that lies one image height under the horizon
# The figure's 18 joints in OpenPose order, x to its left, y down from the neck, in body heights: nose, neck; shoulder,
# elbow, wrist (right, left); hip, knee, ankle (right, left); eyes; ears.
JOINTS = np.array([
    (0, -.11), (0, 0), (-.11, 0), (-.16, .16), (-.18, .31), (.11, 0), (.16, .16), (.18, .31), (-.07, .34), (-.08, .57),
    (-.08, .8), (.07, .34), (.08, .57), (.08, .8), (-.03, -.13), (.03, -.13), (-.06, -.12), (.06, -.12),
], dtype=np.float32)  # fmt: skip
LIMBS = ((2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (11, 12), (12, 13), (2, 8), (5, 11), (2, 5), (8, 11))


@dataclass(frozen=True)
class Scene:
    """All that is known of one scene; H height, W width.

    image: (3, H, W) uint8. label: (H, W) uint8 index of CLASSES. instance: (H, W) int32, unique for each object.
    depth: (H, W) float32 metres in 0..10. edges: (H, W) uint8, 1 where a 4-neighbour belongs to another object.
    keypoints: (18, 2) float32 x, y in pixels of the figure's OpenPose joints, -1, -1 for a joint outside the image.
    """

    image: Array
    label: Array
    instance: Array
    depth: Array
    edges: Array
    keypoints: Array


class Painter:
    """Draws the parts of one scene on a canvas with random numbers from `draw(low, high)`."""

    def __init__(self, canvas: Canvas, draw: Callable[[float, float], float]) -> None:
        self.canvas, self.draw = canvas, draw
        self.aspect = canvas.width / canvas.height
        self.horizon = draw(0.4, 0.6)
        self.light = (-0.75 if draw(0, 1) < 0.5 else 0.75, -0.6)  # unit-less direction towards the light, x and y

    def two_colors(self) -> tuple[Array, Array]:
        """A saturated colour and a companion of near hue, (3, 1, 1) in 0..1; 1 - colour is as likely as colour."""
        hue, light, shift = self.draw(0, 1), self.draw(0.36, 0.64), self.draw(-0.14, 0.14)
        other = light + (0.17 if light < 0.5 else -0.17)
        first = colorsys.hls_to_rgb(hue, light, self.draw(0.8, 1.0))
        second = colorsys.hls_to_rgb(hue + shift, other, self.draw(0.75, 1.0))
        return np.array(first, np.float32)[:, None, None], np.array(second, np.float32)[:, None, None]

    def material(self, pattern: Array, shade: Array | float) -> Array:
        """Two colours mixed by `pattern` in 0..1, lit by `shade` in -1..1: to black below 0, to white above.

        Style "b" is a drawing: flat paint on paper, the pattern only as thin hatching, no light.
        """
        first, second = self.two_colors()
        if self.canvas.style == "b":
            paint = 0.45 + 0.55 * first
            return paint - (pattern > 0.8) * (0.3 * paint)
        color = first + pattern * (second - first)
        shade = np.asarray(shade, np.float32)
        return color + np.abs(shade) * ((shade > 0) - color)

    def background(self) -> None:
        """Sky with soft clouds, a chain of hills, and ground in perspective; every one an instance of its own."""
        canvas, draw, (x, y) = self.canvas, self.draw, (self.canvas.x, self.canvas.y)
        everywhere = (slice(0, canvas.height), slice(0, canvas.width))
        waves = np.sin(x * draw(4, 7) + y * draw(9, 14) + draw(0, 6)) + np.sin(x * -draw(3, 6) + y * 19 + draw(0, 6))
        clouds = np.clip(0.3 * waves - 0.1, 0, 1)
        canvas.paint(everywhere, np.broadcast_to(np.float32(-1), clouds.shape),
                     self.material(np.clip(y / self.horizon, 0, 1), clouds - 0.12), SKY, FAR)  # fmt: skip
        ridge = self.horizon - draw(0.05, 0.13) + 0.045 * np.sin(x * draw(5, 9) + draw(0, 6))
        ridge = ridge + 0.02 * np.sin(x * draw(14, 22) + draw(0, 6))
        pattern = 0.5 + 0.5 * np.sin(40 * (y - ridge) + 3 * np.sin(9 * x))
        band = canvas.box(0, self.horizon - 0.2, self.aspect, self.horizon + 0.02)
        canvas.paint(band, (ridge - y)[band], self.material(pattern, 0.12 - 2.5 * (y - ridge))[:, band[0], band[1]],
                     HILL, 0.95 * FAR)  # fmt: skip
        below = np.maximum(y - self.horizon, 1e-3)
        distance = EYE / below  # metres
        tiles = np.sin((x - self.aspect / 2) * distance * draw(6, 9)) * np.sin(distance * draw(4, 6) + draw(0, 6))
        pattern = np.clip(0.5 + 2 * tiles * np.clip(8 * below - 0.3, 0, 1), 0, 1)  # tiles too small to see fade out
        canvas.paint(everywhere, np.broadcast_to(self.horizon - y, pattern.shape),
                     self.material(pattern, 0.27 - 0.9 * (y - self.horizon)), GROUND,
                     np.minimum(distance, 0.9 * FAR))  # fmt: skip

    def shadow(self, x: float, base: float, width: float) -> None:
        """Soft dark ellipse on the ground under an object, or a hatched one in the drawing."""
        x = x - self.light[0] * 0.5 * width
        box = self.canvas.box(x - 1.6 * width, base - 0.5 * width, x + 1.6 * width, base + 0.5 * width)
        across, down = (self.canvas.x[:, box[1]] - x) / width, (self.canvas.y[box[0]] - base) / (0.3 * width)
        self.canvas.blend(box, 0.5 * np.clip(1.4 - np.hypot(across, down), 0, 1), 0.05)

    def solid(self, label: int, depth: float) -> None:
        """A disc, box, triangle or striped flag that stands on the ground, or for discs floats, `depth` metres away."""
        draw, base, size = self.draw, self.horizon + EYE / depth / 1.6, 1.5 / (depth + 1.6)
        x, half, tall = draw(0.06, 0.94) * self.aspect, size * draw(0.3, 0.45), size * draw(0.75, 1.1)
        if label == DISC:
            tall = 2 * half
            base = base if draw(0, 1) < 0.4 else base - draw(0.1, 0.35)
        elif label == STRIPES:
            half, tall = half * 0.6, tall * 1.25
        self.shadow(x, self.horizon + EYE / depth / 1.6, half)
        box = self.canvas.box(x - half, base - tall, x + half, base)
        across, up = (self.canvas.x[:, box[1]] - x) / half, (base - self.canvas.y[box[0]]) / tall  # -1..1 and 0..1
        toward = np.float32(self.light[0])
        if label == DISC:
            high = 2 * up - 1
            radius = np.hypot(across, high)
            pattern = np.clip(0.5 + 2.5 * np.sin(6 * (across * draw(-0.6, 0.6) + high) + draw(0, 6)), 0, 1)
            glow = np.clip(1 - 2.6 * np.hypot(across - 0.45 * toward, high - 0.4), 0, 1)
            shade = 0.55 * (toward * across + 0.6 * high) * np.clip(radius, 0, 1) + glow
            distance = (radius - 1) * half
        elif label == BOX:
            columns, rows = np.sin(across * draw(7, 10)), np.sin(up * draw(16, 24))
            pattern = np.clip(4 * np.minimum(columns, rows), 0, 1)
            shade = np.where(across * toward > -0.25, 0.12, -0.42) + 0.2 * (up - 0.5)  # two faces of a block
            distance = np.maximum((np.abs(across) - 1) * half, np.maximum(-up, up - 1) * tall)
        elif label == TRIANGLE:
            pattern = np.clip(0.5 + 3 * np.sin(draw(18, 26) * up + 2 * np.abs(across)), 0, 1)
            shade = 0.45 * toward * across + 0.3 * (up - 0.4)
            slope = (np.abs(across) - (1 - up)) * half * tall / math.hypot(half, tall)
            distance = np.maximum(slope, -up * tall)
        else:
            pattern = np.clip(0.5 + 5 * np.sin(draw(9, 13) * up + 3 * across), 0, 1)
            shade = 0.5 * toward * np.sin(2.5 * across + up)  # a cloth with a fold
            distance = np.maximum((np.abs(across) - 1) * half, np.maximum(-up, up - 1) * tall)
        self.canvas.paint(box, distance, self.material(pattern, np.clip(shade, -0.8, 0.8)), label, depth)

    def figure(self, depth: float) -> Array:
        """A figure with arms and legs of its own pose; returns its joints, (18, 2) x and y in image heights."""
        draw, base, tall = self.draw, self.horizon + EYE / depth / 1.6, 1.75 / (depth + 1.6)
        joints, x = JOINTS.copy(), draw(0.15, 0.85) * self.aspect
        for root, side in ((2, -1), (5, 1), (8, -1), (11, 1)):  # shoulders and hips swing; elbows and knees bend more
            swing = side * (draw(-0.4, 2.2) if root < 8 else draw(-0.1, 0.5))
            bend = swing + (side * draw(0, 1.2) if root < 8 else -side * draw(0, 0.3))
            length = 0.16 if root < 8 else 0.23
            joints[root + 1] = joints[root] + length * np.array([math.sin(swing), math.cos(swing)], np.float32)
            joints[root + 2] = joints[root + 1] + length * np.array([math.sin(bend), math.cos(bend)], np.float32)
        joints[:, 1] -= joints[[10, 13], 1].max()  # the lower foot stands on the ground
        joints = joints * tall + np.array([x, base], np.float32)
        self.shadow(x, base, 0.2 * tall)
        low, high = joints.min(0) - 0.1 * tall, joints.max(0) + 0.06 * tall
        box = self.canvas.box(*low, *high)
        px, py = self.canvas.x[:, box[1]], self.canvas.y[box[0]]
        start, end = (joints[[limb[i] for limb in LIMBS]][:, :, None, None] for i in (0, 1))  # (limbs, 2, 1, 1)
        along = end - start
        ax, ay = px - start[:, 0], py - start[:, 1]
        t = np.clip((ax * along[:, 0] + ay * along[:, 1]) / (along**2).sum(1), 0, 1)
        limbs = np.sqrt((ax - t * along[:, 0]) ** 2 + (ay - t * along[:, 1]) ** 2).min(0) - 0.042 * tall
        middle = (joints[1] + joints[8] + joints[11]) / 3
        torso = np.maximum(np.abs(px - middle[0]) - 0.1 * tall, np.abs(py - middle[1]) - 0.2 * tall)
        head = np.hypot(px - joints[0, 0], py - joints[0, 1]) - 0.085 * tall
        distance = np.minimum(np.minimum(limbs, torso), head)
        pattern = np.clip((py - (base - 0.5 * tall)) / (0.02 * tall), 0, 1) * np.ones_like(px)  # trousers under a shirt
        shade = np.clip((px - joints[1, 0]) / (0.25 * tall) * self.light[0], -1, 1) * 0.5
        self.canvas.paint(box, distance, self.material(pattern, shade + 0 * py), FIGURE, depth)
        return joints


def edges(instance: Array) -> Array:
    """(H, W) ids to (H, W) uint8: 1 where a 4-neighbour has another id."""
    found = np.zeros(instance.shape, np.uint8)
    down, across = instance[1:] != instance[:-1], instance[:, 1:] != instance[:, :-1]
    found[1:] |= down
    found[:-1] |= down
    found[:, 1:] |= across
    found[:, :-1] |= across
    return found


def render(seed: tuple[int, ...], height: int, width: int, style: str = "a") -> Scene:
    """The scene of these seed numbers, at any size.

    Style "a" is shaded and textured, style "b" a drawing in ink and light paint of the very same scene.
    """
    numbers: Iterator[float] = iter(np.random.default_rng(seed).random(256).tolist())

    def draw(low: float, high: float) -> float:
        return low + (high - low) * next(numbers)

    canvas = Canvas(height, width, style)
    painter = Painter(canvas, draw)
    painter.background()
    depths = sorted((draw(1.6, 6.5) for _ in range(3 + int(draw(0, 3)))), reverse=True)
    figure_at = draw(1.8, 4.5)
    labels = [DISC + (int(4 * draw(0, 1)) + i) % 4 for i in range(len(depths))]
    joints = None
    for depth, label in zip(depths, labels, strict=True):
        if joints is None and depth < figure_at:
            joints = painter.figure(figure_at)
        painter.solid(label, depth)
    joints = painter.figure(figure_at) if joints is None else joints
    keypoints = joints * height
    keypoints[((keypoints < 0) | (keypoints >= (width, height))).any(1)] = -1
    image = (np.clip(canvas.color, 0, 1) * 255 + 0.5).astype(np.uint8)
    return Scene(image, canvas.label, canvas.instance, canvas.depth, edges(canvas.instance), keypoints)
