"""One process at a time in a folder: a lock file that names its owner, for one machine and for shared file systems.

Two things hold at once. `fcntl.lockf` on the file tells whether its owner lives, wherever the file system supports it
(local disks, NFS with its lock service): the kernel drops it when the process ends, however that happens. Elsewhere
the file's content decides. On the same host the owner lives while its process number belongs to a process of the same
start time. The owner on another host lives while the file is younger than `STALE`, as every owner touches it once in
`HEARTBEAT`.
"""

import errno
import fcntl
import json
import os
import socket
import sys
import tempfile
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType

from errors import UserError
from files import alive

HEARTBEAT = 60.0  # seconds between two touches of the file
STALE = 600.0  # seconds without a touch after which the owner on another host counts as dead
NEW = 10.0  # seconds in which an empty file may still get its content
POLL = 0.5  # seconds between two looks


@dataclass(frozen=True)
class Owner:
    """A process: of which host and which start of that host, its number, start time, and when it took the lock."""

    host: str
    pid: int
    started: str
    boot: str
    since: str
    work: str
    token: str

    @classmethod
    def this(cls, work: str) -> "Owner":
        """This process, from now on."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        pid = os.getpid()
        return cls(socket.gethostname(), pid, _start_of(pid), _boot(), now, work, uuid.uuid4().hex)

    @classmethod
    def parse(cls, text: bytes) -> "Owner | None":
        """None for an empty or damaged file."""
        try:
            found = json.loads(text)
            owner = cls(**{field.name: found[field.name] for field in fields(cls)})
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        words = (owner.host, owner.started, owner.boot, owner.since, owner.work, owner.token)
        return owner if type(owner.pid) is int and all(isinstance(word, str) for word in words) else None

    @property
    def here(self) -> bool:
        """Whether it is of this start of this host."""
        return self.host == socket.gethostname() and self.boot == _boot()

    def __str__(self) -> str:
        return f"host {self.host}, pid {self.pid}, since {self.since}"


class FolderLock:
    """Held from `take` or `wait` to `release`; a context does the first and the last.

    Args:
        path: of the lock file, whose folder is made where it is missing.
        work: what its owner does, for messages, such as "training".
        cure: what a user can do, for messages.
    """

    def __init__(self, path: Path, work: str, cure: str) -> None:
        self.path, self.work, self.cure = path, work, cure
        self.handle: int | None = None
        self.owner: Owner | None = None
        self.ended = threading.Event()

    def __enter__(self) -> "FolderLock":
        self.take()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.release()

    def take(self) -> None:
        """Raises: UserError naming the owner where another process holds the lock, or where it cannot be written."""
        other = self._take()
        if other is not None:
            raise UserError(f"{self.path.parent}: {other}; {self.cure}")

    def wait(self) -> None:
        """Like `take`, but wait for another owner's end, with one line that says so."""
        told = False
        while (other := self._take()) is not None:
            if not told:
                print(f"{self.path.parent}: {other}; waiting for its end", file=sys.stderr, flush=True)
                told = True
            time.sleep(POLL)

    def check(self) -> None:
        """Raises: UserError where another process took the lock over, as after this one was suspended for long."""
        if self.handle is None or self.owner is None:
            return
        if Owner.parse(_content(self.handle)) != self.owner or not self._same_file(self.handle):
            raise UserError(f"{self.path}: another process took this lock over, or it was removed; this run stops here")

    def release(self) -> None:
        """Remove the file; harmless where it is not held."""
        self.ended.set()
        if self.handle is None:
            return
        with suppress(OSError):
            if self._same_file(self.handle):
                self.path.unlink()
        os.close(self.handle)
        self.handle = None

    def _take(self) -> str | None:
        """None when the lock is ours, else a description of its owner."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                handle, made = self._open()
                kernel = _kernel_lock(handle)
                if not self._same_file(handle):  # its owner removed it meanwhile
                    os.close(handle)
                    continue
                owner = Owner.parse(_content(handle))
                age = 0.0 if owner is not None and owner.here else self._age(handle)
                if kernel is None and owner is None and not made and age < NEW:
                    os.close(handle)
                    time.sleep(POLL)
                    continue
                if kernel is False or (owner is not None and self._lives(owner, handle, age)):
                    os.close(handle)
                    return self._describe(owner, age)
                return self._own(handle, owner, kernel)
        except OSError as error:
            raise UserError(
                f"{self.path.parent}: cannot be written ({error.strerror or error}); {self.cure}"
            ) from error

    def _open(self) -> tuple[int, bool]:
        """The open file, and whether it was made now."""
        with suppress(FileExistsError):
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), False

    def _own(self, handle: int, before: Owner | None, kernel: bool | None) -> str | None:
        """Write this process into the file and keep it open."""
        if before is not None:
            print(f"{self.path}: its process has ended ({before}); taken over", file=sys.stderr, flush=True)
        self.owner = Owner.this(self.work)
        text = (json.dumps(asdict(self.owner)) + "\n").encode()
        os.ftruncate(handle, 0)
        os.pwrite(handle, text, 0)
        os.fsync(handle)
        if kernel is None:  # the last of several simultaneous writers owns it
            time.sleep(POLL)
            found = Owner.parse(_content(handle))
            if found != self.owner:
                os.close(handle)
                return self._describe(found, 0.0)
        self.handle = handle
        self.ended.clear()
        threading.Thread(target=self._beat, args=(self.ended,), daemon=True, name="lock heartbeat").start()
        return None

    def _beat(self, ended: threading.Event) -> None:
        while not ended.wait(HEARTBEAT):
            with suppress(OSError):
                os.utime(self.path)

    def _lives(self, owner: Owner, handle: int, age: float) -> bool:
        if owner.here:
            return alive(owner.pid) and _start_of(owner.pid) == owner.started
        if owner.host == socket.gethostname() and os.fstat(handle).st_mtime < _booted_at():
            return False  # this host was started anew since; else it is another one of the same name
        return age < STALE

    def _describe(self, owner: Owner | None, age: float) -> str:
        if owner is None:
            return f"another process uses it ({self.path})"
        words = f"{owner.work} runs there already: {owner} ({self.path})"
        if not owner.here:
            words += (
                f", last sign of life {max(0, round(age))} s ago; if it is dead, remove that file, or wait until "
                f"{STALE / 60:.0f} minutes have passed"
            )
        return words

    def _same_file(self, handle: int) -> bool:
        with suppress(FileNotFoundError):
            mine, there = os.fstat(handle), self.path.stat()
            return (mine.st_ino, mine.st_dev) == (there.st_ino, there.st_dev)
        return False

    def _age(self, handle: int) -> float:
        """Seconds since the last touch by the file system's own clock: a server's may differ from this host's."""
        probe, name = tempfile.mkstemp(prefix=".lock-", dir=self.path.parent)
        try:
            return os.fstat(probe).st_mtime - os.fstat(handle).st_mtime
        finally:
            os.close(probe)
            Path(name).unlink()


def _kernel_lock(handle: int) -> bool | None:
    """True: ours; False: another living process has it; None: this file system has no such locks."""
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EACCES, errno.EAGAIN) else None
    return True


def _content(handle: int) -> bytes:
    """Read by position: to open the file a second time and close it would drop the kernel's lock."""
    return os.pread(handle, 4096, 0)


def _start_of(pid: int) -> str:
    """When a process began, in ticks since the host's start; "" where the system does not say, and for a zombie."""
    try:
        state, *words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else words[18]
    except (OSError, IndexError):
        return ""


def _boot() -> str:
    """A name of this start of the host; "" where the system has none."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _booted_at() -> float:
    """When this host was started, in seconds since 1970; 0 where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        return time.time() - float(Path("/proc/uptime").read_text().split()[0])
    return 0.0
