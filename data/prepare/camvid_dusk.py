"""CamVid by day and at dusk, unpaired: recordings 0016E5 and 0006R0 are A, 0001TP is B; names open with the recording.

The raw trees are those of camvid.py. `test` has the raw val by day and the last 12 frames of the raw train at dusk;
`val` is every 10th of the other frames of either side by name, starting with the first; `train` the rest. Frames are
seconds apart, so that test and train share recordings. The label maps of A go along: a picture moved to dusk still has
them.
"""

from pathlib import Path

from data.files import first_names
from data.prepare.camvid import Frame, frames, held_out
from data.prepare.plan import Item, Plan
from errors import UserError

SIDES = {"0016E5": "A", "0006R0": "A", "0001TP": "B"}
DUSK_TEST = 12


def find(raw: Path, allow_partial: bool = False) -> Plan:
    """The images of a raw CamVid tree. Raises: UserError as camvid.py does, and for a name of no known recording."""
    plan, found = frames(raw, allow_partial)
    strange = [frame.name for split in found.values() for frame in split if _recording(frame) not in SIDES]
    if strange:
        raise UserError(
            f"{raw}: {len(strange)} names open with no recording of {', '.join(SIDES)} ({first_names(strange)});"
            " take the names of the official download"
        )
    for side in ("A", "B"):
        shown, test = ([frame for frame in found[split] if SIDES[_recording(frame)] == side] for split in found)
        if side == "B":
            shown, test = shown[:-DUSK_TEST], shown[-DUSK_TEST:] + test
        places = held_out(shown) + [("test", frame) for frame in test]
        plan.items += [Item(place, frame.name, _files(side, frame)) for place, frame in places]
    return plan


def _recording(frame: Frame) -> str:
    return frame.name.split("_")[0]


def _files(side: str, frame: Frame) -> dict[str, Path]:
    return {"labels": frame.label, "A": frame.photo} if side == "A" else {"B": frame.photo}
