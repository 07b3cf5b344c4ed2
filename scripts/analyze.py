"""How similar the patches are that a run compares, and how its negatives would be weighted: analyze.py checkpoint=RUN.

Zhan et al. 2022 (MoNCE), Fig. 2: cosine similarities of positives (the same place in both images) and of negatives
(other places of the same image), of the projected features of test images, in 100 bins. Their claim: hardly any overlap
for unpaired translation, heavy overlap for paired. Writes analysis/<step>/{similarity,weights}.{json,png} in the run
folder; report.py shows them.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks into scripts/ only

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import default_collate

from data.example import to_uint8
from engine.build import Build, build, build_dataset
from engine.checkpoint import Loaded, load_network
from engine.config import register
from engine.distributed import choose_device
from engine.launch import entry, launch
from engine.render import picture
from engine.sampling import mix
from errors import UserError
from losses.comparison import Comparison, draw_places
from losses.objective import Views
from losses.weighting import softmax_weights, transport_weights
from results.figures import histograms, weight_maps

BINS = 100
SCHEMA = 1


def analyze(cfg: DictConfig) -> Path:
    """Measure a checkpoint as the config says; returns the folder of the four files.

    Raises:
        UserError: for a run whose objective compares no patches, or a value out of range.
    """
    loaded = Loaded.open(cfg.checkpoint)
    device = choose_device(cfg.device)
    parts = restored(loaded, device)
    name, term = contrast_of(parts, cfg.term)
    dataset = build_dataset(loaded.cfg, cfg.split, augment=False)
    _check(cfg, len(dataset))
    count = min(cfg.images, len(dataset))
    chosen = [index * len(dataset) // count for index in range(count)]
    query, key = term.pairs[0]
    layers = [str(layer) for layer in parts.encoder.layers]
    about = {
        "schema": SCHEMA,
        "step": loaded.step,
        "term": name,
        "query": query,
        "key": key,
        "features": "features as they are" if term.dense else "features projected by the run's heads",
    }

    @torch.inference_mode()
    def views(indices: list[int]) -> tuple[Views, list[str]]:
        batch = loaded.inputs.to(default_collate([dataset[index] for index in indices]), device, torch.float32)
        return parts.generator_step.views(batch, mix(cfg.seed, 21, *indices[:1])), list(batch["name"])

    patches = cfg.patches or term.patches
    tally = [Tally() for _ in layers]
    for start in range(0, count, cfg.batch_size):
        made, _ = views(chosen[start : start + cfg.batch_size])
        generator = torch.Generator().manual_seed(mix(cfg.seed, 22, start))
        for at, pair in enumerate(zip(made.features(query), made.features(key), strict=True)):
            places = draw_places(pair[0], patches, generator)
            tally[at].add(similarity(term, at, *pair, places))
    found = [{"name": layer, **one.result()} for layer, one in zip(layers, tally, strict=True)]
    folder = loaded.path.parent / "analysis" / str(loaded.step)
    summary = {**about, "split": cfg.split, "images": count, "patches": patches, "layers": found}
    title = f"{query} against {key}, {count} images, step {loaded.step}, {about['features']}"
    _write(folder, "similarity", summary, histograms(found, title))

    made, names = views([chosen[cfg.image]])
    maps = weights(term, made, query, key, layers, cfg, loaded.cfg)
    words = f"{names[0]}: {maps['direction']}, beta {maps['beta']:g}"
    shown, against = (picture(to_uint8(made[view][0])) for view in (query, key))
    _write(folder, "weights", {**about, "image": names[0], **maps}, weight_maps(shown, against, maps["layers"], words))
    for layer in found:
        print(f"{layer['name']}: positives {layer['positive_mean']:.3f}, negatives {layer['negative_mean']:.3f}, "
              f"overlap {layer['overlap']:.3f}, rank {layer['rank']:.3f}")  # fmt: skip
    print(folder)
    return folder


def restored(loaded: Loaded, device: torch.device) -> Build:
    """Everything of a run as its checkpoint left it, in eval mode; the generator's moving average where it kept one."""
    parts = build(loaded.cfg, loaded.inputs)
    held = dict(loaded.state["networks"])
    if loaded.state.get("average"):
        held["generator"] = loaded.state["average"]
    for name, network in parts.networks.items():
        if name in held:
            load_network(network, held[name], name, loaded.path)
    for module in parts.modules:
        module.to(device).eval()
    return parts


def contrast_of(parts: Build, wanted: str | None) -> tuple[str, Comparison]:
    """A term that compares places of two images in an encoder's features, by name or the first.

    Raises: UserError where the run has none, or none of that name.
    """
    terms = {name: term for name, term in parts.objective.terms.items() if isinstance(term, Comparison)}
    if not terms:
        raise UserError(
            "checkpoint: no term of its objective compares patches of two images; give a run with a contrast"
        )
    if wanted is not None and wanted not in terms:
        raise UserError(f"term={wanted}: no such term; there are {', '.join(terms)}")
    name = wanted or next(iter(terms))
    return name, terms[name]


@torch.inference_mode()
def similarity(term: Comparison, layer: int, query: Tensor, key: Tensor, places: Tensor | None) -> Tensor:
    """(B, N, N) cosine similarity of some places of two feature maps (B, C, H, W), after the term's head."""
    drawn = [one.flatten(2).mT if places is None else one.flatten(2)[..., places].mT for one in (query, key)]
    headed = drawn if term.dense else [term.heads[layer](one) for one in drawn]  # (B, N, C)
    first, second = (one.float() / (one.float().norm(dim=-1, keepdim=True) + 1e-7) for one in headed)
    return first @ second.mT


class Tally:
    """Histograms of positives and negatives over [-1, 1], summed over images; each image counts by its patches."""

    def __init__(self) -> None:
        self.counts = torch.zeros(2, BINS, dtype=torch.float64)
        self.moments = torch.zeros(2, 3, dtype=torch.float64)  # number, sum, sum of squares
        self.ranks = torch.zeros(2, dtype=torch.float64)

    def add(self, similarities: Tensor) -> None:
        """(B, N, N), the positives on the diagonal."""
        own = torch.eye(similarities.shape[-1], dtype=torch.bool, device=similarities.device)
        positives = similarities.diagonal(dim1=-2, dim2=-1)
        lower = (similarities < positives.unsqueeze(-1)).sum(-1) / max(1, similarities.shape[-1] - 1)
        self.ranks += torch.stack([lower.double().sum().cpu(), torch.tensor(lower.numel(), dtype=torch.float64)])
        for at, values in enumerate((positives, similarities[:, ~own])):
            values = values.double().flatten().clamp(-1, 1).cpu()
            self.counts[at] += torch.histogram(values, BINS, range=(-1, 1)).hist
            self.moments[at] += torch.stack([values.new_tensor(len(values)), values.sum(), values.square().sum()])

    def result(self) -> dict[str, Any]:
        """Bin edges, densities of area 1, their overlap (the area under both), numbers, means and deviations; `rank`,
        the share of a patch's negatives that are less similar than its positive, which knows no bins."""
        width = 2 / BINS
        density = self.counts / (self.counts.sum(1, keepdim=True).clamp(min=1) * width)
        number, total, squares = self.moments.unbind(1)
        mean = total / number.clamp(min=1)
        sd = (squares / number.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
        sides = {
            f"{name}_{what}": float(values[at])
            for at, name in enumerate(("positive", "negative"))
            for what, values in (("count", number), ("mean", mean), ("sd", sd))
        }
        return {
            "edges": [round(-1 + width * at, 6) for at in range(BINS + 1)],
            "positive": [float(f"{value:.6g}") for value in density[0]],
            "negative": [float(f"{value:.6g}") for value in density[1]],
            "overlap": float(density.amin(0).sum() * width),
            "rank": float(self.ranks[0] / self.ranks[1].clamp(min=1)),
            **sides,
        }


def weights(
    term: Comparison, views: Views, query: str, key: str, layers: list[str], cfg: DictConfig, run: DictConfig
) -> dict[str, Any]:
    """How often each place counts as a negative of the chosen patch, in units of PatchNCE's 1, by layer.

    WeightNCE's and MoNCE's weights among a regular grid of places, with the direction and beta of the run's loss; a
    run with another loss takes its setting's direction, and beta 0.1.
    """
    loss = term.loss
    direction = cfg.direction or getattr(loss, "direction", run.nce.direction)
    beta = float(cfg.beta or getattr(loss, "beta", 0.1))
    iterations: int = getattr(loss, "iterations", 50)
    cost: Any = getattr(loss, "cost", "linear")
    found = []
    for at, layer in enumerate(layers):
        first, second = views.features(query)[at], views.features(key)[at]
        rows, columns = _grid(first.shape[-2], first.shape[-1], cfg.places)
        places = (rows[:, None] * first.shape[-1] + columns).flatten().to(first.device)
        own = [
            min(len(line) - 1, int(share * len(line))) for share, line in zip(cfg.patch, (rows, columns), strict=True)
        ]
        index = own[0] * len(columns) + own[1]
        between = similarity(term, at, first, second, places)
        negatives = between.shape[-1] - 1
        weighted = {
            "weightnce": softmax_weights(between, direction, beta)[0, index].exp() * negatives,
            "monce": transport_weights(between, direction, beta, iterations, cost)[0, index].exp() * negatives,
        }
        shape = (len(rows), len(columns))
        maps = {"similarity": between[0, index], **weighted}
        shown = {name: _nested(values, shape) for name, values in maps.items()}
        found.append({"name": layer, "grid": list(shape), "place": own, **shown})
    return {
        "patch": list(cfg.patch),
        "direction": direction,
        "beta": beta,
        "iterations": iterations,
        "cost": cost,
        "layers": found,
    }


def _grid(height: int, width: int, places: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of a regular grid of at most so many places."""
    stride = next(s for s in range(1, height + width) if -(-height // s) * -(-width // s) <= places)
    rows, columns = (torch.arange((side - 1) % stride // 2, side, stride) for side in (height, width))
    return rows, columns


def _nested(values: Tensor, shape: tuple[int, int]) -> list[list[float]]:
    return [[float(f"{value:.4g}") for value in row] for row in values.double().cpu().view(shape).tolist()]


def _check(cfg: DictConfig, length: int) -> None:
    for key, least in (("images", 1), ("batch_size", 1), ("places", 2), ("image", 0)):
        if not isinstance(cfg[key], int) or cfg[key] < least:
            raise UserError(f"{key}={cfg[key]}: a whole number from {least} was wanted")
    if cfg.image >= min(cfg.images, length):
        raise UserError(f"image={cfg.image}: there are {min(cfg.images, length)} images, numbered from 0")
    if len(cfg.patch) != 2 or not all(0 <= share <= 1 for share in cfg.patch):
        raise UserError(f"patch={list(cfg.patch)}: two shares 0..1 of height and width were wanted")
    if cfg.direction not in (None, "hard", "easy"):
        raise UserError(f"direction={cfg.direction}: hard or easy was wanted")


def _write(folder: Path, name: str, found: dict[str, Any], image: Any) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(found) + "\n")
        image.save(folder / f"{name}.png")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error


@entry("analyze")
def main(cfg: DictConfig) -> None:
    """The command line."""
    analyze(cfg)


if __name__ == "__main__":
    register()
    launch(main)
