"""The run folder's file operations, seen from inside the training process: counted, failed, killed at, or journaled.

Patches go into a forked child only. Linux: file names are read from /proc.
"""

import builtins
import errno
import io
import json
import os
import pathlib
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
Act = Callable[["Disk", str, Path], None]


class Disk:
    """Counts every operation that changes something below `folder`, and lets `act` fail or kill the n-th of them.

    Operations: open (for writing), write, fsync, replace, unlink, mkdir, truncate. `act` runs before the operation.
    TensorBoard's are many, and a thread's, so they are counted apart: `events` says which of the two this disk sees.
    """

    def __init__(self, folder: Path, act: Act | None = None, events: bool = False) -> None:
        self.folder, self.act, self.count = str(folder), act, 0
        self.events = events
        self.seen: list[str] = []
        self.journal: Journal | None = None

    def note(self, operation: str, path: Any) -> None:
        """One operation is about to happen."""
        text = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - a Path would be slower, and `resolve` is patched code
        if not text.startswith(self.folder) or ("/tensorboard" in text) is not self.events:
            return
        self.count += 1
        self.seen.append(f"{operation} {text.removeprefix(self.folder)}")
        if self.act is not None:
            self.act(self, operation, Path(text))

    def install(self) -> None:
        """Put this disk in place of the functions that Python's libraries call."""
        self._wrap("replace", "rename", "unlink", "remove", "mkdir", "truncate", "link", "symlink")
        plain_open, plain_fsync, plain_os_open, plain_write = io.open, os.fsync, os.open, os.write

        def opened(file: Any, mode: str = "r", buffering: int = -1, *more: Any, **options: Any) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax+"):
                return plain_open(file, mode, buffering, *more, **options)
            text = os.path.abspath(os.fsdecode(file))  # noqa: PTH100
            if not text.startswith(self.folder):
                return plain_open(file, mode, buffering, *more, **options)
            self.note("open", text)
            return _file(self, text, mode, buffering, *more, **options)

        def fsync(handle: Any) -> None:
            number = handle if isinstance(handle, int) else handle.fileno()
            path = str(Path(f"/proc/self/fd/{number}").readlink())
            self.note("fsync", path)
            plain_fsync(number)
            if self.journal is not None and path.startswith(self.folder):
                self.journal.synced(Path(path))

        def os_open(path: Any, flags: int, *more: Any, **options: Any) -> int:
            if flags & WRITING and not isinstance(path, int):
                self.note("open", path)
            return plain_os_open(path, flags, *more, **options)

        def write(handle: int, data: Any) -> int:
            path = str(Path(f"/proc/self/fd/{handle}").readlink())
            if path.startswith(self.folder):
                self.note("write", path)
            return plain_write(handle, data)

        builtins.open = io.open = opened  # type: ignore[assignment]
        os.fsync, os.open, os.write = fsync, os_open, write  # type: ignore[assignment]
        accessor = getattr(pathlib, "_NormalAccessor", None)  # Python 3.10 keeps the functions there
        if accessor is not None:
            for name in ("open", "replace", "rename", "unlink", "mkdir"):
                setattr(accessor, name, staticmethod(opened if name == "open" else getattr(os, name)))

    def _wrap(self, *names: str) -> None:
        for name in names:
            plain = getattr(os, name)

            def called(path: Any, *more: Any, _plain: Any = plain, _name: str = name, **options: Any) -> Any:
                if not isinstance(path, int):
                    # the second of two names is what changes; links lie at their second name too
                    other = more[0] if _name in ("replace", "rename", "link", "symlink") and more else path
                    self.note(_name, other)
                return _plain(path, *more, **options)

            setattr(os, name, called)


class _Raw(io.FileIO):
    """An unbuffered file whose writes a disk counts: below Python's buffers, as the system sees them."""

    disk: Disk

    def write(self, data: Any) -> int:
        self.disk.note("write", self.name)
        return super().write(data) or 0

    def truncate(self, size: int | None = None) -> int:
        self.disk.note("truncate", self.name)
        return super().truncate(size)


def _file(
    disk: Disk,
    path: str,
    mode: str,
    buffering: int,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Any = None,
) -> Any:
    """What io.open returns, on a counted raw file."""
    raw = _Raw(path, mode.replace("b", "").replace("t", ""), closefd, opener)
    raw.disk = disk
    if buffering == 0:
        return raw
    buffer: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
    if "b" in mode:
        return buffer
    text = io.TextIOWrapper(buffer, encoding, errors, newline, line_buffering=buffering == 1)
    text.mode = mode  # type: ignore[misc]
    return text


def kill_at(number: int) -> Act:
    """SIGKILL of this process at its n-th operation."""

    def act(disk: Disk, operation: str, path: Path) -> None:
        if disk.count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def full_from(number: int, last: int | None = None, code: int = errno.ENOSPC) -> Act:
    """No space (or another error) for whatever takes some, from the n-th operation to `last` (None: to the end)."""

    def act(disk: Disk, operation: str, path: Path) -> None:
        if operation in ("open", "write", "mkdir", "fsync") and number <= disk.count <= (last or disk.count):
            raise OSError(code, os.strerror(code), str(path))

    return act


class Journal:
    """What of a folder would survive a power failure: for each file its bytes as of the last fsync, for each folder its
    names as of the last fsync of the folder.

    Kept beside the run folder as hard links (which keep inode numbers from being reused) and copies.
    """

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder, self.store = folder, store
        store.mkdir(parents=True)
        self.copies = 0
        for path in [folder, *folder.rglob("*")]:  # what lies there at the start is on the disk
            self.synced(path)

    def synced(self, path: Path) -> None:
        """A file or folder has just been flushed."""
        if path.is_dir():
            names = {entry.name: entry.stat().st_ino for entry in path.iterdir()}
            self._log({"folder": str(path.relative_to(self.folder)), "names": names})
            return
        if not path.is_file():
            return
        inode, self.copies = path.stat().st_ino, self.copies + 1
        pin = self.store / f"pin-{inode}"
        if not pin.exists():
            os.link(path, pin)
        shutil.copyfile(path, self.store / f"copy-{self.copies}")
        self._log({"inode": inode, "copy": self.copies})

    def _log(self, row: dict[str, Any]) -> None:
        with (self.store / "journal").open("a") as file:
            file.write(json.dumps(row) + "\n")


def lose_power(folder: Path, store: Path, rng: random.Random) -> None:
    """Rewrite a dead process's folder as a disk may hold it after a power failure.

    Each name whose folder was not flushed since it changed is the new or the old one; each file that was not flushed
    since it was written is whole, cut, filled with zeros from somewhere on, or as it was at the last flush.
    """
    names: dict[str, dict[str, int]] = {}
    copies: dict[int, Path] = {}
    for line in (store / "journal").read_text().splitlines():
        row = json.loads(line)
        if "folder" in row:
            names[row["folder"]] = row["names"]
        else:
            copies[row["inode"]] = store / f"copy-{row['copy']}"
    after = folder.with_name(folder.name + ".after")
    _crashed(folder, after, folder, names, copies, rng)
    shutil.rmtree(folder)
    after.rename(folder)


def _crashed(
    now: Path,
    after: Path,
    top: Path,
    names: dict[str, dict[str, int]],
    copies: dict[int, Path],
    rng: random.Random,
) -> None:
    """One folder of `lose_power`, and those in it."""
    after.mkdir()
    key = str(now.relative_to(top))
    durable = names.get(key, {})
    present = {entry.name: entry.stat().st_ino for entry in now.iterdir()} if now.is_dir() else {}
    for name in sorted(durable.keys() | present.keys()):
        inode = present.get(name)
        if inode != durable.get(name) and rng.random() < 0.5:
            inode = durable.get(name)
        if inode is None:
            continue
        current = now / name
        if current.is_dir():
            _crashed(current, after / name, top, names, copies, rng)
            continue
        if present.get(name) == inode:
            bytes_now = current.read_bytes()
        else:  # the old name of a rename that did not reach the disk
            bytes_now = copies[inode].read_bytes() if inode in copies else b""
        flushed = copies[inode].read_bytes() if inode in copies else None
        if flushed != bytes_now:
            # what was flushed and only appended to stays
            least = len(flushed) if flushed is not None and bytes_now.startswith(flushed) else 0
            cut = rng.randrange(least, len(bytes_now) + 1)
            zeros = bytes_now[:cut] + bytes(len(bytes_now) - cut)
            bytes_now = rng.choice([bytes_now, bytes_now[:cut], zeros, flushed or b""])
        (after / name).write_bytes(bytes_now)
