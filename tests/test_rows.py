"""The papers' rows: every printed cell has an experiment, every experiment a cell; they take any loss and encoder."""

import inspect

import pytest
import torch
import yaml
from hydra.utils import get_object
from omegaconf import OmegaConf

from engine.build import make
from engine.checks import encoded, validate
from losses.contrastive import PatchNCE
from losses.objective import Views
from results.paper import FILE, our_dataset, paper_row
from results.schedule import epochs
from scripts.run_folder import run_folder
from tests.compose import CONFIGS, config

ROWS = sorted(
    path.relative_to(CONFIGS / "experiment").with_suffix("").as_posix()
    for paper in ("cfl", "monce")
    for path in (CONFIGS / "experiment" / paper).rglob("*.yaml")
)
DATASETS = {
    "cfl/table1": ["cityscapes", "gta", "ade20k", "nyu_depth"],
    "cfl/table2": ["cityscapes"],
    "cfl/table3": ["cityscapes"],
    "cfl/text": ["cityscapes"],
    "monce/table1": ["cityscapes_unpaired", "horse2zebra", "winter2summer"],
    "monce/table2": ["horse2zebra", "winter2summer"],
    "monce/table3": ["ade20k", "celebahq_semantic", "celebahq_edge", "deepfashion"],
    "monce/table4": ["ade20k"],
    "monce/fig3": ["horse2zebra", "ade20k"],
    "monce/fig7": ["horse2zebra", "ade20k"],
}
SAME = {  # second names of a run
    "cfl/table2/gan_default": "cfl/table1/vgg_gan_patchnce",
    "cfl/table2/default": "cfl/table1/vgg_patchnce",
    "monce/table4/frozen": "monce/table3/monce",
}
COUNTS = {"cfl/table1": 6, "cfl/table2": 13, "cfl/table3": 9, "monce/table1": 5, "monce/table2": 5, "monce/table3": 5}
COUNTS |= {"monce/table4": 6, "cfl/text": 6, "monce/fig3": 4, "monce/fig7": 8}
CHANNELS = {"pixel": [48, 192, 768, 3072], "conv6": [3, 64, 128, 256, 512, 512], "effnet_lite0": [32, 24, 40, 112]}


def table(experiment):
    return experiment.rpartition("/")[0]


def own_datasets(experiment):
    """Those of its table; a curve is of one of them."""
    found = DATASETS[table(experiment)]
    if "/fig" in experiment:
        return [found[experiment.split("/")[-1].startswith("ade")]]
    return found


def written(experiment):
    """The row's own file, as YAML."""
    return yaml.safe_load((CONFIGS / "experiment" / f"{experiment}.yaml").read_text())


def test_every_table_has_its_number_of_rows():
    assert {name: sum(table(row) == name for row in ROWS) for name in COUNTS} == COUNTS
    assert {table(row) for row in ROWS} == COUNTS.keys()  # cfl/table3: eight rows, one of them in both its readings


@pytest.mark.parametrize(("experiment", "dataset"), [(row, dataset) for row in ROWS for dataset in own_datasets(row)])
def test_rows_take_their_data_sets(experiment, dataset):
    cfg = config(f"experiment={experiment}", f"dataset={dataset}")
    validate(cfg)
    assert cfg.dataset.name == dataset and cfg.paper.paper.lower() == experiment.split("/")[0]
    if "upsampling" in cfg.model.generator:
        wide = dataset in ("cityscapes", "gta")
        assert cfg.model.generator.upsampling == ("more" if wide else "normal")
    assert epochs(cfg.paper.paper, cfg.paper.table, cfg.paper.row, dataset) == (
        cfg.train.epochs,
        cfg.train.decay_epochs,
    )
    first = SAME.get(experiment, experiment)
    assert cfg.paper.table in (table(first).rpartition("/")[2].removeprefix("table"), "text")
    printed = paper_row(cfg.paper.paper, cfg.paper.table, cfg.paper.row, dataset, cfg.paper.x)
    assert (printed is None) == (cfg.paper.table == "text" or "_Q_" in cfg.paper.row)


def test_every_printed_cell_has_one_experiment():
    cited = {}
    for experiment in set(ROWS) - SAME.keys():
        paper = written(experiment)["paper"]
        for place in (paper, *paper.get("also", [])):
            for dataset in own_datasets(experiment):
                cited.setdefault((paper["paper"], str(place["table"]), place["row"], dataset), []).append(experiment)
    for entry in yaml.safe_load(FILE.read_text()):
        if str(entry["table"]) == "text":
            continue  # CUT's published number, quoted
        row = entry["row"].rpartition("_v")[0] or entry["row"]  # the versions of a Q curve
        found = cited.get((entry["paper"], str(entry["table"]), row, our_dataset(entry)), [])
        twice = entry["paper"] == "CFL" and entry["table"] == 3 and row == "r2"
        curve = str(entry["table"]).startswith("fig")
        assert len(found) == 1 + twice or (curve and found), entry


@pytest.mark.parametrize("experiment", [row for row in ROWS if row not in SAME])
def test_rows_say_what_they_chose(experiment):
    raw = written(experiment)
    assert isinstance(raw["deviations"], list) and {"paper", "table", "row"} <= raw["paper"].keys()
    assert "loss" not in raw and "encoder" not in raw  # leaves that another choice may lack


@pytest.mark.parametrize("experiment", [row for row in ROWS if row not in SAME])
def test_rows_name_the_choices_that_their_configs_show(experiment):
    cfg, told = config(f"experiment={experiment}"), " ".join(written(experiment)["deviations"])
    loss = str(cfg.loss.get("_target_")).rpartition(".")[2]
    assert "Cityscapes as" not in told  # a data set's own are its recipe's
    if experiment.startswith("cfl"):
        read = [name for name, node in cfg.objective.items() if encoded(node.term)]
        if any(name in cfg.encoder._target_ for name in ("vgg", "resnet")) and read:
            assert not cfg.encoder.mean_std and "without mean and std" in told
        if loss == "PatchNCE":
            assert "own image" in told
            assert f"mean over positions, as the released code; Eq. {5 if cfg.loss.bidirectional else 4} prints" in told
        if loss in ("L1", "Perceptual"):
            assert "Eq. 7 prints l2" in told
        rate = f"{cfg.train.lr:.0e}".replace("e-0", "e-")
        assert cfg.train.ttur or rate in told
    if cfg.loss.get("detach_weights"):
        assert "under stop gradient" in told
    if loss == "MoNCE":
        assert "diagonal" in told or "lsesim" in experiment
        assert "caption of Fig. 4 swaps" in told


@pytest.mark.parametrize(
    ("experiment", "dataset", "words"),
    [
        ("cfl/table1/vgg_patchnce", "cityscapes", ["35 label ids and instance edges"]),
        ("cfl/table1/vgg_gan_l1", "cityscapes", ["35 label ids and instance edges"]),
        ("cfl/table1/vgg_patchnce", "gta", ["(18,785)", "26,000", "without instance edges"]),
        ("cfl/table1/vgg_gan_l1", "gta", ["(6,181)"]),
        ("cfl/table1/pixel_l1", "nyu_depth", ["1,449", "turbo", "without alignment"]),
        ("cfl/table1/vgg_patchnce", "ade20k", ["256x256", "UperNet-101"]),
        ("cfl/table1/vgg_gan_l1", "ade20k", ["256x256", "UperNet-101"]),
        ("monce/table3/monce", "ade20k", []),
        ("monce/table3/monce", "celebahq_semantic", ["one channel a pixel", "official split"]),
        ("monce/table3/monce", "celebahq_edge", ["nothing was released for edges", "30 + 30, 20", "official split"]),
        ("monce/table3/gan", "deepfashion", ["nothing was released for joints", "the split of whoever"]),
    ],
)
def test_a_data_set_adds_its_own_choices(experiment, dataset, words):
    cfg = config(f"experiment={experiment}", f"dataset={dataset}")
    told = " ".join(cfg.deviations_data)
    assert bool(told) == bool(words) and all(word in told for word in words)
    assert list(cfg.deviations) == written(experiment)["deviations"]


class Fixed:
    """Features of five places for every layer of a row's encoder, whatever the image is."""

    def __init__(self, encoder):
        self.layers = list(encoder.get("layers") or encoder.scales)
        self.channels = self.map_channels = [4] * len(self.layers)

    def __call__(self, image):
        draw = torch.Generator().manual_seed(int(image))
        return [torch.randn(2, 4, 5, 1, generator=draw, dtype=torch.float64) for _ in self.layers]


def contrasts(experiment, *words):
    """What the contrast of a row adds to the objective, and its encoder's features of fake and target."""
    cfg = config(f"experiment={experiment}", "objective.contrast.term.head=identity", *words)
    encoder = Fixed(cfg.encoder)
    known = {"channels": encoder.channels, "map_channels": encoder.map_channels, "taps": list(map(str, encoder.layers))}
    term = make(cfg.objective.contrast.term, "objective.contrast", **known)
    views = Views(encoder, {"fake": torch.tensor(0), "target": torch.tensor(1)})
    found = cfg.objective.contrast.weight * term(views)
    rows = [[layer.flatten(2).mT for layer in views.features(name)] for name in ("fake", "target")]
    return cfg, float(found), list(zip(*rows, strict=True))


LISTED = {"vgg": 5, "resnet": 5, "conv6": 6, "pixel": 4}  # L of the release
CONTRASTS = [row for row in ROWS if row.startswith("cfl") and row not in SAME and "patchnce" in str(written(row))]


@pytest.mark.parametrize("experiment", CONTRASTS)
def test_the_scale_of_a_row_is_the_papers_and_with_the_official_loss_the_releases(experiment):
    """Eqs. 4 and 5 times 0.8; lambda / L^2 for each layer and direction, with the release's own negatives."""
    cfg, found, layers = contrasts(experiment)
    both, one = cfg.loss.bidirectional, PatchNCE(negatives=cfg.loss.negatives)
    assert both == ("standard" not in experiment)
    ways = [[float(one(q, k)), float(one(k, q))] if both else [float(one(q, k))] for q, k in layers]
    assert found == pytest.approx(0.8 * sum(sum(way) * (0.5 if both else 1) for way in ways), rel=1e-9)

    official, released, _ = contrasts(experiment, "loss=patchnce_official")
    assert official.loss.bidirectional == both
    listed = next(count for name, count in LISTED.items() if name in cfg.encoder._target_)
    one = PatchNCE(intra_negatives=True)
    ways = [[float(one(q, k)), float(one(k, q))] if both else [float(one(q, k))] for q, k in layers]
    assert released == pytest.approx(10 / listed**2 * sum(map(sum, ways)), rel=1e-9)

    told = " ".join(written(experiment)["deviations"])
    own = 0.8 if not both else 0.4
    assert f"{own} a " in told and f"weight 0.8 times Eq. {5 if both else 4}" in told
    assert {5: "0.4", 6: "0.278", 4: "1.11"}[listed] in told and "10 / L^2" in told
    assert ("twice" in told) == (listed == 5 and not both)


def test_the_release_weighs_a_standard_row_half_of_what_eq_4_does():
    """The same loss on the same features, in the scale of Eq. 4 and in that of the release."""
    _, official, _ = contrasts("cfl/table2/gan_frozen_standard", "loss=patchnce_official")
    _, papers, _ = contrasts("cfl/table2/gan_frozen_standard", "loss=patchnce_official", "loss.layer_weights=null")
    assert papers == pytest.approx(2 * official, rel=1e-9)  # 14.727 and 7.364 on the features of a real step
    _, official, _ = contrasts("cfl/table3/conv6_gan_standard", "loss=patchnce_official")
    _, papers, _ = contrasts("cfl/table3/conv6_gan_standard", "loss=patchnce_official", "loss.layer_weights=null")
    assert official / papers == pytest.approx(10 / 36 / 0.8, rel=1e-9)


def test_the_favourable_direction_fills_both_figures():
    for experiment, curve in (("horse_hard", "horse_beta_weightnce"), ("ade_easy", "ade_beta_weightnce")):
        cfg = config(f"experiment=monce/fig3/{experiment}", "loss.beta=0.5")
        (place,) = cfg.paper.also
        assert (place.table, place.row, place.x) == ("fig7", curve, 0.5)
    also = config("experiment=cfl/table1/vgg_patchnce").paper.also
    assert ("text", "patches_1024") in [(place.table, place.row) for place in also]


@pytest.mark.parametrize(("second", "first"), SAME.items())
def test_a_second_name_is_the_same_run(second, first):
    configs = [
        OmegaConf.to_container(config(f"experiment={name}"), resolve=True, enum_to_str=True) for name in (second, first)
    ]
    assert configs[0] == configs[1]
    assert run_folder([f"experiment={second}", "seed=1"]) == run_folder([f"experiment={first}", "seed=1"])
    assert run_folder([f"experiment={first}", "seed=1"]).startswith(f"checkpoints/{first.replace('/', '-')}/")


def takes(experiment, loss, encoder):
    """Compose, validate and build the terms of a row with another loss and encoder, as far as it reads them."""
    raw = written(experiment)["defaults"]
    objective = next(entry["override /objective"] for entry in raw if "override /objective" in entry)
    words = [f"experiment={experiment}"]
    if objective in ("contrast", "contrast_gan", "spade", "cut") or (objective == "lsesim" and "nce" in loss):
        words.append(f"loss={loss}")
    if objective not in ("gan", "cycle"):
        words.append(f"encoder={encoder}")
    cfg = config(*words)
    validate(cfg, overrides=words[1:])
    channels = CHANNELS[encoder]
    known = {"channels": channels, "map_channels": [3] if encoder == "pixel" else channels}
    for name, node in cfg.objective.items():
        accepted = inspect.signature(get_object(node.term._target_)).parameters
        make(node.term, name, **{key: value for key, value in known.items() if key in accepted})


LOSSES = ["l1", "perceptual", "patchnce", "weightnce", "monce"]
PAIRS = [(loss, encoder) for loss in LOSSES for encoder in CHANNELS]


@pytest.mark.parametrize(("index", "experiment"), list(enumerate(row for row in ROWS if row not in SAME)))
def test_rows_take_another_loss_and_encoder(index, experiment):
    takes(experiment, *PAIRS[index % len(PAIRS)])


@pytest.mark.slow
@pytest.mark.parametrize("experiment", [row for row in ROWS if row not in SAME])
def test_rows_take_any_loss_and_encoder(experiment):
    for loss, encoder in PAIRS:
        takes(experiment, loss, encoder)


def test_what_the_papers_say_of_their_rows():
    row = config("experiment=cfl/table2/gan_scratch_standard")
    assert (
        not row.encoder.pretrained and not row.encoder.frozen and not row.loss.bidirectional and "gan" in row.objective
    )
    assert row.encoder.layers[0] == "relu1_1"
    row = config("experiment=cfl/table3/conv6_bidirectional")
    assert row.encoder.size == 256 and row.objective.contrast.term.head == "mlp" and row.loss.bidirectional
    row = config("experiment=cfl/text/rate_x5")
    assert row.train.lr == 5 * config("experiment=cfl/table1/vgg_patchnce").train.lr
    assert config("experiment=cfl/text/negatives_batch").loss.negatives == "batch"
    assert config("experiment=cfl/text/patches_4096").objective.contrast.term.patches == 4096
    row = config("experiment=monce/table4/bidirectional_scratch")
    assert row.loss.bidirectional and row.loss.direction == "easy" and not row.encoder.pretrained
    assert row.encoder.layers[0] == "relu1_2" and row.objective.contrast.weight == 50
    assert config("experiment=monce/table3/monce", "dataset=celebahq_semantic").objective.contrast.weight == 100
    assert config("experiment=monce/table3/perceptual", "dataset=celebahq_semantic").objective.contrast.weight == 10
    row = config("experiment=monce/fig3/horse_easy", "loss.beta=0.5")
    assert row.loss.direction == "easy" and row.paper.x == 0.5
    assert paper_row("monce", row.paper.table, row.paper.row, "horse2zebra", row.paper.x)["metrics"] == {"fid": 48.61}
    assert config("experiment=monce/fig7/ade_Q_patchnce", "loss.q=5").paper.x == 5


def test_a_smoke_run_says_so():
    cfg = config("experiment=cfl/table1/vgg_gan_l1", "dataset=shapes", "encoder=effnet_lite0", "budget=smoke")
    validate(cfg)
    assert cfg.deviations[0].startswith("smoke, not the paper's protocol") and len(cfg.deviations) == 1
    assert cfg.model.generator.width == 16 and cfg.train.steps <= 200 and cfg.train.ttur
