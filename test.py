"""Translate: `python test.py checkpoint=PATH [input=FOLDER] [output=FOLDER]`; one PNG per input under the same name."""

import re
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from engine.config import Precision, register
from engine.launch import entry, launch
from engine.paths import check_checkpoint, check_input, data_root
from errors import UserError
from files import refuse_overlap


def test(cfg: DictConfig) -> Path:
    """Render every input with a checkpoint's generator; returns the folder of images.

    Raises:
        UserError: when the checkpoint does not fit, an input cannot be read, or the folder cannot be written.
    """
    check_checkpoint(cfg.checkpoint)
    if cfg.input is not None:
        check_input(cfg.input)
    import outputs
    from data.folders import Inputs as Sources
    from engine.build import build_dataset
    from engine.checkpoint import Loaded
    from engine.distributed import choose_device
    from engine.lock import FolderLock
    from engine.render import Painted, Reversed, check_pixels, load_generator, names_of, render
    from engine.trust import Trust

    loaded = Loaded.open(cfg.checkpoint, dataset=cfg.dataset, trust=Trust.of(cfg))
    precision = Precision(cfg.precision or loaded.cfg.train.precision)
    device = choose_device(cfg.device)
    generator = load_generator(loaded, device, cfg.network)
    back = cfg.network == "generator_source"
    known = loaded.inputs.reversed() if back else loaded.inputs
    images: Any
    if cfg.input is None:
        split, batch_size = build_dataset(loaded.cfg, cfg.split, augment=False), cfg.batch_size
        images = Reversed(split.reals()) if back else split.sources()
    else:
        colors = None if back else loaded.cfg.dataset.get("colors")
        if colors is not None and shows_colours(cfg.input):
            colors = None
        reading = {
            "labels": known.labels or colors is not None,
            "classes": known.classes if colors is None else loaded.cfg.dataset.classes,
            "ignore": known.ignore,
            "palette": loaded.cfg.dataset.get("palette"),
            "instance": known.instance,
            "channels": None if known.labels or colors else known.source_channels,
        }
        images, batch_size = Sources(cfg.input, **reading), 1  # native sizes differ, so one at a time
        check_pixels(generator, [file for file, _ in images.files], images.sizes, cfg.max_pixels)
        warn_of_two_halves(images, loaded.cfg.dataset)
        if colors is not None:
            images = Painted(images, colors)
    output = (
        Path(cfg.output).expanduser() if cfg.output else loaded.path.parent / "test" / default_name(cfg, loaded.name)
    )
    about = {
        "checkpoint": str(loaded.path),
        "network": cfg.network,
        "step": loaded.step,
        "mode": "eval",
        "average": bool(loaded.state.get("average")),
        "split": cfg.split if cfg.input is None else None,
        "input": cfg.input,
        "precision": precision.value,
    }
    refuse_mixture(output, about)
    refuse_overlap("output", output, {"input": place_of(cfg.input), "dataset.root": data_root(loaded.cfg)})
    names = [f"{name}.png" for name in names_of(images)]
    with FolderLock(output / ".lock", "test.py", "change output="):  # two at once would mix their images
        outputs.start("output", output, names, about)
        count = render(generator, known, images, output, device, batch_size, cfg.workers, precision)
        outputs.finish("output", output, names, about)
    print(f"{count} images in {output}")
    return output


def default_name(cfg: DictConfig, name: str) -> str:
    """Of the folder of images: the checkpoint's, and what was asked for otherwise than by default."""
    words = [cfg.network] if cfg.network != "generator" else []
    words += [Path(cfg.input).name] if cfg.input is not None else [cfg.split] if cfg.split != "test" else []
    words += [cfg.precision] if cfg.precision is not None else []
    return re.sub(r"[^A-Za-z0-9._+\-]+", "-", "-".join([name, *words]))


def refuse_mixture(output: Path, about: dict[str, Any]) -> None:
    """Raises: UserError where the folder holds images of another input, split or network, by its render.json."""
    import outputs

    before = outputs.read_note(output) or {}
    for key in ("network", "split", "input"):
        if before.get(key, about[key]) != about[key]:
            raise UserError(
                f"output={output}: holds images of {key}={before[key]}, not {about[key]}; choose another output=, or "
                "remove the folder"
            )


def place_of(place: str | None) -> Path | None:
    """The file or folder of input=, or the folder that holds all that a pattern finds; no output may touch it."""
    from data.files import find_inputs

    if place is None or (path := Path(place).expanduser()).exists():
        return None if place is None else path
    return find_inputs(path)[0]


def warn_of_two_halves(images: Any, dataset: DictConfig) -> None:
    """One line where an input is twice as wide as the training images: probably a pair side by side in one picture.

    A run resizes its images to `dataset.size` whatever their shape, so one of them is looked at too, if it is there.
    """
    from listing import PICTURES, walk
    from pixels import read_header

    sizes = [tuple(dataset.size)] if dataset.get("size") else []
    for place in sorted(Path(str(dataset.root)).expanduser().glob("train*")) if dataset.get("root") else []:
        found = (place / prefix / name for prefix, names in walk(place, PICTURES) for name in names)
        with suppress(UserError):  # its own reader has the words for a damaged file
            sizes += [read_header(file).size for file in islice(found, 1)]
    file = images.files[0][0]
    height, width = read_header(file).size
    if any(abs(width * high / (height * wide) - 2) < 0.02 for high, wide in sizes):
        print(
            f"warning: {file} is {width}x{height}, twice as wide as the training images in proportion: if it shows two "
            "images side by side, both halves are translated; cut them apart first"
        )


def shows_colours(place: str) -> bool:
    """Whether the first of the inputs is an RGB image, as against label ids."""
    from data.files import find_inputs
    from pixels import read_header

    return read_header(next(iter(find_inputs(Path(place).expanduser())[1].values()))).mode == "RGB"


@entry("test")
def main(cfg: DictConfig) -> None:
    """The command line."""
    test(cfg)


register()
if __name__ == "__main__":
    launch(main)
