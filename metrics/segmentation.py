"""Segmentation scores of generated images against the label maps they were made from.

The FCN-score idea of Isola et al. 2017, arXiv:1611.07004, in the form of Yu et al. 2017 (DRN), arXiv:1705.09914: one
confusion matrix over all pixels of all images, IoU of a class = diagonal / (row + column - diagonal). What the CFL and
MoNCE papers print as mAP, and as mIoU, is the mean of it over the classes. Two pixel accuracies are in use and differ
by the share of unlabelled pixels: `pixacc` leaves these out (MoNCE, and CFL on ADE20K), `pixacc_all` counts them as
wrong (SPADE and CFL on Cityscapes).

A score means something only between two others, so `evaluate` always gives them: the ceiling, real images against their
labels, and the floor, generated images against labels of other images.

Legend: N images, K classes, H rows, W columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from errors import UserError
from metrics.images import Size, batches
from metrics.labels import VOID, label_size, read_labels, score_table


class Segmenter(Protocol):
    """A network that names the class of each pixel."""

    num_classes: int

    def predict(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) float in [0, 1] to (N, H, W) int64 evaluation ids in 0..num_classes-1."""
        ...


class Confusion:
    """Counts over pixels; they add up over batches and ranks.

    Attributes: counts (K, K) int64, rows the truth and columns the prediction; void (), pixels whose truth is VOID.
    """

    def __init__(self, classes: int):
        self.counts = torch.zeros(classes, classes, dtype=torch.int64)
        self.void = torch.zeros((), dtype=torch.int64)

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Count integer maps of one shape, say (N, H, W): truth in 0..K-1 or VOID, predictions in 0..K-1 (any where
        the truth is VOID).

        Raises: ValueError for differing shapes and for ids beyond that.
        """
        if predicted.shape != truth.shape:
            raise ValueError(f"predicted {tuple(predicted.shape)} and truth {tuple(truth.shape)} differ")
        classes = len(self.counts)
        known = truth != VOID
        predicted, truth = predicted[known].long(), truth[known].long()
        for name, ids in (("truth", truth), ("predicted", predicted)):
            if ids.numel() and not (ids.min() >= 0 and ids.max() < classes):
                raise ValueError(f"{name} ids reach from {ids.min()} to {ids.max()}, 0 to {classes - 1} were wanted")
        self.counts += torch.bincount(truth * classes + predicted, minlength=classes**2).view(classes, classes).cpu()
        self.void += (known.numel() - known.sum()).cpu()

    def reduce(self) -> "Confusion":
        """Sum the counts over all ranks, in place; nothing to do in a single process. Returns itself."""
        if dist.is_available() and dist.is_initialized():
            device = "cuda" if dist.get_backend() == "nccl" else "cpu"
            both = torch.cat([self.counts.flatten(), self.void.view(1)]).to(device)
            dist.all_reduce(both)
            self.counts, self.void = both[:-1].view_as(self.counts).cpu(), both[-1].cpu()
        return self

    def scores(self) -> dict[str, Any]:
        """`scores` of these counts."""
        return scores(self.counts, int(self.void))


def scores(confusion: Tensor, void_pixels: int = 0) -> dict[str, Any]:
    """Scores, in percent, of a confusion matrix (K, K) whose rows are the truth.

    Args:
        void_pixels: number of pixels without a true class; they enter `pixacc_all` alone.
    Returns: miou, the mean IoU over classes that occur in truth or prediction; pixacc and pixacc_all, the share of
        right pixels among the labelled ones and among all; classacc, the mean over true classes of the share of their
        pixels found; iou, a list of K with None for a class that occurs in neither; absent, the ids of those classes.
    Raises: ValueError for a matrix that is not square or counts no pixel.
    """
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1]:
        raise ValueError(f"confusion {tuple(confusion.shape)}: (K, K) was wanted")
    counts = confusion.double()
    right, rows, columns, total = counts.diagonal(), counts.sum(1), counts.sum(0), counts.sum()
    if total == 0:
        raise ValueError("the confusion matrix counts no labelled pixel")
    iou = 100 * right / (rows + columns - right)  # 0 / 0 is NaN: in neither
    return {
        "miou": iou.nanmean().item(),
        "pixacc": (100 * right.sum() / total).item(),
        "pixacc_all": (100 * right.sum() / (total + void_pixels)).item(),
        "classacc": (100 * right / rows).nanmean().item(),
        "iou": [None if value != value else value for value in iou.tolist()],
        "absent": iou.isnan().nonzero().flatten().tolist(),
    }


@dataclass(frozen=True)
class Segmentation:
    """What `scores` gives: for generated images, real ones (ceiling), generated ones shuffled (floor)."""

    fake: dict[str, Any]
    ceiling: dict[str, Any]
    floor: dict[str, Any] | None  # None for a single image


def evaluate(
    segmenter: Segmenter,
    fake: list[Path],
    real: list[Path],
    labels: list[Path],
    *,
    score_map: Sequence[int] | None = None,
    real_size: Size | None = None,
    size: str | Size = "generated",
    interpolation: str = "bicubic",
    batch_size: int = 8,
    workers: int = 2,
    device: torch.device | str = "cpu",
    minimum_ceiling: float = 20.0,
) -> Segmentation:
    """Score generated images against their label maps, the real images first.

    Args:
        fake, real, labels: N files each, in one order: fake[i] and real[i] belong to labels[i].
        score_map: evaluation id (or VOID) of each stored id; None takes the stored ids.
        real_size: (H, W) that real images are resized to, where `size` is generated.
        size: of the images for the segmenter: generated, as they lie; native, the size of each one's label map; or
            (H, W). Label maps always follow the image, by nearest neighbour.
        interpolation: of the images, bicubic or bilinear, antialiased.
        minimum_ceiling: a mean IoU of the real images, in percent, under which labels or preprocessing must be wrong.
    Raises: UserError for unreadable files, unknown ids, or a ceiling below the minimum.
    """
    table = score_table(score_map)

    def sizes(own: Size | None) -> list[Size | None]:
        if size == "native":
            return [label_size(file) for file in labels]
        return [own if isinstance(size, str) else size] * len(labels)

    def confusions(images: list[Path], own: Size | None, truths: list[list[Path]]) -> list[dict[str, Any]]:
        counts, done, wanted = [Confusion(segmenter.num_classes) for _ in truths], 0, sizes(own)
        for shape, run in groupby(range(len(images)), wanted.__getitem__):
            files = [images[index] for index in run]
            for batch in batches(files, batch_size, workers, shape, interpolation):
                predicted = segmenter.predict(batch.to(device).float() / 255).cpu()
                at = predicted.shape[1], predicted.shape[2]
                for confusion, maps in zip(counts, truths, strict=True):
                    found = maps[done : done + len(batch)]
                    ids = [read_labels(file, table, segmenter.num_classes, at) for file in found]
                    confusion.update(predicted, torch.stack(ids))
                done += len(batch)
        if any(confusion.counts.sum() == 0 for confusion in counts):
            raise UserError(f"{labels[0].parent}: no label map has a pixel of a scored class; is score_map= right?")
        return [confusion.scores() for confusion in counts]

    ceiling = confusions(real, real_size, [labels])[0]
    if ceiling["miou"] < minimum_ceiling:
        raise UserError(
            f"the segmenter finds the real images' labels with mIoU {ceiling['miou']:.1f} only, {minimum_ceiling:g} at "
            "least was wanted: segmenter=, labels= and score_map= do not fit together (minimum_ceiling= is the bound)"
        )
    half = len(labels) // 2  # neighbours are often frames of one video; half the list away is another scene
    shuffled = [labels[half:] + labels[:half]] if half else []
    fakes = confusions(fake, None, [labels, *shuffled])
    return Segmentation(fakes[0], ceiling, fakes[1] if shuffled else None)
