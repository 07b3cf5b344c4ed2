"""Files on the ground floor: written whole or not at all, and outputs that never touch inputs."""

import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO

from errors import UserError

TEMPORARY = re.compile(r"\.patchwise-(?P<host>[\w.-]+)-(?P<pid>\d+)-\d+\.tmp")
FOREIGN_AGE = 86400  # seconds after which the temporary file of another host's process counts as left behind
_numbers = count()


@contextmanager
def atomically(path: Path, durable: bool = True) -> Iterator[IO[bytes]]:
    """An open file that takes the place of `path` when the block ends without an error.

    The bytes are flushed to disk before the rename, and the folder after it. After a crash at any moment `path` is the
    old file or the new one. On any error, KeyboardInterrupt included, the temporary file is removed. Its name is short,
    so `path` may have the longest name that the file system takes.

    Args:
        durable: False flushes nothing, for many files that can be made again: a power cut may leave them empty.
    """
    temporary = path.with_name(f".patchwise-{_host()}-{os.getpid()}-{next(_numbers)}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if durable:
        _flush_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """UTF-8 text, by `atomically`."""
    with atomically(path) as file:
        file.write(text.encode())


def sweep(folder: Path) -> None:
    """Remove the temporary files that dead processes of `atomically` left in a folder."""
    for path in folder.iterdir():
        found = TEMPORARY.fullmatch(path.name)
        if found and left_behind(found["host"], int(found["pid"]), path):
            with suppress(OSError):
                path.unlink()


def left_behind(host: str, pid: int, path: Path) -> bool:
    """Whether the process that wrote `path` is gone; for a process of another host, whether the file is a day old."""
    if host == _host():
        return not alive(pid)
    with suppress(OSError):
        return time.time() - path.stat().st_mtime > FOREIGN_AGE
    return False


def alive(pid: int) -> bool:
    """Whether a process of this host runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def refuse_overlap(key: str, output: Path, inputs: Mapping[str, Path | None]) -> None:
    """Raises: UserError where an output equals, holds or lies in one of the inputs (by config key), links followed."""
    target = output.expanduser().resolve()
    for name, place in inputs.items():
        if place is None:
            continue
        source = place.expanduser().resolve()
        if target == source or target in source.parents or source in target.parents:
            raise UserError(
                f"{key}={output}: overlaps {name}={place}, whose files it could overwrite or take for inputs; "
                f"choose a folder for {key} that neither lies in {name} nor holds it"
            )


def _host() -> str:
    return re.sub(r"[^\w.-]", "-", socket.gethostname())[:40]


def _flush_folder(folder: Path) -> None:
    """A rename is on disk once its folder is; some file systems have no such call."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
