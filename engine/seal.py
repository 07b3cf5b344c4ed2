"""A seal at the end of a checkpoint, by which every changed bit is noticed when the file is read.

torch.save writes a zip archive. It stores the CRC-32 of every record, but torch.load never compares it. The seal is the
archive's comment, which torch and unzip ignore: a blake2b digest of all bytes that are no record's data, that is of
the headers, the padding and the directory with the CRCs. So a save hashes a few kilobytes, whatever its size, and a
reading checks the CRCs (0.5 s a GB).
"""

import hashlib
import zipfile
import zlib
from pathlib import Path
from typing import IO, NamedTuple

MAGIC = b"patchwise-seal-1 "
DIGITS = 64
LENGTH = len(MAGIC) + DIGITS
BLOCK = 1 << 22  # bytes read at once
END = b"PK\x05\x06"  # of the record that ends an archive without a comment, END_LENGTH bytes long
END_LENGTH = 22


class Record(NamedTuple):
    """Where a record's data lie in the file, and their CRC-32 by the directory."""

    name: str
    start: int
    stop: int
    crc: int


def seal(path: Path) -> None:
    """Add the seal to an archive of torch.save, in place."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size - 2)
        file.write(LENGTH.to_bytes(2, "little") + MAGIC)
        digest = _digest(file, _records(file, size), size + len(MAGIC))
        file.seek(0, 2)
        file.write(digest)


def check(file: IO[bytes]) -> bool:
    """Whether an archive has a seal. Sealed or not, its records are compared with their CRCs.

    No record is compressed, and no two overlap, so the archive never unpacks to more than its own size.

    Raises: ValueError, or another exception of zipfile, for a file that is damaged or no archive.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - LENGTH))
    tail = file.read()
    sealed = tail.startswith(MAGIC) and len(tail) == LENGTH
    if not sealed and tail[-END_LENGTH:][:4] != END:
        raise ValueError("not a zip archive of torch.save, or its end is damaged")
    records = _records(file, size)
    if sealed and _digest(file, records, size - DIGITS) != tail[len(MAGIC) :]:
        raise ValueError("its headers do not match its digest")
    for record in records:
        if _crc(file, record) != record.crc:
            raise ValueError(f"{record.name} does not match its CRC")
    return sealed


def _records(file: IO[bytes], size: int) -> list[Record]:
    """In the order of the file. Raises: ValueError for records that are compressed, overlap or lie outside."""
    found, end = [], 0
    with zipfile.ZipFile(file) as archive:
        entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    for entry in entries:
        file.seek(entry.header_offset)
        header = file.read(30)
        start = (
            entry.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:], "little")
        )
        stop = start + entry.file_size
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise ValueError(f"{entry.filename[:60]} is compressed, which torch.save never does")
        if entry.header_offset < end or stop > size:
            raise ValueError(f"{entry.filename[:60]} overlaps another record, or ends behind the file")
        found.append(Record(entry.filename[:60], start, stop, entry.CRC))
        end = stop
    return found


def _digest(file: IO[bytes], records: list[Record], stop: int) -> bytes:
    """Of the bytes up to `stop` that are no record's data."""
    digest, at = hashlib.blake2b(digest_size=DIGITS // 2), 0
    for start, following in [*((record.start, record.stop) for record in records), (stop, stop)]:
        file.seek(at)
        digest.update(file.read(start - at))
        at = following
    return digest.hexdigest().encode()


def _crc(file: IO[bytes], record: Record) -> int:
    found, left = 0, record.stop - record.start
    file.seek(record.start)
    while left:
        block = file.read(min(BLOCK, left))
        if not block:
            raise ValueError(f"{record.name} is cut off")
        found = zlib.crc32(block, found)
        left -= len(block)
    return found
