"""How a network's sources are read, the same in training and in use."""

from pathlib import Path
from typing import Any

from data.example import Example
from data.files import read_headers
from data.labels import Palette, read_palette
from data.reading import LabelReader, check_images, read_image, read_instance
from errors import UserError
from listing import ImageFiles
from pixels import Header


class Sources:
    """Label ids, or images of a fixed number of channels, with or without instance maps."""

    def __init__(
        self,
        labels: bool,
        classes: int | None,
        ignore: int | None,
        palette: Palette | None,
        instance: bool,
        channels: int | None,
    ) -> None:
        self.labels, self.classes, self.ignore, self.instance = labels, classes, ignore, instance
        self.channels = channels
        if not labels:
            if instance:
                raise UserError("dataset.instance adds edges to label maps; set dataset.labels=true or instance=false")
            self.classes = self.ignore = None
        elif classes is None or not 1 <= classes <= 256:
            raise UserError(f"dataset.classes is {classes}; wanted the number of label ids, 1..256")
        else:
            table = None if palette is None else read_palette(palette)
            self.reader = LabelReader(classes, ignore, table)

    def check(self, files: ImageFiles) -> list[Header]:
        """Headers of the files; settles `channels` of images: 1 where all are grey, else 3, or an array's own."""
        headers = read_headers(files, files)
        if self.labels:
            self.reader.check_all(files, headers)
            return headers
        first = headers[0]
        for header, name in check_images(files, headers).items():
            if (header.format == "NPY") != (first.format == "NPY") or (
                header.format == "NPY" and header.channels != (self.channels or first.channels)
            ):
                example = files[next(iter(files))].name
                wanted = f"{self.channels or first.channels} channels, {first.format} as {example}"
                raise UserError(f"{files[name]}: {header.format} of {header.channels} channels; wanted {wanted}")
        if self.channels is None:
            self.channels = max(header.channels for header in headers)
        return headers

    @property
    def source_channels(self) -> int:
        """Channels of the dense map: classes, one for unknown, one for edges; or the image's."""
        if not self.labels:
            assert self.channels is not None
            return self.channels
        assert self.classes is not None
        return self.classes + (self.ignore is not None) + self.instance

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides what is read of a file, as JSON values."""
        settings = {key: getattr(self, key) for key in ("labels", "classes", "ignore", "instance", "channels")}
        return settings | ({"palette": sorted((self.reader.palette or {}).items())} if self.labels else {})

    def read(self, name: str, source: Path, instance: Path | None) -> Example:
        """The Example of one source at its own size, without target. Raises: UserError for a bad file."""
        pixels = self.reader.read(source) if self.labels else read_image(source, self.channels or 3)
        example = Example(name=name, source=pixels)
        if instance is not None:
            example["instance"] = read_instance(instance)
            (high, wide), (height, width) = example["instance"].shape[-2:], pixels.shape[-2:]
            if (high, wide) != (height, width):
                raise UserError(f"{instance}: is {wide}x{high}, its label map {width}x{height}; make them equal")
        return example
