"""From a miniature official download to a training step and an evaluation, by a row of the papers each."""

import numpy as np
import pytest

from data.prepare import synthetic
from engine.checks import check, validate
from evaluate import evaluate
from tests.compose import config
from tests.prepared import run, train_and_evaluate

CFL = "cfl/table1/pixel_patchnce"  # the rows that need no downloaded weights
MONCE = "monce/table1/monce"
ROWS = {
    "cityscapes": CFL,
    "gta": CFL,
    "ade20k": CFL,
    "nyu_depth": CFL,
    "cityscapes_unpaired": MONCE,
    "horse2zebra": MONCE,
    "winter2summer": MONCE,
    "camvid": "camvid/l1",
    "camvid_dusk": MONCE,
}
GRID = [  # every cell of the tables on these data sets
    *[
        (f"cfl/table1/{row}", name)
        for row in ("pixel_l1", "pixel_patchnce", "vgg_l1", "vgg_patchnce", "vgg_gan_l1", "vgg_gan_patchnce")
        for name in ("cityscapes", "gta", "ade20k", "nyu_depth")
    ],
    *[
        (f"monce/table1/{row}", name)
        for row in ("gan", "cycle", "patchnce", "weightnce", "monce")
        for name in ("cityscapes_unpaired", "horse2zebra", "winter2summer")
    ],
    *[
        (f"monce/table2/{row}", name)
        for row in ("random_sesim", "fsesim", "lsesim_patchnce", "lsesim_weightnce", "lsesim_monce")
        for name in ("horse2zebra", "winter2summer")
    ],
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The prepared folder of a data set, made when it is asked for."""
    folder = tmp_path_factory.mktemp("prepared")

    def make(name):
        raw = folder / "raw" / name
        synthetic.writers()["camvid" if name == "camvid_dusk" else name](raw)
        run(name, raw, folder / name)
        return folder / name

    return make


@pytest.mark.parametrize("name", ROWS)
def test_a_step_and_an_evaluation(prepared, tmp_path, name):
    if name == "nyu_depth":
        pytest.importorskip("h5py", reason="h5py is not installed: requirements-data.txt")
    words = [f"experiment={ROWS[name]}", "train.log_every=1", "nce.patches=16"]
    if name == "camvid":
        words += ["encoder=pixel"]
    report = train_and_evaluate(prepared(name), name, tmp_path / "run", *words)
    assert np.isfinite(report["metrics"]["swd"]["value"]) and report["subject"]["step"] == 1
    sources = {"horse2zebra": 3, "winter2summer": 3, "nyu_depth": 3}.get(name, 4)  # winter is B
    assert len(list((tmp_path / "run/eval/images/1").rglob("*.png"))) == sources
    scored = name not in ("nyu_depth", "horse2zebra", "winter2summer")
    assert (tmp_path / "run/eval/images/labels").is_dir() == scored


def test_depth_is_scored_against_what_was_prepared(prepared, tmp_path):
    pytest.importorskip("h5py", reason="h5py is not installed: requirements-data.txt")
    words = [f"experiment={CFL}", "train.log_every=1", "nce.patches=16"]
    train_and_evaluate(prepared("nyu_depth"), "nyu_depth", tmp_path / "run", *words)
    report = evaluate(config(f"checkpoint={tmp_path / 'run'}", "metrics=[depth]", "workers=0", name="evaluate"))
    assert 0 < report["metrics"]["rel"]["value"] < 10 and 0 < report["metrics"]["rms"]["value"] < 10


@pytest.mark.parametrize(("row", "name"), GRID, ids=lambda value: str(value))
def test_a_row_and_a_data_set_need_nothing_else(row, name):
    cfg = config(f"experiment={row}", f"dataset={name}")
    check(cfg)
    validate(cfg, 1, [f"experiment={row}", f"dataset={name}"])
    assert cfg.dataset.name == name
    if name in ("cityscapes", "gta"):
        assert list(cfg.dataset.size) == [256, 512] and cfg.model.generator.upsampling == "more"
    else:
        assert list(cfg.dataset.size) == [256, 256] and list(cfg.dataset.load_size) == [286, 286]
        assert cfg.model.generator.get("upsampling", "normal") == "normal"
