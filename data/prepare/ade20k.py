"""ADE20K (Zhou et al. 2017), the scene-parsing release: 150 classes.

Raw id 0, unknown, becomes 255, raw id c becomes c - 1.
`test` is the official validation, as in the papers; there is no `val`. Grey photos become RGB.
"""

from pathlib import Path

from data.prepare.plan import Download, Item, Plan, partners, require
from listing import find_images

TREE = "{images,annotations}/{training,validation}/, as unpacked from ADEChallengeData2016.zip"
DOWNLOAD = Download(
    "ADEChallengeData2016.zip, the scene-parsing benchmark, from sceneparsing.csail.mit.edu (no registration for this"
    " zip); raw= is the folder it unpacks to",
    "22,210 images of at least 512 pixels a side",
    "images: non-commercial research and education; annotations: BSD-3",
)
UNKNOWN = 255


def find(raw: Path, allow_partial: bool = False) -> Plan:
    """The pairs of a raw ADE20K tree. Raises: UserError with the expected tree, or naming lost partners."""
    inner = raw / "ADEChallengeData2016"
    raw = inner if inner.is_dir() else raw
    require(
        raw, [f"{side}/{split}" for side in ("images", "annotations") for split in ("training", "validation")], TREE
    )
    plan = Plan(
        [], {}, {"training": 20210, "validation": 2000}, classes=150, ignore=UNKNOWN, table=[UNKNOWN, *range(150)]
    )
    for split, place in (("training", "train"), ("validation", "test")):
        images, labels = find_images(raw / "images" / split), find_images(raw / "annotations" / split)
        names, dropped = partners({"image": images, "annotation": labels}, f"{raw} {split}", allow_partial)
        plan.source_counts[split] = len(names)
        plan.dropped += dropped
        plan.items += [Item(place, name, {"input": labels[name], "target": images[name]}) for name in names]
    return plan
