"""DeepFashion, In-shop Clothes Retrieval (Liu et al. 2016): 52,712 photos of 256x256, and joints that others found.

Joints lie in pose/ as CoCosNet publishes them, or else in PATN's two tables; both are for the 256x256 photos.
keypoints=rendered, the default, writes CoCosNet's 20 channels as .npy: a skeleton in colours and the distances to its
17 limbs; keypoints=heatmaps writes 18 Gaussians.

The split is that of the joints' publisher: train.txt and val.txt beside pose/, where `test` is val.txt; or PATN's train
and test. Without lists, persons are drawn apart once and for all: 10 percent for `test`, 5 for `val`. No person is in
two splits. Names are their paths with - for /.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from data.files import first_names
from data.prepare.joints import checked, read_openpose, read_table
from data.prepare.plan import Download, Drawn, Item, Plan, Size, drawn_apart, partners, require
from data.prepare.skeleton import JOINTS, LIMBS, SIZE, Joint, heat_maps, skeleton
from data.transforms import resize_ids, resize_image
from errors import UserError
from listing import find_images

TABLES = {"train": "fasion-resize-annotation-train.csv", "test": "fasion-resize-annotation-test.csv"}  # spelled so
LISTS = {"train": "train.txt", "test": "val.txt"}
TREE = (
    "img/{WOMEN,MEN}/CATEGORY/id_NUMBER/NAME.jpg of img.zip, and beside img/ either pose/ of CoCosNet, with or without"
    f" its train.txt and val.txt, or PATN's {TABLES['train']} and {TABLES['test']}"
)
DOWNLOAD = Download(
    "img.zip of In-shop Clothes Retrieval from mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html (signed agreement);"
    " joints by the links of github.com/microsoft/CoCosNet (pose/, train.txt, val.txt) or of"
    f" github.com/tengteng95/Pose-Transfer ({TABLES['train']} and {TABLES['test']}); raw= is the folder of img/ and all"
    " of these",
    "not stated; rendered keypoints add 1.3 MB a photo, 69 GB in all",
    "non-commercial research under the agreement",
)
COUNT = 52712
CHANNELS = {"rendered": 3 + len(LIMBS), "heatmaps": JOINTS}
Source: TypeAlias = tuple[tuple[Path, ...], Callable[[], list[Joint]]]  # raw files, and the joints in them


def find(raw: Path, allow_partial: bool = False, keypoints: str = "rendered") -> Plan:
    """The photos of a raw tree with their joints. Raises: UserError with the expected tree, or naming what is lost."""
    if keypoints not in CHANNELS:
        raise UserError(f"keypoints={keypoints}: deepfashion has {' and '.join(CHANNELS)}")
    inner = raw / "DeepFashion"
    raw = inner if inner.is_dir() else raw
    require(raw, ["img"], TREE)
    photos = find_images(raw / "img")
    plan = Plan([], {"all": len(photos)}, {"all": COUNT}, channels=CHANNELS[keypoints], photo_size=(SIZE, SIZE))
    if (raw / "pose").is_dir():
        sources, places, plan.dropped = _openpose(raw, photos, allow_partial)
    elif all((raw / file).is_file() for file in TABLES.values()):
        sources, places, plan.dropped = _tables(raw, photos, allow_partial)
    else:
        raise UserError(f"{raw}: lacks joints; raw= wants {TREE}")
    apart, shared = _apart(places, raw, allow_partial)
    plan.dropped += shared
    draw = _rendered if keypoints == "rendered" else _heat_maps
    plan.items = [
        Item(
            place,
            name.replace("/", "-"),
            {"input": Drawn(sources[name][0], partial(draw, sources[name][1])), "target": photos[name]},
        )
        for name, place in sorted(apart.items())
    ]
    return plan


def _openpose(
    raw: Path, photos: Mapping[str, Path], allow_partial: bool
) -> tuple[dict[str, Source], dict[str, str], list[tuple[str, str]]]:
    """Joints of pose/ by photo, the split of each, and what is lost."""
    sides: dict[str, Mapping[str, Path]] = {"photo": photos}
    for kind in ("candidate", "subset"):
        files = sorted((raw / "pose").rglob(f"*_{kind}.txt"))
        sides[kind] = {file.relative_to(raw / "pose").as_posix().removesuffix(f"_{kind}.txt"): file for file in files}
    lists = {place: raw / file for place, file in LISTS.items()}
    if not any(file.is_file() for file in lists.values()):
        names, dropped = partners(sides, str(raw), allow_partial)
        places = _drawn_apart(names)
    else:
        listed = {place: _listed(file) for place, file in lists.items()}
        places = {name: place for place, names in listed.items() for name in names}
        if both := sorted(set(listed["train"]) & set(listed["test"])):
            raise UserError(f"{raw}: train.txt and val.txt share {first_names(both)}; take them from CoCosNet again")
        sides = {side: {name: file for name, file in files.items() if name in places} for side, files in sides.items()}
        sides["list"] = {name: lists[place] for name, place in places.items()}
        names, dropped = partners(sides, str(raw), allow_partial)
    sources: dict[str, Source] = {}
    for name in names:
        pair = sides["candidate"][name], sides["subset"][name]
        sources[name] = pair, partial(read_openpose, *pair)
    return sources, {name: places[name] for name in names}, dropped


def _listed(file: Path) -> list[str]:
    """Names in one of CoCosNet's lists, a path a line, such as img\\WOMEN\\Dresses\\id_00000244\\02_1_front.jpg."""
    try:
        lines = file.read_text(encoding="utf-8").replace("\\", "/").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read ({error}); {TREE}") from error
    return [line.removeprefix("img/").removesuffix(".jpg") for line in lines]


def _tables(
    raw: Path, photos: Mapping[str, Path], allow_partial: bool
) -> tuple[dict[str, Source], dict[str, str], list[tuple[str, str]]]:
    """Joints of PATN's tables by photo, the split of each, and what is lost; photos in no table are left out."""
    by_flat = {flat_name(name): name for name in photos}
    tables = {place: read_table(raw / file) for place, file in TABLES.items()}
    if both := sorted(set(tables["train"]) & set(tables["test"])):
        raise UserError(f"{raw}: the tables share {first_names(both)}; take them from PATN again")
    named = {name: raw / TABLES[place] for place, table in tables.items() for name in table}
    found = {name: photos[own] for name, own in by_flat.items() if name in named}
    names, dropped = partners({"photo": found, "line in a table": named}, str(raw), allow_partial)
    sources: dict[str, Source] = {}
    good, places = set(names), {}
    for place, table in tables.items():
        for flat, joints in table.items():
            if flat in good:
                sources[by_flat[flat]] = (raw / TABLES[place],), partial(checked, joints, raw / TABLES[place], flat)
                places[by_flat[flat]] = place
    return sources, places, dropped


def flat_name(name: str) -> str:
    """PATN's name of a photo: WOMEN/Dresses/id_00000244/02_1_front is fashionWOMENDressesid0000024402_1front.jpg."""
    gender, *category, person, photo = name.split("/")
    first, *others = photo.split("_")
    return f"fashion{gender}{''.join(category)}{person.replace('_', '')}{first}_{''.join(others)}.jpg"


def _person(name: str) -> str:
    """The folder id_NUMBER of a photo."""
    return name.split("/")[-2]


def _drawn_apart(names: list[str]) -> dict[str, str]:
    """A split of each photo in which no person is twice."""
    persons = sorted({_person(name) for name in names})
    test = drawn_apart(persons, round(0.1 * len(persons)), "deepfashion")
    rest = [person for person in persons if person not in test]
    val = drawn_apart(rest, round(0.05 * len(persons)), "deepfashion/val")
    places = {person: "test" if person in test else "val" if person in val else "train" for person in persons}
    return {name: places[_person(name)] for name in names}


def _apart(places: dict[str, str], raw: Path, allow_partial: bool) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The splits without training photos of persons that are tested. Raises: UserError for any unless partial."""
    held_out = {_person(name) for name, place in places.items() if place != "train"}
    shared = sorted(name for name, place in places.items() if place == "train" and _person(name) in held_out)
    if shared and not allow_partial:
        raise UserError(
            f"{raw}: {len(shared)} photos for training show persons of the test photos ({first_names(shared)});"
            " allow_partial=true leaves these out of the training photos"
        )
    kept = {name: place for name, place in places.items() if name not in set(shared)}
    return kept, [(name.replace("/", "-"), "shows a person of the test photos") for name in shared]


def _rendered(joints: Callable[[], list[Joint]], size: Size) -> Tensor:
    """(20, *size) uint8; at other sizes the skeleton by nearest neighbour, as CoCosNet has it, distances smoothly."""
    picture, distances = skeleton(joints())
    return torch.cat([resize_ids(picture, size), resize_image(distances, size)])


def _heat_maps(joints: Callable[[], list[Joint]], size: Size) -> Tensor:
    """(18, *size) uint8."""
    return resize_image(heat_maps(joints()), size)
