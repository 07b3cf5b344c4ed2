"""The image sets of one evaluation: generated, real, and a sample of real training images to set the scale.

The sample is a fixed random one of as many images as were generated, because distances of different N are not
comparable: its distance to the real test images, the floor, is what a perfect generator would get.

Legend: a size is (H, W).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from errors import UserError
from metrics.images import Size, Survey, batches, image_files, label, left_out, survey


@dataclass(frozen=True)
class Images:
    """Image files of a folder in sorted order, and the size they are resized to on reading (None: as they lie).

    key: the config key that named the folder, for messages. found: what the headers of the files say.
    """

    key: str
    folder: Path
    files: list[Path]
    found: Survey
    size: Size | None = None

    @classmethod
    def of(cls, key: str, folder: Path, size: Size | None = None) -> "Images":
        """All images of a folder. Raises: UserError where there are none, or one is no image."""
        files = image_files(folder, key)
        found = survey(files, folder)
        return cls(key, folder, files, found, size if found.size != size else None)

    @property
    def read_size(self) -> Size | None:
        """The one size of the images as they are read; None where they differ."""
        return self.size or self.found.size

    def batches(self, batch_size: int, workers: int, what: str) -> Iterator[Tensor]:
        """`images.batches` of the files with a progress bar (on a terminal) named by `what`."""
        with tqdm(total=len(self.files), desc=f"{what}: {self.key}", unit="img", leave=False, disable=None) as bar:
            for batch in batches(self.files, batch_size, workers, self.size):
                yield batch
                bar.update(len(batch))


@dataclass(frozen=True)
class Sets:
    """Generated and real images, the floor's sample or None, and what the reader of the report should be warned of."""

    fake: Images
    real: Images
    floor: Images | None
    warnings: list[str] = field(default_factory=list)

    @property
    def all(self) -> list[Images]:
        """The two or three sets."""
        return [self.fake, self.real] if self.floor is None else [self.fake, self.real, self.floor]

    @classmethod
    def of(cls, fake: Path, real: Path, train_real: Path | None, real_size: str, seed: int) -> "Sets":
        """The sets of three folders; real_size "fake" brings real images to the size of the generated ones.

        Raises: UserError for a folder without images and for another `real_size`.
        """
        if real_size not in ("fake", "native"):
            raise UserError(f"real_size={real_size}: fake or native was wanted")
        generated = Images.of("fake", fake)
        size = generated.found.size if real_size == "fake" else None
        sets = cls(
            generated,
            Images.of("real", real, size),
            None if train_real is None else Images.of("train_real", train_real, size),
        )
        sets._warn()
        return sets if sets.floor is None else replace(sets, floor=sets._sample(sets.floor, seed))

    def _warn(self) -> None:
        for images in self.all:
            self.warnings.extend(left_out(images.folder, images.key))
        for images in self.all[1:]:
            if images.size is not None:
                was = ", ".join(list(images.found.sizes)[:3])
                self.warnings.append(
                    f"{images.key}: {was} images are resized to {label(images.size)}, the size of the generated ones, "
                    "by antialiased bicubic (real_size=native measures them as they lie)"
                )
            elif images.found.sizes.keys() != self.fake.found.sizes.keys():
                self.warnings.append(f"{images.key}: images are of other sizes than the generated ones")
            if images.found.formats.keys() != self.fake.found.formats.keys():
                kinds = [" and ".join(one.found.formats) for one in (self.fake, images)]
                self.warnings.append(
                    f"generated images are {kinds[0]}, those of {images.key} {kinds[1]}: "
                    "the file format alone moves distances"
                )

    def _sample(self, images: Images, seed: int) -> Images:
        wanted = len(self.fake.files)
        if len(images.files) < wanted:
            self.warnings.append(
                f"{images.key}: {len(images.files)} images for a floor of {wanted}; with fewer images it is too high"
            )
        order = np.random.default_rng(seed).permutation(len(images.files))[:wanted]
        return replace(images, files=[images.files[index] for index in sorted(order)])
