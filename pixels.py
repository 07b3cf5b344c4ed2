"""What the pixels of an image file mean: one reader for training, translation, evaluation, preparation and reports.

Images are read as a viewer shows them: turned as EXIF says, transparent pixels over white, the first frame of an
animation, CMYK in RGB. Colour profiles are not applied, as in the papers' own code. Images of more than 8 bits a
channel are refused, because Pillow would cut some of them to 8 bits silently. Maps of ids are read as the numbers that
the file stores, turned alike: Pillow spreads grey of 2 or 4 bits over 0..255, which is undone here. `note` says in one
line what a folder holds of all this.
"""

import os
import stat
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from errors import UserError
from listing import say

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "WEBP", "TIFF", "DIB")  # no other parser of Pillow's sees a file
DEEP = ("I", "I;16", "I;16B", "I;16L", "F")  # modes of more than 8 bits: no place among uint8 images
ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
MAX_PIXELS = 2**27  # of a file that is decoded: about 1.5 GB of memory while it is read
WHITE = (255, 255, 255, 255)
BROKEN = (  # what Pillow and numpy raise for a damaged file
    OSError, SyntaxError, ValueError, EOFError, ArithmeticError, LookupError, TypeError, AttributeError, RuntimeError,
    MemoryError, struct.error, zlib.error, tokenize.TokenError, zipfile.BadZipFile,
)  # fmt: skip
ORIENTATION = 0x0112  # tag of EXIF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
NOTES = {  # what `note` says of a header's traits
    "alpha": "with transparency (over white)",
    "frames": "with several frames (the first is read)",
    "CMYK": "in CMYK (converted to RGB without a profile)",
    "profile": "with a colour profile that is not sRGB (not applied)",
}
warnings.filterwarnings("ignore", "Corrupt EXIF data", module="PIL")  # viewers do not mind either
Image.MAX_IMAGE_PIXELS = None  # `opened` has its own bound, which is an error of one line


@dataclass(frozen=True)
class Header:
    """What the first bytes of a file tell: format as Pillow names it or NPY, mode, height and width, channels.

    size is that of the upright image. bits: of a channel as stored. traits: keys of `NOTES`.
    """

    format: str
    mode: str
    size: tuple[int, int]
    channels: int
    bits: int = 8
    traits: tuple[str, ...] = ()


@contextmanager
def opened(file: Path) -> Iterator[Image.Image]:
    """The image of a file, not yet decoded. Raises: UserError for anything that goes wrong with it in the block."""
    try:
        with _open(file) as image:
            yield image
    except BROKEN as error:
        raise broken(file, error) from error


def _open(file: Path) -> Image.Image:
    if not stat.S_ISREG(os.stat(file).st_mode):  # noqa: PTH116 - half the time of Path.stat, for every file
        raise UserError(f"{file}: is no regular file; an image was wanted")
    image = Image.open(file, formats=FORMATS)
    try:
        check_extent(file, *image.size[::-1])
    except UserError:
        image.close()
        raise
    return image


def check_extent(file: Path, height: int, width: int) -> None:
    """Raises: UserError for an image without pixels, or with more than can be read."""
    if height < 1 or width < 1:
        raise UserError(f"{file}: is {width}x{height}, without a pixel; replace the file")
    if height * width > MAX_PIXELS:
        raise UserError(
            f"{file}: is {width}x{height}, {height * width / 1e6:.0f} million pixels; {MAX_PIXELS / 1e6:.0f} million at"
            " most are read: make it smaller, or cut it into parts"
        )


def read_header(file: Path) -> Header:
    """Format, mode and size without the pixels. Raises: UserError where the file is no image or no (H, W, C) array."""
    if file.suffix.lower() == ".npy":
        array = load_array(file)
        return _header("NPY", str(array.dtype), array.shape[:2], array.shape[2], 8, ())
    try:
        with _open(file) as image:  # not `opened`, whose generator takes a tenth of the time
            width, height = image.size
            size = (height, width) if orientation(image) < 5 else (width, height)
            channels = 1 if image.mode in ("L", "1", *DEEP) else 3
            return _header(image.format or "", image.mode, size, channels, bits_of(image), _traits(image))
    except BROKEN as error:
        raise broken(file, error) from error


@lru_cache(maxsize=1024)
def _header(form: str, mode: str, size: tuple[int, int], channels: int, bits: int, traits: tuple[str, ...]) -> Header:
    """One object for all files of a kind, of which there may be a million."""
    return Header(form, mode, size, channels, bits, traits)


def load(file: Path, channels: int = 3) -> Image.Image:
    """The image as a viewer shows it, in mode L (channels=1) or RGB (3).

    Raises: UserError for a damaged file, and for more than 8 bits a channel.
    """
    with opened(file) as image:
        refuse_deep(file, image.mode, bits_of(image))
        turn = orientation(image)
        image.load()
        _refuse_late(file, image, turn)
        flat = _over_white(image).convert("L" if channels == 1 else "RGB")
        return flat.transpose(TURNS[turn]) if turn in TURNS else flat


def colors_of(file: Path, image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 colours of an opened map in which colours stand for ids.

    Raises: UserError for transparent pixels and for more than 8 bits a channel.
    """
    refuse_deep(file, image.mode, bits_of(image))
    turn = orientation(image)
    image.load()
    _refuse_late(file, image, turn)
    if _has_alpha(image) and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise UserError(f"{file}: has transparent pixels, whose colour is hidden; a label map is opaque")
    flat = image.convert("RGB")
    return np.array(flat.transpose(TURNS[turn]) if turn in TURNS else flat)


def ids_of(file: Path, image: Image.Image) -> np.ndarray:
    """(H, W) integers that an opened grey or palette image stores, bool of one bit. Raises: UserError for a damaged
    file, and where its numbers are not those that were meant."""
    turn, steps = orientation(image), _steps(file, image)
    image.load()
    _refuse_late(file, image, turn)
    values = np.array(image.transpose(TURNS[turn]) if turn in TURNS else image)
    return values if steps is None else steps[values]


def _steps(file: Path, image: Image.Image) -> np.ndarray | None:
    """(256,) stored numbers by the grey that Pillow makes of them; None where they are equal."""
    if image.format == "TIFF" and image.mode != "P" and image.tag_v2.get(262) == 0:  # type: ignore[attr-defined]
        raise UserError(f"{file}: is a TIFF that counts from white; save the map as a PNG of ids")
    most = 2 ** bits_of(image) - 1
    if image.format == "PPM":
        if image.mode == "1":
            raise UserError(f"{file}: is a bitmap in which 1 is black; save the map as a PNG of ids")
        most = _maxval(image)
        if 255 < most < 65535:
            raise UserError(f"{file}: is a PGM of values up to {most}, which are scaled; save the map as a PNG of ids")
    if image.mode != "L" or most >= 255:
        return None
    steps = np.zeros(256, np.uint8)
    for value in range(most + 1):
        steps[min(255, round(value / most * 255))] = value
    return steps


def bits_of(image: Image.Image) -> int:
    """Bits of a channel as an opened, undecoded image stores it."""
    if image.format == "TIFF":
        found = image.tag_v2.get(258, (1,))  # type: ignore[attr-defined]
        return max(found) if isinstance(found, tuple) else int(found)
    if image.format == "PPM":
        return 1 if image.mode == "1" else 32 if image.mode == "F" else 8 if _maxval(image) < 256 else 16
    if image.format == "PNG":
        raw = str(_decoder(image)).partition(";")[2]
        return int(raw.rstrip("B")) if raw else 1 if image.mode == "1" else 8
    return 8


def _maxval(image: Image.Image) -> int:
    """The largest value of a PGM or PPM."""
    raw = _decoder(image)
    if isinstance(raw, tuple):
        return int(raw[-1])
    return 65535 if raw == "I;16B" else 255


def _decoder(image: Image.Image) -> Any:
    """What Pillow's decoder is given: the raw mode, such as `L;2`, or a tuple that begins with it."""
    return image.tile[0][3]  # type: ignore[attr-defined]  # of ImageFile, until the pixels are decoded


def refuse_deep(file: Path, mode: str, bits: int) -> None:
    """Raises: UserError for an image of more than 8 bits a channel."""
    if bits > 8 or mode in DEEP:
        raise UserError(
            f"{file}: is {a(mode)} image of more than 8 bits a channel ({max(bits, 16)}); convert it to 8 bits"
        )


def orientation(image: Image.Image) -> int:
    """How the stored pixels lie, 1 (upright) to 8, of EXIF before the pixels; Pillow turns TIFFs itself."""
    if image.format == "TIFF" or not ("exif" in image.info or "Raw profile type exif" in image.info):
        return 1
    try:
        found = Image.Image.getexif(image).get(ORIENTATION, 1)  # that of PngImageFile would decode the pixels
    except BROKEN:  # viewers ignore a damaged block
        return 1
    return found if found in TURNS else 1


def _refuse_late(file: Path, image: Image.Image, turn: int) -> None:
    """A PNG may say behind its pixels that it is turned, where headers are not looked for."""
    if orientation(image) != turn:
        raise UserError(f"{file}: says only behind its pixels that it is turned; save it again, upright")


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ALPHA or "transparency" in image.info


def _over_white(image: Image.Image) -> Image.Image:
    """Transparent pixels mixed with white; what lies hidden below them never shows."""
    if not _has_alpha(image):
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, WHITE), layer)


def _traits(image: Image.Image) -> tuple[str, ...]:
    found = ["alpha"] * _has_alpha(image)
    if image.format != "MPO" and getattr(image, "is_animated", False):
        found.append("frames")
    if image.mode == "CMYK":
        found.append("CMYK")
    elif image.info.get("icc_profile") and not _is_srgb(image.info["icc_profile"]):
        found.append("profile")
    return tuple(found)


@lru_cache(maxsize=64)
def _is_srgb(profile: bytes) -> bool:
    """Whether a profile calls itself sRGB, in its description of one or two bytes a letter."""
    return b"sRGB" in profile or "sRGB".encode("utf-16-be") in profile or b"IEC61966-2" in profile


def note(folder: Path, kinds: Mapping[Header, int], ids: bool = False) -> None:
    """Say in one line what is done to the images of a folder; `kinds` counts its headers. Of ids only frames matter."""
    counts = dict.fromkeys(("frames",) if ids else NOTES, 0)
    for header, count in kinds.items():
        for trait in header.traits:
            if trait in counts:
                counts[trait] += count
    told = [f"{count} {NOTES[trait]}" for trait, count in counts.items() if count]
    if told:
        say(f"{folder}: of {sum(kinds.values())} images {', '.join(told)}")


def load_array(file: Path) -> np.ndarray:
    """The (H, W, C) uint8 array of a .npy file, not yet read from disk. Raises: UserError for anything else."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise UserError(f"{file}: is no regular file; an array was wanted")
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except BROKEN as error:
        raise broken(file, error) from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"{file}: is an archive of arrays (.npz); wanted one .npy of uint8 (height, width, channels)")
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] < 1:
        raise UserError(f"{file}: holds {array.dtype} {array.shape}; wanted uint8 (height, width, channels)")
    check_extent(file, *array.shape[:2])
    return array


def a(mode: str) -> str:
    """`an RGB`, `a P`: a mode with its article, as the letter is spoken."""
    return f"{'an' if mode[:1] in tuple('AEFHILMNORSX') else 'a'} {mode}"


def broken(file: Path, error: BaseException) -> UserError:
    """The error about a file that cannot be decoded."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        reason = "cannot identify it as an image"
    return UserError(f"{file}: cannot be decoded ({reason}); replace the file, or remove it and its partner")
