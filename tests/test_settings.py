"""Settings: the views that a step makes, in as few passes as they need."""

import pytest
import torch
from torch import nn

from engine.settings import Cycle, Paired, Unpaired


class Counting(nn.Module):
    """A generator that adds a number and tells what it was given."""

    def __init__(self, add):
        super().__init__()
        self.add, self.seen = add, []

    def forward(self, image):
        self.seen.append(image)
        return image + self.add

    def tapped(self, image, layers):
        return self(image), [image * layer for layer in layers]


def batch(size=2):
    return {
        "source": torch.arange(size * 4.0).view(size, 1, 2, 2),
        "target": 100 + torch.arange(size * 4.0).view(size, 1, 2, 2),
    }


def test_paired_makes_the_fake():
    made = Paired(Counting(1))(batch()).tensors
    assert torch.equal(made["fake"], made["source"] + 1) and set(made) == {"source", "target", "fake"}


def test_unpaired_makes_fake_and_identity_in_one_pass_and_hands_its_features_on():
    generator, given = Counting(1), batch()
    made = Unpaired(generator, reads={"fake", "source", "identity", "target"}, taps=[2, 3])(given)
    assert len(generator.seen) == 1
    assert torch.equal(made.tensors["fake"], given["source"] + 1)
    assert torch.equal(made.tensors["identity"], given["target"] + 1)
    assert torch.equal(made.given["target"][0], given["target"] * 2)
    assert torch.equal(made.given["source"][1], given["source"] * 3) and set(made.given) == {"source", "target"}


def test_an_identity_that_nobody_reads_is_not_made():
    generator = Counting(1)
    made = Unpaired(generator, reads={"fake", "source"}, taps=[1])(batch())
    assert len(generator.seen[0]) == 2 and "identity" not in made.tensors and set(made.given) == {"source"}


def test_flip_equivariance_mirrors_half_of_the_steps_and_says_so():
    setting, given, mirrored = Unpaired(Counting(1), taps=[1], flip_equivariance=True), batch(), 0
    for draw in range(200):
        made = setting(given, draw)
        flip = made.mirrored == {"fake"}
        mirrored += flip
        expected = given["source"].flip(-1) if flip else given["source"]
        assert torch.equal(made.tensors["fake"], expected + 1)
        assert torch.equal(made.tensors["source"], given["source"])
        assert bool(made.given) is not flip  # features of mirrored sources are not those of the sources
    assert 70 < mirrored < 130


def test_cycle_goes_there_and_back():
    there, back, given = Counting(1), Counting(10), batch()
    made = Cycle(there, back, reads=set(Cycle.views))(given).tensors
    source, target = given["source"], given["target"]
    wanted = {
        "fake": source + 1,
        "identity": target + 1,
        "fake_source": target + 10,
        "identity_source": source + 10,
        "cycled_source": source + 11,
        "cycled_target": target + 11,
    }
    assert set(made) == {"source", "target", *wanted}
    for name, image in wanted.items():
        assert torch.equal(made[name], image), name


def test_cycle_makes_only_what_is_read():
    there, back = Counting(1), Counting(10)
    made = Cycle(there, back, reads={"fake", "fake_source", "cycled_source", "source"})(batch()).tensors
    assert set(made) == {"source", "target", "fake", "fake_source", "cycled_source"}
    assert len(there.seen) == 1 and len(back.seen) == 2


@pytest.mark.parametrize("setting", [Paired, Unpaired, Cycle])
def test_judged_and_compared_views_are_views(setting):
    assert {view for judge in setting.judges for view in (judge.fake, judge.real)} <= set(setting.views)
    assert {view for group in setting.aligned for view in group} == set(setting.views)
