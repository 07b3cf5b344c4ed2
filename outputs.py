"""Folders of images that a command makes: render.json lists them, so that leftovers and strangers are told apart.

A command calls `start` with the names of all that it will write and `finish` once they are there. Between the two, and
after a crash, render.json says `"complete": false`. Readers take what `select` gives them: the listed files, and no
folder that was left half done.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import records
from errors import UserError
from files import sweep, write_text

NOTE = "render.json"
SHAPE: dict[str, records.Shape] = {
    "images": int, "names?": [str], "complete?": bool, "network?": (str, type(None)), "split?": (str, type(None)),
    "input?": (str, type(None)),
}  # fmt: skip
SHOWN = 5  # names in a message


def read_note(folder: Path) -> dict[str, Any] | None:
    """The render.json of a folder, None where there is none.

    `names`, relative to the folder, and `complete` are missing in those of older versions.
    Raises: UserError for one that no command of ours wrote.
    """
    path = folder / NOTE
    if not os.path.lexists(path):
        return None
    try:
        note: dict[str, Any] = records.load(path, names=True)
        records.check_shape(note, SHAPE)
        for name in note.get("names", ()):
            if not _inside(name):
                raise ValueError(f"names holds {name[:40]!r}")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: is no list of the images here ({records.one_line(error)}); remove it, or choose another folder"
        ) from error
    return note


def start(key: str | None, folder: Path, names: Sequence[str], about: Mapping[str, Any], adopt: bool = False) -> None:
    """List in render.json what will be written, and remove what an earlier run wrote and this one does not.

    Args:
        key: the config key that named the folder, for messages; None for a folder that a command chose itself.
        names: of the files, relative to the folder, with / between folders.
        about: what else render.json says; `complete`, `images` and `names` are added.
        adopt: without a render.json, files of these names are known to be an older version's.
    Raises: UserError for a name that comes twice, for a file in the way that no run of ours wrote, and where nothing
        can be written.
    """
    place, cure = (folder, "") if key is None else (f"{key}={folder}", f"choose another {key}=, or ")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"{place}: two images would be {name}: two inputs share this name; rename one of them")
        seen.add(name)
    note = read_note(folder)
    ours = _owned(folder, note) if note is not None else seen if adopt else set()
    foreign = [name for name in names if name not in ours and os.path.lexists(folder / name)]
    if foreign:
        raise UserError(
            f"{place}: {_listed(foreign)} would be overwritten, but {NOTE} there does not list "
            f"{'it' if len(foreign) == 1 else 'them'}; {cure}move the file{'s' * (len(foreign) > 1)} away"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        for name in sorted(ours - seen):
            _remove(folder, name)
        _write(folder, names, about, complete=False)
    except OSError as error:
        raise _unwritable(key, folder, error) from error


def finish(key: str | None, folder: Path, names: Sequence[str], about: Mapping[str, Any]) -> None:
    """Mark the folder as complete; the arguments are those of `start`."""
    try:
        _write(folder, names, about, complete=True)
    except OSError as error:
        raise _unwritable(key, folder, error) from error


def select(key: str, folder: Path, found: Iterable[str]) -> tuple[set[str], list[str]]:
    """Which of the files found in a folder are its images: those that render.json lists; all where there is none.

    Returns: their names, and a line about what is left out, if anything is.
    Raises: UserError where a run did not finish, or listed images are missing.
    """
    there = set(found)
    note = read_note(folder)
    if note is None:
        return there, []
    if not note.get("complete", True):
        raise UserError(f"{key}={folder}: holds a part of {note['images']} images ({NOTE}); run the same command again")
    if "names" not in note:
        if not _owned(folder, note):
            raise UserError(
                f"{key}={folder}: holds {len(there)} images where {NOTE} says {note['images']}; remove the folder and "
                "make it again"
            )
        return there, []
    names = set(note["names"])
    if missing := sorted(names - there):
        raise UserError(f"{key}={folder}: lacks {_listed(missing)} of the {len(names)} images in {NOTE}; make it again")
    strange = sorted(there - names)
    what = f"{key}={folder}: left out {_listed(strange)}, which {NOTE} there does not list"
    return names, [what] if strange else []


def _owned(folder: Path, note: Mapping[str, Any]) -> set[str]:
    """The files that render.json lists; with one of an older version, which gives their number, all PNGs if it fits."""
    if "names" in note:
        return set(note["names"])
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    return found if len(found) == note["images"] else set()


def _unwritable(key: str | None, folder: Path, error: OSError) -> UserError:
    cure = f"change {key}=" if key else "change its permissions, or free some space"
    return UserError(f"{error.filename or folder}: cannot be written ({error.strerror or error}); {cure}")


def _write(folder: Path, names: Sequence[str], about: Mapping[str, Any], complete: bool) -> None:
    note = {**about, "images": len(names), "complete": complete, "names": list(names)}
    write_text(folder / NOTE, json.dumps(note, indent=1) + "\n")


def _inside(name: str) -> bool:
    """Whether a name stays below its folder, whatever a damaged or foreign list says."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _remove(folder: Path, name: str) -> None:
    """A file of an earlier run, and the folders that it leaves empty; never through a link to elsewhere."""
    path = folder / name
    if path.parent.resolve().is_relative_to(folder.resolve()) and (path.is_file() or path.is_symlink()):
        path.unlink()
        with suppress(OSError):  # not empty
            for place in [parent for parent in path.parents if parent != folder and parent.is_relative_to(folder)]:
                place.rmdir()


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
