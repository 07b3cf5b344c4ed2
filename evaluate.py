"""Measure a run, `python evaluate.py checkpoint=RUN`, or any two folders, `python evaluate.py fake=FOLDER real=FOLDER`.

Images are rendered to a folder first and folders are measured, so that a run and a baseline are measured alike.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from engine.config import register
from engine.launch import entry, launch
from errors import UserError


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Measure two folders of images as the config says; returns the report.

    Raises:
        UserError: when a folder, a metric or a weight file is not there, or the report cannot be written.
    """
    if cfg.checkpoint is not None:
        if cfg.fake is not None or cfg.real is not None:
            raise UserError("checkpoint= came with fake= or real=; give a run, or two folders")
        return evaluate_run(cfg)
    for key in ("fake", "real"):
        if cfg[key] is None:
            raise UserError(
                f"{key}=FOLDER is missing: evaluate.py takes checkpoint=RUN, or fake=FOLDER real=FOLDER of images"
            )
    fake = Path(cfg.fake).expanduser()
    out = Path(cfg.out).expanduser() if cfg.out else fake.resolve().parent / "eval" / f"{fake.resolve().name}.json"
    return report(cfg, fake, Path(cfg.real).expanduser(), out)


def evaluate_run(cfg: DictConfig) -> dict[str, Any]:
    """Render the test split with a checkpoint's generator and measure it; returns the report.

    Beside the checkpoint appear eval/<step>.json, eval/<step>.png (source | generated | real) and eval/images/, which
    holds the generated images, the real ones and label maps as the data set's own loader sizes them, and a random
    sample of training images for the floors.
    """
    from engine.build import build_dataset
    from engine.checkpoint import Loaded
    from engine.distributed import choose_device
    from engine.record import grid, save_image
    from engine.render import compare_rows, load_generator, render, sample, untrained_generator, write_examples
    from results.paper import paper_row

    loaded = Loaded.open(cfg.checkpoint)
    run, device, folder = loaded.cfg, choose_device(cfg.device), loaded.path.parent / "eval"
    test, train = build_dataset(run, "test", augment=False), build_dataset(run, "train", augment=False)
    images, sources, reals = folder / "images", test.sources(), test.reals()
    write_examples(reals, range(len(reals)), images / "real")
    if test.scored_labels:
        write_examples(sources, range(len(sources)), images / "labels", "label")
    seen = train.reals()
    write_examples(seen, sample(len(seen), len(reals), cfg.seed), images / "train")
    generators = {str(loaded.step): load_generator}
    if cfg.untrained:
        generators = {"untrained": untrained_generator, **generators}
    row = None if run.paper is None else paper_row(run.paper.paper, run.paper.table, run.paper.row, run.dataset.name)
    derived = OmegaConf.create(
        {
            "train_real": str(images / "train"),
            "labels": str(images / "labels") if test.scored_labels else None,
            "score_map": getattr(test, "score_map", None),
            "trained_against": loaded.state["encoder"],
        }
    )
    cfg = OmegaConf.merge(cfg, {key: value for key, value in derived.items() if cfg[key] is None})
    found: dict[str, Any] = {}
    for name, make in generators.items():
        generator = make(loaded, device)
        render(generator, loaded.inputs, sources, images / name, device, cfg.batch_size)  # float32
        shown = [index * len(sources) // cfg.shown for index in range(min(cfg.shown, len(sources)))]
        save_image(
            grid(compare_rows(test, shown, images / name, loaded.inputs, run.dataset.name)), folder / f"{name}.png"
        )
        step = loaded.step if name != "untrained" else 0
        print(f"\n{name if name == 'untrained' else f'step {name}'} of {loaded.path.parent}")
        origin = {"checkpoint": str(loaded.path), "step": step, "selection": loaded.path.stem}
        found = report(cfg, images / name, images / "real", folder / f"{name}.json", row, **origin)
        print(folder / f"{name}.png")
    return found


def report(
    cfg: DictConfig, fake: Path, real: Path, out: Path, paper_row: Mapping[str, Any] | None = None, **origin: Any
) -> dict[str, Any]:
    """Measure, write the report to `out`, print the table and the path; `origin` is checkpoint, step and selection."""
    from engine.distributed import choose_device
    from metrics import protocol
    from metrics.measure import measure, table

    if out.is_dir():
        raise UserError(f"out={out}: is a folder; a file name ending in .json was wanted")
    for key, least in (("batch_size", 1), ("workers", 0), ("seed", 0)):
        if not isinstance(cfg[key], int) or cfg[key] < least:
            raise UserError(f"{key}={cfg[key]}: a whole number from {least} was wanted")
    metrics = OmegaConf.to_container(cfg.metrics) if OmegaConf.is_list(cfg.metrics) else [cfg.metrics]
    found = measure(
        fake,
        real,
        metrics,
        labels=_path(cfg.labels),
        segmenter=_path(cfg.segmenter),
        score_map=None if cfg.score_map is None else list(cfg.score_map),
        train_real=_path(cfg.train_real),
        device=choose_device(cfg.device),
        batch_size=cfg.batch_size,
        workers=cfg.workers,
        weights_dir=_path(cfg.weights_dir),
        offline=cfg.offline,
        seed=cfg.seed,
        trained_against=cfg.trained_against,
        real_size=cfg.real_size,
        swd_count=cfg.swd_count,
        minimum_ceiling=cfg.minimum_ceiling,
        **origin,
    )
    protocol.write(found, out)
    print(f"{table(found, paper_row)}\n{out}")
    return found


def _path(value: str | None) -> Path | None:
    return None if value is None else Path(value).expanduser()


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    """The command line."""
    evaluate(cfg)


register()
if __name__ == "__main__":
    launch(main)
