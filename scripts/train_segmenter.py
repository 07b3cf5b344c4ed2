"""Train a segmentation network on the real pairs of a data set: `python scripts/train_segmenter.py dataset=NAME`.

It judges generated images where the papers' own evaluators cannot be had. CamVid at 128x96, one CPU core, seed 0: after
200 steps, one minute, a mean IoU of 50 on val and 52 on test; after 600 steps, three minutes, 56 and 57.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks into scripts/ only

from engine.paths import check_root, data_root, early

if __name__ == "__main__":  # before torch is loaded
    early({"dataset.root": check_root})

import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor

from engine.config import register
from engine.launch import entry, launch
from engine.sampling import StepSampler, loader
from errors import UserError
from files import refuse_overlap
from metrics.segmentation import Confusion
from models.segmenters import Segmenter, SegmenterConfig, build_segmenter, save_segmenter
from models.weights import read_state

VOID = 255  # training id of pixels that count nowhere


def train_segmenter(
    training: Any,
    validation: Any,
    out: Path,
    *,
    backbone: str = "lite2",
    input_size: tuple[int, int] | None = None,
    steps: int = 600,
    batch_size: int = 8,
    lr: float = 3e-3,
    seed: int = 0,
    workers: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Train, validate and save a segmenter; returns the scores of `metrics.segmentation`.

    Cross-entropy weighted by the inverse root of each class's frequency, AdamW over one cycle of the rate, random
    scale, place and flip. Ids that the data set does not score are ignored.

    Args:
        training, validation: data sets of label ids and images (`data.folders.Paired`, `data.shapes.Shapes`).
        out: the checkpoint, written at the end.
        backbone, input_size: see `models.segmenters`.
        lr: the cycle's peak.

    Raises: UserError for a data set without label ids or smaller than a batch.
    """
    if not training.labels:
        raise UserError(f"dataset={training.name}: its inputs are images; a segmenter learns from label ids")
    device = torch.device(device)
    table = torch.tensor(training.score_map)
    size = tuple(training.size)
    torch.manual_seed(seed)
    frequency = class_frequency(training, table)
    config = SegmenterConfig(backbone, len(frequency), size, input_size, training.name, seed, steps)
    segmenter = build_segmenter(config).to(device)
    segmenter.network.train()
    weight = class_weight(frequency).to(device)
    optimizer = torch.optim.AdamW(segmenter.network.parameters(), lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.2)
    sampler = StepSampler(len(training), batch_size, 1, seed, 0, steps, 0, 1)
    generator = torch.Generator().manual_seed(seed)
    for step, batch in enumerate(loader(training, sampler, workers, device), 1):
        images, ids = augment(batch["target"] / 255, table[batch["source"][:, 0].long()], generator)
        loss = F.cross_entropy(segmenter.logits(images.to(device)), ids.to(device), weight, ignore_index=VOID)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)
    segmenter.network.eval()
    scores = validate(segmenter, validation, table, batch_size, device)
    save_segmenter(out, segmenter, replace(config, miou=scores["miou"]))
    classes = " ".join("-" if value is None else f"{value:.0f}" for value in scores["iou"])
    print(f"val mIoU {scores['miou']:.1f}, pixel accuracy {scores['pixacc']:.1f}; IoU of each class: {classes}\n{out}")
    return scores


def class_frequency(training: Any, table: Tensor, most: int = 200) -> Tensor:
    """Share of each training id among the scored pixels of up to `most` items; as many as there are ids."""
    known = table[table != VOID]
    counts = torch.zeros(int(known.max()) + 1 if len(known) else 1)
    for index in range(0, len(training), -(-len(training) // most)):
        ids = table[training[index]["source"].long()]
        counts += torch.bincount(ids[ids != VOID], minlength=len(counts))
    if not counts.sum():
        raise UserError(f"dataset={training.name}: no pixel has a scored class; check dataset.scored and unscored")
    return counts / counts.sum()


def class_weight(frequency: Tensor) -> Tensor:
    """Inverse root of the frequency, with mean 1 over pixels; a class that never occurs weighs nothing.

    The full inverse would make the rarest class (a pole) as heavy as the road and drown both in false alarms.
    """
    weight = torch.where(frequency > 0, frequency.clamp(min=1e-6).rsqrt(), 0)
    return weight / (weight * frequency).sum()


def augment(images: Tensor, ids: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each item zoomed by 0.75 to 1.6, moved and perhaps mirrored; brightness and contrast a little changed.

    Args: images (B, 3, H, W) in [0, 1], ids (B, H, W). Returns: the same; ids of places outside the image are VOID.
    """
    count = len(images)
    draw = torch.rand(6, count, generator=generator)
    side = 1.6 ** -draw[0] * 1.33 ** (1 - draw[1])  # of the window, in images
    flip = torch.where(draw[2] < 0.5, 1.0, -1.0)
    room = (1 - side).abs()
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = side * flip, side
    theta[:, 0, 2], theta[:, 1, 2] = (2 * draw[3] - 1) * room, (2 * draw[4] - 1) * room
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    inverted = (VOID - ids[:, None]).float()  # padding gives 0, that is VOID
    ids = VOID - F.grid_sample(inverted, grid, mode="nearest", align_corners=False)[:, 0].long()
    contrast, brightness = (torch.rand(2, count, 1, 1, 1, generator=generator) - 0.5).mul(0.4)
    return (images * (1 + contrast) + brightness / 2).clamp(0, 1), ids


def validate(
    segmenter: Segmenter, validation: Any, table: Tensor, batch_size: int, device: torch.device
) -> dict[str, Any]:
    """Scores of the real images of a data set."""
    confusion = Confusion(segmenter.num_classes)
    for start in range(0, len(validation), batch_size):
        items = [validation[index] for index in range(start, min(start + batch_size, len(validation)))]
        images = torch.stack([item["target"] for item in items]) / 255
        ids = table[torch.stack([item["source"] for item in items])[:, 0].long()]
        confusion.update(segmenter.predict(images.to(device)).cpu(), ids)
    if not confusion.counts.sum():
        raise UserError(f"dataset={validation.name}: no pixel of the validation split has a scored class")
    return confusion.scores()


def refuse_foreign(out: Path) -> None:
    """Raises: UserError where `out` cannot be written, or is a file that no training of a segmenter made."""
    if out.exists():
        held = read_state(out, "segmenter") if out.is_file() else None
        if not isinstance(held, dict) or not {"weights", "config"} <= held.keys():
            raise UserError(f"out={out}: would be overwritten, but is no trained segmenter; choose another out=")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={out}: its folder cannot be made ({error.strerror}); change out=") from error


@entry("train_segmenter")
def main(cfg: DictConfig) -> None:
    from engine.build import build_dataset, held_out
    from engine.distributed import choose_device
    from engine.trust import Trust

    Trust.of(cfg)  # imports the modules of `code`
    out = Path(cfg.out).expanduser()
    refuse_overlap("out", out, {"dataset.root": data_root(cfg)})
    refuse_foreign(out)
    train_segmenter(
        build_dataset(cfg, "train", augment=False),
        held_out(cfg),
        out,
        backbone=cfg.backbone,
        input_size=None if cfg.input_size is None else tuple(cfg.input_size),
        steps=cfg.steps,
        batch_size=cfg.batch_size,
        lr=cfg.lr,
        seed=cfg.seed,
        workers=cfg.workers,
        device=choose_device(cfg.device),
    )


if __name__ == "__main__":
    register()
    launch(main)
