"""Views compute features once; the objective is the weighted sum of its terms."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from losses.objective import Objective, Views

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


class Encoder(nn.Module):
    """Two layers; as `pixels` its maps are the image itself."""

    def __init__(self, pixels: bool = False) -> None:
        super().__init__()
        self.calls = 0
        self.channels = [3, 3]
        self.map_channels = [3] if pixels else [3, 3]

    def forward(self, image: Tensor) -> list[Tensor]:
        self.calls += 1
        return [image, 2 * image]

    def maps(self, image: Tensor) -> list[Tensor]:
        return [image] if len(self.map_channels) == 1 else self(image)


class Mean(nn.Module):
    def __init__(self, view: str) -> None:
        super().__init__()
        self.reads = frozenset({view})
        self.view = view
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, views: Views) -> Tensor:
        return self.scale * views[self.view].mean()


def test_features_are_computed_once_for_all_terms():
    encoder = Encoder()
    views = Views(encoder, {"fake": torch.ones(1, 3, 2, 2), "target": torch.zeros(1, 3, 2, 2)})
    assert views.features("fake") is views.features("fake")
    assert views.maps("fake") is views.features("fake")
    views.features("target")
    assert encoder.calls == 2


def test_maps_of_pixels_are_the_image():
    views = Views(Encoder(pixels=True), {"fake": torch.ones(1, 3, 2, 2)})
    assert views.maps("fake") is views.maps("fake")
    assert [m.shape for m in views.maps("fake")] == [(1, 3, 2, 2)]
    assert len(views.features("fake")) == 2


def test_any_function_can_be_the_encoder():
    views = Views(lambda image: [image + 1], {"fake": torch.zeros(1, 3, 2, 2)})
    assert views.maps("fake")[0].sum() == views.features("fake")[0].sum() == 12


def test_given_features_need_no_pass():
    encoder = Encoder()
    own = [torch.ones(1, 3, 2, 2), torch.ones(1, 3, 1, 1)]
    images = {name: torch.zeros(1, 3, 2, 2) for name in ("source", "fake")}
    views = Views(encoder, images, given={"source": own})
    assert views.features("source") == views.maps("source") == own
    assert encoder.calls == 0
    views.features("fake")
    assert encoder.calls == 1


def test_mirrored_views_are_turned_back_before_they_are_compared():
    image = torch.arange(12.0).view(1, 3, 2, 2)
    own = [image, image[..., :1]]
    views = Views(Encoder(), {"fake": image, "source": image}, given={"source": own}, mirrored={"fake", "source"})
    for name in ("fake", "source"):
        assert torch.equal(views.features(name)[0], image.flip(-1))
        assert views.features(name) is views.features(name)
        assert torch.equal(views[name], image)
    pixels = Views(Encoder(pixels=True), {"fake": image, "target": image}, mirrored=["fake"])
    assert torch.equal(pixels.maps("fake")[0], image.flip(-1))
    assert torch.equal(pixels.maps("target")[0], image)


@pytest.mark.parametrize("pixels", [False, True])
def test_features_keep_their_graph_whoever_reads_them_first(pixels):
    fake = torch.ones(1, 3, 2, 2, requires_grad=True)
    views = Views(Encoder(pixels), {"fake": fake * 1})
    with torch.no_grad():
        views.features("fake"), views.maps("fake")
    (views.features("fake")[0].sum() + views.maps("fake")[0].sum()).backward()
    assert fake.grad.sum() == 24
    with torch.no_grad():
        views = Views(Encoder(pixels), {"fake": fake * 1})
    assert not views.features("fake")[0].requires_grad


def test_detached_views_keep_images_without_graph():
    fake = torch.ones(1, 3, 2, 2, requires_grad=True)
    generator = torch.Generator()
    views = Views(Encoder(), {"fake": fake * 2, "fake_score": [fake]}, generator, {"fake": [fake * 3]}, ["fake"])
    kept = views.detached()
    assert list(kept) == ["fake"] and torch.equal(kept["fake"], views["fake"])
    assert not kept["fake"].requires_grad and not kept.features("fake")[0].requires_grad
    assert kept.features("fake")[0].sum() == 24 and not kept.given  # encoded again: no map is kept alive
    assert kept.generator is generator and kept.mirrored == {"fake"} and kept.encoder is views.encoder


def test_a_missing_view_lists_those_present():
    views = Views(None, {"source": torch.ones(1), "fake": torch.ones(1)})
    with pytest.raises(LookupError, match="no view 'identity'; this setting makes source, fake"):
        views["identity"]
    with pytest.raises(LookupError, match="identity"):
        views.features("identity")
    assert "identity" not in views


def test_terms_are_weighted_by_name():
    objective = Objective({"one": Mean("fake"), "two": Mean("target")}, {"one": 0.5, "two": 10})
    values = objective(Views(None, {"fake": torch.full((2,), 3.0), "target": torch.full((2,), 4.0)}))
    assert {name: value.item() for name, value in values.items()} == {"one": 1.5, "two": 40}
    assert objective.reads == {"fake", "target"}
    sum(values.values()).backward()
    assert [p.grad.item() for p in objective.parameters()] == [1.5, 40]
    assert sorted(objective.state_dict()) == ["terms.one.scale", "terms.two.scale"]


def test_an_objective_can_be_empty():
    assert Objective({}, {})(Views(None, {})) == {}
    assert Objective({}, {}).reads == frozenset()


def test_terms_and_weights_must_match():
    with pytest.raises(ValueError, match="terms one and weights two differ"):
        Objective({"one": Mean("fake")}, {"two": 1})


FILES = {  # of every objective, in the order in which its defaults name them
    "contrast": ["contrast"],
    "gan": ["gan"],
    "contrast_gan": ["contrast", "gan"],
    "spade": ["contrast", "gan", "spade"],
    "cut": ["contrast", "gan", "cut"],
    "fastcut": ["contrast", "gan", "cut", "fastcut"],
    "cycle": ["gan", "cycle"],
    "sesim": ["gan", "sesim"],
    "lsesim": ["gan", "sesim", "lsesim"],
}
IMAGES = ["source", "target", "identity", "cycled_source", "cycled_target", "identity_source"]
LOSSES = ["patchnce", "weightnce", "monce", "monce_official_spade", "l1", "perceptual"]


def test_the_files_of_every_objective():
    assert {path.stem for path in (CONFIGS / "objective").glob("*.yaml")} == set(FILES)
    for name, files in FILES.items():
        defaults = OmegaConf.load(CONFIGS / "objective" / f"{name}.yaml").get("defaults", ["_self_"])
        expected = [file for part in defaults for file in ([name] if part == "_self_" else FILES.get(part, [part]))]
        assert (files if name != "contrast_gan" else [*files, name]) == expected


@pytest.mark.parametrize(
    ("name", "loss"),
    [(name, loss) for name in FILES for loss in LOSSES if name != "lsesim" or "nce" in loss],
)
def test_every_objective_with_every_loss(name, loss):
    """All terms of the YAML, completed as the engine does, give finite scalars with a gradient to the fake."""
    nodes = OmegaConf.merge(*(OmegaConf.load(CONFIGS / "objective" / f"{file}.yaml") for file in FILES[name]))
    config = OmegaConf.create(
        {
            "loss": OmegaConf.load(CONFIGS / "loss" / f"{loss}.yaml"),
            "nce": {"bidirectional": True, "direction": "easy", "patches": 16},
            "train": {"init": "xavier"},
            "gan": "lsgan",
            "terms": {key: nodes[key] for key in nodes if key != "defaults"},
        }
    )
    terms = {key: instantiate(node.term) for key, node in config.terms.items()}
    encoder = Encoder()
    if "contrast" in terms:
        terms["contrast"] = terms["contrast"](channels=encoder.channels, map_channels=encoder.map_channels)
    if "spatial" in terms:
        terms["spatial"] = terms["spatial"](channels=encoder.channels)
    objective = Objective(terms, {key: node.weight for key, node in config.terms.items()})
    fake = torch.randn(2, 3, 6, 6, requires_grad=True)
    images = {view: torch.randn(2, 3, 6, 6) + (0 if view in ("source", "target") else fake) for view in IMAGES}
    judged = {
        "fake_score": [fake.mean((2, 3))],
        "fake_source_score": [2 * fake.mean((2, 3))],
        "fake_stages": [[fake, 2 * fake]],
        "real_stages": [[images["target"], 2 * images["target"]]],
    }
    values = objective(Views(encoder, {"fake": fake, **images, **judged}))
    assert objective.reads <= {"fake", *images, *judged}
    assert list(values) == list(config.terms)
    for value in values.values():
        assert value.shape == ()
        assert torch.autograd.grad(value, fake, retain_graph=True)[0].isfinite().all()
    assert {key: objective.weights[key] for key in values} == {
        "contrast": {"contrast": 0.8},
        "gan": {"gan": 1},
        "contrast_gan": {"contrast": 0.8, "gan": 1},
        "spade": {"contrast": 10, "gan": 1, "features": 10},
        "cut": {"contrast": 1, "gan": 1},
        "fastcut": {"contrast": 10, "gan": 1},
        "cycle": {"gan": 1, "gan_source": 1, "cycle": 10, "identity": 5},
        "sesim": {"gan": 1, "spatial": 10},
        "lsesim": {"gan": 1, "spatial": 10},
    }[name]
