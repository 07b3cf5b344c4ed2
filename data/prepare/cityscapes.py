"""Cityscapes (Cordts et al. 2016, arXiv:1604.01685), fine annotations: label ids 0..33 and instance ids.

`test` is the official val, as in the papers, because the official test labels are blank; there is no `val`. The city
folders vanish: city_sequence_frame is unique. labelIds are written as they are; metrics map them to training ids.
"""

from collections.abc import Mapping
from pathlib import Path

from data.prepare.plan import Download, Item, Plan, partners, require

TREE = (
    "{gtFine,leftImg8bit}/{train,val}/CITY/, as unpacked from gtFine_trainvaltest.zip and leftImg8bit_trainvaltest.zip"
    " of cityscapes-dataset.com"
)
DOWNLOAD = Download(
    "register at cityscapes-dataset.com; gtFine_trainvaltest.zip and leftImg8bit_trainvaltest.zip, unpacked side by"
    " side: raw= is the folder of gtFine and leftImg8bit",
    "241 MB and 11 GB",
    "Cityscapes terms of use: non-commercial research, no redistribution",
)
SIDES = {
    "photo": ("leftImg8bit", "_leftImg8bit.png"),
    "labelIds": ("gtFine", "_gtFine_labelIds.png"),
    "instanceIds": ("gtFine", "_gtFine_instanceIds.png"),
}
FOLDERS = {"input": "labelIds", "target": "photo", "instance": "instanceIds"}


def find(raw: Path, allow_partial: bool = False) -> Plan:
    """The pairs of a raw Cityscapes tree. Raises: UserError with the expected tree, or naming lost partners."""
    plan, found = pairs(raw, allow_partial, SIDES)
    plan.items = [
        Item(place, name, {folder: files[side] for folder, side in FOLDERS.items()}) for place, name, files in found
    ]
    return plan


def pairs(
    raw: Path, allow_partial: bool, wanted: Mapping[str, tuple[str, str]]
) -> tuple[Plan, list[tuple[str, str, dict[str, Path]]]]:
    """A plan without items, and the split, name and files of every frame that has all the sides `wanted`.

    Args:
        wanted: side -> (top folder, ending of its files).
    Raises: UserError with the expected tree, or naming lost partners.
    """
    require(raw, [f"{side}/{split}" for side in ("gtFine", "leftImg8bit") for split in ("train", "val")], TREE)
    plan, found = Plan([], {}, {"train": 2975, "val": 500}, classes=35), []
    for split in ("train", "val"):
        sides = {
            side: {file.name.removesuffix(ending): file for file in sorted((raw / folder / split).glob(f"*/*{ending}"))}
            for side, (folder, ending) in wanted.items()
        }
        names, dropped = partners(sides, f"{raw} {split}", allow_partial)
        plan.source_counts[split] = len(names)
        plan.dropped += dropped
        place = "train" if split == "train" else "test"
        found += [(place, name, {side: files[name] for side, files in sides.items()}) for name in names]
    return plan, found
