"""A folder of images as batches of bytes: what every metric reads, so that all measure the same pixels.

Following Parmar et al. 2022, "On Aliased Resizing and Surprising Subtleties in GAN Evaluation", arXiv:2104.11222,
nothing is resized, converted or recompressed silently: sizes and file formats go into the report (`survey`), and the
one resize there is, real images to the size of the generated ones, is antialiased bicubic and named there too.

Legend: N images, B images of a batch, H rows, W columns. A size is (H, W), written as "WxH".
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from errors import UserError
from listing import PICTURES, walk
from outputs import select
from pixels import Header, load, note, read_header

Size = tuple[int, int]


def image_files(folder: Path, key: str = "folder") -> list[Path]:
    """Image files of a flat or nested folder, sorted by relative path: those that training reads (`listing.walk`), and
    in a folder with a render.json those that it lists.

    Args:
        key: the config key that named the folder, for the messages.
    Raises: UserError for a folder that is missing or holds no image.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"{key}={folder}: {what}; a folder of images was wanted")
    found = _names(folder)
    listed, _ = select(key, folder, found)
    if not listed:
        raise UserError(f"{key}={folder}: holds no image; wanted files ending in {' '.join(sorted(PICTURES))}")
    return [folder / name for name in sorted(listed)]


def left_out(folder: Path, key: str = "folder") -> list[str]:
    """A line about images of a folder that its render.json does not list, if there are any."""
    return select(key, folder, _names(folder))[1]


def _names(folder: Path) -> list[str]:
    """Image files by relative name."""
    return [prefix + name for prefix, found in walk(folder, PICTURES) for name in found]


def read(path: Path, size: Size | None = None, interpolation: str = "bicubic") -> Tensor:
    """One image as (3, H, W) uint8 RGB, as training reads it (`pixels.load`).

    Args:
        size: (H, W) to resize to, antialiased; None keeps the pixels of the file.
        interpolation: bicubic or bilinear.
    Raises: UserError naming a file that is truncated, is no image, or has more than 8 bits a channel.
    """
    rgb = load(path)
    if size is not None and rgb.size != size[::-1]:
        rgb = rgb.resize(size[::-1], Image.Resampling[interpolation.upper()])
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)


def batches(
    files: Iterable[Path],
    batch_size: int,
    workers: int = 2,
    size: Size | None = None,
    interpolation: str = "bicubic",
) -> Iterator[Tensor]:
    """Batches (B, 3, H, W) uint8 in the order of the files, decoded by threads ahead of their use.

    A batch ends early where the next image has another size, so that a folder of mixed sizes is read as it is; none
    reaches across a multiple of `batch_size` files. At most two batches are decoded ahead, whatever their number.
    """
    waiting: deque[Future[Tensor]] = deque()
    batch: list[Tensor] = []
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for at, image in enumerate(_in_order(pool, files, waiting, 2 * batch_size, size, interpolation)):
            if batch and (at % batch_size == 0 or image.shape != batch[0].shape):
                yield torch.stack(batch)
                batch = []
            batch.append(image)
        if batch:
            yield torch.stack(batch)


def _in_order(
    pool: ThreadPoolExecutor,
    files: Iterable[Path],
    waiting: deque[Future[Tensor]],
    ahead: int,
    size: Size | None,
    interpolation: str,
) -> Iterator[Tensor]:
    try:
        for path in files:
            waiting.append(pool.submit(read, path, size, interpolation))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # after an unreadable file, do not decode the rest before saying so
        for future in waiting:
            future.cancel()


def load_all(files: list[Path], workers: int = 2, size: Size | None = None) -> NDArray[np.uint8]:
    """All images as one (N, 3, H, W) uint8 array; for metrics that need random access to pixels (SWD).

    Raises: UserError naming the first file whose size differs from the first one's.
    """
    images: NDArray[np.uint8] | None = None
    for index, batch in enumerate(batches(files, 1, workers, size)):
        image = batch[0].numpy()
        if images is None:
            images = np.empty((len(files), *image.shape), np.uint8)
        if image.shape != images.shape[1:]:
            raise UserError(
                f"{files[index]}: {label(image.shape[1:])}, but {files[0].name} is {label(images.shape[2:])}; "
                "this metric wants one size in a folder"
            )
        images[index] = image
    if images is None:
        raise ValueError("no files")
    return images


@dataclass(frozen=True)
class Survey:
    """What a folder holds, read from the headers of its files: sizes as {"WxH": count}, formats as {"PNG": count}."""

    sizes: dict[str, int]
    formats: dict[str, int]
    size: Size | None  # (H, W) where all images share it


def survey(files: list[Path], folder: Path | None = None) -> Survey:
    """Sizes and file formats of images, without decoding them; one line says what is special about those of `folder`.

    Raises: UserError naming a file that is no image.
    """
    sizes: Counter[Size] = Counter()
    formats: Counter[str] = Counter()
    kinds: Counter[Header] = Counter()
    for path in files:
        header = read_header(path)
        sizes[header.size] += 1
        formats[header.format] += 1
        kinds[header] += 1
    if folder is not None:
        note(folder, kinds)
    return Survey(
        {label(size): count for size, count in sorted(sizes.items())},
        dict(sorted(formats.items())),
        next(iter(sizes)) if len(sizes) == 1 else None,
    )


def label(size: tuple[int, ...]) -> str:
    """(H, W) as "WxH"."""
    return f"{size[1]}x{size[0]}"
