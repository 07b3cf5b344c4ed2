"""One CPU step of every row of every table, with its own losses, taps and schedule, on scenes and narrow networks."""

import pytest
import torch

from tests.compose import CONFIGS, TINY, config
from train import train

EXPERIMENTS = sorted(
    path.relative_to(CONFIGS / "experiment").with_suffix("").as_posix()
    for path in (CONFIGS / "experiment").rglob("*.yaml")
)
ROWS = [word for word in TINY if not word.startswith(("encoder=", "objective."))]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_step_of_every_row(experiment, tmp_path):
    words = [*ROWS, f"experiment={experiment}", "dataset=shapes", "train.steps=1"]
    if "pretrained" in config(*words).encoder:
        words.append("encoder.pretrained=false")
    assert train(config(*words), tmp_path) == 1
    saved = torch.load(tmp_path / "last.pt", weights_only=True)
    assert ("discriminator" in saved["networks"]) == ("gan" in config(*words).objective)
    assert all(torch.isfinite(value).all() for value in saved["networks"]["generator"].values())
