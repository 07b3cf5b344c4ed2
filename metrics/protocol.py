"""The report of an evaluation: values together with the protocol that they were measured by, and how two are compared.

Numbers of this field disagree mostly by unstated protocol: which real images, how many, which resize, which file
format, which network, whether unlabelled pixels count (Parmar et al. 2022, arXiv:2104.11222, for the resize alone). So
a report says all of it, and two reports whose protocols differ are not compared silently.

A report is one JSON object, schema 1; keys are only ever added, a change of meaning raises the number:

    schema     1
    subject    what was measured: fake, real (folders), checkpoint, step, split, trained_against (weights of the run's
               encoder)
    protocol   how, all that two comparable reports share:
      fake       n, sizes {"WxH": count}, formats {"PNG": count}
      real       the same of the real images as they lie, resize ("none" or a rule), manifest_sha256 (of the data set's
                 manifest.json, null without), content_sha256 (of names and bytes)
      selection  "last", "best(fid, val)", ... of the checkpoint; null for a folder
      metrics    a block per metric: network, weights_sha256, resize rule, seeds, versions {package: version}, ...
    floor      the sample of real training images behind the floors: n, seed, content_sha256; null without
    metrics    one entry per number, such as fid, swd, miou:
      value      better ("lower", "higher", or "real": the nearer to the entry's `real`), and where they exist
      floor      lower is better: of real training images against the real ones; segmentation: of shuffled images
                 depth: of the true depth, coloured and read back
      ceiling    segmentation: of the real images        real    appearance: of the real images
      constant   depth: of the training images' mean depth everywhere
      standard_error, sd, n, levels, iou, ...            beside
    warnings   lines of text
    rows       the numbers once more, each with all that a table of many reports needs to tell them apart (see `rows`)

Nothing in a report depends on time, batch size, number of workers or number of ranks: measuring again gives the same
file, but for the last digits that other batches, or another machine, round differently.
"""

import hashlib
import json
import math
from importlib import metadata
from pathlib import Path
from typing import Any

from errors import UserError
from files import write_text
from metrics.catalogue import METRICS
from metrics.images import Survey
from records import OPTIONAL, Shape, check_shape, load, one_line

SCHEMA = 1
Report = dict[str, Any]
ENTRY: dict[str, Shape] = {
    "value": OPTIONAL, "better": str, "floor?": OPTIONAL, "ceiling?": OPTIONAL, "real?": OPTIONAL,
}  # fmt: skip
SHAPE: dict[str, Shape] = {
    "subject": {"fake": str, "step?": (int, type(None))},
    "protocol": {"metrics": {"*": dict}, "selection?": (str, type(None))},
    "metrics": {"*": ENTRY},
    "warnings": [str],
}
BETTER = ("lower", "higher", "real")


def folder_block(files: list[Path], found: Survey) -> dict[str, Any]:
    """The protocol of a folder: number, sizes and formats of its images."""
    return {"n": len(files), "sizes": found.sizes, "formats": found.formats}


def content_sha256(folder: Path, files: list[Path]) -> str:
    """SHA-256 over relative names and bytes of the files, in their order."""
    total = hashlib.sha256()
    for path in files:
        name = path.relative_to(folder).as_posix().encode(errors="surrogateescape")  # names need not be UTF-8
        total.update(name + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def manifest_sha256(folder: Path) -> str | None:
    """SHA-256 of the manifest.json in the folder or up to two folders above ({split}/{target} of a data set)."""
    resolved = folder.resolve()
    for place in (resolved, *resolved.parents[:2]):
        if (place / "manifest.json").is_file():
            return hashlib.sha256((place / "manifest.json").read_bytes()).hexdigest()
    return None


def versions(*packages: str) -> dict[str, str]:
    """Installed versions by distribution name; "absent" where one is not installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def rows(report: Report) -> list[dict[str, Any]]:
    """A flat record per number: metric, value, n (generated, real), seeds, size of the images, network and its weights'
    hash, versions, hash of the data set's manifest, checkpoint, step, split, selection; None for what it has not.
    """
    shared, subject = report["protocol"], report["subject"]
    found = []
    for metric, block in shared["metrics"].items():
        for name in METRICS[metric].rows:
            found.append(
                {
                    "metric": name,
                    "value": report["metrics"][name]["value"],
                    "n": [shared["fake"]["n"], shared["real"]["n"]],
                    "seeds": block.get("seeds"),
                    "size": " ".join(shared["fake"]["sizes"]),
                    "network": block.get("network", block.get("segmenter")),
                    "weights_sha256": block.get("weights_sha256"),
                    "versions": block["versions"],
                    "manifest_sha256": shared["real"]["manifest_sha256"],
                    **{key: subject[key] for key in ("checkpoint", "step", "split")},
                    "selection": shared["selection"],
                }
            )
    return found


def write(report: Report, path: Path) -> None:
    """Write a report as JSON, whole or not at all; a number that is not finite becomes null.

    Raises: UserError where the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(_finite(report), indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"out={path}: cannot be written ({error.strerror or error})") from error


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check(report: Any) -> None:
    """Raises: ValueError for anything but a report of this schema."""
    schema = report.get("schema") if isinstance(report, dict) else None
    if schema != SCHEMA or isinstance(schema, bool):
        raise ValueError(f"schema {str(schema)[:40]}; {SCHEMA} was wanted, measure again")
    check_shape(report, SHAPE)
    for name, entry in report["metrics"].items():
        if entry["better"] not in BETTER:
            raise ValueError(f"metrics.{name}.better is {entry['better'][:40]!r}; wanted {', '.join(BETTER)}")


def read(path: Path) -> Report:
    """A report from its file. Raises: UserError for a missing file, no JSON, or another schema or shape."""
    try:
        report: Report = load(path)
        check(report)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a report ({one_line(error)})") from error
    return report


def differences(a: Report, b: Report) -> dict[str, tuple[Any, Any]]:
    """Fields by dotted name whose values differ between two protocols, of the metrics that both reports have."""
    shared = a["protocol"]["metrics"].keys() & b["protocol"]["metrics"].keys()
    flat = []
    for report in (a, b):
        protocol = report["protocol"]
        flat.append(_flatten({**protocol, "metrics": {name: protocol["metrics"][name] for name in sorted(shared)}}))
    names = dict.fromkeys([*flat[0], *flat[1]])
    return {n: (flat[0].get(n), flat[1].get(n)) for n in names if flat[0].get(n) != flat[1].get(n)}


def _flatten(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flatten(inner, f"{name}.{key}" if name else str(key))
    return flat


def compare(a: Report, b: Report, force: bool = False) -> dict[str, dict[str, Any]]:
    """The numbers that two reports share, side by side.

    Args:
        force: compare although the protocols differ.
    Returns: {metric: {a, b, difference = b - a, better: "a", "b", or None where equal, unknown or without direction}}.
    Raises: UserError for protocols that differ, naming the fields, and for reports without a common metric.
    """
    differing = differences(a, b)
    if differing and not force:
        shown = "; ".join(f"{name} ({x} against {y})" for name, (x, y) in list(differing.items())[:5])
        more = f" and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise UserError(
            f"the reports were measured by different protocols: {shown}{more}; force=true compares nevertheless"
        )
    shared = [name for name in a["metrics"] if name in b["metrics"]]
    if not shared:
        raise UserError(f"the reports share no metric: {', '.join(a['metrics'])} against {', '.join(b['metrics'])}")
    rows = {}
    for name in shared:
        x, y = a["metrics"][name]["value"], b["metrics"][name]["value"]
        better, sign = None, {"lower": 1, "higher": -1}.get(a["metrics"][name]["better"], 0)
        if x is not None and y is not None and sign * (x - y):
            better = "b" if sign * (x - y) > 0 else "a"
        rows[name] = {"a": x, "b": y, "difference": None if x is None or y is None else y - x, "better": better}
    return rows
