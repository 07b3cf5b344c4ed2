"""CycleGAN's archives (Zhu et al. 2017, arXiv:1703.10593): trainA trainB testA testB of 256x256 JPEGs, nothing paired.

`test` is the official test, as in the papers; there is no `val`. Files are copied as they are. The archives can also be
trained on without this: configs/dataset reads their folders, only unchecked.
"""

from pathlib import Path

from data.prepare.plan import Download, Item, Plan, require
from listing import find_images

FOLDERS = ("trainA", "trainB", "testA", "testB")
SITE = "efrosgans.eecs.berkeley.edu/cyclegan/datasets (no registration)"
LICENCE = "none stated for the collection; the photos belong to their authors{}: research use"
HORSE2ZEBRA = Download(
    f"horse2zebra.zip from {SITE}; raw= is the folder of trainA trainB testA testB",
    "117 MB",
    LICENCE.format(" (ImageNet)"),
)
WINTER2SUMMER = Download(
    f"summer2winter_yosemite.zip from {SITE}; raw= is the folder of trainA trainB testA testB",
    "2,740 JPEGs of 256x256",
    LICENCE.format(" (Flickr)"),
)


def horse2zebra(raw: Path, allow_partial: bool = False) -> Plan:
    """Horses (A) and zebras (B). Raises: UserError with the expected tree."""
    return _find(raw, "horse2zebra", {"trainA": 1067, "trainB": 1334, "testA": 120, "testB": 140})


def winter2summer(raw: Path, allow_partial: bool = False) -> Plan:
    """Summer (A) and winter (B) in Yosemite. Raises: UserError with the expected tree."""
    return _find(raw, "summer2winter_yosemite", {"trainA": 1231, "trainB": 962, "testA": 309, "testB": 238})


def _find(raw: Path, archive: str, expected: dict[str, int]) -> Plan:
    inner = raw / archive
    raw = inner if inner.is_dir() else raw
    require(raw, list(FOLDERS), f"trainA/, trainB/, testA/ and testB/, as unpacked from {archive}.zip")
    plan = Plan([], {}, expected, photo_size=(256, 256))
    for folder in FOLDERS:
        split, side = folder[:-1], folder[-1]
        files = find_images(raw / folder)
        plan.source_counts[folder] = len(files)
        plan.items += [Item(split, name, {side: file}) for name, file in files.items()]
    return plan
