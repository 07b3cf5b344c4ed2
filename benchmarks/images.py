"""Photograph-like images for benchmarks: noise whose amplitude falls like 1/f, as that of photographs does."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def noise(height: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, mean 128 and deviation 50 a channel before clipping."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.maximum(np.hypot(rows, columns), 1 / max(height, width))
    shape = (3, *frequency.shape)
    spectrum = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / frequency
    image = np.fft.irfft2(spectrum, s=(height, width))
    image = (image - image.mean((1, 2), keepdims=True)) / image.std((1, 2), keepdims=True)
    return (128 + 50 * image).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)


def ids(height: int, width: int, classes: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(H, W) label ids 0..classes-1 in smooth regions of an eighth of the image and more."""
    coarse = noise(8, 8, rng)[..., 0].astype(np.float32)
    smooth = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return (smooth.clip(0, 255) * (classes / 256)).astype(np.uint8)


def write(folder: Path, count: int, height: int, width: int, seed: int, suffix: str = ".png") -> list[Path]:
    """`count` noise images as files 00000.png, 00001.png, ... of a new folder."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    files = [folder / f"{index:05d}{suffix}" for index in range(count)]
    for file in files:
        Image.fromarray(noise(height, width, rng)).save(file)
    return files
