"""The one layout that every official data set is brought into, written so that a crash leaves nothing half done.

    OUT/{split}/{input,target}/NAME.*    OUT/{split}/instance/NAME.png    OUT/manifest.json
    OUT/{split}/depth/NAME.png           16 bits, millimetres, in place of target/
    OUT/{split}/{A,B}/NAME.*             OUT/{split}/labels/NAME.png      where nothing is paired

A data set's own file looks through the raw tree, which is only read, and returns a `Plan`; `write` carries it out. A
file that is there already, newer than its source and sound, is left alone, so the same command goes on after a crash.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.files import first_names
from data.manifest import FILE, read_manifest, write_manifest
from data.prepare.plan import Item, Plan, Size
from data.prepare.writer import OneColour, Writer, Written
from errors import UserError
from files import refuse_overlap
from listing import find_images

SPLITS = ("train", "val", "test")


def write(
    plan: Plan,
    raw: Path,
    out: Path,
    dataset: str,
    workers: int = 4,
    allow_partial: bool = False,
    size: Size | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes the items of `plan` and the manifest, with a progress bar on a terminal.

    Args:
        workers: threads that decode and encode.
        allow_partial: leave bad items out and list them in the manifest, and take any number of them.
        size: (height, width) to resize to once and for all; None takes the plan's, or else copies files as they are.
        options: of the data set's own, for the manifest.
    Returns: the manifest (data/manifest.py).
    Raises: UserError naming the first bad file, its fault and the cure, after all good items are written.
    """
    refuse_overlap("out", out, {"raw": raw})
    size = size or plan.size
    shaping = {"size": _listed(size), **(options or {})}
    paired = all(item.paired for item in plan.items)
    unit = "pairs" if paired else "images"
    old = _check_out(out, dataset, shaping)
    _check_plan(plan, allow_partial, unit)
    _check_foreign(out, plan.items, old)

    def record(
        items: list[Item], dropped: list[tuple[str, str]], image_size: Size | None, grey: int = 0
    ) -> dict[str, Any]:
        return write_manifest(
            out,
            dataset=dataset,
            options={**shaping, "allow_partial": allow_partial},
            source_counts=plan.source_counts,
            labels=plan.labels,
            instance=any("instance" in item.files for item in plan.items),
            depth=any("depth" in item.files for item in plan.items),
            grey=grey,
            image_size=_listed(image_size),
            splits=_by_split(items),
            dropped=dropped,
            paired=paired,
        )

    record(plan.items, plan.dropped, size)
    try:
        results = _in_parallel(Writer(out, plan, size), plan.items, workers, f"{dataset} -> {out}", unit)
    except OSError as error:  # damaged raw files have become UserErrors: this one is about writing
        raise UserError(f"{out}: cannot be written ({error}); free some space, or choose another out") from error
    bad = [(item, result) for item, result in results if isinstance(result, UserError)]
    refused = [error for item, error in bad if not _known(plan, item, error)]
    if refused and not (allow_partial and len(bad) < len(results)):
        raise UserError(
            f"{refused[0]} ({len(refused)} of {len(results)} {unit} are bad; allow_partial=true leaves them out)"
        )
    good = {item: result for item, result in results if not isinstance(result, UserError)}
    if not good:
        raise UserError(f"{bad[0][1]} (no other of {raw} is good)")
    _check_strangers(out, list(good))
    _check_out(out, dataset, shaping)  # another prepare.py may have begun in the same folder meanwhile
    sizes = {written.size for written in good.values()}
    dropped = plan.dropped + [(item.listed, str(error)) for item, error in bad]
    grey = sum(written.grey for written in good.values())
    return record(list(good), dropped, sizes.pop() if len(sizes) == 1 else None, grey)


def _known(plan: Plan, item: Item, error: UserError) -> bool:
    """Whether the official release itself has this fault."""
    return item.name in plan.known_bad or (plan.drop_constant and isinstance(error, OneColour))


def _in_parallel(
    writer: Writer, items: list[Item], workers: int, title: str, unit: str
) -> list[tuple[Item, Written | UserError]]:
    """Every item with what became of it, in order."""

    def work(item: Item) -> tuple[Item, Written | UserError]:
        try:
            return item, writer(item)
        except UserError as error:
            return item, error

    with ThreadPoolExecutor(max(1, workers)) as pool:  # Pillow decodes and encodes outside the GIL
        return list(tqdm(pool.map(work, items), total=len(items), desc=title, unit=unit[:-1], disable=None))


def _by_split(items: list[Item]) -> dict[str, list[str]]:
    """Names of every split that has any."""
    splits = {split: [item.listed for item in items if item.split == split] for split in SPLITS}
    return {split: names for split, names in splits.items() if names}


def _listed(size: Size | None) -> list[int] | None:
    """As JSON has it."""
    return None if size is None else list(size)


def _check_out(out: Path, dataset: str, shaping: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest of an earlier run, if any. Raises: UserError where it is of another data set, or made otherwise."""
    old = read_manifest(out)
    if old is None:
        return None
    made = {key: value for key, value in old["options"].items() if key != "allow_partial"}
    if (old["dataset"], made) != (dataset, dict(shaping)):
        said, wanted = (", ".join(f"{key}={value}" for key, value in options.items()) for options in (made, shaping))
        raise UserError(
            f"{out / FILE}: is of {old['dataset']} with {said}, not of {dataset} with {wanted}; choose another out, or"
            " remove it"
        )
    return old


def _check_foreign(out: Path, items: list[Item], old: Mapping[str, Any] | None) -> None:
    """Refuses to write over files that no manifest lists: an earlier run lists all before it writes any."""
    listed = {split: set(record["names"]) for split, record in (old or {"splits": {}})["splits"].items()}
    there: dict[Path, set[str]] = {}
    for item in items:
        if item.listed in listed.get(item.split, ()):
            continue
        for side in item.files:
            folder = out / item.split / side
            if folder not in there:
                there[folder] = {path.stem for path in folder.iterdir()} if folder.is_dir() else set()
            if item.name in there[folder]:
                raise UserError(
                    f"{folder}: holds {item.name}, which prepare.py did not write ({FILE} does not list it); choose"
                    " another out, or move it away"
                )


def _check_plan(plan: Plan, allow_partial: bool, unit: str) -> None:
    """Counts of the official release, and no name twice, be it in one split or in two."""
    for split, wanted in plan.expected.items():
        found = plan.source_counts.get(split, 0)
        if found != wanted and not allow_partial:
            raise UserError(
                f"raw split {split}: {found} {unit}, the official release has {wanted}; complete the download, or set"
                " allow_partial=true"
            )
    seen: dict[str, Item] = {}
    for item in plan.items:
        if (other := seen.setdefault(item.listed, item)) is not item:
            raise UserError(f"{item.origin}: has the name of {other.origin}; names must differ, remove one of them")
    if not plan.items:
        raise UserError(f"raw= holds no {unit} at all; complete the download")


def _check_strangers(out: Path, items: list[Item]) -> None:
    """Refuses files that this command did not write: a reader would take them for part of the data set."""
    for side in sorted({side for item in items for side in item.files}):
        for split in SPLITS:
            folder = out / split / side
            names = {item.name for item in items if item.split == split and side in item.files}
            strange = sorted(find_images(folder).keys() - names) if folder.is_dir() else []
            if strange:
                raise UserError(
                    f"{folder}: {len(strange)} files do not belong here ({first_names(strange)}); remove them, or"
                    " choose another out"
                )
