"""How a segmentation is scored: the presets of the papers, configs/segmentation/*.yaml, and what they fix.

Published scores of one method differ by tens of points with the evaluating network, the size of the images and whether
unlabelled pixels count as wrong. A rule fixes all of it, and the report repeats it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from errors import UserError
from metrics.images import Size, label
from metrics.labels import score_table
from models.segmenters import Segmenter
from models.weights import resolve

ACCURACY = {"ignored": "pixacc", "wrong": "pixacc_all"}  # which row is the paper's accuracy, by the rule for void


@dataclass(frozen=True)
class Rule:
    """A protocol of segmentation scores; the plain one leaves all to the caller.

    Args:
        name: of the preset. network: `Segmenter.kind` of the network that it wants. classes: of its ids.
        weights: files of `models.weights` that are looked for where no segmenter is given; several lie in one folder.
        sha256: of the weights as the report gives it, or its first digits; None where no release states it.
        size: of the images for the network: "generated" (as they lie), "native" (of the label map) or (H, W).
        interpolation: of the images, bicubic or bilinear.
        class_map: evaluation id, or 255, of each stored id.
        void: pixels without a class in the paper's accuracy: "ignored" (pixacc) or "wrong" (pixacc_all).
    """

    name: str | None = None
    network: str | None = None
    classes: int | None = None
    weights: tuple[str, ...] = ()
    sha256: str | None = None
    size: str | Size = "generated"
    interpolation: str = "bicubic"
    class_map: tuple[int, ...] | None = None
    void: str = "ignored"

    @classmethod
    def of(cls, settings: Mapping[str, Any] | None) -> "Rule":
        """The rule of a config node; None gives the plain one. Raises: UserError naming a setting that is wrong."""
        found = dict(settings or {})
        known = [field.name for field in fields(cls)]
        for key in found:
            if key not in known:
                raise UserError(f"segmentation.{key}: no such key; known: {', '.join(known)}")
        for key, allowed in (("interpolation", ("bicubic", "bilinear")), ("void", tuple(ACCURACY))):
            if found.get(key, allowed[0]) not in allowed:
                raise UserError(f"segmentation.{key}={found[key]}: {' or '.join(allowed)} was wanted")
        found["weights"] = tuple(found.get("weights") or ())
        found["size"] = _size(found.get("size", "generated"))
        if found.get("class_map") is not None:
            found["class_map"] = tuple(found["class_map"])
            score_table(found["class_map"])
        return cls(**found)

    def find(self, weights_dir: str | Path | None = None, offline: bool = False) -> Path:
        """The preset's weights, by `models.weights.resolve`: a file, or the folder of several.

        Raises: UserError for a rule without weights, and for missing ones, saying where to get and to put them.
        """
        if not self.weights:
            raise UserError("metrics=[segmentation] wants segmenter=FILE, or a preset: segmentation=cityscapes/cfl")
        instead = f"name {self.network} itself by segmenter="
        files = [resolve(name, weights_dir, offline, instead) for name in self.weights]
        if len({file.parent for file in files}) > 1:
            raise UserError(f"segmentation={self.name}: {' and '.join(map(str, files))} were wanted in one folder")
        return files[0] if len(files) == 1 else files[0].parent

    def check(self, segmenter: Segmenter, sha256: str | None) -> None:
        """That a segmenter, whose weights have this SHA-256, is the one that the rule wants. Raises: UserError."""
        kind, classes = getattr(segmenter, "kind", type(segmenter).__name__), segmenter.num_classes
        if self.network is not None and kind != self.network:
            raise UserError(
                f"segmentation={self.name} wants {self.network}, the segmenter is {kind}; segmentation.network={kind} "
                "takes it, and the scores are then comparable to those of the same network only"
            )
        if self.classes is not None and classes != self.classes:
            raise UserError(f"segmentation={self.name} wants {self.classes} classes, the segmenter has {classes}")
        if self.sha256 is not None and not (sha256 or "").startswith(self.sha256):
            raise UserError(
                f"segmentation={self.name}: the weights have SHA-256 {str(sha256)[:16]}..., wanted {self.sha256[:16]}: "
                "the file is damaged or another one"
            )

    def block(self) -> dict[str, Any]:
        """Its part of a report's protocol."""
        size = self.size if isinstance(self.size, str) else label(self.size)
        return {
            "preset": self.name,
            "images": size if size == "generated" else f"{size}, antialiased {self.interpolation}",
            "accuracy": ACCURACY[self.void],
        }


def _size(size: str | Sequence[int]) -> str | Size:
    if isinstance(size, str) and size in ("generated", "native"):
        return size
    if not isinstance(size, str) and len(list(size)) == 2 and all(isinstance(n, int) and n > 0 for n in size):
        return int(size[0]), int(size[1])
    raise UserError(f"segmentation.size={size}: generated, native or [height, width] was wanted")
