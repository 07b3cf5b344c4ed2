"""Which images a run was trained on: names, sizes and, where that is cheap, bytes; the folder they lie in is no part.

Two data folders may have one name, and a run folder is found by that name. So a checkpoint holds the fingerprint of its
training data, and a run only goes on with the same data. A folder that was moved or copied has the same fingerprint.

    up to WHOLE bytes in all        every byte of every file
    up to MANY files, else          the first and the last ENDS bytes of every file
    more                            names and sizes

The run folder's data.json also lists the files of up to LISTED, so that a refusal can name those that differ.
"""

import hashlib
import json
import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.files import first_names, in_threads
from errors import UserError
from files import write_text

SCHEMA = 1
WHOLE = 256 * 2**20
MANY = 20_000
ENDS = 4096
LISTED = 10_000
FILE = "data.json"
Sides = dict[str, dict[str, str]]  # side -> name with suffix -> size and digest


class Data:
    """The training data of a run.

    Attributes:
        root: folder of the files; None for a generated data set.
        below: the same relative to DATA_ROOT, where the config's root is given so.
        fingerprint: JSON values, equal for equal data; None for a data set that has no `content` (a user's own class).
        sides: the listing of data.json, or None for many files.
    """

    def __init__(
        self, root: str | None, below: str | None, fingerprint: dict[str, Any] | None, sides: Sides | None = None
    ) -> None:
        self.root, self.below, self.fingerprint, self.sides = root, below, fingerprint, sides

    @classmethod
    def of(cls, dataset: Any, below: str | None) -> "Data":
        """Read off a data set of data/.

        Raises: UserError for a file that cannot be read.
        """
        root = getattr(dataset, "root", None)
        place = None if root is None else str(Path(root).resolve())
        if not hasattr(dataset, "content"):
            return cls(place, below, None)
        try:
            return cls(place, below, *_measure(dataset.content()))
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be read ({error.strerror}); dataset.root={root}") from error

    @classmethod
    def from_json(cls, text: str | None) -> "Data | None":
        """The inverse of `json`; None for what is none."""
        try:
            found = json.loads(text or "null")
            print_, sides = found["fingerprint"], found.get("sides")
            if not isinstance(print_, dict | None) or not isinstance(sides, dict | None):
                return None
            return cls(found["root"], found["below"], print_, sides)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    @classmethod
    def read(cls, folder: Path) -> "Data | None":
        """Of a run folder; None where its data.json is missing or damaged."""
        try:
            return cls.from_json((folder / FILE).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            return None

    def json(self) -> str:
        """One line, for the checkpoint."""
        return json.dumps({"root": self.root, "below": self.below, "fingerprint": self.fingerprint})

    def write(self, folder: Path) -> None:
        """data.json of a run folder."""
        known = {"root": self.root, "below": self.below, "fingerprint": self.fingerprint, "sides": self.sides}
        write_text(folder / FILE, json.dumps({"schema": SCHEMA, **known}, indent=1) + "\n")

    def difference(self, other: "Data") -> str:
        """How the data of `other`, where the run is to go on now, differ from these; "" where they are equal."""
        if self.fingerprint == other.fingerprint:
            return ""
        mine, others = (_totals(data.fingerprint or {}) for data in (self, other))
        words = f"{self.root} ({mine}) there, {other.root} ({others}) here"
        if self.sides is None or other.sides is None:
            return words
        before, now = (
            {f"{side}/{name}": value for side, names in sides.items() for name, value in names.items()}
            for sides in (self.sides, other.sides)
        )
        kinds = {
            "missing": sorted(before.keys() - now.keys()),
            "new": sorted(now.keys() - before.keys()),
            "changed": sorted(name for name in before.keys() & now.keys() if before[name] != now[name]),
        }
        found = [f"{len(names)} {kind} ({first_names(names[:3])})" for kind, names in kinds.items() if names]
        return f"{words}; {', '.join(found)}" if found else words


def below_data_root(root: Any) -> str | None:
    """What follows DATA_ROOT in a config's unresolved dataset.root; None for a root that is given otherwise."""
    head, brace, tail = str(root).partition("}/")
    return tail if brace and head.startswith("${oc.env:DATA_ROOT") else None


def _totals(fingerprint: Mapping[str, Any]) -> str:
    sides = (fingerprint.get("sides") or {}).items()
    return ", ".join(f"{side}: {found['files']} files, {found['bytes']:,} bytes" for side, found in sides) or "no files"


def _measure(content: Mapping[str, Mapping[str, Path]]) -> tuple[dict[str, Any], Sides | None]:
    """The fingerprint, and the listing where there are few files."""
    sizes: dict[str, list[tuple[str, int]]] = {}
    for side, files in content.items():
        sizes[side] = [
            (unicodedata.normalize("NFC", name) + file.suffix, os.stat(file).st_size)  # noqa: PTH116 - half the time
            for name, file in files.items()
        ]
    count, total = sum(map(len, sizes.values())), sum(size for side in sizes.values() for _, size in side)
    kind = "bytes" if total <= WHOLE else "ends" if count <= MANY else "sizes"
    found: dict[str, Any] = {}
    listed: Sides = {}
    for side, files in content.items():
        digests = [""] * len(files)
        if kind != "sizes":
            digests = in_threads(_whole if kind == "bytes" else _ends, list(files.values()))
        names, data = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
        for (name, size), digest in zip(sizes[side], digests, strict=True):
            names.update(f"{name}\n".encode(errors="surrogateescape"))
            data.update(f"{size} {digest}\n".encode())
        sums = {"names": names.hexdigest(), "data": data.hexdigest()}
        found[side] = {"files": len(files), "bytes": sum(size for _, size in sizes[side]), **sums}
        if count <= LISTED:
            listed[side] = {name: f"{size} {digest}" for (name, size), digest in zip(sizes[side], digests, strict=True)}
    return {"schema": SCHEMA, "kind": kind, "sides": found}, listed if count <= LISTED else None


def _whole(file: Path) -> str:
    return hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()


def _ends(file: Path) -> str:
    with file.open("rb") as stream:
        head, size = stream.read(ENDS), stream.seek(0, 2)
        stream.seek(max(ENDS, size - ENDS))
        return hashlib.blake2b(head + stream.read(ENDS), digest_size=16).hexdigest()
