"""A generator for use without this project: python scripts/export.py checkpoint=PATH [out=FILE.pt2].

The file is a torch.export program from pixels to pixels, of any number of images and any size (SPADE: of sides above
its `size_multiple`, 32 for the normal one):

    program = torch.export.load("generator_500.pt2").module()
    image = program(source)  # uint8 (B, C, H, W), as the files of the data set hold it -> uint8 (B, 3, H, W)

`source` is an image, or label ids with the data set's `ignore` for unknown pixels; a network that reads edges of
instances takes their ids (B, 1, H, W), int64, as a second argument. FILE.json beside it says all this of the network.
The program runs on a CPU; torch.export.passes.move_to_device_pass makes one for a GPU of it.
Before the file appears, its images are compared with those of test.py at several sizes.
"""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks into scripts/ only

from engine.paths import check_checkpoint, early

if __name__ == "__main__":  # before torch is loaded
    early({"checkpoint": check_checkpoint})

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from data.example import to_uint8
from data.labels import one_hot
from engine.checkpoint import Loaded, write
from engine.config import register
from engine.inputs import Inputs
from engine.launch import entry, launch
from engine.render import load_generator, translate
from engine.trust import Trust
from errors import UserError
from files import refuse_overlap, write_text
from models.spade import Noise
from records import Shape, check_shape, load

SCHEMA = 1
ABOUT: dict[str, Shape] = {"schema": int, "checkpoint": str, "network": str, "torch": str}  # what tells an export
TOLERANCE = 1  # grey levels, where rounding meets the middle between two of them


class Pixels(nn.Module):
    """A generator with what comes before and after it: normalisation, dense label maps, padding, rounding."""

    def __init__(self, generator: Any, inputs: Inputs) -> None:
        super().__init__()
        self.generator, self.inputs = generator, inputs
        self.multiple, self.smallest = getattr(generator, "size_multiple", 1), getattr(generator, "smallest", 1)
        # torch.export takes a size of 1 for a constant, which SPADE's start would have
        self.least = 1 if self.smallest > self.multiple else self.multiple + 1

    def forward(self, source: Tensor, instance: Tensor | None = None) -> Tensor:
        """uint8 (B, C, H, W) [and int64 (B, 1, H, W)] -> uint8 (B, 3, H, W)."""
        batch = {"name": None, "source": source, "instance": instance}
        x = self.inputs.to(batch, source.device, torch.float32)["source"]
        if self.inputs.labels:
            x = one_hot(x, self.inputs.source_channels - self.inputs.instance)
        height, width = source.shape[2:]
        image = self.generator(pick(x, self.legal(height), self.legal(width)))
        return to_uint8(pick(image, height, width))

    def legal(self, side: Any) -> Any:
        """The next size that the network takes."""
        return -(-torch.sym_max(side, self.smallest) // self.multiple) * self.multiple


def pick(x: Tensor, height: Any, width: Any) -> Tensor:
    """Rows and columns of x to a size, the last ones repeated where there are fewer, as `translate` pads and crops.

    Always a copy: whether a slice is one would become a condition of the program on its sizes.
    """
    rows, columns = (
        torch.arange(wanted, device=x.device).clamp(max=side - 1)
        for wanted, side in zip((height, width), x.shape[2:], strict=True)
    )
    return x.index_select(2, rows).index_select(3, columns)


def export(cfg: DictConfig) -> Path:
    """Write the program and its description; returns its path.

    Raises:
        UserError: for a generator with noise, whose draws a program cannot seed by the image, or an unwritable file.
        RuntimeError: where the program's images are not those of the generator.
    """
    loaded = Loaded.open(cfg.checkpoint, trust=Trust.of(cfg))
    generator = load_generator(loaded, torch.device("cpu"), cfg.network)
    inputs = loaded.inputs.reversed() if cfg.network == "generator_source" else loaded.inputs
    if any(isinstance(module, Noise) for module in generator.modules()):
        raise UserError(
            f"checkpoint={loaded.path}: its generator draws noise (model.generator.noise), which test.py seeds by the "
            "image and a program cannot; render with test.py"
        )
    out = Path(cfg.out).expanduser() if cfg.out else loaded.path.parent / f"{cfg.network}_{loaded.name}.pt2"
    refuse_overlap("out", out, {"checkpoint": loaded.path})
    refuse_foreign(out)
    whole = Pixels(generator.to(memory_format=torch.contiguous_format), inputs).eval()
    multiple = whole.multiple
    sizes = [
        (2, 2 * multiple + 16, 3 * multiple + 16),
        (1, multiple + 64, multiple + 64),
        (3, multiple + 29, multiple + 35),
    ]
    drawn = [example(inputs, *size) for size in sizes]
    free = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    with torch.no_grad():
        program = torch.export.export(whole, drawn[0], dynamic_shapes=(free,) * len(drawn[0]), strict=False)
    compare(program.module(), generator, inputs, drawn)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={out}: its folder cannot be made ({error.strerror}); change out=") from error
    write(out, buffer, lambda whole, file: file.write(whole.getbuffer()))
    about = {
        "schema": SCHEMA,
        "checkpoint": str(loaded.path),
        "network": cfg.network,
        "step": loaded.step,
        "average": bool(loaded.state.get("average")),
        "source": "label ids" if inputs.labels else "image",
        "channels": 1 if inputs.labels else inputs.source_channels,
        "classes": inputs.classes,
        "ignore": inputs.ignore,
        "instance": inputs.instance,
        "output_channels": inputs.target_channels,
        "smallest": whole.least,
        "device": "cpu",
        "torch": torch.__version__,
    }
    write_text(out.with_suffix(".json"), json.dumps(about, indent=1) + "\n")
    print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB, equal to test.py at {len(sizes)} sizes")
    return out


def refuse_foreign(out: Path) -> None:
    """Raises: UserError where a file would be overwritten that is no earlier export, by the description beside it."""
    beside = out.with_suffix(".json")
    try:
        check_shape(load(beside), ABOUT)
        return
    except (OSError, ValueError):
        foreign = next((path for path in (out, beside) if os.path.lexists(path)), None)
    if foreign is not None:
        raise UserError(
            f"{foreign}: would be overwritten, but is no earlier export; choose another out=, or move it away"
        )


def example(inputs: Inputs, batch: int, height: int, width: int) -> tuple[Tensor, ...]:
    """Random arguments of a program."""
    random = torch.Generator().manual_seed(height)
    shape = (batch, 1 if inputs.labels else inputs.source_channels, height, width)
    source = torch.randint(inputs.classes or 256, shape, generator=random, dtype=torch.uint8)
    if not inputs.instance:
        return (source,)
    return source, torch.randint(3, (batch, 1, height, width), generator=random)


def compare(program: Any, generator: nn.Module, inputs: Inputs, drawn: list[tuple[Tensor, ...]]) -> None:
    """Raises RuntimeError where the program's pixels differ from those that test.py would make."""
    for arguments in drawn:
        batch = {"name": None, **dict(zip(("source", "instance"), arguments, strict=False))}
        wanted = translate(generator, inputs.to(batch, torch.device("cpu"), torch.float32)["source"])
        with torch.no_grad():
            found = program(*arguments)
        off = int((found.int() - wanted.int()).abs().max()) if found.shape == wanted.shape else 256
        if off > TOLERANCE:
            raise RuntimeError(
                f"exported program: {tuple(arguments[0].shape)} is {off} grey levels from the generator's"
            )


@entry("export")
def main(cfg: DictConfig) -> None:
    """The command line."""
    export(cfg)


register()
if __name__ == "__main__":
    launch(main)
