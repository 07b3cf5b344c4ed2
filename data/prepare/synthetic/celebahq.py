"""CelebAMask-HQ: CelebA-HQ-img/{0..29999}.jpg of 1024x1024, a 512x512 mask for each part of a face, and a mapping.

Masks: CelebAMask-HQ-mask-anno/{number // 2000}/{number in five digits}_{part}.png. The mapping has a heading and then,
for each photo, its number, its number in CelebA from 0 on, and its file there.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from data.prepare.synthetic.pixels import save

# Left, top, right, bottom of an ellipse in a 512x512 face.
PLACES = {
    "cloth": (40, 440, 470, 620), "neck": (180, 360, 330, 500), "hair": (120, 20, 390, 150),
    "skin": (140, 110, 370, 420), "l_ear": (120, 230, 150, 300), "r_ear": (360, 230, 390, 300),
    "l_brow": (170, 190, 235, 205), "r_brow": (275, 190, 340, 205), "l_eye": (180, 215, 230, 240),
    "r_eye": (280, 215, 330, 240), "nose": (235, 230, 275, 310), "mouth": (215, 345, 295, 360),
    "u_lip": (210, 332, 300, 350), "l_lip": (210, 355, 300, 378), "eye_g": (165, 205, 345, 250),
    "hat": (110, 0, 400, 90), "ear_r": (115, 300, 130, 325), "neck_l": (150, 410, 360, 445),
}  # fmt: skip
SOMETIMES = ("eye_g", "hat", "ear_r", "neck_l")  # parts that every third face has
CELEBA = {  # photo: number in CelebA; 15 folders of masks, and the limits of the official splits
    0: 119613, 1: 162770, 2: 162771, 3: 182637, 4: 182638, 1999: 202598, 2000: 1, 4001: 20002, 6002: 40003,
    8003: 170004, 10004: 60005, 12005: 190006, 14006: 80007, 16007: 100008, 18008: 175009, 20009: 120010, 22010: 140011,
    24011: 195012, 26012: 160013, 28013: 5014, 29999: 25015,
}  # fmt: skip


def write(raw: Path, seed: int = 0) -> None:
    """21 faces, of which 13 are training photos in CelebA, 4 for validation and 4 for testing."""
    random = np.random.default_rng(seed)
    lines = ["idx         orig_idx    orig_file"]
    for index, (number, original) in enumerate(CELEBA.items()):
        parts = [part for part in PLACES if part not in SOMETIMES or index % 3 == 0]
        shift = random.integers(-20, 21, 2)
        background = random.integers(60, 200, 3)
        photo = Image.new("RGB", (1024, 1024), tuple(background.tolist()))
        brush = ImageDraw.Draw(photo)
        for part in parts:
            left, top, right, bottom = (int(side) for side in np.array(PLACES[part]) + np.tile(shift, 2))
            mask = Image.new("L", (512, 512))
            ImageDraw.Draw(mask).ellipse((left, top, right, bottom), fill=255)
            save(raw / "CelebAMask-HQ-mask-anno" / f"{number // 2000}" / f"{number:05d}_{part}.png", np.array(mask))
            color = tuple(random.integers(0, 256, 3).tolist())
            brush.ellipse((2 * left, 2 * top, 2 * right + 1, 2 * bottom + 1), fill=color)
        save(raw / "CelebA-HQ-img" / f"{number}.jpg", np.array(photo))
        lines.append(f"{number:<12}{original:<12}{original + 1:06d}.jpg")
    (raw / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
