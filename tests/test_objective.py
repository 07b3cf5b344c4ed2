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


@pytest.mark.parametrize("loss", ["patchnce", "weightnce", "monce", "monce_official_spade", "l1", "perceptual"])
@pytest.mark.parametrize("name", ["contrast", "contrast_gan", "gan", "spade"])
def test_every_objective_with_every_loss(name, loss):
    """All terms of the YAML, completed as the engine does, give finite scalars with a gradient to the fake."""
    files = ["contrast", "gan", "spade"] if name == "spade" else name.split("_")
    nodes = OmegaConf.merge(*(OmegaConf.load(CONFIGS / "objective" / f"{file}.yaml") for file in files))
    config = OmegaConf.create(
        {
            "loss": OmegaConf.load(CONFIGS / "loss" / f"{loss}.yaml"),
            "nce": {"bidirectional": True, "direction": "easy", "patches": 16},
            "train": {"init": "xavier"},
            "terms": {key: nodes[key] for key in nodes if key != "defaults"},
        }
    )
    terms = {key: instantiate(node.term) for key, node in config.terms.items()}
    encoder = Encoder()
    if "contrast" in terms:
        terms["contrast"] = terms["contrast"](channels=encoder.channels, map_channels=encoder.map_channels)
    objective = Objective(terms, {key: node.weight for key, node in config.terms.items()})
    fake, target = torch.randn(2, 3, 6, 6, requires_grad=True), torch.randn(2, 3, 6, 6)
    judged = {
        "fake_score": [fake.mean((2, 3))],
        "fake_stages": [[fake, 2 * fake]],
        "real_stages": [[target, 2 * target]],
    }
    values = objective(Views(encoder, {"fake": fake, "target": target, **judged}))
    assert list(values) == list(config.terms)
    for value in values.values():
        assert value.shape == ()
        assert torch.autograd.grad(value, fake, retain_graph=True)[0].isfinite().all()
    assert {key: objective.weights[key] for key in values} == {
        "contrast": {"contrast": 0.8},
        "gan": {"gan": 1},
        "contrast_gan": {"contrast": 0.8, "gan": 1},
        "spade": {"contrast": 10, "gan": 1, "features": 10},
    }[name]


def test_contrast_gan_is_both_its_parts():
    assert OmegaConf.load(CONFIGS / "objective" / "contrast_gan.yaml").defaults == ["contrast", "gan", "_self_"]
