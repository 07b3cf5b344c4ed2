"""Measure a run, `python evaluate.py checkpoint=RUN`, or any two folders, `python evaluate.py fake=FOLDER real=FOLDER`.

Images are rendered to a folder first and folders are measured, so that a run and a baseline are measured alike.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

import records
from engine.config import register
from engine.launch import CONFIGS, entry, launch
from engine.paths import check_checkpoint, check_folder, check_segmenter, data_root
from errors import UserError
from files import refuse_overlap

FOLDERS = ("fake", "real", "labels", "train_real", "depth", "train_depth")  # keys of folders that are only read


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Measure two folders of images, or a run, as the config says; returns the report. Under torchrun ranks share it.

    Raises:
        UserError: when a folder, a metric or a weight file is not there, or the report cannot be written.
    """
    if cfg.compare is not None:
        return compare(cfg)
    check_paths(cfg)
    import torch

    from engine.checkpoint import Loaded
    from engine.distributed import ranks
    from engine.trust import Trust

    with ranks(torch.device("cpu")):  # gloo also beside GPUs: little is exchanged, and a rank may wait long
        if cfg.checkpoint is not None:
            trust = Trust.of(cfg)
            if cfg.which == "kept":
                return evaluate_kept(cfg, trust)
            return evaluate_run(cfg, Loaded.open(cfg.checkpoint, cfg.which, cfg.dataset, trust))
        fake = Path(cfg.fake).expanduser()
        out = Path(cfg.out).expanduser() if cfg.out else fake.resolve().parent / "eval" / f"{fake.resolve().name}.json"
        return report(cfg, fake, Path(cfg.real).expanduser(), out)


def check_paths(cfg: DictConfig) -> None:
    """Raises: UserError for paths that are missing or do not go together, before anything heavy is imported."""
    if cfg.checkpoint is not None:
        if cfg.fake is not None or cfg.real is not None:
            raise UserError("checkpoint= came with fake= or real=; give a run, or two folders")
        if cfg.which == "kept":
            check_folder("checkpoint", cfg.checkpoint, "a run folder")
        else:
            check_checkpoint(cfg.checkpoint, cfg.which)
    else:
        for key in ("fake", "real"):
            if cfg[key] is None:
                raise UserError(
                    f"{key}=FOLDER is missing: evaluate.py takes checkpoint=RUN, or fake=FOLDER real=FOLDER of images"
                )
    for key in FOLDERS:
        check_folder(key, cfg[key])
    check_segmenter(cfg.segmenter)
    if cfg.out is not None:
        if Path(cfg.out).expanduser().is_dir():
            raise UserError(f"out={cfg.out}: is a folder; a file name ending in .json was wanted")
        refuse_overlap("out", Path(cfg.out), {key: _path(cfg[key]) for key in (*FOLDERS, "segmenter")})


def evaluate_kept(cfg: DictConfig, trust: Any) -> dict[str, Any]:
    """Measure every step_*.pt of a run (train.keep) and report the best as such; returns that report.

    The best is by the first number of the first metric. With split=test this is what papers do that print the best of
    their epochs; the report's selection says so, best(fid, test), and lies beside that of the last checkpoint as
    eval/<step>-best-<split>.json. Those of all checkpoints are in eval/kept/.
    """
    from engine.checkpoint import Loaded
    from metrics.catalogue import METRICS, choose, merit
    from metrics.ranks import rank

    folder = Path(cfg.checkpoint).expanduser()
    files = sorted(folder.glob("step_*.pt"))
    if not files:
        raise UserError(
            f"which=kept: checkpoint={cfg.checkpoint} holds no step_*.pt; give a run folder, trained with train.keep=K "
            "for the newest K of those saved every train.save_every steps"
        )
    row = METRICS[choose(list(cfg.metrics) if OmegaConf.is_list(cfg.metrics) else [cfg.metrics])[0]].rows[0]
    entries = {}
    for file in files:
        loaded = Loaded.open(str(file), dataset=cfg.dataset, trust=trust)
        entries[file] = evaluate_run(cfg, loaded, quiet=True, place="kept")["metrics"][row]
        if rank() == 0:
            print(f"step {loaded.step}: {row} {entries[file]['value']:.4f}")
    chosen = max(files, key=lambda file: merit(entries[file]))
    best = Loaded.open(str(chosen), dataset=cfg.dataset, trust=trust)
    return evaluate_run(cfg, best, chosen=f"best({row}, {cfg.split})")


def forget(folder: Path, pattern: str) -> None:
    """Remove the reports and pictures of an earlier choice."""
    for file in sorted(folder.glob(pattern)):
        file.unlink()


def evaluate_run(
    cfg: DictConfig, loaded: Any, quiet: bool = False, place: str = "", chosen: str | None = None
) -> dict[str, Any]:
    """Render a split with the generator of `loaded` (engine.checkpoint) and measure it; returns the report.

    Another evaluation of the same images of this run, of which training may be one, is waited for.

    Beside the checkpoint appear eval/<step>.json, eval/<step>.png (source | generated | real) and eval/images/, which
    holds the generated images, the real ones and label maps as the data set's own loader sizes them, and a random
    sample of training images for the floors. For another split than test, or some of its images only, the same lies in
    eval/<split>-<images>/.

    Args:
        quiet: no table, no picture, and the generated images are kept until the next time only.
        place: folder below eval/ for all of this.
        chosen: how this checkpoint was selected, where the file itself does not say; it ends the report's name.
    """
    from engine.lock import FolderLock
    from metrics.ranks import once

    folder = loaded.path.parent / "eval"
    if cfg.split != "test" or cfg.images is not None:
        folder = folder / f"{cfg.split}-{cfg.images or 'all'}"
    folder = folder / place
    refuse_overlap("checkpoint", folder, {"dataset.root": data_root(loaded.cfg)})
    lock = FolderLock(folder / ".lock", "an evaluation", "wait for its end")
    try:
        once(lock.wait)
        return _evaluate_run(cfg, loaded, folder, quiet, chosen)
    finally:
        lock.release()


def _evaluate_run(cfg: DictConfig, loaded: Any, folder: Path, quiet: bool, chosen: str | None) -> dict[str, Any]:
    """`evaluate_run` in its folder, which no other evaluation writes to meanwhile."""
    import outputs
    from engine.build import build_dataset
    from engine.distributed import barrier, choose_device
    from engine.record import grid, save_image
    from engine.render import (
        Picked,
        compare_rows,
        load_generator,
        names_of,
        render,
        sample,
        spread,
        untrained_generator,
        write_examples,
    )
    from metrics.ranks import once, rank, share
    from results.paper import paper_row
    from results.shapes import cited

    run, device = loaded.cfg, choose_device(cfg.device)
    data, whole = split_of(run, cfg.split), cfg.split == "test" and cfg.images is None
    if chosen is not None:
        once(forget, folder, f"*-best-{cfg.split}.*")  # the choice among fewer checkpoints, or by another metric
    numbers = spread(len(data.sources()), cfg.images)
    sources, reals = Picked(data.sources(), numbers), Picked(data.reals(), spread(len(data.reals()), cfg.images))
    measured = any(folder.glob("*.json"))  # before, perhaps by a version that left no lists
    images, written = folder / "images", list[tuple[Path, list[str], dict[str, Any]]]()
    origin: dict[str, Any] = {
        "checkpoint": str(loaded.path),
        "split": cfg.split,
        "selection": chosen or loaded.selection,
        "data_root": getattr(data, "root", None),
    }

    def kept(name: str, items: Any) -> list[int]:
        """Begin a folder of images, which holds nothing but `items` in the end; returns those of this rank."""
        note = images / name, [f"{item}.png" for item in names_of(items)], {"split": cfg.split, "of": name}
        once(outputs.start, None, *note, adopt=measured)
        written.append(note)
        return share(len(items), 1)

    write_examples(reals, kept("real", reals), images / "real")
    if data.scored_labels:
        write_examples(sources, kept("labels", sources), images / "labels", "label")
    if cfg.floor:
        seen = build_dataset(run, "train", augment=False).reals()
        taken = Picked(seen, sample(len(seen), len(reals), cfg.seed))
        write_examples(taken, kept("train", taken), images / "train")
    name = f"{loaded.step}-best-{cfg.split}" if chosen else loaded.name
    generators: dict[str, Any] = {name: load_generator}
    if cfg.untrained:
        generators = {"untrained": untrained_generator, **generators}
    places = cited(OmegaConf.to_container(run.paper, resolve=True)) if whole and run.paper is not None else []
    row = next((paper_row(p["paper"], p["table"], p["row"], run.dataset.name, p["x"]) for p in places[:1]), None)
    fixed = (cfg.get("segmentation") or {}).get("class_map") is not None
    derived = OmegaConf.create(
        {
            "train_real": str(images / "train") if cfg.floor else None,
            "labels": str(images / "labels") if data.scored_labels else None,
            "score_map": None if fixed else getattr(data, "score_map", None),
            **depth_of(run.dataset, cfg.split),
            "trained_against": loaded.state["encoder"],
        }
    )
    cfg = cast(DictConfig, OmegaConf.merge(cfg, {key: value for key, value in derived.items() if cfg[key] is None}))
    found: dict[str, Any] = {}
    for name, make in generators.items():
        generator, folder_name = make(loaded, device), "training" if quiet else name
        fakes, turns = images / folder_name, Picked(sources, kept(folder_name, sources))
        render(generator, loaded.inputs, turns, fakes, device, 1)  # in float32, one by one: batches round differently
        barrier()  # every rank has written its share
        while written:
            once(outputs.finish, None, *written.pop())
        if not quiet and rank() == 0:
            shown = [numbers[at] for at in spread(len(numbers), cfg.shown)]
            rows = compare_rows(data, shown, fakes, loaded.inputs, run.dataset.name)
            save_image(grid(rows), folder / f"{name}.png")
            print(f"\n{name if name == 'untrained' else f'step {name}'} of {loaded.path.parent}")
        step = 0 if name == "untrained" else loaded.step
        found = report(cfg, fakes, images / "real", folder / f"{name}.json", row, quiet, step=step, **origin)
        if not quiet and rank() == 0:
            print(folder / f"{name}.png")
    return found


def in_training(run: DictConfig) -> DictConfig:
    """The config of evaluate.py by which a run measures itself: this file's own, with what `evaluate` of the run says.

    Raises: UserError for a metric that there is not.
    """
    from metrics.catalogue import choose

    own = OmegaConf.load(CONFIGS / "evaluate.yaml")
    asked = {key: run.evaluate[key] for key in ("split", "images", "metrics", "segmenter", "batch_size")}
    choose(run.evaluate.metrics)
    shared = {"weights_dir": run.weights_dir, "offline": run.offline, "device": run.train.device, "trust": run.trust}
    shared["floor"] = False
    known = {key: value for key, value in own.items() if key not in ("defaults", "hydra")}
    return cast(DictConfig, OmegaConf.merge(known, asked, shared))


def split_of(run: DictConfig, split: str) -> Any:
    """A split of a run's data set, as it is measured. Raises: UserError for one that it has not, with the cure."""
    from data.folders import MissingSplit
    from engine.build import build_dataset

    try:
        return build_dataset(run, split, augment=False)
    except MissingSplit as error:
        raise UserError(
            f"split={split}: {error}; choose split=test (in training evaluate.split=test, by which best.pt is then "
            "chosen and labelled)"
        ) from error


def compare(cfg: DictConfig) -> dict[str, Any]:
    """Two reports side by side; refused, naming the fields, where they were measured by different protocols."""
    from metrics import protocol

    if not OmegaConf.is_list(cfg.compare) or len(cfg.compare) != 2:
        raise UserError(f"compare={cfg.compare}: two reports were wanted, compare=[A.json,B.json]")
    a, b = (protocol.read(Path(path).expanduser()) for path in cfg.compare)
    found = protocol.compare(a, b, cfg.force)
    for name, row in found.items():
        numbers = ["null" if row[key] is None else f"{row[key]:.4f}" for key in ("a", "b", "difference")]
        print(f"{name:20}" + "".join(f"{number:>14}" for number in numbers) + f"  better: {row['better'] or '-'}")
    return found


def depth_of(dataset: DictConfig, split: str) -> dict[str, Any]:
    """The settings of the depth metrics for a run whose data set shows depth in colours; null for another."""
    if dataset.get("depth") is None:
        return dict.fromkeys(("depth", "train_depth", "colormap", "far"))
    folders = [str(Path(dataset.root) / part / "depth") for part in (split, "train")]
    return {"depth": folders[0], "train_depth": folders[1], "colormap": dataset.depth, "far": dataset.get("far")}


def report(
    cfg: DictConfig,
    fake: Path,
    real: Path,
    out: Path,
    paper_row: Mapping[str, Any] | None = None,
    quiet: bool = False,
    **origin: Any,
) -> dict[str, Any]:
    """Measure, write the report to `out`, print the table and the path; `origin` is what `measure` takes of the run.

    A report that is there already and is of the same images keeps those of its metrics that were not measured now.
    """
    from engine.distributed import choose_device
    from metrics import protocol
    from metrics.cache import default_folder
    from metrics.depth_images import FAR, Truth
    from metrics.images import image_files
    from metrics.measure import measure, table
    from metrics.ranks import once, rank
    from metrics.rules import Rule

    try:
        if not origin:
            refuse_foreign(out)
    except OSError as error:  # such as a name that is too long
        raise UserError(f"out={out}: cannot be written ({error.strerror}); choose another out") from error
    metrics = list(cfg.metrics) if OmegaConf.is_list(cfg.metrics) else [cfg.metrics]
    found = measure(
        fake,
        real,
        metrics,
        labels=_path(cfg.labels),
        segmenter=_path(cfg.segmenter),
        trust=bool(cfg.get("trust", False)),
        rule=Rule.of(cfg.get("segmentation")),
        score_map=None if cfg.score_map is None else list(cfg.score_map),
        depth=None
        if cfg.depth is None
        else Truth(
            Path(cfg.depth).expanduser(),
            _path(cfg.train_depth),
            cfg.colormap or "turbo",
            FAR if cfg.far is None else float(cfg.far),
            cfg.depth_pooled,
        ),
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
        cache=default_folder() if cfg.cache == "auto" else _path(cfg.cache),
        **origin,
    )
    found["subject"]["content_sha256"] = once(protocol.content_sha256, fake, image_files(fake, "fake"))
    once(write, found, out)
    if not quiet and rank() == 0:
        print(f"{table(found, paper_row)}\n{out}")
    return found


def refuse_foreign(out: Path) -> None:
    """Raises: UserError where a file would be overwritten that is no report, of whatever version; a run's own are."""
    try:
        known = isinstance(records.load(out)["schema"], int)
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise UserError(f"out={out}: would be overwritten, but is no report; choose another out=, or move it away")


def write(found: dict[str, Any], out: Path) -> None:
    """Write a report, together with the metrics of an earlier one of the same generated and real images."""
    from metrics import protocol
    from metrics.catalogue import METRICS

    try:
        old = protocol.read(out)
        alike = all(_but_metrics(old)[key] == value for key, value in _but_metrics(found).items())
        kept = {name: block for name, block in old["protocol"]["metrics"].items() if alike}
        kept = {name: block for name, block in kept.items() if name not in found["protocol"]["metrics"]}
        entries = {row: old["metrics"][row] for name in kept for row in METRICS[name].rows}
        whole = {
            **found,
            "protocol": {**found["protocol"], "metrics": {**found["protocol"]["metrics"], **kept}},
            "metrics": {**found["metrics"], **entries},
            "warnings": list(dict.fromkeys([*found["warnings"], *(old["warnings"] if kept else [])])),
        }
        whole["rows"] = protocol.rows(whole)
    except (UserError, KeyError):  # none, of another version, or damaged: replaced
        whole = {**found, "rows": protocol.rows(found)}
    protocol.write(whole, out)


def _but_metrics(report: dict[str, Any]) -> dict[str, Any]:
    """What two reports must share to be one: subject, floor's sample and protocol."""
    shared = {key: value for key, value in report["protocol"].items() if key != "metrics"}
    return {"subject": report["subject"], "floor": report["floor"], **shared}


def _path(value: str | None) -> Path | None:
    return None if value is None else Path(value).expanduser()


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    """The command line."""
    evaluate(cfg)


register()
if __name__ == "__main__":
    launch(main)
