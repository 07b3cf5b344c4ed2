"""Run folders to tables and a page: `python report.py runs=checkpoints/cfl-table1-*`.

Writes results.md, results.csv, results.tex and report.html, one file that needs no network and no other file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from engine.config import register
from engine.launch import entry, launch
from errors import UserError


def report(cfg: DictConfig) -> Path:
    """Read the runs, write the four files; returns the path of the page.

    Raises:
        UserError: for a path without runs, a value out of range, or a folder that cannot be written.
    """
    from engine.trust import Trust
    from results.collect import collect
    from results.page import page
    from results.sections import sections, warnings_of
    from results.tables import comma_separated, latex, markdown

    images = None if cfg.images == "all" else int(cfg.images)
    paths = list(cfg.runs) if OmegaConf.is_list(cfg.runs) else [cfg.runs]
    collection = collect([str(path) for path in paths])
    out = _out(cfg.out, paths, [run.folder for run in collection.runs])
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
        "results.md": text,
        "results.csv": comma_separated(made, cfg.note),
        "results.tex": latex(made, cfg.note),
        "report.html": html,
    }
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


def _write(out: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        part = out / f".{name}.part"
        try:
            out.mkdir(parents=True, exist_ok=True)
            part.write_text(text)
            part.replace(out / name)
        except OSError as error:
            raise UserError(f"{out / name}: cannot be written ({error.strerror or error}); set out=FOLDER") from error


@entry("report")
def main(cfg: DictConfig) -> None:
    """The command line."""
    report(cfg)


register()
if __name__ == "__main__":
    launch(main)
