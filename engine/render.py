"""A generator and inputs to image files: any size, one image per input, the names kept."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate
from tqdm import tqdm

from data.example import to_uint8
from data.labels import colorize
from engine.build import build_generator
from engine.checkpoint import Loaded, load_network, rehearse
from engine.config import Precision
from engine.inputs import Inputs
from engine.record import save_image
from engine.sampling import explained_workers, mix
from engine.trust import ours
from errors import UserError
from models.blocks import SpectralConv2d
from pixels import load


def load_generator(loaded: Loaded, device: torch.device, name: str = "generator") -> nn.Module:
    """The checkpoint's generator in eval mode; its moving average where the run kept one.

    Args:
        name: "generator", or "generator_source", the way back of setting=cycle.
    Raises:
        UserError: when the checkpoint holds no network of that name.
    """
    networks = loaded.networks
    held = [key for key in networks if key.startswith("generator")]
    if name not in held:
        raise UserError(f"network={name}: {loaded.path} holds no such network; one of {', '.join(held)} is wanted")
    generator = _built(loaded, name)
    load_network(generator, networks[name], name, loaded.path)
    return _ready(generator, device)


def _built(loaded: Loaded, name: str = "generator") -> nn.Module:
    """A generator of the checkpoint's config; first without memory, where its constructor is one of ours."""
    make = partial(build_generator, loaded.cfg, loaded.inputs, name)
    if name not in loaded.networks:
        raise UserError(f"checkpoint={loaded.path}: holds no {name}")
    if ours(loaded.cfg, "model.generator"):
        rehearse(make, loaded.networks[name], name, loaded.path)
    return make()


def untrained_generator(loaded: Loaded, device: torch.device) -> nn.Module:
    """The same generator as the run's seed initialised it, in eval mode: the baseline any training must beat."""
    return _ready(_built(loaded), device)


def _ready(generator: Any, device: torch.device) -> nn.Module:
    """In eval mode, in the layout that convolutions are fast in, its spectral norms worked out once for all images."""
    generator = generator.to(device=device, memory_format=torch.channels_last).eval()
    for layer in generator.modules():
        if isinstance(layer, SpectralConv2d):
            layer.fix()
    return generator


@torch.inference_mode()
def translate(generator: nn.Module, source: Tensor) -> Tensor:
    """(B, C, H, W) of any size to (B, 3, H, W) uint8.

    Sizes that are no multiple of the network's `size_multiple`, or below its `smallest`, are padded by repeating the
    last row and column, and cropped back.
    """
    height, width = source.shape[-2:]
    rows, columns = (
        torch.arange(padded(generator, side), device=source.device).clamp_(max=side - 1) for side in (height, width)
    )
    if len(rows) != height or len(columns) != width:
        source = source[..., rows[:, None], columns]
    return to_uint8(generator(source)[..., :height, :width])


def padded(generator: nn.Module, side: int) -> int:
    """The side to which `translate` pads."""
    multiple, smallest = getattr(generator, "size_multiple", 1), getattr(generator, "smallest", 1)
    return -(-max(side, smallest) // multiple) * multiple


def check_pixels(
    generator: nn.Module, files: Sequence[Path], sizes: Sequence[tuple[int, int]], max_pixels: int | None
) -> None:
    """Raises: UserError for the first file, of (height, width) `sizes`, that would take more memory than is allowed."""
    for file, (height, width) in zip(files, sizes, strict=True):
        count = padded(generator, height) * padded(generator, width)
        if max_pixels is not None and count > max_pixels:
            raise UserError(
                f"{file}: is {width}x{height}, {count} pixels for the network; max_pixels={max_pixels} is the most that"
                f" is translated at once: make it smaller, cut it into parts, or set max_pixels={count} if the memory"
                " suffices (about 1 GB a million pixels at model.generator.width=64)"
            )


def picture(image: Tensor) -> np.ndarray:
    """(C, H, W) uint8 to (H, W, 3) for a file or a grid; grey is repeated, further channels are left out."""
    image = image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
    return image.permute(1, 2, 0).contiguous().cpu().numpy()


def source_picture(source: Tensor, inputs: Inputs, name: str) -> np.ndarray:
    """What a person should see of a source (C, H, W) uint8: label ids in the data set's colours, or the image."""
    return picture(colorize(source, name) if inputs.labels else source)


def render(
    generator: nn.Module,
    inputs: Inputs,
    dataset: Any,
    folder: Path,
    device: torch.device,
    batch_size: int = 8,
    workers: int = 0,
    precision: Precision = Precision.float32,
    title: str = "render",
) -> int:
    """Write one PNG per item of a data set under its name; returns their number.

    Raises:
        UserError: when the folder cannot be written.
    """
    loader: Iterable[dict[str, Any]] = DataLoader(dataset, batch_size=batch_size, num_workers=workers)
    count = 0
    with explained_workers("workers"):
        for batch in tqdm(loader, desc=title, unit="batch", leave=False, disable=None):
            moved = inputs.to(batch, device, torch.float32)
            with torch.autocast(device.type, torch.bfloat16, enabled=precision is Precision.bf16):
                images = translate(generator, moved["source"])
            for name, image in zip(batch["name"], images, strict=True):
                write_png(picture(image), folder / f"{name}.png")
                count += 1
    return count


def names_of(dataset: Any) -> list[str]:
    """The names of a data set's items, in order, without reading them where the data set knows them."""
    names: Sequence[str] = getattr(dataset, "names", ())
    return list(names) if len(names) == len(dataset) else [dataset[index]["name"] for index in range(len(dataset))]


def spread(length: int, count: int | None) -> list[int]:
    """`count` indices below `length` at even distances, all of them where there are fewer or `count` is None."""
    count = length if count is None else min(count, length)
    return [index * length // count for index in range(count)]


def sample(length: int, count: int, seed: int) -> list[int]:
    """`count` different random indices below `length`, all of them where there are fewer; a function of the seed."""
    return torch.randperm(length, generator=torch.Generator().manual_seed(mix(seed, 20)))[:count].sort()[0].tolist()


def write_examples(dataset: Any, indices: Iterable[int], folder: Path, key: str = "target") -> None:
    """Write one image of some items, targets or label ids ("label"), as PNGs of the size the loader gives them."""
    for index in tqdm(indices, desc=folder.name, unit="image", leave=False, disable=None):
        item = dataset[index]
        image = item["label"][0].numpy() if key == "label" else picture(item[key])
        write_png(image, folder / f"{item['name']}.png")


def compare_rows(
    dataset: Any, indices: Iterable[int], fakes: Path, inputs: Inputs, name: str
) -> list[list[np.ndarray]]:
    """Rows source | generated | real of a picture, the generated image read from its file.

    Of an unpaired data set the real image is any of its targets.
    """
    rows = []
    for item in (dataset[index] for index in indices):
        fake = np.array(load(fakes / f"{item['name']}.png"))
        rows.append([source_picture(item["source"], inputs, name), fake, picture(item["target"])])
    return rows


def write_png(image: np.ndarray, path: Path) -> None:
    """Save under a name that may hold folders.

    Raises:
        UserError: naming what is in the way.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(image, path)
    except (FileExistsError, NotADirectoryError, PermissionError, OSError) as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); change output=") from error


class Picked:
    """Some items of a data set, in the order of their indices."""

    def __init__(self, items: Any, indices: Sequence[int]) -> None:
        self.items, self.indices = items, list(indices)
        names = names_of(items)
        self.names = [names[index] for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.items[self.indices[index]]


class Reversed:
    """Real images as inputs of the way back: items of `reals` with their target as source."""

    def __init__(self, reals: Any) -> None:
        self.reals = reals
        self.names = names_of(reals)

    def __len__(self) -> int:
        return len(self.reals)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.reals[index]
        return {"name": item["name"], "source": item["target"]}


class Painted:
    """Label ids as inputs of a network that was trained on their colours (`dataset.colors`)."""

    def __init__(self, sources: Any, colors: str) -> None:
        self.sources, self.colors = sources, colors
        self.names = names_of(sources)

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.sources[index]
        return {"name": item["name"], "source": colorize(item["source"], self.colors)}


class SampleGrid:
    """The same few inputs every time: source | fake | target, one row each; then, both ways, target to source."""

    def __init__(
        self, dataset: Any, inputs: Inputs, count: int, device: torch.device, dtype: torch.dtype, name: str
    ) -> None:
        count = min(count, len(dataset))
        items = [dataset[index * len(dataset) // count] for index in range(count)]
        self.batch = inputs.to(default_collate(items), device, dtype)
        self.shown = [(source_picture(item["source"], inputs, name), picture(item["target"])) for item in items]

    @torch.inference_mode()
    def rows(self, generators: Mapping[str, nn.Module]) -> list[list[np.ndarray]]:
        """The generators in eval mode on the inputs; their modes are put back."""
        fakes = self._made(generators["generator"], self.batch["source"])
        rows = [[source, fake, target] for (source, target), fake in zip(self.shown, fakes, strict=True)]
        if "generator_source" in generators:
            back = self._made(generators["generator_source"], self.batch["target"])
            rows = [[*row, fake] for row, fake in zip(rows, back, strict=True)]
        return rows

    @staticmethod
    def _made(generator: nn.Module, inputs: Tensor) -> list[np.ndarray]:
        training = generator.training
        generator.eval()
        images = [picture(translate(generator, source[None])[0]) for source in inputs]
        generator.train(training)
        return images
