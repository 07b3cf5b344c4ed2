"""The spatially-correlative term: layers, queries and heads; what the heads are trained on, and where gradients go."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor, nn

from losses.contrastive import MoNCE, PatchNCE, WeightNCE
from losses.objective import Views
from losses.perceptual import L1
from losses.similarity import map_loss, similarity_map
from losses.spatial import SelfSimilarity, jitter
from tests.compose import CONFIGS


class Encoder(nn.Module):
    """Layers of 5 and 40 channels at sizes 6x9 and 3x4."""

    channels = (5, 40)
    sizes = ((6, 9), (3, 4))

    def __init__(self, colours: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convs = nn.ModuleList(nn.Conv2d(colours, c, 3) for c in self.channels).double()
        self.calls = 0

    def forward(self, image: Tensor) -> list[Tensor]:
        self.calls += 1
        pooled = (F.adaptive_avg_pool2d(image, (h + 2, w + 2)) for h, w in self.sizes)
        return [conv(part).relu() for conv, part in zip(self.convs, pooled, strict=True)]


def views(batch: int = 2, colours: int = 3, draw: int = 5) -> Views:
    generator = torch.Generator().manual_seed(0)
    images = {
        name: torch.rand(batch, colours, 14, 18, dtype=torch.float64, generator=generator) * 2 - 1
        for name in ("source", "target", "fake")
    }
    return Views(Encoder(colours), images, torch.Generator().manual_seed(draw))


def term(**settings) -> SelfSimilarity:
    torch.manual_seed(1)
    made = SelfSimilarity(["fake", "source"], Encoder.channels, **settings).double()
    for head in made.heads:  # as deviating as after training: at the start maps are all but flat
        for parameter in head.parameters():
            nn.init.normal_(parameter, std=0.5)
    return made


def own_features(made: SelfSimilarity, v: Views) -> dict[str, list[Tensor]]:
    return {name: v.encoder(image) for name, image in made.own_views(v).items()}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"window": 4, "patches": 7},
        {"mode": "l1", "cosine": True, "window": 3},
        {"keys": "queries", "patches": 10},
        {"mode": "strotss", "keys": "queries", "patches": 10},
    ],
)
def test_mean_over_layers_of_the_loss_of_their_maps(settings):
    v = views()
    random = torch.Generator().manual_seed(5)
    values = []
    for fake, source in zip(v.features("fake"), v.features("source"), strict=True):
        count, wanted = fake.shape[-2] * fake.shape[-1], settings.get("patches", 256)
        places = torch.randperm(count, generator=random)[:wanted] if wanted < count else None
        literal = settings.get("mode") == "strotss"
        cosine = settings.get("cosine", False) or literal
        keys, window = settings.get("keys", "window"), settings.get("window", 64)
        maps = [similarity_map(features, places, keys, window, cosine, not literal) for features in (fake, source)]
        values.append(map_loss(*maps, settings.get("mode", "cos"), smooth=not settings.get("cosine", False)))
    torch.testing.assert_close(term(**settings)(v), sum(values) / 2)


def test_queries_are_drawn_from_the_generator_of_the_views():
    made = term(patches=6)
    assert torch.equal(made(views()), made(views()))
    assert not torch.equal(made(views()), made(views(draw=6)))
    v = views()
    assert not torch.equal(made(v), made(v))


@pytest.mark.parametrize("settings", [{}, {"mode": "l1"}, {"mode": "strotss", "keys": "queries"}])
def test_batch_is_the_mean_of_its_images(settings):
    v, made = views(batch=4), term(window=4, **settings)
    parts = [Views(v.encoder, {name: image[b : b + 1] for name, image in v.items()}) for b in range(4)]
    torch.testing.assert_close(made(v), sum(made(part) for part in parts) / 4)


def test_a_scene_in_other_colours_costs_less_than_another_scene():
    generator = torch.Generator().manual_seed(0)
    scene, other = F.interpolate(torch.rand(2, 1, 5, 5, generator=generator), (32, 32)).split(1)
    colours = torch.rand(2, 3, 1, 1, generator=generator)
    images = {"source": scene * colours[:1], "fake": 1 - scene * colours[1:]}

    def cost(fake: Tensor) -> float:
        return made(Views(lambda image: [image], {**images, "fake": fake})).item()

    made = SelfSimilarity(["fake", "source"], [3], patches=None, cosine=True)
    assert cost(images["source"]) == pytest.approx(0, abs=1e-6)
    assert cost(images["fake"]) < 0.5 * cost(other * colours[1:])


def test_gradients_flow_to_the_generated_image_only():
    v = views()
    for view in ("fake", "source", "target"):
        v[view].requires_grad_()
    made = term(contrast=PatchNCE(), window=4)
    made.requires_grad_(False)
    made(v).backward()
    assert v["fake"].grad.abs().sum() > 0
    assert v["source"].grad is None and v["target"].grad is None
    assert all(parameter.grad is None for parameter in made.parameters())


def test_learned_maps_are_of_projected_features():
    v, made = views(), term(contrast=PatchNCE(), window=4)
    layers = [
        [head(features) for head, features in zip(made.heads, v.features(view), strict=True)]
        for view in ("fake", "source")
    ]
    maps = [[similarity_map(features, None, window=4) for features in found] for found in layers]
    expected = sum(map_loss(fake, source) for fake, source in zip(*maps, strict=True)) / 2
    torch.testing.assert_close(made(v), expected)
    assert not torch.allclose(made(v), term(window=4)(v))


def test_heads_of_the_papers_layers():
    torch.manual_seed(0)
    made = SelfSimilarity(["fake", "source"], [256, 512, 512], contrast=PatchNCE())
    assert [sum(p.numel() for p in head.parameters()) for head in made.heads] == [20_608, 82_176, 82_176]
    assert sum(p.numel() for p in made.parameters()) == 184_960
    assert [head[2].out_channels for head in SelfSimilarity(["a", "b"], [3, 128, 136], contrast=PatchNCE()).heads] == [
        32,
        32,
        34,
    ]
    for layer in (layer for head in made.heads for layer in head if isinstance(layer, nn.Conv2d)):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not layer.bias.any()
    assert made.learned and not list(SelfSimilarity(["fake", "source"], [256]).parameters())


def test_what_is_read():
    fixed, learned = term(), term(contrast=PatchNCE(), other="real")
    assert fixed.reads == {"fake", "source"} and fixed.pairs == [("fake", "source")] and not fixed.learned
    assert learned.reads == {"fake", "source", "real"} and learned.pairs == fixed.pairs and learned.learned


@pytest.mark.parametrize("loss", [PatchNCE(), WeightNCE("hard"), MoNCE("hard")], ids=str)
@pytest.mark.parametrize("augment", [False, True])
def test_own_loss_tells_three_images_apart(loss, augment):
    """Source against generated image, the other's rows against both; then source against itself in other colours."""
    v, made = views(), term(contrast=loss, augment=augment, window=4, patches=9)
    features = own_features(made, v)
    random = torch.Generator().manual_seed(3)
    values = []
    for i in range(2):
        places = torch.randperm(features["fake"][i][0, 0].numel(), generator=random)[:9]
        rows = {
            name: F.normalize(similarity_map(made.heads[i](layers[i]), places, window=4), dim=-1)
            for name, layers in features.items()
        }
        values.append(loss.against(rows["source"], rows["fake"], rows["turned_target"]))
        if augment:
            second = loss.against(rows["source"], rows["jittered_source"], rows["turned_jittered_target"])
            values[-1] = (values[-1] + second) / 2  # the batch is doubled
    found = made.own_loss(features, torch.Generator().manual_seed(3))
    torch.testing.assert_close(found, sum(values) / 2)


def test_own_loss_trains_the_heads_only():
    v, made = views(), term(contrast=MoNCE("hard"), augment=True, window=4)
    images = {name: image.requires_grad_() for name, image in made.own_views(v).items()}
    made.own_loss({name: v.encoder(image) for name, image in images.items()}, None).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in made.heads.parameters())
    assert all(image.grad is None for image in images.values())
    assert all(parameter.grad is None for parameter in v.encoder.parameters())


def test_training_the_heads_lowers_their_loss():
    v, made = views(), SelfSimilarity(["fake", "source"], Encoder.channels, contrast=PatchNCE(), augment=True).double()
    features = own_features(made, v)
    adam = torch.optim.Adam(made.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        adam.zero_grad()
        loss = made.own_loss(features, torch.Generator().manual_seed(0))
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_early_layers_of_a_loss_that_weights_the_last_only():
    v = views()
    last = term(contrast=MoNCE("hard", weighted_layers="last"), window=4)
    features = own_features(last, v)

    def values(made: SelfSimilarity) -> list[float]:
        found = []
        for i in range(2):
            alone = SelfSimilarity(["fake", "source"], Encoder.channels[i : i + 1], contrast=PatchNCE(), window=4)
            alone.heads, alone.contrast = made.heads[i : i + 1], (made.early_contrast, made.contrast)[i]
            found.append(alone.own_loss({name: layers[i : i + 1] for name, layers in features.items()}, None).item())
        return found

    plain, weighted = values(term(contrast=PatchNCE(), window=4)), values(term(contrast=MoNCE("hard"), window=4))
    assert values(last) == pytest.approx([plain[0], weighted[1]])
    assert plain[0] != weighted[0]
    assert last.own_loss(features, None).item() == pytest.approx((plain[0] + weighted[1]) / 2)


def test_own_views_are_turned_and_in_changed_colours():
    made, v = term(contrast=PatchNCE(), augment=True), views()
    v["fake"].requires_grad_()
    images = made.own_views(v)
    assert list(images) == ["fake", "source", "turned_target", "jittered_source", "turned_jittered_target"]
    assert torch.equal(images["fake"], v["fake"]) and torch.equal(images["source"], v["source"])
    assert torch.equal(images["turned_target"], torch.rot90(v["target"], 2, (-2, -1)))
    assert not any(image.requires_grad for image in images.values())
    for one, other in (("jittered_source", "source"), ("turned_jittered_target", "turned_target")):
        assert not torch.allclose(images[one], images[other], atol=0.05)
    assert list(term(contrast=PatchNCE()).own_views(v)) == ["fake", "source", "turned_target"]


def test_jitter_is_a_function_of_the_generator():
    images = views(batch=3)["source"].float()
    before = torch.get_rng_state()
    one, same, other = (jitter(images, torch.Generator().manual_seed(seed)) for seed in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.dtype == images.dtype and one.shape == images.shape
    assert one.min() >= -1 and one.max() <= 1
    alike = jitter(images[:1].expand(3, -1, -1, -1), torch.Generator().manual_seed(4))
    assert not torch.equal(alike[0], alike[1])  # each image has its own draw
    torch.manual_seed(0)
    drawn = jitter(images, None)
    torch.manual_seed(0)
    assert torch.equal(drawn, jitter(images, None))


def test_grey_images_have_brightness_and_contrast():
    v, made = views(colours=1), term(contrast=PatchNCE(), augment=True, window=4)
    assert torch.isfinite(made.own_loss(own_features(made, v), None))
    assert not torch.equal(made.own_views(v)["jittered_source"], v["source"])
    with pytest.raises(ValueError, match="augment: colours are of images of 1 or 3 channels, not 5; set augment=false"):
        made.own_views(views(colours=5))


def test_bfloat16_features_give_a_float32_loss():
    made = term(contrast=PatchNCE(), window=4).float()
    images = {name: image.float() for name, image in views().items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        v = Views(Encoder().float(), images)
        values = made(v), made.own_loss(own_features(made, v), None)
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in values)


def test_yaml_offers_every_key():
    node = OmegaConf.load(CONFIGS / "objective" / "sesim.yaml").spatial.term
    accepted = inspect.signature(SelfSimilarity).parameters
    assert {key for key in node if not str(key).startswith("_")} == set(accepted) - {"channels"}
    for key in ("mode", "keys", "window", "cosine", "contrast", "augment", "other"):
        assert node[key] == accepted[key].default
    learned = OmegaConf.load(CONFIGS / "objective" / "lsesim.yaml").spatial.term
    assert learned.window == 32 and learned.augment is True


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "cosine"}, "mode is 'cosine', not one of cos, l1, strotss"),
        ({"keys": "all"}, "keys is 'all', not one of window, queries"),
        ({"window": 0}, "window is 0, not 1 or more"),
        ({"mode": "strotss"}, "'strotss' goes with keys 'queries'"),
        ({"mode": "strotss", "keys": "queries", "contrast": PatchNCE()}, "without contrast"),
        ({"augment": True}, "augment goes with contrast"),
        ({"contrast": L1()}, "contrast is L1, not one of patchnce, weightnce, monce"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        term(**settings)


def test_views_and_encoders_that_do_not_fit_are_refused():
    v, made = views(), term()
    v._features["source"] = [features[..., :2] for features in v.features("source")]
    with pytest.raises(ValueError, match=r"layer 0: 'fake' \(2, 5, 6, 9\) and 'source' \(2, 5, 6, 2\) differ"):
        made(v)
    with pytest.raises(ValueError, match="the encoder gives 2 layers, not 3"):
        SelfSimilarity(["fake", "source"], [1, 2, 3])(views())
