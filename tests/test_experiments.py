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
OFTEN = {  # of the ablations and curves, those that the suite steps every time; `make soak` steps the rest
    "cfl/table2/trained_bidirectional",
    "cfl/table3/resnet_scratch_gan_standard",
    "cfl/table3/conv6_gan_standard",
    "cfl/text/negatives_batch",
    "monce/table4/bidirectional_trained",
    "monce/fig7/horse_Q_patchnce",
}
ABLATIONS = ("cfl/table2", "cfl/table3", "cfl/text", "monce/table4", "monce/fig")


def late(experiment):
    """The experiment as a parameter, slow where it is only an ablation."""
    slow = experiment.startswith(ABLATIONS) and experiment not in OFTEN
    return pytest.param(experiment, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("experiment", list(map(late, EXPERIMENTS)))
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
