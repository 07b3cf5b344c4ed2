"""How similar the patches are that a run compares, and how its negatives would be weighted: analyze.py checkpoint=RUN.

Zhan et al. 2022 (MoNCE), Fig. 2: cosine similarities of positives (the same place in both images) and of negatives
(other places of the same image), of the projected features of test images, in 100 bins. Their claim: hardly any overlap
for unpaired translation, heavy overlap for paired. Writes analysis/<step>/{similarity,weights}.{json,png} in the run
folder; report.py shows them.
"""

import json
import sys
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks into scripts/ only

from engine.paths import check_checkpoint, early

if __name__ == "__main__":  # before torch is loaded
    early({"checkpoint": check_checkpoint})

import torch
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import default_collate

from data.example import to_uint8
from engine.build import Build, build, build_dataset
from engine.checkpoint import Loaded, compare, load_network
from engine.checks import check
from engine.config import register
from engine.distributed import choose_device
from engine.launch import entry, launch
from engine.render import picture
from engine.sampling import mix
from engine.trust import Trust, ours
from errors import UserError
from files import atomically, write_text
from losses.comparison import Comparison, draw_places
from losses.objective import Views
from results.figures import histograms, weight_maps
from results.patches import Tally, similarity, weights

SCHEMA = 1
BESIDE = 2**28  # numbers of networks that are not in the checkpoint, which nothing else bounds


def analyze(cfg: DictConfig) -> Path:
    """Measure a checkpoint as the config says; returns the folder of the four files.

    Raises:
        UserError: for a run whose objective compares no patches, or a value out of range.
    """
    loaded = Loaded.open(cfg.checkpoint, dataset=cfg.dataset, trust=Trust.of(cfg))
    for node in (loaded.cfg, loaded.cfg.encoder):
        if isinstance(node, DictConfig) and "offline" in node:
            node.offline = cfg.offline
        if isinstance(node, DictConfig) and "weights_dir" in node:
            node.weights_dir = cfg.weights_dir
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
    folder = loaded.path.parent / "analysis" / loaded.name
    summary = {**about, "split": cfg.split, "images": count, "patches": patches, "layers": found}
    title = f"{query} against {key}, {count} images, step {loaded.step}, {about['features']}"
    _write(folder, "similarity", summary, histograms(found, title))

    made, names = views([chosen[cfg.image]])
    direction = cfg.direction or getattr(term.loss, "direction", loaded.cfg.nce.direction)
    chosen_patch = {"patch": cfg.patch, "places": cfg.places, "direction": direction, "beta": cfg.beta}
    maps = weights(term, made, query, key, layers, **chosen_patch)
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
    held = loaded.networks
    slots = ("model", "setting", "encoder", "objective")
    check(loaded.cfg)
    if ours(loaded.cfg, *slots):
        with torch.device("meta"):
            bare = cast(DictConfig, OmegaConf.merge(loaded.cfg, {}))
            if isinstance(bare.encoder, DictConfig) and "pretrained" in bare.encoder:
                bare.encoder.pretrained = False
            parts = build(bare, loaded.inputs)
        beside = dict(parts.networks) | ({"encoder": parts.encoder} if parts.encoder is not None else {})
        for name in beside.keys() & held.keys():
            compare(beside.pop(name), held[name], name, loaded.path)
        count = sum(value.numel() for network in beside.values() for value in network.state_dict().values())
        if count > BESIDE:
            raise UserError(
                f"checkpoint={loaded.path}: {', '.join(beside)} would take {count:,} numbers, of which the file holds "
                f"none; at most {BESIDE:,} are made"
            )
    parts = build(loaded.cfg, loaded.inputs)
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


def _check(cfg: DictConfig, length: int) -> None:
    if cfg.image >= min(cfg.images, length):
        raise UserError(f"image={cfg.image}: there are {min(cfg.images, length)} images, numbered from 0")


def _write(folder: Path, name: str, found: dict[str, Any], image: Any) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{name}.json", json.dumps(found) + "\n")
        with atomically(folder / f"{name}.png") as file:
            image.save(file, format="PNG")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error}); change its permissions") from error


@entry("analyze")
def main(cfg: DictConfig) -> None:
    """The command line."""
    analyze(cfg)


if __name__ == "__main__":
    register()
    launch(main)
