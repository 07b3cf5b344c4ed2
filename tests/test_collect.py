"""Run folders to rows and tables: what is found, what is averaged, what is kept apart."""

import csv
import io
import json
import statistics

import pytest
import yaml

from errors import UserError
from results.collect import collect
from results.configs import config_differences, settings
from results.curves import losses, sweeps, thin
from results.page import page
from results.paper import paper_rows
from results.rows import groups, rows
from results.sections import describe, sections
from results.tables import comma_separated, measured
from tests.run_folders import evaluation, make_run, metric_entries

CFL = {"paper": "CFL", "table": "1", "row": "r4", "x": None, "also": [{"table": "2", "row": "r7", "x": None}]}


def test_runs_are_found_in_under_and_by_glob_each_once(tmp_path):
    one = make_run(tmp_path / "a" / "shapes" / "base" / "seed0")
    two = make_run(tmp_path / "b" / "shapes" / "base" / "seed0", run="other")
    (tmp_path / "b" / "notes.txt").write_text("no run")
    for paths in ([tmp_path], [one, two], [tmp_path / "*"], [tmp_path / "a", tmp_path, f"{tmp_path}/[ab]"]):
        assert [run.folder for run in collect(paths).runs] == [one, two]
    assert [run.name for run in collect([tmp_path]).runs] == ["demo", "other"]


@pytest.mark.parametrize("path, words", [("nowhere", "no such folder"), ("empty", "no run folder"), ("n*", "no such")])
def test_a_path_without_runs_is_told(tmp_path, path, words):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=words):
        collect([tmp_path / path])


def test_a_damaged_file_costs_a_warning_and_not_the_report(tmp_path):
    good = make_run(tmp_path / "good", metrics=metric_entries(fid=1.0), log=3)
    with (good / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "cont')
    (good / "eval" / "200.json").write_text("{")
    (good / "eval" / "300.json").write_text('{"schema": 99}')
    (good / "environment.json").write_text("[]")
    bad = make_run(tmp_path / "bad")
    (bad / "config.yaml").write_text("run: [")
    found = collect([tmp_path])
    assert [run.folder for run in found.runs] == [good] and len(found.runs[0].log) == 3
    assert list(found.runs[0].reports) == ["100"] and found.runs[0].commits == []
    assert len(found.warnings) == 5
    for word in ("log.jsonl: line 4", "200.json", "300.json", "environment.json", "bad/config.yaml"):
        assert any(word in warning for warning in found.warnings)


SHAPES = {  # file, its content, and what the warning names
    "log that is no text": ("log.jsonl", b'{"step": 1}\n\xff\xfe\n', "line 2"),
    "report without anything": ("eval/100.json", b'{"schema": 1}', "no subject"),
    "report that is a list": ("eval/100.json", b"[]", "schema None"),
    "number without a direction": (
        "eval/100.json",
        b'{"schema": 1, "subject": {"fake": "x", "step": 1}, "protocol": {"metrics": {}}, "warnings": [],'
        b' "metrics": {"fid": {"value": 1.0}}}',
        "metrics.fid has no better",
    ),
    "similarities without anything": ("analysis/100/similarity.json", b"{}", "no step"),
    "packages that are none": ("environment.json", b'{"commit": "c", "packages": null}', "packages is 'None'"),
    "progress in other words": ("progress.txt", b"half", "progress.txt"),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_a_file_of_another_shape_is_left_out_with_a_warning(tmp_path, kind):
    name, content, told = SHAPES[kind]
    folder = make_run(tmp_path / "odd", metrics=metric_entries(fid=1.0), log=3)
    make_run(tmp_path / "whole", run="whole", metrics=metric_entries(fid=2.0))
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    found = collect([tmp_path])
    assert len(found.runs) == 2 and len(found.warnings) == 1
    assert name in found.warnings[0] and told in found.warnings[0]
    made = sections(found)
    assert page(found, made, out=tmp_path, title="Title").count("<section") > 3


@pytest.mark.parametrize(("key", "value"), [("seed", None), ("train", "fast"), ("setting", "paired"), ("dataset", {})])
def test_a_config_of_another_shape_leaves_its_run_out(tmp_path, key, value):
    folder = make_run(tmp_path / "odd")
    make_run(tmp_path / "whole", run="whole")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, key: value}))
    found = collect([tmp_path])
    assert [run.name for run in found.runs] == ["whole"]
    assert len(found.warnings) == 1 and "no config of train.py" in found.warnings[0] and key in found.warnings[0]


def test_every_commit_that_trained_a_run_is_named(tmp_path):
    folder = make_run(tmp_path / "a", metrics=metric_entries(fid=1.0))
    starts = [{"step": 0, "commit": "first"}, {"step": 40, "commit": "second"}, {"step": 60, "commit": "second"}]
    (folder / "environment.json").write_text(json.dumps({"commit": "second", "commits": starts}))
    (section,) = sections(collect([tmp_path]))
    assert section.rows[0].commits == ["first", "second"]


def test_nothing_but_broken_runs_is_an_error(tmp_path):
    (make_run(tmp_path / "bad") / "config.yaml").write_text("dataset: shapes\n")
    with pytest.raises(UserError, match="no run could be read"):
        collect([tmp_path])


def test_names_are_as_short_as_they_can_be(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / "a" / "shapes" / "base" / f"seed{seed}", seed=seed)
    assert [run.name for run in collect([tmp_path]).runs] == ["demo · seed 0", "demo · seed 1"]
    make_run(tmp_path / "a" / "shapes" / "loss.beta-2" / "seed0")
    assert collect([tmp_path]).runs[-1].name == "demo · seed 0 · loss.beta-2"
    make_run(tmp_path / "copy" / "shapes" / "base" / "seed0")
    assert len({run.name for run in collect([tmp_path]).runs}) == 4


def test_settings_hold_every_choice_once_and_no_machine(tmp_path):
    one, two = (make_run(tmp_path / str(seed), seed=seed) for seed in (0, 1))
    first, second = collect([one, two]).runs
    assert settings(first) == settings(second)
    assert "loss.temperature" in settings(first) and "objective.contrast.term.patches" in settings(first)
    assert not [key for key in settings(first) if key.startswith(("objective.contrast.term.loss", "paper", "run"))]
    assert config_differences([first, second]) == {"seed": [0, 1]}
    first.config["model"]["generator"]["width"] = 8
    assert config_differences([first, second]) == {"model.generator.width": [8, 64], "seed": [0, 1]}


def test_seeds_are_averaged_with_the_sample_deviation(tmp_path):
    values = [60.5, 64.0, 69.5]
    for seed, value in enumerate(values):
        make_run(tmp_path / str(seed), seed=seed, metrics=metric_entries(fid=value))
    (group,) = groups(collect([tmp_path]).runs)
    (row,) = rows(group, "title")
    assert row.seeds == [0, 1, 2] and row.commits == ["c0", "c1", "c2"] and row.steps == [100] * 3
    assert row.cells["fid"].mean == pytest.approx(statistics.mean(values))
    assert row.cells["fid"].sd == pytest.approx(statistics.stdev(values))
    (alone,) = rows(group[:1], "title")
    assert alone.cells["fid"].sd is None


def test_other_settings_and_other_selections_are_other_rows(tmp_path):
    one = make_run(tmp_path / "a", metrics=metric_entries(fid=1.0))
    make_run(tmp_path / "b", seed=1, metrics=metric_entries(fid=3.0), batch_size=8)
    evaluation(one, 50, metric_entries(fid=0.5), selection="best(fid, test)")
    evaluation(one, 60, metric_entries(fid=2.0))  # an older one of the last checkpoint gives way
    (section,) = sections(collect([tmp_path]))
    found = {(row.selection, row.cells["fid"].mean) for row in section.rows}
    assert found == {("last", 1.0), ("best(fid, test)", 0.5), ("last", 3.0)}


def test_numbers_of_different_protocols_are_never_averaged(tmp_path):
    for seed, sha in ((0, "aa"), (1, "bb"), (2, "aa")):
        folder = make_run(tmp_path / str(seed), seed=seed)
        evaluation(folder, 100, metric_entries(fid=float(seed)), content_sha256=sha)
    (section,) = sections(collect([tmp_path]))
    assert [(row.letter, row.seeds, row.cells["fid"].mean) for row in section.rows] == [
        ("A", [0, 2], 1.0),
        ("B", [1], 1.0),
    ]
    assert any("real.content_sha256 (aa in A, bb in B)" in note for note in section.notes)
    assert not any(section.best("fid", row) for row in section.rows)


def test_a_number_that_a_seed_lacks_is_not_claimed_for_it(tmp_path):
    for seed in (0, 1, 2):
        entries = metric_entries(fid=float(seed), miou=40.0)
        if seed == 1:
            entries["fid"]["value"] = None
        if seed == 2:
            del entries["miou"]
        make_run(tmp_path / str(seed), seed=seed, metrics=entries)
    (section,) = sections(collect([tmp_path]))
    (row,) = section.rows
    assert row.seeds == [0, 1, 2] and row.cells["fid"].seeds == [0, 2]
    assert measured(row.cells["fid"], "fid") == "1.00 ± 1.41 (2 of 3)"
    assert measured(row.cells["miou"], "miou") == "40.00 ± 0.00 (2 of 3)"
    assert row.notes == ["fid without seed 1", "miou without seed 2"]
    lines = csv.DictReader(io.StringIO(comma_separated([section], None)))
    assert {line["metric"]: (line["n_seeds"], line["seeds"]) for line in lines} == {
        "fid": ("2", "0 2"),
        "miou": ("2", "0 1"),
    }


def progress(folder, step, steps):
    (folder / "progress.txt").write_text(f"{step} of {steps}\n")


def test_a_number_of_a_half_trained_run_says_so(tmp_path):
    for seed, end in ((0, 100), (1, 200)):
        progress(make_run(tmp_path / str(seed), seed=seed, metrics=metric_entries(fid=1.0)), 100, end)
    (section,) = sections(collect([tmp_path]))
    assert section.rows[0].notes == ["seed 1: step 100 of 200"]
    progress(tmp_path / "1", 200, 200)  # trained on, but not measured again
    (section,) = sections(collect([tmp_path]))
    assert section.rows[0].notes == ["seed 1: step 100 of 200"]


def test_a_run_that_did_not_end_is_not_called_trained(tmp_path):
    folder = make_run(tmp_path / "a")
    assert sections(collect([tmp_path]))[0].rows[0].notes == ["not finished, not evaluated"]
    progress(folder, 60, 120)
    (section,) = sections(collect([tmp_path]))
    assert section.rows[0].notes == ["not finished, not evaluated (step 60 of 120)"] and section.rows[0].steps == [60]
    progress(folder, 120, 120)
    assert sections(collect([tmp_path]))[0].rows[0].notes == ["trained, not evaluated"]


def test_other_epochs_than_the_rows_are_noted(tmp_path):
    paper, entries = {**CFL, "also": []}, metric_entries(fid=70.0)
    for name, epochs in (("whole", 800), ("short", 3)):
        words = {"epochs": epochs, "decay_epochs": 0}
        make_run(tmp_path / name, run=name, paper=paper, dataset="cityscapes", metrics=entries, **words)
    (section,) = sections(collect([tmp_path]))
    notes = {row.experiment: row.notes for row in section.rows if row.runs}
    assert notes == {"whole": [], "short": ["3 + 0 epochs in place of 800 + 0"]}


def test_a_run_without_an_evaluation_is_said_to_be_there(tmp_path):
    make_run(tmp_path / "a", log=7)
    (section,) = sections(collect([tmp_path]))
    assert section.rows[0].cells == {} and section.rows[0].steps == [7]
    assert section.rows[0].notes == ["trained, not evaluated"]
    make_run(tmp_path / "b", seed=1, metrics=metric_entries(fid=3.0))
    (section,) = sections(collect([tmp_path]))
    assert [row.seeds for row in section.rows] == [[1]] and section.rows[0].notes == ["seed 0 trained, not evaluated"]


def test_the_whole_table_of_a_paper_stands_with_blanks(tmp_path):
    make_run(tmp_path / "a", paper=CFL, dataset="cityscapes", metrics=metric_entries(fid=70.0, miou=60.0))
    first, second = sections(collect([tmp_path]))
    assert (first.title, second.title) == ("CFL Table 1", "CFL Table 2")
    assert len(first.rows) == 24 and len(second.rows) == 13
    (ours,) = [row for row in first.rows if row.runs]
    assert ours.place == ("cfl", "1", "r4") and ours.printed == {"fid": 68.3, "miou": 64.6, "pixacc_all": 82.4}
    assert ours.notes == []
    (again,) = [row for row in second.rows if row.runs]
    assert again.place == ("cfl", "2", "r7") and again.printed == {"fid": 68.3, "miou": 64.5}
    assert [row.dataset for row in first.rows[::6]] == ["cityscapes", "gta", "ade20k", "nyu_depth"]
    assert first.metrics() == ["fid", "miou", "pixacc", "pixacc_all", "rel", "rms"]


def test_data_sets_with_runs_come_first(tmp_path):
    make_run(tmp_path / "a", paper={**CFL, "also": []}, dataset="nyu_depth", metrics=metric_entries(rel=0.4))
    (section,) = sections(collect([tmp_path]))
    assert [row.dataset for row in section.rows[::6]] == ["nyu_depth", "cityscapes", "gta", "ade20k"]
    assert [row.place[2] for row in section.rows[:6]] == ["r1", "r2", "r3", "r4", "r5", "r6"]


def test_runs_on_other_data_sets_stand_alone_and_say_how_they_depart(tmp_path):
    folder = make_run(tmp_path / "a", paper={**CFL, "also": []}, metrics=metric_entries(fd_lite2=7.0), steps=40)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["encoder"]["_target_"] = "models.backbones.effnet_lite0"
    config["model"]["generator"]["width"] = 8
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (section,) = sections(collect([tmp_path]))
    (row,) = section.rows
    assert row.place == ("cfl", "1", "r4") and row.printed == {} and row.dataset == "shapes"
    assert row.notes == [
        "encoder effnet_lite0 in place of vgg19",
        "generator width 8 in place of 64",
        "ended by train.steps=40, not by the paper's schedule",
    ]


@pytest.mark.parametrize(
    "paper",
    ["CFL", {"paper": "Mine"}, {"paper": "CFL", "table": "9", "row": "r1"}, {"paper": "CFL", "table": 1}, ["CFL"]],
)
def test_a_row_that_no_paper_has_counts_as_none(tmp_path, paper):
    make_run(tmp_path / "a", paper=paper, metrics=metric_entries(fid=1.0))
    found = collect([tmp_path])
    (section,) = sections(found)
    assert section.title == "Runs on shapes" and section.rows[0].cells["fid"].values == [1.0]
    assert len(found.warnings) == 1 and "names no table of CFL or MoNCE" in found.warnings[0]


def test_the_best_of_comparable_rows(tmp_path):
    for at, (fid, miou) in enumerate(((5.0, 40.0), (4.0, 30.0))):
        make_run(tmp_path / str(at), batch_size=at + 1, metrics=metric_entries(fid=fid, miou=miou))
    (section,) = sections(collect([tmp_path]))
    assert [section.best("fid", row) for row in section.rows] == [False, True]
    assert [section.best("miou", row) for row in section.rows] == [True, False]
    del section.rows[0]
    assert not section.best("fid", section.rows[0])


def test_the_best_is_among_rows_of_one_selection(tmp_path):
    """The best of many checkpoints on the test images is no peer of a last one."""
    for at, (last, best) in enumerate(((5.0, 3.0), (4.0, 3.5))):
        folder = make_run(tmp_path / str(at), batch_size=at + 1, metrics=metric_entries(fid=last))
        evaluation(folder, 20, metric_entries(fid=best), "best(fid, test)")
    (section,) = sections(collect([tmp_path]))
    underlined = [(row.selection, row.cells["fid"].mean) for row in section.rows if section.best("fid", row)]
    assert sorted(underlined) == [("best(fid, test)", 3.0), ("last", 4.0)]


def test_a_paper_row_in_words():
    words = [describe(entry) for entry in paper_rows("cfl", 1) if entry["dataset"] == "cityscapes"]
    assert words[0] == "pixel l1" and words[-1] == "vgg19 patchnce, bidirectional, pretrained, GAN"
    assert {describe(e) for e in paper_rows("monce", 3) if e["row"] == "r5"} == {"vgg19 monce, easy, pretrained, GAN"}


def test_curves_are_thinned_to_means_of_equal_stretches():
    points = [[step, float(step), 2 * step] for step in range(1, 1001)]
    assert thin(points, 2000) is points
    found = thin(points, 10)
    assert [point[0] for point in found] == list(range(100, 1001, 100))
    assert found[0] == [100, statistics.mean(range(1, 101)), 200]


def test_losses_by_name_norms_last(tmp_path):
    folder = make_run(tmp_path / "a")
    lines = [{"step": s, "images": s, "norm/generator": 1.0, "gan": 0.1, "contrast": float(s), "lr": 1} for s in (1, 2)]
    lines[0]["gan"] = None
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    charts = losses(collect([tmp_path]).runs)
    assert [chart["title"] for chart in charts] == ["gan", "contrast", "norm/generator"]
    assert charts[0]["series"][0]["points"] == [[2, 0.1]]
    assert charts[1]["series"][0]["points"] == [[1, 1.0], [2, 2.0]] and charts[1]["series"][0]["images"] == [1, 2]


def test_sweeps_join_runs_that_differ_in_their_loss_alone(tmp_path):
    weighted = {"_target_": "losses.contrastive.WeightNCE", "direction": "hard", "q": 1.0}
    for at, beta in enumerate((0.5, 0.1)):
        for seed in (0, 1):
            loss, entries = {**weighted, "beta": beta}, metric_entries(fid=40.0 + at + seed)
            make_run(tmp_path / f"{at}{seed}", dataset="horse2zebra", seed=seed, loss=loss, metrics=entries)
    make_run(tmp_path / "level", dataset="horse2zebra", metrics=metric_entries(fid=45.0))
    make_run(tmp_path / "other", dataset="horse2zebra", metrics=metric_entries(fid=99.0), batch_size=99)
    for q in (0.5, 2.0):  # points of another chart, no level lines of this one
        loss = {"_target_": "losses.contrastive.PatchNCE", "q": q}
        make_run(tmp_path / f"q{q}", dataset="horse2zebra", loss=loss, metrics=metric_entries(fid=40.0 + q))
    chart, over_q = sweeps(collect([tmp_path]).runs)
    assert over_q["title"] == "fid over Q, horse2zebra"
    assert [series["name"] for series in over_q["series"]] == ["PatchNCE"]  # the paper's curves are no target
    assert (chart["title"], chart["x"]) == ("fid over beta, horse2zebra", "beta")
    ours = {series["name"]: series["points"] for series in chart["series"] if not series.get("paper")}
    sd = statistics.stdev([0, 1])
    assert ours["WeightNCE hard, Q 1"] == [[0.1, 41.5, pytest.approx(sd)], [0.5, 40.5, pytest.approx(sd)]]
    assert ours["PatchNCE"] == [[0.1, 45.0, 0], [0.5, 45.0, 0]]
    papers = {series["name"]: series["points"] for series in chart["series"] if series.get("paper")}
    assert papers["paper: monce hard"][0] == [0.1, 41.86, 0] and papers["paper: weightnce hard"][0] == [0.1, 42.92, 0]
    assert set(ours) == {"WeightNCE hard, Q 1", "PatchNCE"}
    assert len(papers) == len([series for series in chart["series"] if series.get("paper")])


def test_easy_and_hard_stand_in_one_chart(tmp_path):
    for direction in ("easy", "hard"):
        for beta in (0.1, 1.0):
            loss = {"_target_": "losses.contrastive.WeightNCE", "direction": direction, "q": 1.0, "beta": beta}
            folder = make_run(
                tmp_path / f"{direction}{beta}", dataset="ade20k", loss=loss, metrics=metric_entries(swd=beta)
            )
            config = yaml.safe_load((folder / "config.yaml").read_text())
            config["nce"] = {"direction": direction, "bidirectional": False, "patches": 256, "weight": 50}
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (chart,) = sweeps(collect([tmp_path]).runs)
    assert [series["name"] for series in chart["series"]] == ["WeightNCE easy, Q 1", "WeightNCE hard, Q 1"]
