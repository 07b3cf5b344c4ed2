"""CelebAMask-HQ (Lee et al. 2020, arXiv:1907.11922): 30,000 faces of CelebA-HQ with masks of their parts.

celebahq_semantic: 19 classes painted from the masks in the official order. celebahq_edge: CoCosNet's 15 channels of
edges and distances as .npy (edges=cocosnet15, the default), or Canny edges alone in grey PNGs (edges=simple1), which
needs no masks. Edges are drawn at 286x286 for train and 256x256 for the others, the sizes at which training crops and
testing read them, so that lines are never resized; photos stay as they are.

The split is the official one, by the photo's number in CelebA, train, val and test; MoNCE does not name its own.
"""

import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.files import first_names
from data.prepare.faces import PARTS, contours, edge_drawing, label_map
from data.prepare.plan import REPLACE, Download, Drawn, Item, Plan, Size, partners, require
from data.reading import read_image
from data.transforms import resize_ids
from errors import UserError
from listing import find_images

PHOTOS, MASKS, MAPPING = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno", "CelebA-HQ-to-CelebA-mapping.txt"
TREE = f"{PHOTOS}/NUMBER.jpg, {MASKS}/0..14/NUMBER_PART.png and {MAPPING}, as unpacked from CelebAMask-HQ.zip"
DOWNLOAD = Download(
    "CelebAMask-HQ.zip by the links of github.com/switchablenorms/CelebAMask-HQ (no registration); raw= is its folder"
    " CelebAMask-HQ; for celebahq_edge: pip install -r requirements-data.txt",
    "about 3 GB; celebahq_edge writes 34 GB besides the photos, with edges=simple1 less than 1 GB",
    "non-commercial research and education, no redistribution",
)
COUNT = 30000
FOLDER = 2000  # faces whose masks share a folder
PHOTO, MASK = (1024, 1024), (512, 512)
VAL, TEST = 162771, 182638  # the first numbers in CelebA, from 0 on, of the official val and test
EDGES = {"cocosnet15": 15, "simple1": 1}
DRAWN = {"train": (286, 286), "val": (256, 256), "test": (256, 256)}


class Face(NamedTuple):
    """A photo, the masks of its parts, and its split."""

    name: str
    split: str
    photo: Path
    masks: dict[str, Path]


def semantic(raw: Path, allow_partial: bool = False) -> Plan:
    """Label maps and photos. Raises: UserError with the expected tree, or naming lost partners."""
    plan, found = _faces(raw, allow_partial)
    plan.classes = 1 + len(PARTS)
    plan.items = [
        Item(
            face.split,
            face.name,
            {"input": Drawn(tuple(face.masks.values()), partial(_label_map, face)), "target": face.photo},
        )
        for face in found
    ]
    return plan


def edge(raw: Path, allow_partial: bool = False, edges: str = "cocosnet15") -> Plan:
    """Edges and photos. Raises: UserError as `semantic`, for another value of edges, and without scikit-image."""
    if edges not in EDGES:
        raise UserError(f"edges={edges}: celebahq_edge has {' and '.join(EDGES)}")
    try:
        import skimage.feature  # noqa: F401 - to say it now, not at the first face
    except ImportError as error:
        raise UserError("dataset=celebahq_edge finds edges: pip install -r requirements-data.txt") from error
    simple = edges == "simple1"
    plan, found = _faces(raw, allow_partial, masks=not simple)
    plan.channels = EDGES[edges]
    draw = _contours if simple else _edges
    plan.items = [
        Item(
            face.split,
            face.name,
            {
                "input": Drawn(
                    (face.photo, *face.masks.values()), partial(draw, face), size=DRAWN[face.split], loose=True
                ),
                "target": face.photo,
            },
        )
        for face in found
    ]
    return plan


def _faces(raw: Path, allow_partial: bool, masks: bool = True) -> tuple[Plan, list[Face]]:
    """A plan without items, and the faces in order of their numbers."""
    inner = raw / "CelebAMask-HQ"
    raw = inner if inner.is_dir() else raw
    require(raw, [PHOTOS] + [MASKS] * masks, TREE)
    photos = {_name(file): file for file in find_images(raw / PHOTOS).values()}
    parts = _masks(raw / MASKS) if masks else {name: {} for name in photos}
    places = _splits(raw / MAPPING)
    names, dropped = partners(
        {"photo": photos, "mask": dict.fromkeys(parts, raw), f"line in {MAPPING}": _known(places, photos, parts)},
        str(raw),
        allow_partial,
    )
    plan = Plan([], {"all": len(names)}, {"all": COUNT}, dropped=dropped, photo_size=PHOTO)
    return plan, [Face(name, places[name], photos[name], parts[name]) for name in names]


def _known(places: dict[str, str], *seen: dict) -> dict[str, Path]:
    """The mapping lists all 30,000: faces of which there is no file at all are counted, not listed one by one."""
    return {name: Path() for name in places if any(name in found for found in seen)}


def _name(file: Path) -> str:
    """The number of a photo in five digits, as its masks have it."""
    if not file.stem.isdecimal():
        raise UserError(f"{file}: is no photo of the official release, whose names are numbers; remove it")
    return f"{int(file.stem):05d}"


def _masks(root: Path) -> dict[str, dict[str, Path]]:
    """Files by name of the face and of the part. Raises: UserError for a strange name, or one in another folder."""
    found: dict[str, dict[str, Path]] = {}
    for file in sorted(root.glob("[0-9]*/*.png")):
        match = re.fullmatch(r"(\d{5})_(\w+)", file.stem)
        if match is None or match[2] not in PARTS or str(int(match[1]) // FOLDER) != file.parent.name:
            raise UserError(
                f"{file}: is no mask of the official release, whose names are FOLDER/NUMBER_PART.png with FOLDER ="
                f" NUMBER // {FOLDER} and PART of {', '.join(PARTS)}; remove it"
            )
        found.setdefault(match[1], {})[match[2]] = file
    if not found:
        raise UserError(f"{root}: holds no masks; raw= wants {TREE}")
    return found


def _splits(file: Path) -> dict[str, str]:
    """The split of each face by its number in CelebA. Raises: UserError for a missing or damaged file."""
    try:
        rows = [line.split() for line in file.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
        numbers = {f"{int(row[0]):05d}": int(row[1]) for row in rows}
    except (OSError, UnicodeDecodeError, ValueError, IndexError) as error:
        raise UserError(f"{file}: cannot be read ({error}); {REPLACE}") from error
    if len(numbers) != len(rows):
        listed = Counter(f"{int(row[0]):05d}" for row in rows)
        doubled = [name for name, times in listed.items() if times > 1]
        raise UserError(f"{file}: has two lines of {first_names(doubled)}; {REPLACE}")
    return {name: "train" if x < VAL else "val" if x < TEST else "test" for name, x in numbers.items()}


def read_mask(file: Path) -> Tensor:
    """(1, 512, 512) bool of an image of 0 and 255. Raises: UserError for anything else."""
    pixels = read_image(file, channels=1)
    height, width = pixels.shape[-2:]
    if (height, width) != MASK:
        raise UserError(
            f"{file}: is {width}x{height}, masks of the official release are {MASK[1]}x{MASK[0]}; {REPLACE}"
        )
    counts = pixels.flatten().bincount(minlength=256)
    wrong = [value for value in counts.nonzero().flatten().tolist() if value not in (0, 255)]
    if wrong:
        listed = ", ".join(f"{value} ({counts[value]} px)" for value in wrong[:5])
        raise UserError(f"{file}: holds {listed}; a mask holds 0 and 255 alone; {REPLACE}")
    return pixels == 255


def _read_masks(face: Face, size: Size | None = None) -> dict[str, Tensor]:
    """Masks of a face by part, at a size. Raises: UserError where all are empty."""
    masks = {part: read_mask(file) for part, file in face.masks.items()}
    if not any(mask.any() for mask in masks.values()):
        raise UserError(f"{next(iter(face.masks.values()))}: this face's masks are all empty; {REPLACE}")
    return masks if size is None else {part: resize_ids(mask, size) for part, mask in masks.items()}


def _label_map(face: Face, size: Size) -> Tensor:
    """(1, *size) uint8: nearest neighbours, so that reading at a smaller size gives what the masks' own size gives."""
    return resize_ids(label_map(_read_masks(face)), size)


def _edges(face: Face, size: Size) -> Tensor:
    """(15, *size) uint8."""
    return edge_drawing(_read_masks(face, size), _small(face.photo, size))


def _contours(face: Face, size: Size) -> Tensor:
    """(1, *size) uint8, 0 or 255."""
    return contours(_small(face.photo, size)).to(torch.uint8) * 255


def _small(photo: Path, size: Size) -> Tensor:
    """(3, *size) uint8, bilinear: what CoCosNet looks for contours in."""
    image = Image.fromarray(read_image(photo).movedim(0, -1).numpy())
    resized = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).movedim(-1, 0)
