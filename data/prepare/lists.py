"""Lists of numbers in a MATLAB file of the old format, as official splits come."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from errors import UserError
from records import one_line

SECONDS = 120
# In a process of its own: a damaged file makes scipy's compiled reader write where it must not, and the process dies.
PROGRAM = """
import json, sys
from scipy.io import loadmat
stored = loadmat(sys.argv[1], variable_names=sys.argv[2:])
print(json.dumps([[int(number) for number in stored[key].ravel()] for key in sys.argv[2:]]))
"""


def read_lists(file: Path, keys: Mapping[str, str], cure: str) -> dict[str, list[int]]:
    """The numbers that `file` lists, by name; `keys` are the names of its arrays.

    Raises: UserError for a damaged file or one without these arrays, advising `cure`, and for a number in two lists.
    """
    command = [sys.executable, "-c", PROGRAM, str(file.resolve()), *keys.values()]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        told = ended.stderr.decode(errors="replace").strip().splitlines()
        if ended.returncode:
            raise ValueError(told[-1] if ended.returncode > 0 and told else "its reader crashed")
        lists: dict[str, list[int]] = dict(zip(keys, json.loads(ended.stdout), strict=True))
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{file}: cannot be read ({one_line(error)}); {cure}") from error
    seen: dict[int, str] = {}
    for name, numbers in lists.items():
        for number in numbers:
            if seen.setdefault(number, name) != name:
                raise UserError(f"{file}: number {number} is in {seen[number]} and in {name}; {cure}")
    return lists
