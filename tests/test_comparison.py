"""The contrast term: patches, heads, layer weights and pairs, against the plain sum that it stands for."""

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from losses.comparison import Comparison
from losses.contrastive import MoNCE, PatchNCE, WeightNCE
from losses.objective import Objective, Views
from losses.perceptual import L1, Perceptual

PAIR = [["fake", "target"]]


class Encoder(nn.Module):
    """Layers of 4, 6 and 5 channels at sizes 6x5, 3x3 and 2x1."""

    channels = map_channels = (4, 6, 5)
    sizes = ((6, 5), (3, 3), (2, 1))

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convs = nn.ModuleList(nn.Conv2d(3, c, 1) for c in self.channels).double()

    def forward(self, image: Tensor) -> list[Tensor]:
        return [
            conv(nn.functional.adaptive_avg_pool2d(image, size))
            for conv, size in zip(self.convs, self.sizes, strict=True)
        ]

    def maps(self, image: Tensor) -> list[Tensor]:
        return self(image)


class Recorder(nn.Module):
    """A loss that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        self.seen.append((query, key))
        return query.mean()


def views(seed: int = 0, batch: int = 2, draw: int = 5) -> Views:
    generator = torch.Generator().manual_seed(seed)
    images = {
        name: torch.randn(batch, 3, 12, 10, dtype=torch.float64, generator=generator)
        for name in ("fake", "target", "source", "identity")
    }
    return Views(Encoder(), images, torch.Generator().manual_seed(draw))


def term(loss: nn.Module, pairs=PAIR, encoder=Encoder, **settings) -> Comparison:
    made = Comparison(loss, pairs, channels=encoder.channels, map_channels=encoder.map_channels, **settings)
    return made.double()


def rows(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H * W, C)."""
    return features.flatten(2).transpose(1, 2)


@pytest.mark.parametrize(
    "loss", [PatchNCE(bidirectional=True), MoNCE("easy", bidirectional=True), PatchNCE(), L1()], ids=repr
)
def test_what_is_noted_of_layers_and_directions_makes_the_term(loss: nn.Module):
    both = getattr(loss, "bidirectional", False)
    made = term(loss, patches=None, head="identity", layer_weights=[1, 2, 3])
    v = Views(Encoder(), views(), log=True)
    value = Objective({"contrast": made}, {"contrast": 5.0})(v)["contrast"]
    ways = ("fake-target", "target-fake") if both else ("fake-target",)
    assert set(v.log) == {f"contrast/{way}/{layer}" for way in ways for layer in range(3)}
    assert not any(part.requires_grad for part in v.log.values())
    total = sum(weight * v.log[f"contrast/{way}/{i}"] for way in ways for i, weight in enumerate([1, 2, 3]))
    torch.testing.assert_close(value, 5 * total / len(ways))
    if both:
        away = PatchNCE() if isinstance(loss, PatchNCE) else MoNCE("easy")
        pair = (rows(v.features(name)[1]) for name in ("target", "fake"))
        torch.testing.assert_close(v.log["contrast/target-fake/1"], away(*pair).detach())
    silent = views()
    made(silent)
    assert silent.log is None


def test_sum_over_layers_of_the_loss_on_all_places():
    v = views()
    parts = [PatchNCE()(rows(q), rows(k)) for q, k in zip(v.features("fake"), v.features("target"), strict=True)]
    for patches in (None, 1000):
        torch.testing.assert_close(term(PatchNCE(), patches=patches, head="identity")(v), sum(parts))
    torch.testing.assert_close(term(PatchNCE(), head="identity", reduce="mean")(v), sum(parts) / 3)
    weighted = term(PatchNCE(), head="identity", layer_weights=[3, 0, 0.5])(v)
    torch.testing.assert_close(weighted, 3 * parts[0] + 0.5 * parts[2])


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_heads_are_shared_by_query_and_key(head):
    made = term(PatchNCE(bidirectional=True), patches=None, head=head, dim=7)
    v = views()
    expected = sum(
        PatchNCE(bidirectional=True)(made.heads[i](rows(q)), made.heads[i](rows(k)))
        for i, (q, k) in enumerate(zip(v.features("fake"), v.features("target"), strict=True))
    )
    torch.testing.assert_close(made(v), expected)


def test_patches_are_places_shared_by_images_query_and_key():
    recorder = Recorder()
    v = views()
    term(recorder, patches=4, head="identity")(v)
    for (query, key), q, k in zip(recorder.seen, v.features("fake"), v.features("target"), strict=True):
        count = min(4, q[0, 0].numel())
        assert query.shape == (2, count, q.shape[1])
        place = (rows(q)[0].unsqueeze(1) == query[0]).all(-1).long().argmax(0)  # of the first image's query
        assert len(set(place.tolist())) == count  # no place twice
        torch.testing.assert_close(query, rows(q)[:, place])
        torch.testing.assert_close(key, rows(k)[:, place])


def test_patches_are_drawn_from_the_generator_of_the_views():
    def drawn(draw: int) -> Tensor:
        recorder = Recorder()
        term(recorder, patches=4, head="identity")(views(draw=draw))
        return recorder.seen[0][0]

    assert torch.equal(drawn(5), drawn(5))
    assert not torch.equal(drawn(5), drawn(6))


def test_layers_pairs_and_calls_draw_anew():
    recorder = Recorder()
    v = views()
    v["identity"] = v["fake"]
    made = term(recorder, pairs=[["fake", "target"], ["identity", "target"]], patches=4, head="identity")
    made(v)
    made(v)
    first_layer = [query for query, _ in recorder.seen[::3]]
    assert len(first_layer) == 4
    assert len({tuple(query.flatten().tolist()) for query in first_layer}) == 4


def test_global_generator_where_the_views_have_none():
    def drawn() -> Tensor:
        recorder = Recorder()
        torch.manual_seed(3)
        term(recorder, patches=4, head="identity")(Views(Encoder(), dict(views())))
        return recorder.seen[0][0]

    assert torch.equal(drawn(), drawn())


def test_mean_over_pairs():
    v = views()
    pairs = [["fake", "source"], ["identity", "target"]]
    settings = {"patches": None, "head": "identity"}
    each = [term(PatchNCE(), [pair], **settings)(v) for pair in pairs]
    made = term(PatchNCE(), pairs, **settings)
    torch.testing.assert_close(made(v), sum(each) / 2)
    assert made.reads == {"fake", "source", "identity", "target"}


def test_official_spade_half_weights_the_last_layer_only():
    v = views()
    settings = {"patches": None, "head": "identity"}
    loss = MoNCE("hard", beta=1.0, weighted_layers="last", q=3.0)
    layers = [(rows(q), rows(k)) for q, k in zip(v.features("fake"), v.features("target"), strict=True)]
    expected = PatchNCE()(*layers[0]) + PatchNCE()(*layers[1]) + loss(*layers[2])
    torch.testing.assert_close(term(loss, **settings)(v), expected)
    torch.testing.assert_close(term(loss, weighted_layers="all", **settings)(v), sum(loss(*layer) for layer in layers))
    weight = WeightNCE("easy", temperature=0.5, bidirectional=True)
    plain = PatchNCE(temperature=0.5, bidirectional=True)
    torch.testing.assert_close(
        term(weight, weighted_layers="last", **settings)(v),
        plain(*layers[0]) + plain(*layers[1]) + weight(*layers[2]),
    )


def test_losses_on_maps_compare_densely():
    v = views()
    made = term(L1(), head="mlp", patches=2)
    assert len(list(made.parameters())) == 0
    differences = [(q - k).abs().mean() for q, k in zip(v.features("fake"), v.features("target"), strict=True)]
    torch.testing.assert_close(made(v), sum(differences))
    weights = [1 / 8, 1 / 4, 1]
    expected = sum(w * d for w, d in zip(weights, differences, strict=True))
    torch.testing.assert_close(term(Perceptual())(v), expected)
    torch.testing.assert_close(term(Perceptual(), layer_weights=[0, 0, 2])(v), 2 * differences[2])


def test_l1_of_pixels_is_the_difference_of_the_images():
    class Pixel(Encoder):
        channels, map_channels = (12, 48), (3,)

        def maps(self, image: Tensor) -> list[Tensor]:
            return [image]

    images = dict(views())
    for loss in (L1(), Perceptual()):
        value = term(loss, encoder=Pixel)(Views(Pixel(), images))
        torch.testing.assert_close(value, (images["fake"] - images["target"]).abs().mean())


@pytest.mark.parametrize(("layers", "expected"), [(1, [1]), (3, [1 / 8, 1 / 4, 1]), (7, None)])
def test_weights_of_a_loss_belong_to_the_deepest_layers(layers, expected):
    made = Comparison(Perceptual(), PAIR, channels=[3] * layers, map_channels=[3] * layers)
    assert made.layer_weights == (expected or [1 / 128, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1])
    same = Comparison(PatchNCE(), PAIR, channels=[3] * layers, map_channels=[3] * layers, layer_weights="spade")
    assert same.layer_weights == made.layer_weights


@pytest.mark.parametrize(
    ("channels", "head", "parameters"),
    [
        ([3, 128, 256, 256, 256], "mlp", 560_384),  # CUT's generator
        ([48, 192, 768, 3072], "linear", 1_045_504),  # pixels, four scales
        ([48, 192, 768, 3072], "mlp", 1_308_672),
        ([128, 256, 512, 512], "linear", 361_472),  # VGG19, relu2_1 to relu5_1
        ([64, 128, 256, 512, 512], "mlp", 707_072),
        ([64, 256, 512, 1024, 2048], "mlp", 1_329_664),  # ResNet50
        ([3, 64, 128, 256, 512, 512], "mlp", 773_888),  # conv6
        ([64, 128, 256, 512, 512], "identity", 0),
    ],
)
def test_parameter_counts_of_the_papers(channels, head, parameters):
    made = Comparison(PatchNCE(), PAIR, channels=channels, map_channels=channels, head=head)
    assert sum(p.numel() for p in made.parameters()) == parameters


def test_heads_start_small_with_zero_bias():
    channels = [512, 512]
    torch.manual_seed(0)
    made = Comparison(PatchNCE(), PAIR, channels=channels, map_channels=channels, head="mlp")
    linear = made.heads[1][0]
    assert linear.weight.std().item() == pytest.approx(0.02 * (2 / (512 + 256)) ** 0.5, rel=0.02)
    assert all(not m.bias.any() for m in made.heads.modules() if isinstance(m, nn.Linear))
    usual = Comparison(PatchNCE(), PAIR, channels=channels, map_channels=channels, head_init="pytorch")
    assert usual.heads[0].bias.any()


def test_gradients_reach_the_fake_the_heads_and_a_trained_encoder():
    v = views()
    v["fake"].requires_grad_()
    made = term(PatchNCE(bidirectional=True), patches=8, head="mlp", dim=4)
    made(v).backward()
    assert v["fake"].grad.abs().sum() > 0
    assert all(p.grad is not None for p in made.parameters())
    assert all(p.grad is not None for p in v.encoder.parameters())


def test_bfloat16_features_give_a_float32_loss():
    images = {name: image.float() for name, image in views().items()}
    made = term(PatchNCE(), patches=4, dim=8).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = made(Views(Encoder().float(), images))
    assert value.dtype == torch.float32
    assert torch.isfinite(value)


def test_settings_may_come_from_yaml():
    config = OmegaConf.create({"pairs": [["fake", "source"]], "layer_weights": [1, 2, 3], "channels": [4, 6, 5]})
    made = Comparison(PatchNCE(), config.pairs, config.channels, config.channels, layer_weights=config.layer_weights)
    assert made.pairs == [("fake", "source")]
    assert made.layer_weights == [1, 2, 3]


@pytest.mark.parametrize(
    ("layers", "taps", "bidirectional", "expected"),
    [
        (5, (), True, 0.4),
        (5, (), False, 0.4),
        (6, (), True, 10 / 36),
        (6, (), False, 10 / 36),
        (3, (), True, 10 / 9),
        (4, (), True, 10 / 16),
        (4, ("relu2_1", "relu3_1", "relu4_1", "relu5_1"), True, 0.4),
        (4, ("relu1_1", "relu2_1", "relu3_1", "relu4_1"), False, 10 / 16),
    ],
)
def test_cfls_released_scale_is_lambda_over_the_square_of_its_layers(layers, taps, bidirectional, expected):
    """A layer and direction, under a term's weight of 0.8 and the mean over directions."""
    loss = PatchNCE(bidirectional=bidirectional, layer_weights="cfl")
    made = Comparison(loss, PAIR, channels=[3] * layers, map_channels=[3] * layers, taps=taps)
    assert [0.8 * weight / (1 + bidirectional) for weight in made.layer_weights] == pytest.approx([expected] * layers)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": "conv"}, "head is 'conv', not one of linear, mlp, identity"),
        ({"reduce": "max"}, "reduce is 'max'"),
        ({"head_init": "zero"}, "head_init is 'zero'"),
        ({"layer_weights": [1, 2]}, "layer_weights has 2 numbers for 3 layers"),
        ({"layer_weights": "crn"}, "layer_weights is 'crn', not one of spade"),
        ({"weighted_layers": "first"}, "weighted_layers is 'first'"),
        ({"loss": L1(), "weighted_layers": "last"}, "L1 has no weights"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        term(**{"loss": PatchNCE(), **settings})


def test_views_of_different_sizes_are_refused():
    v = views()
    made = term(PatchNCE(), head="identity")
    v._features["target"] = [features[..., :1] for features in v.features("target")]
    with pytest.raises(ValueError, match=r"layer 0: 'fake' \(2, 4, 6, 5\) and 'target' \(2, 4, 6, 1\) differ"):
        made(v)


def test_another_encoder_is_refused():
    v = views()
    with pytest.raises(ValueError, match="the encoder gives 3 layers, not 2"):
        Comparison(PatchNCE(), PAIR, channels=[4, 6], map_channels=[4, 6], head="identity")(v)


def test_the_key_is_encoded_first(monkeypatch):
    """As CFL's code does; an encoder with spectral norms changes with every pass."""
    made, seen = term(PatchNCE()), []
    given = views()
    monkeypatch.setattr(given, "features", lambda name: seen.append(name) or Views.features(given, name))
    made(given)
    assert seen == [made.pairs[0][1], made.pairs[0][0]]
