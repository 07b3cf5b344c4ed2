"""A step's losses: per image with per-image negatives, and computed in as few passes as they need."""

import weakref

import pytest
import torch

from engine import steps
from engine.build import build, build_dataset
from engine.inputs import Inputs
from engine.steps import GeneratorStep
from tests.compose import UNPAIRED, config
from train import train

CUT = ("setting=unpaired", "objective=cut", "encoder=generator", "objective.contrast.term.dim=8", "train.init=pytorch")
VGG = ("encoder=vgg16", "encoder.pretrained=false", "encoder.layers=[relu1_1,relu2_1]", "setting=unpaired")


def made(*words, count):
    """The parts of a run in float64 and `count` images of either side."""
    cfg = config(*UNPAIRED, *words)
    data = build_dataset(cfg, "train", augment=True)
    inputs = Inputs.of(data)
    parts = build(cfg, inputs)
    for module in parts.modules:
        module.double()
    items = [data[(index, index)] for index in range(count)]
    batch = {"name": [item["name"] for item in items]}
    batch |= {key: torch.stack([item[key] for item in items]) for key in ("source", "target")}
    return parts, inputs.to(batch, torch.device("cpu"), torch.float64)


def losses(parts, batch, draw=5):
    found, views = parts.generator_step(batch, draw)
    return found | parts.late(views)


def part(batch, rows):
    return {key: value[rows] for key, value in batch.items()}


@pytest.mark.parametrize(
    "words",
    [
        *[(*CUT, f"loss={loss}") for loss in ("patchnce", "weightnce", "monce")],
        ("setting=cycle", "objective=cycle", "loss=none"),
        (*VGG, "objective=sesim", "loss=none"),
        (*VGG, "objective=lsesim"),
    ],
    ids=["patchnce", "weightnce", "monce", "cycle", "sesim", "lsesim"],
)
@pytest.mark.parametrize("size", [3, 4], ids=["incomplete", "full"])
def test_the_loss_of_a_batch_is_the_mean_of_its_images(words, size):
    parts, batch = made(*words, count=size)
    whole = losses(parts, batch)
    single = [losses(parts, part(batch, slice(index, index + 1))) for index in range(size)]
    for name, value in whole.items():
        mean = sum(one[name].item() for one in single) / size
        assert value.item() == pytest.approx(mean, rel=1e-6), name


def test_negatives_of_the_batch_make_it_more_than_that():
    parts, batch = made(*CUT, "loss.negatives=batch", count=4)
    whole = losses(parts, batch)["contrast"].item()
    single = [losses(parts, part(batch, slice(i, i + 1)))["contrast"].item() for i in range(4)]
    assert whole > sum(single) / 4 + 0.5  # four times the negatives: up to log 4 more


def test_cut_makes_one_generator_pass_and_encodes_each_made_image_once():
    parts, batch = made(*CUT, count=1)
    seen = []
    generator = parts.generator
    tapped, encode = generator.tapped, generator.encode
    generator.tapped = lambda image, layers: seen.append(("tapped", len(image))) or tapped(image, layers)
    generator.encode = lambda image, layers: seen.append(("encode", len(image))) or encode(image, layers)
    losses(parts, batch)
    assert seen == [("tapped", 2), ("encode", 1), ("encode", 1)]


def test_features_from_the_generators_pass_are_those_of_the_encoder():
    parts, batch = made(*CUT, count=2)
    views = parts.generator_step.views(batch, 0)
    for name in ("source", "target"):
        for given, own in zip(views.features(name), parts.encoder(batch[name]), strict=True):
            torch.testing.assert_close(given, own)


def test_parts_of_a_term_get_no_gradient_from_the_generators_loss_nor_it_from_theirs():
    parts, batch = made(*VGG, "objective=lsesim", count=2)
    term = parts.late.objective.terms["spatial"]
    parts.train_others(True)
    _, views = parts.generator_step(batch, 0)
    step = parts.other_steps["parts"]
    sum(step(*step.inputs(views, 1)).values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in term.heads.parameters())
    assert all(p.grad is None for p in parts.generator.parameters())
    parts.train_others(False)
    before = [p.grad.clone() for p in term.heads.parameters()]
    sum(parts.late(views).values()).backward()
    assert all(p.grad.abs().sum() > 0 for name, p in parts.generator.named_parameters() if name.endswith("weight"))
    assert all(torch.equal(p.grad, old) for p, old in zip(term.heads.parameters(), before, strict=True))


def test_a_steps_feature_maps_do_not_live_on_beside_the_next_ones(tmp_path, monkeypatch):
    alive = []
    real = GeneratorStep.views

    def watched(self, batch, draw):
        assert not [view for view in alive if view() is not None]
        made = real(self, batch, draw)
        alive.append(weakref.ref(made))
        return made

    monkeypatch.setattr(GeneratorStep, "views", watched)
    train(config(*UNPAIRED, *CUT, "train.steps=3"), tmp_path)
    assert len(alive) == 3


def test_colours_change_for_every_rank_and_image_and_places_are_shared(monkeypatch):
    parts, batch = made(*VGG, "objective=lsesim", count=2)
    step = parts.other_steps["parts"]
    views = parts.generator_step.views(batch, 0)
    seen = []
    for rank in (0, 1):
        monkeypatch.setattr(steps, "rank", lambda rank=rank: rank)
        seen.append(step.inputs(views, 3)[0])
    assert not torch.equal(seen[0]["jittered_source"][0], seen[1]["jittered_source"][0])
    assert torch.equal(seen[0]["source"][0], seen[1]["source"][0])


@pytest.mark.parametrize("made_by", ["discriminator", "discriminator_source"])
def test_a_discriminators_step_gives_the_generators_nothing(made_by):
    parts, batch = made("setting=cycle", "objective=cycle", "loss=none", count=2)
    parts.train_others(True)
    _, views = parts.generator_step(batch, 0)
    step = parts.other_steps["discriminator"]
    step(*step.inputs(views, 0))[made_by].backward()
    assert all(p.grad is None for generator in parts.generators.values() for p in generator.parameters())
    assert any(p.grad is not None for p in parts.discriminators[made_by].parameters())
