"""manifest.json: what prepare.py wrote, so that a reader can tell a complete folder from a damaged one.

It is written twice: first with all that is planned, so that readers refuse a folder that was left half done.

Schema 1, an object with these keys:
    schema: 1.                          dataset: name of the data set.
    version: of the project.            options: the options that shaped the files, an object.
    source_counts: pairs found in the raw tree, by the raw tree's own splits.
    paired: whether items are pairs; where the key is missing they are. Names of unpaired items are A/NAME and B/NAME.
    labels: {"kind": "ids", "classes": K, "ignore": id or null}, or {"kind": "image", "channels": C}; of input/, and of
        labels/ where items are unpaired.
    instance: whether instance/ exists. depth: whether depth/, 16-bit millimetres, takes the place of target/.
    grey: number of grey photos, which became RGB. Files of the first version have neither of these two keys.
    image_size: [height, width] where all are equal, else null.
    splits: split -> {"count": n, "sha256": of the sorted names, one a line, "names": [...]}.
    dropped: [{"name": ..., "reason": ...}].
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from errors import UserError
from files import write_text
from listing import composed
from records import Shape, check_shape, load, one_line

SCHEMA = 1
VERSION = "0.1.0"  # of the project, as in pyproject.toml
FILE = "manifest.json"
SHAPE: dict[str, Shape] = {  # of what readers rely on
    "dataset": str, "options": dict, "instance": bool, "paired?": bool,
    "labels": {"kind": str, "classes?": int, "ignore?": (int, type(None)), "channels?": int},
    "splits": {"*": {"names": [str]}},
}  # fmt: skip


def names_hash(names: list[str]) -> str:
    """sha256 of the sorted names, one a line, in UTF-8 (bytes that are no UTF-8 as they are)."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(names)).encode(errors="surrogateescape")).hexdigest()


def split_record(names: list[str]) -> dict[str, Any]:
    """The entry of one split."""
    return {"count": len(names), "sha256": names_hash(names), "names": sorted(names)}


def read_manifest(root: Path) -> dict[str, Any] | None:
    """The manifest of a data folder, None where there is none. Raises: UserError for a damaged or newer one."""
    file = root / FILE
    if not file.is_file():
        return None
    try:
        manifest: dict[str, Any] = load(file, names=True)
        schema = manifest.get("schema") if isinstance(manifest, dict) else None
        if not isinstance(schema, int) or isinstance(schema, bool):
            raise ValueError("it has no schema")
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({one_line(error)}); run prepare.py again, or remove it") from error
    if schema != SCHEMA:
        raise UserError(f"{file}: has schema {schema}, this version reads {SCHEMA}; run prepare.py again")
    try:
        check_shape(manifest, SHAPE)
    except ValueError as error:
        raise UserError(
            f"{file}: is damaged or no manifest ({one_line(error)}); run prepare.py again, or remove it"
        ) from error
    return manifest


def check_manifest(root: Path, split: str, names: list[str], classes: int | None, ignore: int | None) -> None:
    """Compares the names found, in NFC, and for labels (`classes` not None) number and `ignore`, with the manifest.

    Raises: UserError naming the first names that differ, or the key that does.
    """
    manifest = read_manifest(root)
    if manifest is None:
        return
    record, labels = manifest["splits"].get(split), manifest["labels"]
    listed = record and [composed(name) for name in record["names"]]
    if listed is not None and names_hash(listed) != names_hash(names):
        missing, extra = sorted(set(listed) - set(names)), sorted(set(names) - set(listed))
        raise UserError(
            f"{root / split}: {len(missing)} files of {FILE} are missing ({', '.join(missing[:5]) or 'none'}) and"
            f" {len(extra)} are not listed ({', '.join(extra[:5]) or 'none'}); run prepare.py again"
        )
    if classes is None or labels["kind"] != "ids":
        return
    for key, value in (("classes", classes), ("ignore", ignore)):
        if labels.get(key) != value:
            raise UserError(f"{root / FILE}: says {key} {labels.get(key)}, dataset.{key} is {value}; make them agree")


def check_sides(root: Path, split: str, sides: Mapping[str, list[str]], classes: int | None) -> None:
    """`check_manifest` of folders that are read without regard to pairs: `sides` are their names, by folder."""
    manifest = read_manifest(root)
    if manifest is None:
        return
    found = [[f"{side}/{name}" for side, names in sides.items() for name in names]]
    for names in list(sides.values()) if manifest.get("paired", True) else found:
        check_manifest(root, split, names, classes, None)


def write_manifest(
    root: Path,
    *,
    dataset: str,
    options: dict[str, Any],
    source_counts: dict[str, int],
    labels: dict[str, Any],
    instance: bool,
    image_size: list[int] | None,
    splits: dict[str, list[str]],
    dropped: list[tuple[str, str]],
    paired: bool = True,
    depth: bool = False,
    grey: int = 0,
) -> dict[str, Any]:
    """Writes manifest.json of the schema above, all or nothing, and returns it. The same data, the same bytes."""
    manifest = {
        "schema": SCHEMA,
        "dataset": dataset,
        "version": VERSION,
        "options": options,
        "source_counts": source_counts,
        "paired": paired,
        "labels": labels,
        "instance": instance,
        "depth": depth,
        "grey": grey,
        "image_size": image_size,
        "splits": {split: split_record(names) for split, names in splits.items()},
        "dropped": [{"name": name, "reason": reason} for name, reason in dropped],
    }
    try:
        root.mkdir(parents=True, exist_ok=True)
        write_text(root / FILE, json.dumps(manifest, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"{root / FILE}: cannot be written ({error.strerror or error}); choose another out") from error
    return manifest
