"""Which files of a folder are images: one rule for training, translation, evaluation, preparation and reports.

Regular files with one of `SUFFIXES` count, in the folder and in all folders below it. Links to files and to folders are
followed. Every real folder is read once, so a link into itself or to a folder above adds nothing. Hidden files and
folders are passed over. What else is left out is said in one line with counts by kind.
"""

import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from errors import UserError

PICTURES = frozenset(
    (".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff",
     ".webp")
)  # fmt: skip
SUFFIXES = PICTURES | {".npy"}
SIDECARS = frozenset(("desktop.ini", "manifest.json", "render.json", "thumbs.db"))  # expected beside images: not said
SHOWN = 8  # kinds that the line about left out files names
READ_ALREADY = "linked folder(s) read already"
_said: set[str] = set()


class ImageFiles(Mapping[str, Path]):
    """Relative stem in NFC -> file, in order of names. Paths are built lazily: a million names need a tenth of memory.

    Args:
        suffixes: name -> suffix. own: name -> stem as the disk spells it, where that differs.
    """

    def __init__(self, folder: Path, suffixes: dict[str, str], own: dict[str, str] | None = None) -> None:
        self.folder, self.suffixes, self.own = folder, suffixes, own or {}

    def __getitem__(self, name: str) -> Path:
        return self.folder / f"{self.own.get(name, name)}{self.suffixes[name]}"

    def __contains__(self, name: object) -> bool:
        return name in self.suffixes

    def __iter__(self) -> Iterator[str]:
        return iter(self.suffixes)

    def __len__(self) -> int:
        return len(self.suffixes)

    def own_names(self) -> list[str]:
        """The names as the disk spells them, in order: what outputs are called."""
        return [self.own.get(name, name) for name in self.suffixes] if self.own else list(self.suffixes)

    @classmethod
    def of(cls, folder: Path, files: Iterable[str]) -> "ImageFiles":
        """From paths relative to the folder. Raises: UserError where two differ by suffix or Unicode form only."""
        suffixes: dict[str, str] = {}
        own: dict[str, str] = {}
        for file in files:
            stem, dot, suffix = file.rpartition(".")
            name = composed(stem)
            if name in suffixes:
                first = f"{own.get(name, name)}{suffixes[name]}"
                if first.isascii() and file.isascii():
                    raise UserError(f"{folder / file}: has the same name as {Path(first).name}; remove one of them")
                raise UserError(f"{folder}: {file!a} and {first!a} have the same name; remove one of them")
            if name != stem:
                own[name] = stem
            suffixes[name] = sys.intern(dot + suffix)
        return cls(folder, dict(sorted(suffixes.items())), own)


def composed(name: str) -> str:
    """A name in NFC, by which files are matched: macOS may store the same letters decomposed."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def walk(folder: Path, suffixes: frozenset[str] = SUFFIXES) -> Iterator[tuple[str, list[str]]]:
    """(path below `folder` with a final slash or "", names of its image files, sorted) of every folder that has any.

    At the end one line says what was left out. Raises: UserError for a folder that cannot be read.
    """
    real = folder.resolve()
    seen = {_identity(place) for place in (real, *real.parents)}
    left: Counter[str] = Counter()
    endings = frozenset(suffix[1:] for suffix in suffixes)
    folders, links = [""], list[str]()
    while folders or links:
        prefix = folders.pop() if folders else links.pop(0)  # real folders first: a link does not rename their files
        found: list[str] = []
        try:
            if prefix:
                identity = _identity(folder / prefix)
                if identity in seen:
                    left[READ_ALREADY] += 1
                    continue
                seen.add(identity)
            with os.scandir(folder / prefix) as entries:
                for entry in entries:
                    name = entry.name
                    if name[0] == ".":
                        continue
                    _, dot, ending = name.rpartition(".")
                    if dot and ending.lower() in endings and _is_file(entry):
                        found.append(name)
                    elif (kind := _kind(entry)) in ("folder", "link"):
                        (folders if kind == "folder" else links).append(f"{prefix}{name}/")
                    elif kind != "expected":
                        left[kind] += 1
        except OSError as error:
            raise UserError(
                f"{folder / prefix}: cannot be read ({error.strerror or error}); make it readable, or move it elsewhere"
            ) from error
        links.sort()
        if found:
            found.sort()
            yield prefix, found
    if left:
        say(f"{folder}: left out {counted(left)}")


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a regular file, links followed."""
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def _kind(entry: os.DirEntry[str]) -> str:
    """`folder`, `link` (to a folder), `expected` (not worth a word), or what to call an entry that is left out."""
    name = entry.name.lower()
    if _is_file(entry):
        return "expected" if name in SIDECARS else Path(name).suffix or "without a suffix"
    try:
        if entry.is_dir():
            return "link" if entry.is_symlink() else "folder"
    except OSError:
        return "broken link(s)"
    return "broken link(s)" if entry.is_symlink() and not Path(entry).exists() else "no regular file(s)"


def find_images(folder: Path) -> ImageFiles:
    """Relative stem -> file of every image under `folder`, sorted by name.

    Raises: UserError for a missing or empty folder, and where two files differ by suffix only.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {seen(folder.parent)}")
    files = ImageFiles.of(folder, (prefix + name for prefix, names in walk(folder) for name in names))
    if not files:
        raise UserError(f"{folder}: holds no images; wanted files of {', '.join(sorted(SUFFIXES))}")
    return files


def seen(folder: Path) -> str:
    """What lies in a folder, for errors about what does not."""
    if not folder.is_dir():
        return f"{folder} does not exist either"
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    folders = [name for name in names if (folder / name).is_dir()]
    if folders:
        return f"{folder} has the folders {', '.join(folders[:10])}"
    return f"{folder} has no folders" + (f", but {len(names)} files: {', '.join(names[:10])}" if names else "")


def counted(kinds: Mapping[str, int]) -> str:
    """`3 .txt, 1 .mp4`, most frequent first."""
    order = sorted(kinds.items(), key=lambda entry: (-entry[1], entry[0]))
    shown = ", ".join(f"{count} {kind}" for kind, count in order[:SHOWN])
    rest = sum(count for _, count in order[SHOWN:])
    return shown + (f" and {rest} of other kinds" if rest else "")


def say(line: str) -> None:
    """Print a line to standard error, once a process and from the first rank alone."""
    if line not in _said and os.environ.get("RANK", "0") == "0":
        _said.add(line)
        print(line, file=sys.stderr, flush=True)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
