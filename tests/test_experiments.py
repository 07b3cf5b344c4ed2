"""One CPU step of every row of every table, with its own losses, taps and schedule, on scenes and narrow networks."""

import pytest
import torch

from engine.checks import encoded
from tests.compose import CONFIGS, TINY, config
from train import train

EXPERIMENTS = sorted(
    path.relative_to(CONFIGS / "experiment").with_suffix("").as_posix()
    for path in (CONFIGS / "experiment").rglob("*.yaml")
)
ROWS = [word for word in TINY if not word.startswith(("encoder=", "objective."))]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_step_of_every_row(experiment, tmp_path):
    unpaired = "Paired" not in config(f"experiment={experiment}").setting._target_
    words = [*ROWS, f"experiment={experiment}", f"dataset=shapes{'_unpaired' * unpaired}", "train.steps=1"]
    cfg = config(*words)
    if "pretrained" in cfg.encoder and any(encoded(node.term) for node in cfg.objective.values()):
        words.append("encoder.pretrained=false")
    assert train(config(*words), tmp_path) == 1
    saved = torch.load(tmp_path / "last.pt", weights_only=True)
    assert ("discriminator" in saved["networks"]) == ("gan" in config(*words).objective)
    assert all(torch.isfinite(value).all() for value in saved["networks"]["generator"].values())
