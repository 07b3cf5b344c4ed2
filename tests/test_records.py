"""Every JSON file that a command reads back, broken in some hundred ways: read, or one line, never a traceback."""

import json
from functools import partial

import pytest
import torch
import yaml

import records
from data.manifest import check_manifest, check_sides, read_manifest, write_manifest
from engine.record import note_start
from errors import UserError
from metrics import protocol
from results.collect import collect
from results.configs import settings
from results.curves import losses, sweeps
from results.pictures import strips
from results.sections import sections
from results.tables import comma_separated, latex, markdown
from tests.mutations import damaged, mutated
from tests.run_folders import add_pictures, evaluation, make_run, metric_entries


def broken(path, every=1):
    """Every n-th broken text of a JSON or YAML file, written there; the file is whole again in the end."""
    text = path.read_bytes()
    value = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    for content in [*[*(other.encode() for other in mutated(value))][::every], *damaged(text)]:
        path.write_bytes(content)
        yield
    path.write_bytes(text)


def survives(path, read, every=1):
    """Reading the broken texts of a file succeeds or raises one line; how many there were, and were refused."""
    count = refused = 0
    for _ in broken(path, every):
        count += 1
        try:
            read()
        except UserError as error:
            refused += 1
            assert str(error) and "\n" not in str(error)
    return count, refused


def test_manifests(tmp_path):
    labels = {"kind": "ids", "classes": 3, "ignore": None}
    for paired, names in ((True, ["a", "b"]), (False, ["A/a", "B/a"])):
        root = tmp_path / str(paired)
        write_manifest(
            root, dataset="d", options={"size": None}, source_counts={"all": 2}, labels=labels, instance=False,
            image_size=[8, 8], splits={"train": names}, dropped=[("c", "bad")], paired=paired,
        )  # fmt: skip

        def read(root=root, paired=paired):
            read_manifest(root)
            if paired:
                check_manifest(root, "train", ["a", "b"], 3, None)
            check_sides(root, "train", {"A": ["a"], "B": ["a"]} if not paired else {"input": ["a", "b"]}, 3)

        read()
        count, refused = survives(root / "manifest.json", read)
        assert count > 300 and refused > 200


def test_a_manifest_says_what_is_wrong_with_it(tmp_path):
    (tmp_path / "manifest.json").write_text(
        '{"schema": 1, "dataset": "d", "options": {}, "instance": false, "labels": 3}'
    )
    with pytest.raises(
        UserError, match=r"manifest\.json: is damaged or no manifest \(labels is no object\); run prepare"
    ):
        read_manifest(tmp_path)


def test_reports(tmp_path):
    entries = metric_entries(fid=1.0, miou=3.0)
    for name in ("a", "b"):
        evaluation(tmp_path / name, 100, entries)
    one, two = (tmp_path / name / "eval" / "100.json" for name in ("a", "b"))
    whole = json.loads(two.read_text())
    whole["protocol"]["metrics"] = {"fid": {"network": "inception", "versions": {"torch": "2"}}}
    two.write_text(json.dumps(whole))

    def read():
        a, b = protocol.read(one), protocol.read(two)
        protocol.compare(a, b, force=True)
        for report in (a, b):
            protocol.differences(report, b)

    count, refused = survives(two, read)
    assert count > 300 and refused > 100


def test_an_evaluation_over_a_broken_report_replaces_it(tmp_path):
    """Metrics of an earlier report are kept where it is whole; any other one is written over in a run's own folder."""
    from tests.compose import entry_file

    write = entry_file("evaluate.py").write
    side = {"n": 1, "sizes": {"8x8": 1}, "formats": {"PNG": 1}, "manifest_sha256": None}
    block = {"network": "inception", "versions": {"torch": "2"}}
    report = {
        "schema": 1,
        "subject": {"fake": "f", "real": "r", "checkpoint": None, "step": 1, "split": "test"},
        "protocol": {"fake": side, "real": side, "selection": "last", "metrics": {"fid": block}},
        "floor": None,
        "metrics": metric_entries(fid=1.0),
        "warnings": [],
    }
    out = tmp_path / "1.json"
    write(report, out)
    other = {
        **report,
        "metrics": metric_entries(kid=2.0),
        "protocol": {**report["protocol"], "metrics": {"kid": block}},
    }
    text = out.read_bytes()
    for _ in broken(out, 4):
        write(other, out)
        protocol.read(out)
    out.write_bytes(text)
    write(other, out)
    assert set(protocol.read(out)["metrics"]) == {"fid", "kid"}


def test_the_history_of_a_run(tmp_path):
    note_start(tmp_path, 0, torch.device("cpu"), 1)
    path = tmp_path / "environment.json"
    for number, _ in enumerate(broken(path)):
        if number % 8 == 0:  # each asks git for the commit
            note_start(tmp_path, 3, torch.device("cpu"), 1)
            assert json.loads(path.read_text())["commits"][-1]["step"] == 3


@pytest.fixture
def folder(tmp_path):
    """A run with everything that a report shows, beside others that it is compared with."""
    cited = {"paper": "CFL", "table": "1", "row": "r4", "x": None, "also": [{"table": "2", "row": "r7", "x": None}]}
    made = []
    for name, beta in (("a", 0.1), ("b", 1.0), ("c", 10.0)):
        loss = {"_target_": "losses.contrastive.MoNCE", "beta": beta, "q": 1.0, "direction": "hard"}
        paper = cited if name == "a" else None
        made.append(make_run(tmp_path / name, metrics=metric_entries(fid=1.0, miou=3.0), log=2, loss=loss, paper=paper))
    add_pictures(made[0], {"x": 3})
    layer = {"name": "0", "edges": [0, 0.5, 1], "positive": [1, 2], "negative": [3, 4], "overlap": 0.5, "rank": 0.4}
    layer |= {"positive_mean": 0.1, "negative_mean": 0.2}
    shown = {"step": 100, "query": "fake", "key": "target", "images": 3, "features": "x", "layers": [layer]}
    (made[0] / "analysis" / "100").mkdir(parents=True)
    (made[0] / "analysis" / "100" / "similarity.json").write_text(json.dumps(shown))
    return made[0]


def read_runs(folder, monkeypatch):
    """Everything of a report but the page's pictures, which take long."""
    from results import page

    monkeypatch.setattr(page, "galleries", lambda *_: [])
    found = collect([folder.parent])
    made = sections(found)
    for run in found.runs:
        settings(run), strips(run, None)
    losses(found.runs), sweeps(found.runs)
    page._script_json([losses(found.runs), sweeps(found.runs), page.similarities(found.runs)])
    for text in (markdown(made, "T", None, found.warnings), comma_separated(made, None), latex(made, None)):
        text.encode()
    return found


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["config.yaml", "eval/100.json", "environment.json", "analysis/100/similarity.json"])
def test_files_of_a_run(folder, monkeypatch, name, every):
    assert not read_runs(folder, monkeypatch).warnings
    count, _ = survives(folder / name, partial(read_runs, folder, monkeypatch), every)
    assert count > 12


def test_the_page_of_runs_with_broken_files(folder):
    """Whole pages, for a part of the same: they take long."""
    from results.page import page

    for number, _ in enumerate(broken(folder / "eval" / "100.json")):
        if number % 40 == 0:
            found = collect([folder.parent])
            page(found, sections(found), out=folder.parent, title="T").encode()


def test_logs(folder, monkeypatch):
    """Lines in front of a broken one are shown, and no line ends the report."""
    path = folder / "log.jsonl"
    first, second = path.read_bytes().splitlines()
    for line in [*(text.encode() for text in mutated(json.loads(second))), *damaged(second)]:
        path.write_bytes(first + b"\n" + line + b"\n")
        run = next(run for run in read_runs(folder, monkeypatch).runs if run.folder == folder)
        assert run.log and run.log[0]["step"] == 1


@pytest.mark.parametrize(
    "text", ["", "a of b", "1 of", "9" * 5000 + " of 3", "1 of 2 of 3", "nan of inf", "x[$(id)] of 1"]
)
def test_progress(folder, monkeypatch, text):
    (folder / "progress.txt").write_text(text)
    found = read_runs(folder, monkeypatch)
    assert [run.progress for run in found.runs if run.folder == folder] == [None]
    assert any("progress.txt" in line for line in found.warnings)


def test_aliases_do_not_multiply(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 10)}]" for at in range(1, 10)]
    (tmp_path / "config.yaml").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="more than 100000 parts"):
        records.load_yaml(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("a: &a [*a]")
    with pytest.raises(ValueError):
        records.load_yaml(tmp_path / "config.yaml")
