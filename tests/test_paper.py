"""Printed numbers under our names."""

import yaml

from results.paper import FILE, has_table, our_dataset, paper_row, paper_rows

ENTRIES = yaml.safe_load(FILE.read_text())
DATASETS = {
    "cityscapes",
    "cityscapes_unpaired",
    "gta",
    "ade20k",
    "nyu_depth",
    "horse2zebra",
    "winter2summer",
    "celebahq_semantic",
    "celebahq_edge",
    "deepfashion",
}
NUMBERS = {"fid", "swd", "miou", "pixacc", "pixacc_all", "classacc", "rel", "rms"}


def test_every_printed_entry_is_found_under_our_names():
    printed = [entry for entry in ENTRIES if entry["metrics"]]
    assert len(printed) == 97
    for entry in printed:
        found = paper_row(entry["paper"], entry["table"], entry["row"], our_dataset(entry))
        assert found is not None
        assert found["loss"] == entry["loss"] and found["flags"] == entry["flags"]
        assert found["dataset"] in DATASETS and set(found["metrics"]) <= NUMBERS
        assert sorted(found["metrics"].values()) == sorted(entry["metrics"].values())


def test_the_two_papers_mean_different_accuracies():
    cfl = paper_row("cfl", 1, "r4", "cityscapes")
    assert cfl["metrics"] == {"fid": 68.3, "miou": 64.6, "pixacc_all": 82.4}
    assert paper_row("cfl", 1, "r4", "gta")["metrics"].keys() == {"fid", "miou", "pixacc_all"}
    host = paper_row("cfl", 1, "r5", "ade20k")
    assert host["metrics"] == {"fid": 33.1, "miou": 38.5, "pixacc": 79.9}
    paired = paper_row("monce", "table3", "r5", "ade20k")
    assert paired["metrics"] == {"fid": 31.62, "miou": 46.3, "pixacc": 84.29}
    unpaired = paper_row("MoNCE", "1", "r5", "cityscapes_unpaired")
    assert unpaired["metrics"] == {"fid": 54.67, "miou": 25.61, "pixacc": 78.41, "classacc": 33.02}
    assert unpaired["printed"] == {"FID": 54.67, "mAP": 25.61, "pixAcc": 78.41, "classAcc": 33.02}


def test_other_names_of_data_sets():
    assert paper_row("monce", 3, "r5", "celebahq_edge")["metrics"] == {"fid": 29.75, "swd": 18.11}
    assert paper_row("monce", 2, "r5", "winter2summer")["metrics"] == {"fid": 76.04, "swd": 33.1}
    assert paper_row("cfl", 1, "r6", "nyu_depth")["metrics"] == {"fid": 64.0, "rel": 0.444, "rms": 2.11}


def test_accuracies_are_those_of_the_presets_that_measure_them():
    """A preset's `void` says which accuracy is the paper's."""
    presets = {"cityscapes": "cityscapes/cfl", "gta": "gta/cfl", "ade20k": "ade20k"}
    for dataset, preset in presets.items():
        rule = yaml.safe_load((FILE.parents[1] / "configs" / "segmentation" / f"{preset}.yaml").read_text())
        named = {"wrong": "pixacc_all", "ignored": "pixacc"}[rule["void"]]
        rows = [entry for entry in paper_rows("cfl", 1) if entry["dataset"] == dataset]
        assert rows and all(("pixacc_all" in row["metrics"]) == (named == "pixacc_all") for row in rows)
        assert all(named in row["metrics"] for row in rows)


def test_empty_cells_and_what_no_paper_has():
    assert paper_row("monce", 1, "r5", "cityscapes") is None  # that table is about the unpaired task
    assert paper_row("cfl", 1, "r99", "gta") is None
    assert paper_row("cfl", 1, "r1", "camvid") is None
    assert paper_row("cut", 1, "r1", "gta") is None and paper_rows("cut", 1) == []
    assert paper_row("cfl", 9, "r1", "gta") is None and not has_table("cfl", 9)
    assert has_table("MoNCE", "table1") and has_table("monce", "fig7") and not has_table("Mine", "???")
