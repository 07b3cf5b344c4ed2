"""Configs: every file composes and fits its code; a mistake dies early with a path and a cure."""

import pytest
from omegaconf import OmegaConf

from engine.checks import check, choices, validate
from engine.config import ConfigError, label
from engine.ranges import fits
from tests.compose import CONFIGS, config

EXPERIMENTS = sorted(
    str(p.relative_to(CONFIGS / "experiment").with_suffix("")) for p in (CONFIGS / "experiment").rglob("*.yaml")
)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_fits_its_code(experiment):
    cfg = config(f"experiment={experiment}")
    validate(cfg)


def test_the_row_of_a_table_sets_what_the_paper_says():
    row = config("experiment=cfl/table1/vgg_patchnce")
    assert list(row.encoder.layers) == ["relu2_1", "relu3_1", "relu4_1", "relu5_1"]
    assert row.loss.bidirectional and row.objective.contrast.term.patches == 1024 and row.train.epochs == 800
    assert "gan" not in row.objective and not row.train.ttur
    row = config("experiment=monce/table3/monce")
    assert (row.train.epochs, row.train.decay_epochs, row.train.batch_size) == (100, 100, 12)
    assert row.loss.direction == "easy" and row.loss.beta == 0.1 and row.objective.contrast.weight == 50
    assert row.train.ttur and list(row.train.betas) == [0.0, 0.9] and row.objective.features.weight == 10


@pytest.mark.parametrize("group", ["dataset", "encoder", "loss", "objective", "protocol", "setting", "model"])
def test_every_choice_of_every_group_composes(group):
    for choice in choices(group).split(", "):
        config(f"{group}={choice}")


@pytest.mark.parametrize("loss", ["l1", "perceptual", "patchnce", "weightnce", "monce"])
@pytest.mark.parametrize("encoder", ["pixel", "conv6", "effnet_lite0"])
def test_every_loss_goes_with_every_encoder(loss, encoder):
    validate(
        config(f"loss={loss}", f"encoder={encoder}", "experiment=camvid/l1"),
        overrides=[f"loss={loss}", f"encoder={encoder}"],
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+loss.temprature=0.1"], r"loss\.temprature: .* takes no 'temprature'; did you mean 'temperature'"),
        (["loss.temperature=warm"], r"loss\.temperature: 'warm' is not of type"),
        (["encoder.layers=conv1"], r"encoder\.layers: 'conv1' is not of type"),
        (["model.generator.width=1.5"], r"model\.generator\.width: 1\.5 is not of type int"),
        (["train.batch_size=0"], r"train\.batch_size=0: must be at least 1"),
        (
            ["train.batch_size=3", "train.accumulate=2"],
            r"train\.batch_size=3: must divide by ranks \(1\) times train\.accumulate \(2\)",
        ),
        (["train.betas=[0.5]"], r"train\.betas=\[0\.5\]: must be two numbers"),
        (["train.device=tpu"], r"train\.device=tpu: must be one of auto, cpu, cuda"),
        (["train.decay_steps=5", "train.steps=2"], r"train\.decay_steps=5: more than train\.steps=2"),
        (["train.ema=1.0"], r"train\.ema=1\.0: must be at least 0 and below 1"),
        (
            ["train.ttur=true", "train.lr_discriminator=1e-4"],
            r"train\.lr_discriminator: train\.ttur=true sets it already",
        ),
        (["train.lr_discriminator=0"], r"train\.lr_discriminator=0\.0: must be above 0, or null"),
        (["train.minutes=0"], r"train\.minutes=0\.0: must be above 0, or null"),
        (
            ["train.epochs=100"],
            r"train\.epochs: epochs were asked for, but train\.steps=500 ends this run \(the experiment sets it\); add",
        ),
        (
            ["protocol=cut"],
            r"protocol: experiment=demo, the default, sets train\.steps=500 and train\.lr=0\.001 after it; give both",
        ),
        (
            ["loss=patchnce_batch", "train.batch_size=4", "train.accumulate=4"],
            r"loss\.negatives=batch: train\.batch_size=4 is one image for each rank and micro-batch",
        ),
        (["loss=none"], r"loss=none: objective\.contrast reads the loss; choose objective=gan"),
        (["objective=gan", "loss=monce"], r"loss: was set, but no term of the objective \(gan\) reads it"),
        (["objective=gan", "encoder=pixel"], r"encoder: was set, but no term"),
    ],
)
def test_a_mistake_names_key_and_cure(overrides, message):
    with pytest.raises(ConfigError, match=message):
        validate(config(*overrides), overrides=overrides)


def test_a_missing_argument_is_named():
    with pytest.raises(ConfigError, match=r"term\.channels: losses\.comparison\.Comparison needs it"):
        check(
            OmegaConf.create(
                {"term": {"_target_": "losses.comparison.Comparison", "loss": None, "pairs": [], "map_channels": []}}
            )
        )


def test_types_of_plain_values():
    assert fits(1, float) and fits(None, int | None) and fits([1, 2], tuple[int, int])
    assert not fits("1", int) and not fits(True, int) and not fits([1], tuple[int, int]) and not fits(1.0, int)


def test_label_is_sorted_safe_and_blind_to_what_changes_nothing():
    words = [
        "train.lr=1e-3",
        "loss=monce",
        "train.workers=4",
        "seed=3",
        "experiment=camvid/l1",
        "dataset=camvid",
        "train.steps=9",
    ]
    assert label(words) == label(words[::-1]) == "loss-monce+train.lr-1e-3"
    assert label(["train.steps=9", "train.log_layers=true", "run=x", "dataset.root=/a b", "hydra.run.dir=x"]) == "base"
    assert label(["encoder.layers=[conv1,conv2]"]) == "encoder.layers-conv1-conv2"
    assert label(["checkpoint=runs/a"]) != label(["checkpoint=runs/b"])  # other weights to begin with
