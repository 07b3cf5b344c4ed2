"""GTA5, "Playing for Data" (Richter et al. 2016, arXiv:1608.02192): game frames with Cityscapes' label ids 0..34.

Label PNGs have a palette, whose indices are the ids. split=trainval, the default, trains on the official train and val
(18,785) and tests on the official test (6,181); split=official keeps val apart; split=random draws 80 and 20 percent of
all frames, once and for all. CFL's 26,000 and 5,000 frames match no release.

The release itself has frames whose label map is of another size, photos that are black, and in its later form 25 frames
less: those are left out and listed in manifest.json, whereas any other fault is refused.
"""

from collections.abc import Mapping
from pathlib import Path

from data.files import first_names
from data.prepare.lists import read_lists
from data.prepare.plan import Download, Item, Plan, drawn_apart, partners, require
from errors import UserError
from listing import find_images

TREE = "images/, labels/ and split.mat, as unpacked from 01_images.zip to 10_labels.zip and read_mapping.zip"
DOWNLOAD = Download(
    "01_images.zip .. 10_images.zip, 01_labels.zip .. 10_labels.zip and read_mapping.zip (split.mat) from"
    " download.visinf.tu-darmstadt.de/data/from_games (no registration); raw= is the folder of images and labels",
    "tens of GB: 24,966 PNGs of 1914x1052",
    "research and education, under the terms of the game's publisher",
)
COUNTS = {"train": 12403, "val": 6382, "test": 6181}
PLACES = {
    "trainval": {"train": "train", "val": "train", "test": "test"},
    "official": {split: split for split in COUNTS},
}
OTHER_SIZE = [15188, *range(20803, 20835), *range(20858, 20861)]
GAPS = [*range(2154, 2159), *range(4634, 4638), *range(7115, 7120), *range(9683, 9689), *range(12050, 12055)]


def find(raw: Path, allow_partial: bool = False, split: str = "trainval") -> Plan:
    """The pairs of a raw GTA5 tree. Raises: UserError with the expected tree, or naming lost partners."""
    if split not in (*PLACES, "random"):
        raise UserError(f"split={split}: gta has {', '.join(PLACES)} and random")
    require(raw, ["images", "labels"], TREE)
    sides: dict[str, Mapping[str, Path]] = {
        "image": find_images(raw / "images"),
        "label map": find_images(raw / "labels"),
    }
    whole = set(sides["image"]) & set(sides["label map"])
    gaps = set() if allow_partial else {_name(number) for number in GAPS} - whole
    sides = {side: {name: file for name, file in files.items() if name not in gaps} for side, files in sides.items()}
    names, dropped = partners(sides, str(raw), allow_partial)
    if split == "random":
        test = drawn_apart(names, round(0.2 * len(names)), "gta")
        lists, places = {"all": {*names, *gaps}}, {name: "test" if name in test else "train" for name in names}
        expected = {"all": sum(COUNTS.values())}
    else:
        lists, expected = _official(raw), dict(COUNTS)
        places = {name: PLACES[split][key] for key, listed in lists.items() for name in listed}
        dropped += _unlisted(raw, set(names), set(places) - gaps, allow_partial)
    plan = Plan(
        [],
        {key: len(listed.intersection(names)) for key, listed in lists.items()},
        {key: expected[key] - len(gaps & listed) for key, listed in lists.items()},
        classes=35,
        dropped=dropped,
        known_bad=frozenset(_name(number) for number in OTHER_SIZE),
        drop_constant=True,
    )
    listed = {name for names_of_list in lists.values() for name in names_of_list}
    plan.dropped += [(name, "is not in this release") for name in sorted(gaps & listed)]
    plan.items = [
        Item(places[name], name, {"input": sides["label map"][name], "target": sides["image"][name]})
        for name in names
        if name in places
    ]
    return plan


def _name(number: int) -> str:
    return f"{number:05d}"


def _official(raw: Path) -> dict[str, set[str]]:
    """Names of the official lists. Raises: UserError for a missing or damaged file, or a frame in two lists."""
    file = next((file for file in (raw / "split.mat", raw / "read_mapping" / "split.mat") if file.is_file()), None)
    if file is None:
        raise UserError(f"{raw}: lacks split.mat of read_mapping.zip; put it there, or set split=random")
    lists = read_lists(file, {split: f"{split}Ids" for split in COUNTS}, "take it from read_mapping.zip again")
    return {split: {_name(number) for number in numbers} for split, numbers in lists.items()}


def _unlisted(raw: Path, names: set[str], listed: set[str], allow_partial: bool) -> list[tuple[str, str]]:
    """Frames that only the folders or only the lists have. Raises: UserError unless they may be dropped."""
    lost = [(name, "is in no list of split.mat") for name in sorted(names - listed)]
    lost += [(name, "has neither image nor label map") for name in sorted(listed - names)]
    if lost and not allow_partial:
        shown = first_names([f"{name} {reason}" for name, reason in lost])
        raise UserError(
            f"{raw}: {len(lost)} frames are wrong: {shown}; complete the download, or set allow_partial=true"
        )
    return lost
