"""What makes a run folder another run's: keys that change a result, but not text, places, and keys younger than it."""

from omegaconf import OmegaConf

from engine.checkpoint import differences
from tests.compose import config


def plain(*words):
    """The resolved config as the folder keeps it."""
    return OmegaConf.create(OmegaConf.to_yaml(config(*words), resolve=True))


def test_a_key_younger_than_the_folder_had_its_default():
    old, new = plain("loss=patchnce"), plain("loss=patchnce")
    del old.loss["q"], old.loss["intra_negatives"], old.nce["weight"], old.train["pool"], old.model.generator["noise"]
    assert differences(old, new) == []
    new.loss.q = 0.5
    new.train.pool = 50
    new.nce.weight = 50
    assert differences(old, new) == [
        "loss.q: absent there, 0.5 here",
        "nce.weight: absent there, 50 here",
        "train.pool: absent there, 50 here",
    ]


def test_text_about_a_run_does_not_make_it_another():
    old, new = plain("experiment=cfl/table1/vgg_patchnce"), plain("experiment=cfl/table1/vgg_patchnce")
    old.deviations, old.paper = ["another wording"], {"paper": "CFL", "table": 1, "row": "r4"}
    assert differences(old, new) == []
    new.train.lr = 1.0
    assert differences(old, new) == ["train.lr: 0.0002 there, 1.0 here"]


def test_a_key_that_is_gone_is_told():
    old, new = plain(), plain()
    old.loss.sharpness = 3
    assert differences(old, new) == ["loss.sharpness: 3 there, absent here"]
