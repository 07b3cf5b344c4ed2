"""manifest.json: what prepare.py wrote, so that a reader can tell a complete folder from a damaged one.

Schema 1, an object with these keys:
    schema: 1.                          dataset: name of the data set.
    version: of the project.            options: the options that shaped the files, an object.
    source_counts: pairs found in the raw tree, by the raw tree's own splits.
    labels: {"kind": "ids", "classes": K, "ignore": id or null}, or {"kind": "image", "channels": C}.
    instance: whether instance/ exists. image_size: [height, width] where all are equal, else null.
    splits: split -> {"count": n, "sha256": of the sorted names, one a line, "names": [...]}.
    dropped: [{"name": ..., "reason": ...}].
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from errors import UserError

SCHEMA = 1
FILE = "manifest.json"


def names_hash(names: list[str]) -> str:
    """sha256 of the sorted names, one a line, in UTF-8."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(names)).encode()).hexdigest()


def split_record(names: list[str]) -> dict[str, Any]:
    """The entry of one split."""
    return {"count": len(names), "sha256": names_hash(names), "names": sorted(names)}


def read_manifest(root: Path) -> dict[str, Any] | None:
    """The manifest of a data folder, None where there is none. Raises: UserError for a damaged or newer one."""
    file = root / FILE
    if not file.is_file():
        return None
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        schema = manifest["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: cannot be read ({error}); run prepare.py again, or remove it") from error
    if schema != SCHEMA:
        raise UserError(f"{file}: has schema {schema}, this version reads {SCHEMA}; run prepare.py again")
    return manifest


def check_manifest(root: Path, split: str, names: list[str], classes: int | None, ignore: int | None) -> None:
    """Compares the names found, and for labels (`classes` not None) their number and `ignore`, with the manifest.

    Raises: UserError naming the first names that differ, or the key that does.
    """
    manifest = read_manifest(root)
    if manifest is None:
        return
    try:
        record, labels = manifest["splits"].get(split), manifest["labels"]
        listed, kind = record["names"] if record else None, labels["kind"]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{root / FILE}: lacks {error}; run prepare.py again, or remove it") from error
    if listed is not None and names_hash(listed) != names_hash(names):
        missing, extra = sorted(set(listed) - set(names)), sorted(set(names) - set(listed))
        raise UserError(
            f"{root / split}: {len(missing)} files of {FILE} are missing ({', '.join(missing[:5]) or 'none'}) and"
            f" {len(extra)} are not listed ({', '.join(extra[:5]) or 'none'}); run prepare.py again"
        )
    if classes is None or kind != "ids":
        return
    for key, value in (("classes", classes), ("ignore", ignore)):
        if labels.get(key) != value:
            raise UserError(f"{root / FILE}: says {key} {labels.get(key)}, but dataset.{key} is {value}; make them agree")
