"""Small pictures drawn with Pillow: histograms of similarities, and maps of weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

INK, SOFT, LINE = (28, 31, 35), (93, 100, 109), (223, 226, 230)
POSITIVE, NEGATIVE = (47, 111, 222), (207, 74, 20)
LESS, EVEN, MORE = (33, 102, 172), (247, 247, 247), (178, 24, 43)  # of a weight, against the unweighted 1
PANEL = (320, 200)  # width, height of a histogram
TILE = 180  # height of a map
RANGE = 2.0  # decades either way, beyond which colours stay the same


def histograms(layers: Sequence[dict[str, Any]], title: str) -> Image.Image:
    """A panel for each layer: densities of positives and negatives, with their overlap (scripts/analyze.py has the
    fields)."""
    across = min(3, len(layers))
    down = -(-len(layers) // across)
    width, height = PANEL[0], PANEL[1] + 50
    picture = Image.new("RGB", (across * width, down * height + 30), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((10, 8), title, INK, _font(13))
    for at, layer in enumerate(layers):
        _histogram(picture, layer, (at % across * width, at // across * height + 30))
    return picture


def _histogram(picture: Image.Image, layer: dict[str, Any], corner: tuple[int, int]) -> None:
    left, right, top, bottom = corner[0] + 12, corner[0] + PANEL[0] - 12, corner[1] + 24, corner[1] + PANEL[1] + 10
    edges, kinds = layer["edges"], (("negative", NEGATIVE), ("positive", POSITIVE))
    used = [at for at in range(len(edges) - 1) if layer["positive"][at] or layer["negative"][at]]
    first, last = (used[0], used[-1] + 1) if used else (0, len(edges) - 1)
    highest = max(max(layer["positive"]), max(layer["negative"])) or 1.0

    def x(value: float) -> float:
        return left + (value - edges[first]) / (edges[last] - edges[first]) * (right - left)

    for key, colour in kinds:
        shape: list[tuple[float, float]] = [(left, bottom)]
        for at in range(first, last):
            y = bottom - layer[key][at] / highest * (bottom - top)
            shape += [(x(edges[at]), y), (x(edges[at + 1]), y)]
        sheet = Image.new("RGBA", picture.size)
        ImageDraw.Draw(sheet).polygon([*shape, (right, bottom)], fill=(*colour, 90), outline=(*colour, 255))
        picture.paste(sheet, mask=sheet)
    draw = ImageDraw.Draw(picture)
    draw.text((left, corner[1] + 4), f"{layer['name']}: overlap {layer['overlap']:.2f}", INK, _font(12))
    draw.line([(left, bottom), (right, bottom)], LINE)
    draw.text((left, bottom + 3), f"{edges[first]:.2f}", SOFT, _font(10))
    draw.text((right, bottom + 3), f"{edges[last]:.2f}", SOFT, _font(10), anchor="ra")
    for at, (key, colour) in enumerate(reversed(kinds)):
        words = f"{key}s, mean {layer[f'{key}_mean']:.2f}"
        draw.text(((left + right) / 2, bottom + 3 + 12 * at), words, colour, _font(10), anchor="ma")


def weight_maps(
    query: NDArray[np.uint8], key: NDArray[np.uint8], layers: Sequence[dict[str, Any]], title: str
) -> Image.Image:
    """A row for each layer: both images with the patch marked, and how much each place counts as its negative.

    Args:
        query, key: (H, W, 3). layers: with `name`, `grid` (h, w), `place` (row, column), and weights against the
            unweighted 1 as (h, w) nested lists under `weightnce` and `monce`.
    """
    wide = max(1, round(TILE * query.shape[1] / query.shape[0]))
    columns = ("query", "key", "similarity", "WeightNCE", "MoNCE")
    picture = Image.new("RGB", (len(columns) * (wide + 8) + 8, len(layers) * (TILE + 26) + 90), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((8, 8), title, INK, _font(13))
    for at, layer in enumerate(layers):
        top = 30 + at * (TILE + 26)
        tiles = [query, key, _grey(layer["similarity"]), _diverging(layer["weightnce"]), _diverging(layer["monce"])]
        for column, (name, tile) in enumerate(zip(columns, tiles, strict=True)):
            left = 8 + column * (wide + 8)
            words = name if column else f"{layer['name']} ({layer['grid'][0]}x{layer['grid'][1]}): {name}"
            draw.text((left, top + 4), words, SOFT, _font(11))
            picture.paste(Image.fromarray(tile).resize((wide, TILE), Image.Resampling.NEAREST), (left, top + 20))
            draw.rectangle([left, top + 20, left + wide - 1, top + 19 + TILE], outline=LINE)
            _mark(draw, layer, (left, top + 20), (wide, TILE))
    _key(draw, (8, picture.height - 52), picture.width - 16)
    return picture


def _mark(draw: ImageDraw.ImageDraw, layer: dict[str, Any], corner: tuple[int, int], size: tuple[int, int]) -> None:
    (rows, columns), (row, column) = layer["grid"], layer["place"]
    x, y = corner[0] + (column + 0.5) / columns * size[0], corner[1] + (row + 0.5) / rows * size[1]
    for radius, colour in ((7, "black"), (6, "white"), (5, "black")):
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline=colour)


def _key(draw: ImageDraw.ImageDraw, corner: tuple[int, int], width: int) -> None:
    width = min(width, 420)
    ramp = _diverging([[10 ** (RANGE * (2 * at / (width - 1) - 1)) for at in range(width)]])[0]
    for at, colour in enumerate(ramp):
        draw.line([(corner[0] + at, corner[1]), (corner[0] + at, corner[1] + 12)], tuple(map(int, colour)))
    for share, words in ((0, f"{10**-RANGE:g}x or less"), (0.5, "1, as PatchNCE"), (1, f"{10**RANGE:g}x or more")):
        anchor = {0: "la", 0.5: "ma", 1: "ra"}[share]
        draw.text((corner[0] + share * width, corner[1] + 16), words, SOFT, _font(10), anchor=anchor)
    draw.text(
        (corner[0], corner[1] + 32), "how often a place counts as a negative of the marked patch", SOFT, _font(10)
    )


def _diverging(weights: Sequence[Sequence[float]]) -> NDArray[np.uint8]:
    """Weights against 1 to colours by their logarithm; the patch itself, weight 0, counts as none."""
    share = np.clip(np.log10(np.maximum(np.array(weights, float), 1e-12)) / RANGE, -1, 1)[..., None]
    ends = np.where(share < 0, np.array(LESS, float), np.array(MORE, float))
    return (np.array(EVEN, float) + np.abs(share) * (ends - np.array(EVEN, float))).round().astype(np.uint8)


def _grey(similarity: Sequence[Sequence[float]]) -> NDArray[np.uint8]:
    """Similarities -1..1 to grey."""
    values = np.clip((np.array(similarity, float) + 1) / 2, 0, 1)
    return np.repeat((values * 255).round().astype(np.uint8)[..., None], 3, axis=2)


def _font(size: int) -> Any:
    return ImageFont.load_default(size)
