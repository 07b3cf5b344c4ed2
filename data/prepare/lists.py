"""Lists of numbers in a MATLAB file of the old format, as official splits come."""

from collections.abc import Mapping
from pathlib import Path

from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from errors import UserError

BROKEN = (OSError, ValueError, KeyError, TypeError, NotImplementedError, MatReadError)


def read_lists(file: Path, keys: Mapping[str, str], cure: str) -> dict[str, list[int]]:
    """The numbers that `file` lists, by name; `keys` are the names of its arrays.

    Raises: UserError for a damaged file or one without these arrays, advising `cure`, and for a number in two lists.
    """
    try:
        stored = loadmat(file)
        lists = {name: [int(number) for number in stored[key].ravel()] for name, key in keys.items()}
    except BROKEN as error:
        raise UserError(f"{file}: cannot be read ({error!r}); {cure}") from error
    seen: dict[int, str] = {}
    for name, numbers in lists.items():
        for number in numbers:
            if seen.setdefault(number, name) != name:
                raise UserError(f"{file}: number {number} is in {seen[number]} and in {name}; {cure}")
    return lists
