"""train.py against the releases, transcribed with PyTorch's own modules: every weight after three steps, in float64.

The networks are the benchmarks' transcriptions; the losses and the order of updates are written here from the releases
themselves, whatever is slow or odd in them included. A bias that a norm takes out again has no gradient but rounding,
of which Adam makes whole steps: these are held still on both sides.
"""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import default_collate

from benchmarks import plain_cut, plain_nce, plain_sesim, plain_spade
from engine import build as building
from engine.build import build, build_dataset
from engine.inputs import Inputs
from engine.sampling import StepSampler
from models.official import official_name
from tests.compose import UNPAIRED, config
from train import train

STEPS = 3
PAIRED = (
    "dataset=shapes", "dataset.instance=true", "dataset.size=[64,32]", "dataset.lengths={train:12,val:2,test:2}",
    "train.batch_size=2", "train.workers=0", "train.samples=0", "train.log_every=1", "model.generator.width=2",
    "model.generator.hidden=4", "model.discriminator.width=2", "encoder=vgg19", "encoder.pretrained=false",
    "train.regenerate_fake=true", "train.lr=2e-4", "nce.patches=null", "train.init=xavier",
)  # fmt: skip
TTUR = ("train.ttur=true", "train.betas=[0.0,0.9]")
# PyTorch's own initialisation: with Xavier 0.02 CUT's first features are so small that their gradients reach 1e6, and
# rounding with them what Adam divides by.
CUT = (
    *UNPAIRED, "train.lr=2e-4", "nce.patches=null", "train.samples=0", "train.batch_size=1", "train.init=pytorch",
    "model.generator.width=4", "model.discriminator.width=4",
)  # fmt: skip
# Biases before a norm that takes them out again, by official names.
SPADE_DEAD = r"fc\.bias|\w+\.conv_0\.bias|(head_0|G_middle_\d|up_[012])\.conv_1\.bias"


def held(network, dead, official=official_name):
    """Zero gradients for the parameters whose official names match."""
    for name, parameter in network.named_parameters():
        if re.fullmatch(dead, official(name)):
            parameter.register_hook(torch.zeros_like)


def cut_dead(network, tapped=()):
    """Of CUT's networks: the biases of all convolutions but the last, and but those whose own output is tapped."""
    convolutions = [name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)]
    normed = convolutions[1:-1] if "model.0" in convolutions else convolutions[:-1]  # a discriminator's first has none
    kept = {f"model.{at}" for at in tapped}
    return "|".join(re.escape(official_name(f"{name}.bias")) for name in normed if name not in kept)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """A function of words and patterns of held biases: the config, networks as train.py began, the batches it saw, and
    the networks it ended with."""

    def begin(words, holds):
        made = []

        def watched(cfg, inputs):
            made.append(build(cfg, inputs))
            for name, network in made[-1].networks.items():
                if name in holds:
                    held(network, holds[name](network))
            return made[-1]

        cfg = config(*words, f"train.steps={STEPS}", "train.precision=float64")
        monkeypatch.setattr(building, "build", watched)
        train(cfg, tmp_path)
        data = build_dataset(cfg, "train", augment=True)
        inputs = Inputs.of(data)
        parts = build(cfg, inputs)
        for module in parts.modules:
            module.double()
        sampler = StepSampler(len(data), cfg.train.batch_size, 1, cfg.seed, 0, STEPS, 0, 1)
        given = [default_collate([data[key] for key in keys]) for keys in sampler]
        batches = [inputs.to(batch, torch.device("cpu"), torch.float64) for batch in given]
        return cfg, parts, [(batch["source"], batch["target"]) for batch in batches], made[-1]

    return begin


def copied(mine, plain):
    """The transcription with our weights, in the order of the layers, in float64; ours with their official names."""
    plain.double()
    for a, b in zip(mine.parameters(), plain.parameters(), strict=True):
        b.data.copy_(a)
    return plain


def assert_reached(mine, plain):
    for (name, a), b in zip(mine.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}")


def assert_all_reached(mine, plain):
    """Buffers too, by official names."""
    wanted = plain.state_dict()
    found = {official_name(name): value for name, value in mine.state_dict().items()}
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        torch.testing.assert_close(
            value, wanted[name], rtol=0, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}"
        )


# ---------------------------------------------------------------- the SPADE family


class Paired:
    """Generator (and heads), then discriminator on a fake made anew; fake and real go through it together, twice."""

    matching = True

    def __init__(self, cfg, parts, channels):
        self.channels = channels
        self.generator = plain_spade.Generator(channels, 2, 4).double()
        self.discriminator = plain_spade.Discriminator(channels + 3, 2).double()
        for plain, mine in (
            (self.generator, parts.generator),
            (self.discriminator, parts.discriminators["discriminator"]),
        ):
            plain.load_state_dict({official_name(name): value for name, value in mine.state_dict().items()})
        held(self.generator, SPADE_DEAD, str)
        self.perceptual = copied(parts.encoder, plain_spade.Perceptual())
        self.heads = nn.ModuleList()
        lr, betas = cfg.train.lr, tuple(cfg.train.betas)
        rates = (lr / 2, 2 * lr) if cfg.train.ttur else (lr, lr)
        self.adam, self.adam_d = (
            torch.optim.Adam(network.parameters(), rate, betas)
            for network, rate in zip((self.generator, self.discriminator), rates, strict=True)
        )

    def contrast(self, fake, real):
        return 10 * self.perceptual(fake, real)

    def __call__(self, source, target):
        dense = plain_spade.one_hot(source, self.channels, target.dtype)
        fake = self.generator(dense)
        fakes, reals = self.discriminator(dense, fake, target)
        loss = sum(-stages[-1].mean() for stages in fakes) / 2 + self.contrast(fake, target)
        if self.matching:
            loss = loss + plain_spade.matching(fakes, reals)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        with torch.no_grad():
            fake = self.generator(dense)
        fakes, reals = self.discriminator(dense, fake, target)
        self.adam_d.zero_grad()
        sum(F.relu(1 + a[-1]).mean() + F.relu(1 - b[-1]).mean() for a, b in zip(fakes, reals, strict=True)).div(
            2
        ).backward()
        self.adam_d.step()


class CFL(Paired):
    """Both directions, whole key detached, the anchor's own patches as further negatives, lambda / L^2 = 10 / 25."""

    matching = False

    def __init__(self, cfg, parts, channels):
        super().__init__(cfg, parts, channels)
        heads = parts.objective.terms["contrast"].heads
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(head[0].in_features, 8), nn.ReLU(), nn.Linear(8, 8)) for head in heads
        )
        copied(heads, self.heads)
        self.adam.add_param_group({"params": list(self.heads.parameters())})

    @staticmethod
    def direction(anchor, other):
        other = other.detach()
        b, n, _ = anchor.shape
        diagonal = torch.eye(n, dtype=torch.bool)[None]
        negatives = [torch.bmm(anchor, x.mT).masked_fill(diagonal, -10.0) for x in (other, anchor)]
        logits = torch.cat([(anchor * other).sum(-1, keepdim=True), *negatives], -1) / 0.07
        return F.cross_entropy(logits.flatten(0, 1), torch.zeros(b * n, dtype=torch.long))

    def contrast(self, fake, real):
        layers = zip(self.heads, self.perceptual.features(fake)[1:], self.perceptual.features(real)[1:], strict=True)
        total = 0
        for head, *features in layers:
            query, key = (plain_nce.unit(head(x.flatten(2).mT)) for x in features)
            total = total + self.direction(query, key) + self.direction(key, query)
        return 10 / 5**2 * total


class MoNCE(Paired):
    """50 times SPADE's layer weights; a plan that takes gradient weighs the last layer's negatives and positive."""

    def contrast(self, fake, real):
        total = 0
        features = zip(self.perceptual.features(fake), self.perceptual.features(real), strict=True)
        for at, layers in enumerate(features):
            query, key = (plain_nce.unit(x.flatten(2).mT) for x in layers)
            key = key.detach()
            positive, negative = (query * key).sum(-1, keepdim=True), torch.bmm(query, key.mT)
            diagonal = torch.eye(query.shape[1], dtype=torch.bool)[None]
            if at == 4:
                weight = plain_nce.plan(negative.masked_fill(diagonal, -10.0), 1.0) * 128 + 1e-8
                positive = positive + 0.07 * weight.amax(-1, keepdim=True).log()
                negative = negative + 0.07 * weight.log()
            logits = torch.cat([positive, negative.masked_fill(diagonal, -10.0)], -1) / 0.07
            loss = F.cross_entropy(logits.flatten(0, 1), torch.zeros(logits[..., 0].numel(), dtype=torch.long))
            total = total + plain_spade.LAYER_WEIGHTS[at] * loss
        return 50 * total


SPADES = {
    "spade": (Paired, (*TTUR, "objective=spade", "loss=perceptual")),
    "cfl": (
        CFL,
        (
            "objective=contrast_gan", "loss=patchnce_official", "encoder.layers=[relu2_1,relu3_1,relu4_1,relu5_1]",
            "objective.contrast.term.head=mlp", "objective.contrast.term.dim=8", "objective.contrast.weight=0.8",
        ),
    ),
    "monce": (
        MoNCE,
        (
            *TTUR, "objective=spade", "loss=monce_official_spade", "objective.contrast.term.patches=null",
            "objective.contrast.weight=50", "objective.contrast.term.layer_weights=spade",
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPADES)
def test_the_spade_family(start, name):
    kind, words = SPADES[name]
    cfg, parts, batches, ended = start((*PAIRED, *words), {"generator": lambda network: SPADE_DEAD})
    plain = kind(cfg, parts, Inputs.of(build_dataset(cfg, "train", augment=True)).source_channels)
    for batch in batches:
        plain(*batch)
    assert_all_reached(ended.generator, plain.generator)
    assert_all_reached(ended.discriminators["discriminator"], plain.discriminator)
    if name == "cfl":
        assert_reached(ended.objective.terms["contrast"].heads, plain.heads)


# ---------------------------------------------------------------- CUT, CycleGAN, F/LSeSim


class MoNCECut(plain_cut.Step):
    """The plan of 256 patches less one in every layer, eps 0.1; it takes gradient."""

    def contrast(self, source, made):
        queries, keys = self.generator.encode(made), self.generator.encode(source)
        keys, ids = self.heads(keys)
        queries, _ = self.heads(queries, ids)
        return sum(self.nce(q, k) for q, k in zip(queries, keys, strict=True)) / 5

    @staticmethod
    def nce(query, key):
        query, key = query.view(1, -1, 256), key.detach().view(1, -1, 256)
        diagonal = torch.eye(query.shape[1], dtype=torch.bool)[None]
        negative = torch.bmm(query, key.mT)
        weight = plain_nce.plan(negative.masked_fill(diagonal, -10.0), 0.1) * 255 + 1e-8
        negative = (negative + 0.07 * weight.log()).masked_fill(diagonal, -10.0)
        logits = torch.cat([(query * key).sum(-1, keepdim=True), negative], -1) / 0.07
        return F.cross_entropy(logits[0], torch.zeros(query.shape[1], dtype=torch.long))


@pytest.mark.parametrize(("kind", "loss"), [(plain_cut.Step, "patchnce"), (MoNCECut, "monce_official_cut")])
def test_cut(start, kind, loss):
    words = (
        "setting=unpaired",
        "objective=cut",
        "encoder=generator",
        "objective.contrast.term.dim=256",
        f"loss={loss}",
    )
    holds = {"generator": lambda network: cut_dead(network, (4, 8)), "discriminator": cut_dead}
    _, parts, batches, ended = start((*CUT, *words), holds)
    plain = kind(4, 5, patches=10**9)
    pairs = [
        (parts.generator, ended.generator, plain.generator),
        (parts.discriminators["discriminator"], ended.discriminators["discriminator"], plain.discriminator),
        (parts.objective, ended.objective, plain.heads),
    ]
    run(pairs, plain, batches, tapped=(4, 8))


def run(pairs, step, batches, tapped=()):
    """Train the transcription from our first weights, and compare its last ones with ours."""
    for first, _, plain in pairs:
        copied(first, plain)
        dead = re.compile(cut_dead(first, tapped)) if hasattr(first, "model") else re.compile("(?!)")
        for (name, _), parameter in zip(first.named_parameters(), plain.parameters(), strict=True):
            if dead.fullmatch(official_name(name)):
                parameter.register_hook(torch.zeros_like)
    for batch in batches:
        step(*batch)
    for _, ended, plain in pairs:
        assert_reached(ended, plain)


def least_squares(scores, wanted):
    return (scores - wanted).square().mean()


class CycleGAN:
    """Both generators by one optimizer, then both discriminators, each fake and real on their own; pools still fill."""

    def __init__(self):
        self.there, self.back = plain_cut.Generator(4, 5), plain_cut.Generator(4, 5)
        self.of_target, self.of_source = plain_cut.discriminator(4), plain_cut.discriminator(4)
        self.adam, self.adam_d = (
            torch.optim.Adam([*a.parameters(), *b.parameters()], 2e-4, (0.5, 0.999))
            for a, b in ((self.there, self.back), (self.of_target, self.of_source))
        )

    def __call__(self, source, target):
        fake, fake_source = self.there(source), self.back(target)
        loss = least_squares(self.of_target(fake), 1) + least_squares(self.of_source(fake_source), 1)
        loss = loss + 10 * (F.l1_loss(self.back(fake), source) + F.l1_loss(self.there(fake_source), target))
        loss = loss + 5 * (F.l1_loss(self.there(target), target) + F.l1_loss(self.back(source), source))
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.adam_d.zero_grad()
        for judge, made, real in ((self.of_target, fake, target), (self.of_source, fake_source, source)):
            (least_squares(judge(real), 1) + least_squares(judge(made.detach()), 0)).div(2).backward()
        self.adam_d.step()


def test_cyclegan(start):
    names = ("generator", "generator_source", "discriminator", "discriminator_source")
    words = ("setting=cycle", "objective=cycle", "loss=none", "train.pool=50")
    _, parts, batches, ended = start((*CUT, *words), dict.fromkeys(names, cut_dead))
    plain = CycleGAN()
    networks = (plain.there, plain.back, plain.of_target, plain.of_source)
    run([(parts.networks[n], ended.networks[n], p) for n, p in zip(names, networks, strict=True)], plain, batches)


class LSeSim(plain_sesim.Step):
    """Heads on detached images, then the discriminator on the pool's, then the generator; VGG16 stays."""

    def __init__(self):
        super().__init__(4, 5)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, max(32, c // 4), 1), nn.ReLU(), nn.Conv2d(max(32, c // 4), max(32, c // 4), 1))
            for c in (256, 512, 512)
        )
        self.adam_p = torch.optim.Adam(self.heads.parameters(), 1e-4, betas=(0.5, 0.999))

    def maps(self, image):
        found = zip(self.heads, self.vgg(image), strict=True)
        return [plain_sesim.maps(head(x), torch.arange(x.shape[2] * x.shape[3])) for head, x in found]

    def spatial(self, source, fake):
        return (
            sum(plain_sesim.map_loss(a.detach(), b) for a, b in zip(self.maps(source), self.maps(fake), strict=True))
            / 3
        )

    def __call__(self, source, target):
        with torch.no_grad():
            fake = self.generator(source)
        loss = 0
        for layer in zip(*(self.maps(image) for image in (source, fake, target.flip(-2, -1))), strict=True):
            a, b, c = (F.normalize(rows, dim=-1)[0] for rows in layer)
            logits = torch.cat([a @ b.T, a @ c.T, b @ c.T], 1) / 0.07
            loss = loss + F.cross_entropy(logits, torch.arange(len(logits))) / 3
        self.adam_p.zero_grad()
        loss.backward()
        self.adam_p.step()
        return super().__call__(source, target)


def test_lsesim(start):
    words = (
        "setting=unpaired", "objective=lsesim", "encoder=vgg16", "encoder.pretrained=false", "loss=patchnce",
        "objective.spatial.term.augment=false", "train.pool=50", "train.lr=1e-4",
    )  # fmt: skip
    last = {"parts": lambda network: r".*heads\.\d\.2\.bias|mlp_\d\.2\.bias"}  # maps are centred
    holds = dict.fromkeys(("generator", "discriminator"), cut_dead) | last
    _, parts, batches, ended = start((*CUT, *words), holds)
    plain = LSeSim()
    copied(parts.encoder, plain.vgg)
    for head in plain.heads:
        head[2].bias.register_hook(torch.zeros_like)
    pairs = [
        (parts.generator, ended.generator, plain.generator),
        (parts.discriminators["discriminator"], ended.discriminators["discriminator"], plain.discriminator),
        (parts.networks["parts"], ended.networks["parts"], plain.heads),
    ]
    run(pairs, plain, batches)
