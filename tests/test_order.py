"""CUT's updates with and without accumulation against a plain loop: the discriminator, then the generator.

float64, five steps. All images of a step are of the generator before its update. The other hosts: test_releases.py.
"""

import pytest
import torch
import torch.nn.functional as F

from engine.build import build, build_dataset
from engine.inputs import Inputs
from engine.sampling import StepSampler
from tests.compose import UNPAIRED, config
from train import train

LAYERS = [0, 4, 8, 12, 16]
STEPS = 5


def start(folder, *words):
    """The networks as train.py began, the batches it saw, and the checkpoint it ended with."""
    cfg = config(*UNPAIRED, *words, f"train.steps={STEPS}", "train.precision=float64", "nce.patches=null")
    train(cfg, folder)
    data = build_dataset(cfg, "train", augment=True)
    inputs = Inputs.of(data)
    parts = build(cfg, inputs)
    for module in parts.modules:
        module.double()
    sampler = StepSampler(len(data), cfg.train.batch_size, 1, cfg.seed, 0, STEPS, 0, 1)
    batches = []
    for keys in sampler:
        items = [data[key] for key in keys]
        batch = {"name": [], **{key: torch.stack([item[key] for item in items]) for key in ("source", "target")}}
        batches.append(inputs.to(batch, torch.device("cpu"), torch.float64))
    return cfg, parts, batches, torch.load(folder / "last.pt", weights_only=True)


def adam(cfg, *modules):
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return torch.optim.Adam(parameters, cfg.train.lr, betas=tuple(cfg.train.betas))


def step(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def of_generator(discriminator, fake):
    return (discriminator(None, fake)[0][-1] - 1).square().mean()


def of_discriminator(discriminator, fake, real):
    scores = (discriminator(None, image)[0][-1] for image in (fake.detach(), real))
    fake, real = scores
    return ((real - 1).square().mean() + fake.square().mean()) / 2


def nce(query, key):
    query, key = (x / (x.norm(dim=-1, keepdim=True) + 1e-7) for x in (query, key.detach()))
    logits = query @ key.mT / 0.07
    return F.cross_entropy(logits.flatten(0, 1), torch.arange(logits.shape[1]).repeat(len(logits)))


def assert_reached(parts, saved):
    for name, network in parts.networks.items():
        for key, value in network.state_dict().items():
            torch.testing.assert_close(value, saved["networks"][name][key], rtol=1e-7, atol=1e-9, msg=f"{name}.{key}")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_cut_steps_the_discriminator_first(tmp_path, accumulate):
    words = ("setting=unpaired", "objective=cut", "encoder=generator", "objective.contrast.term.dim=8")
    cfg, parts, batches, saved = start(tmp_path, *words, f"train.accumulate={accumulate}")
    generator, discriminator = parts.generator, parts.discriminators["discriminator"]
    heads = parts.objective.terms["contrast"].heads
    adam_g, adam_d = adam(cfg, generator, heads), adam(cfg, discriminator)

    def contrast(made, seen):
        layers = zip(heads, generator.encode(made, LAYERS), generator.encode(seen, LAYERS), strict=True)
        return sum(nce(head(q.flatten(2).mT), head(k.flatten(2).mT)) for head, q, k in layers) / 5

    for batch in batches:
        fake, identity = generator(torch.cat([batch["source"], batch["target"]])).chunk(2)
        step(adam_d, of_discriminator(discriminator, fake, batch["target"]))
        both = (contrast(fake, batch["source"]) + contrast(identity, batch["target"])) / 2
        step(adam_g, of_generator(discriminator, fake) + both)
    assert_reached(parts, saved)
