"""DeepFashion In-shop: img/{WOMEN,MEN}/{category}/id_{number}/{nn}_{n}_{view}.jpg of 256x256, joints in both formats.

CoCosNet's: pose/ mirrors img/ with X_candidate.txt (x, y, score, number of every joint found) and X_subset.txt (the
line of each of 18 joints or -1, the score, how many), train.txt and val.txt with backslashes. PATN's:
fasion-resize-annotation-{train,test}.csv, `name:keypoints_y:keypoints_x`, whole numbers, -1 for none, in photos
without the 40 columns at either side.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from data.prepare.synthetic.pixels import save

PERSONS = {  # category: numbers of its persons
    "WOMEN/Dresses": (2, 203, 244), "WOMEN/Blouses_Shirts": (38, 7636), "WOMEN/Tees_Tanks": (1774,),
    "MEN/Denim": (80, 565), "MEN/Jackets_Vests": (1903, 4882),
}  # fmt: skip
TESTED = (244, 7636, 565)
VIEWS = ("01_1_front", "01_2_side")
JOINTS = np.array(  # x and y of someone who stands upright
    [
        (128, 40), (128, 70), (108, 70), (98, 105), (94, 138), (148, 70), (158, 105), (162, 138), (114, 135),
        (112, 185), (110, 235), (142, 135), (144, 185), (146, 235), (122, 34), (134, 34), (115, 38), (141, 38),
    ]
)  # fmt: skip


def write(raw: Path, seed: int = 0) -> None:
    """20 photos of 10 persons, 6 of them for testing; a few joints are missing."""
    random = np.random.default_rng(seed)
    lists: dict[str, list[str]] = {"train": [], "val": []}
    tables: dict[str, list[str]] = {name: ["name:keypoints_y:keypoints_x"] for name in ("train", "test")}
    for category, persons in PERSONS.items():
        for person in persons:
            for view in VIEWS:
                found = random.random(18) > 0.1
                joints = JOINTS + random.integers(-6, 7, 2) + random.integers(-3, 4, (18, 2))
                name = f"{category}/id_{person:08d}/{view}"
                save(raw / "img" / f"{name}.jpg", _photo(random, joints))
                _openpose(raw / "pose" / name, random, joints, found)
                lists["val" if person in TESTED else "train"].append(f"img/{name}.jpg".replace("/", "\\"))
                flat = f"fashion{category.replace('/', '')}id{person:08d}{view[:2]}_{view[3:].replace('_', '')}.jpg"
                across, down = (np.where(found, joints[:, axis] - (40, 0)[axis], -1).tolist() for axis in (0, 1))
                tables["test" if person in TESTED else "train"].append(f"{flat}: {down}: {across}")
    for name, lines in lists.items():
        (raw / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    for name, lines in tables.items():
        (raw / f"fasion-resize-annotation-{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _photo(random: np.random.Generator, joints: np.ndarray) -> np.ndarray:
    """Someone in front of a wall."""
    photo = Image.new("RGB", (256, 256), tuple(random.integers(180, 250, 3).tolist()))
    brush = ImageDraw.Draw(photo)
    clothes, skin = (tuple(random.integers(20, 180, 3).tolist()) for _ in range(2))
    brush.polygon([tuple(joints[at]) for at in (2, 5, 11, 8)], fill=clothes)
    for limb in ((2, 3, 4), (5, 6, 7), (8, 9, 10), (11, 12, 13)):
        brush.line([tuple(joints[at]) for at in limb], fill=clothes, width=12)
    x, y = joints[0]
    brush.ellipse((x - 16, y - 20, x + 16, y + 20), fill=skin)
    return np.array(photo)


def _openpose(stem: Path, random: np.random.Generator, joints: np.ndarray, found: np.ndarray) -> None:
    """The two text files of a photo."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    scores = random.uniform(0.3, 1, 18)
    lines = [(*joints[at], scores[at], number) for number, at in enumerate(np.flatnonzero(found))]
    rows = np.where(found, found.cumsum() - 1, -1)
    np.savetxt(stem.with_name(f"{stem.name}_candidate.txt"), np.array(lines))
    np.savetxt(stem.with_name(f"{stem.name}_subset.txt"), np.array([*rows, scores.sum(), found.sum()])[None])
