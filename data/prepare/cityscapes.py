"""Cityscapes (Cordts et al. 2016, arXiv:1604.01685), fine annotations: label ids 0..33 and instance ids.

`test` is the official val, as in the papers, because the official test labels are blank; there is no `val`. The city
folders vanish: city_sequence_frame is unique. labelIds are written as they are; metrics map them to training ids.
"""

from pathlib import Path

from data.prepare.plan import Item, Plan, partners, require

TREE = (
    "{gtFine,leftImg8bit}/{train,val}/CITY/, as unpacked from gtFine_trainvaltest.zip and leftImg8bit_trainvaltest.zip"
    " of cityscapes-dataset.com"
)
SIDES = {
    "photo": ("leftImg8bit", "_leftImg8bit.png"),
    "labelIds": ("gtFine", "_gtFine_labelIds.png"),
    "instanceIds": ("gtFine", "_gtFine_instanceIds.png"),
}
FOLDERS = {"input": "labelIds", "target": "photo", "instance": "instanceIds"}


def find(raw: Path, allow_partial: bool = False) -> Plan:
    """The pairs of a raw Cityscapes tree. Raises: UserError with the expected tree, or naming lost partners."""
    require(raw, [f"{side}/{split}" for side in ("gtFine", "leftImg8bit") for split in ("train", "val")], TREE)
    plan = Plan([], {}, {"train": 2975, "val": 500}, classes=35)
    for split in ("train", "val"):
        sides = {
            side: {file.name.removesuffix(ending): file for file in sorted((raw / folder / split).glob(f"*/*{ending}"))}
            for side, (folder, ending) in SIDES.items()
        }
        names, dropped = partners(sides, f"{raw} {split}", allow_partial)
        plan.source_counts[split] = len(names)
        plan.dropped += dropped
        place = "train" if split == "train" else "test"
        plan.items += [
            Item(place, name, {folder: sides[side][name] for folder, side in FOLDERS.items()}) for name in names
        ]
    return plan
