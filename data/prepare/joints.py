"""Files of a person's 18 joints: OpenPose's as CoCosNet publishes them, and the tables of PATN.

CoCosNet (arXiv:2004.05571): X_candidate.txt has a detection a line, beginning with x and y; X_subset.txt begins with 18
numbers, the line of each joint counted from 0, -1 for none. PATN (arXiv:1904.03349): lines of
`name:keypoints_y:keypoints_x`, lists of 18 numbers, -1 for none, in images of which 40 columns are cut off either side.
"""

import math
from pathlib import Path

from data.prepare.plan import REPLACE
from data.prepare.skeleton import JOINTS, SIZE, Joint
from errors import UserError
from records import parse

HEADER = "name:keypoints_y:keypoints_x"
CUT = 40  # columns missing at the left of the images that PATN's joints belong to


def read_openpose(candidate: Path, subset: Path) -> list[Joint]:
    """18 joints of one image. Raises: UserError for a damaged file, or one that points nowhere."""
    found, rows = _numbers(candidate), _numbers(subset)
    chosen = rows[0][:JOINTS] if rows else []
    if len(chosen) < JOINTS:
        raise UserError(f"{subset}: begins with {len(chosen)} numbers, wanted the lines of {JOINTS} joints; {REPLACE}")
    if any(len(row) < 2 for row in found):
        raise UserError(f"{candidate}: has a line without x and y; {REPLACE}")
    joints: list[Joint] = []
    for number, row in enumerate(int(value) for value in chosen):
        if not -1 <= row < len(found):
            raise UserError(f"{subset}: joint {number} is in line {row} of {candidate.name}, which has {len(found)}")
        joints.append(None if row < 0 else (found[row][0], found[row][1]))
    return checked(joints, candidate)


def read_table(file: Path) -> dict[str, list[Joint]]:
    """Joints by the table's name of an image, not yet checked. Raises: UserError for a damaged file, with its line."""
    try:
        header, *lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error}); {REPLACE}") from error
    if header.strip() != HEADER:
        raise UserError(f"{file}: begins with '{header[:60]}', wanted {HEADER}; {REPLACE}")
    table: dict[str, list[Joint]] = {}
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        try:
            name, *texts = line.split(":")
            down, right = ([float(value) for value in parse(text.encode())] for text in texts)
            pairs = list(zip(right, down, strict=True))
        except (ValueError, TypeError) as error:
            raise UserError(f"{file}: line {number} cannot be read ({error}); {REPLACE}") from error
        if len(pairs) != JOINTS or name.strip() in table:
            fault = "has a name that came before" if name.strip() in table else f"has {len(pairs)} joints"
            raise UserError(f"{file}: line {number} {fault}, wanted {JOINTS} joints of each image once; {REPLACE}")
        table[name.strip()] = [None if -1 in (x, y) else (x + CUT, y) for x, y in pairs]
    return table


def checked(joints: list[Joint], origin: Path, name: str = "") -> list[Joint]:
    """The joints. Raises: UserError where there is none at all, or one outside of the image."""
    place = f"{origin}: {name}" if name else f"{origin}:"
    known = [joint for joint in joints if joint is not None]
    if not known:
        raise UserError(f"{place} no joint was found in this image; leave it out")
    for x, y in known:
        if not (0 <= x <= SIZE and 0 <= y <= SIZE):
            raise UserError(f"{place} a joint at {x:g}, {y:g} lies outside of {SIZE}x{SIZE}; {REPLACE}")
    return joints


def _numbers(file: Path) -> list[list[float]]:
    """The numbers of each line. Raises: UserError for anything else."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        rows = [[float(word) for word in line.split()] for line in lines if line.strip()]
        if not all(math.isfinite(value) for row in rows for value in row):
            raise ValueError("a number is NaN or infinite")
        return rows
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error}); {REPLACE}") from error
