"""Run folders to tables and a page: `python report.py runs=checkpoints/cfl-table1-*`.

Writes results.md, results.csv, results.tex and report.html, one file that needs no network and no other file.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from engine.config import register
from engine.launch import entry, launch
from engine.paths import check_runs
from errors import UserError
from files import refuse_overlap, write_text

OWN = ("eval", "samples", "analysis", "tensorboard", "test", "profile")  # folders of a run that its other commands fill


def report(cfg: DictConfig) -> Path:
    """Read the runs, write the four files; returns the path of the page.

    Raises:
        UserError: for a path without runs, a value out of range, or a folder that cannot be written.
    """
    from engine.trust import Trust

    paths = list(cfg.runs) if OmegaConf.is_list(cfg.runs) else [cfg.runs]
    check_runs([str(path) for path in paths])
    from results.collect import collect
    from results.page import page
    from results.sections import sections, warnings_of
    from results.tables import comma_separated, latex, markdown

    images = None if cfg.images == "all" else int(cfg.images)
    collection = collect([str(path) for path in paths])
    out = _out(cfg.out, paths, [run.folder for run in collection.runs])
    _refuse_inputs(out, collection.runs)
    made = sections(collection)
    html = page(
        collection,
        made,
        out=out,
        title=cfg.title,
        note=cfg.note,
        images=images,
        columns=cfg.columns,
        quality=cfg.quality,
        trust=Trust.of(cfg),
    )
    warnings = [*dict.fromkeys([*collection.warnings, *warnings_of(made)])]
    text = markdown(made, cfg.title, cfg.note, warnings)
    files = {
        "results.csv": comma_separated(made, cfg.note),  # first: by it the folder is known as ours
        "results.md": text,
        "results.tex": latex(made, cfg.note),
        "report.html": html,
    }
    _refuse_foreign(out, files)
    _write(out, files)
    print(text)
    print(out / "report.html")
    return out / "report.html"


def _out(wanted: str | None, paths: list[Any], folders: list[Path]) -> Path:
    """The folder of the report: as asked for, the one folder that `runs` names, or the runs' common one."""
    if wanted is not None:
        return Path(wanted).expanduser()
    if len(paths) == 1 and (only := Path(paths[0]).expanduser()).is_dir():
        return only
    shared = [folder.parent for folder in folders]
    return next(place for place in [shared[0], *shared[0].parents] if all(f.is_relative_to(place) for f in folders))


def _refuse_inputs(out: Path, runs: Sequence[Any]) -> None:
    """Raises: UserError where the report would lie among data, or among what other commands made in a run's folder.

    It may lie in the run's folder itself, and hold the runs.
    """
    target = out.resolve()
    for run in runs:
        root = run.config["dataset"].get("root")
        places = {f"{run.folder}/{name}": run.folder / name for name in OWN}
        places |= {"dataset.root": Path(root).expanduser()} if isinstance(root, str) else {}
        below = {name: place for name, place in places.items() if target.is_relative_to(place.resolve())}
        refuse_overlap("out", out, below)


def _refuse_foreign(out: Path, files: Mapping[str, str]) -> None:
    """Raises: UserError where a file would be overwritten and the folder holds no report of ours, by results.csv."""
    csv = out / "results.csv"
    head = files["results.csv"].partition("\n")[0]
    if csv.is_file() and csv.read_bytes().startswith(f"{head}\n".encode()):
        return
    for name in files:
        if os.path.lexists(out / name):
            raise UserError(f"{out / name}: would be overwritten, but is of no report; choose another out=FOLDER")


def _write(out: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        try:
            out.mkdir(parents=True, exist_ok=True)
            write_text(out / name, text)
        except OSError as error:
            raise UserError(f"{out / name}: cannot be written ({error.strerror or error}); set out=FOLDER") from error


@entry("report")
def main(cfg: DictConfig) -> None:
    """The command line."""
    report(cfg)


register()
if __name__ == "__main__":
    launch(main)
