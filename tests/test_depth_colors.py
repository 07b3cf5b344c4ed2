"""The embedded colour maps against matplotlib's, and what colouring costs."""

import numpy as np
import pytest
import torch

from data.depth import COLORMAPS, FAR, colorize, table
from errors import UserError


@pytest.mark.parametrize("name", COLORMAPS)
def test_tables_are_matplotlibs(name):
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed: requirements-test.txt")
    wanted = np.round(matplotlib.colormaps[name](np.arange(256))[:, :3] * 255)
    assert np.array_equal(table(name).numpy(), wanted)


@pytest.mark.parametrize(("name", "repeated"), [("turbo", 0), ("viridis", 2), ("jet", 4)])
def test_how_many_colours_occur_twice(name, repeated):
    assert 256 - len(torch.unique(table(name), dim=0)) == repeated


@pytest.mark.parametrize("far", [FAR, 80.0])
def test_colours_against_a_loop(far):
    depth = torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(0)) * far
    made = colorize(depth, "turbo", far)
    assert made.dtype == torch.uint8 and made.shape == (2, 3, 5, 7)
    entries = [tuple(color) for color in table("turbo").tolist()]
    for image in range(2):
        for row in range(5):
            for column in range(7):
                metres = depth[image, 0, row, column].item()
                nearest = min(range(256), key=lambda entry: abs(entry / 255 * far - metres))
                assert tuple(made[image, :, row, column].tolist()) == entries[nearest]
                assert abs(nearest / 255 * far - metres) <= far / 510 + 1e-6


def test_ends_and_beyond():
    depth = torch.tensor([-1.0, 0.0, 10.0, 65.0]).view(1, 2, 2)
    made = colorize(depth).flatten(1).T
    assert torch.equal(made, table("turbo")[[0, 0, 255, 255]])


def test_an_unknown_map_is_named():
    with pytest.raises(UserError, match=r"dataset\.depth is 'plasma'; wanted one of turbo, viridis, jet"):
        colorize(torch.ones(1, 2, 2), "plasma")
