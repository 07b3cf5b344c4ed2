"""Tables and the page of a report: what stands in them, and that the page needs nothing but itself."""

import base64
import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from engine.record import grid
from errors import UserError
from report import report
from results.collect import collect
from results.gallery import coarse, galleries, l1
from results.pictures import cut, encode, strips
from results.sections import sections
from results.tables import HEADER, comma_separated, latex, markdown, number, span
from tests.compose import config as compose_config
from tests.run_folders import add_pictures, make_run, metric_entries

ROOT = Path(__file__).resolve().parents[1]
CFL = {"paper": "CFL", "table": "1", "row": "r4"}
NOTE = "smoke, not the paper's protocol"


def config(**values):
    return OmegaConf.merge(compose_config(name="report"), values)


@pytest.fixture
def table_runs(tmp_path):
    for seed, fid in enumerate((70.0, 72.0)):
        entries = metric_entries(fid=fid)
        entries["fid"]["floor"] = 30.0
        make_run(tmp_path / "runs" / f"seed{seed}", seed=seed, paper=CFL, dataset="cityscapes", metrics=entries)
    return tmp_path / "runs"


@pytest.fixture
def picture_runs(tmp_path):
    for at, (shades, name) in enumerate((({"a": 110, "b": 130}, "one"), ({"a": 160, "b": 90}, "two </script> & co"))):
        folder = make_run(tmp_path / "runs" / str(at), run=name, metrics=metric_entries(fid=1.0 + at), log=5)
        add_pictures(folder, shades)
    return tmp_path / "runs"


def test_markdown_has_paper_and_ours_and_blanks(table_runs):
    text = markdown(sections(collect([table_runs])), "Title", NOTE)
    assert text.startswith(f"# Title\n\n**{NOTE}**\n") and f"## CFL Table 1 ({NOTE})" in text
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    head = lines[0]
    ours = next(line for line in lines if line[:2] == ["r4", "cityscapes"])
    assert ours[head.index("FID ↓")] == "68.30 / 71.00 ± 1.41" and ours[head.index("mIoU % ↑")] == "64.60 /"
    assert ours[head.index("seeds") :] == ["0 1", "last", "100", "c0 c1"]
    blank = next(line for line in lines if line[:2] == ["r1", "gta"])
    assert blank[head.index("FID ↓")] == "132.10 /" and blank[head.index("seeds") :] == [""] * 4
    assert any("floor 30.00" in line for line in lines)
    assert len({len(line) for line in lines}) == 1


def test_csv_has_every_number_in_full(table_runs):
    found = list(csv.DictReader(io.StringIO(comma_separated(sections(collect([table_runs])), NOTE))))
    assert tuple(found[0]) == HEADER
    (ours,) = [line for line in found if line["ours_mean"]]
    assert (ours["row"], ours["metric"], ours["paper_value"], ours["better"]) == ("r4", "fid", "68.3", "lower")
    assert float(ours["ours_mean"]) == 71 and float(ours["ours_sd"]) == pytest.approx(2**0.5)
    assert (ours["n_seeds"], ours["seeds"], ours["selection"], ours["floor"]) == ("2", "0 1", "last", "30.0")
    assert ours["commit"] == "c0 c1" and NOTE in ours["notes"] and len(ours["folders"].split()) == 2
    printed = [line for line in found if line["paper_value"]]
    assert len(printed) == 24 * 3  # three numbers in each cell of the paper's table


def test_latex_is_escaped_and_balanced(table_runs):
    text = latex(sections(collect([table_runs])), "100% & more_or_less")
    assert r"100\% \& more\_or\_less" in text and r"68.30 / 71.00 $\pm$ 1.41" in text
    assert text.count(r"\begin{") == text.count(r"\end{")
    columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1])
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {columns}


def test_numbers_and_spans():
    assert [number(0.4312, "rel"), number(1.8349, "rms"), number(68.3, "fid")] == ["0.431", "1.83", "68.30"]
    assert [span([]), span([40, 40]), span([700, 1050])] == ["", "40", "700-1050"]


def test_scores_against_loops_and_known_values():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 17, 24, 3), np.uint8)
    slow = [abs(int(x) - int(y)) for x, y in zip(a.flatten(), b.flatten(), strict=True)]
    assert l1(a, b) == pytest.approx(sum(slow) / len(slow)) and l1(a, a) == 0
    small = coarse(a)
    assert small.shape == (2, 3, 3)
    assert small[1, 2, 0] == pytest.approx(np.mean([a[y, x, 0] for y in range(8, 16) for x in range(16, 24)]))
    checkers = np.indices((16, 16)).sum(0) % 2 * np.uint8(200)
    one, two = (np.repeat(board[..., None].astype(np.uint8), 3, 2) for board in (checkers, 200 - checkers))
    assert l1(one, two) == 200 and np.abs(coarse(one) - coarse(two)).max() == 0  # texture alone


def test_pictures_come_back_and_grids_are_cut():
    rng = np.random.default_rng(0)
    tiles = [[rng.integers(0, 256, (10, 12, 3), np.uint8) for _ in range(3)] for _ in range(2)]
    found = cut(grid(tiles), 10, 12)
    assert len(found) == 2 and all(
        np.array_equal(a, b) for x, y in zip(found, tiles, strict=True) for a, b in zip(x, y, strict=True)
    )
    assert cut(grid(tiles), 10, 11) == [] and cut(None, 10, 12) == []
    content = base64.b64decode(encode(tiles[0][0], 100).partition(",")[2])
    assert np.array_equal(np.array(Image.open(io.BytesIO(content))), tiles[0][0])


def test_a_gallery_scores_every_image_and_shows_some(picture_runs):
    warnings: list[str] = []
    runs = collect([picture_runs]).runs
    (gallery,) = galleries(runs, 1, 8, None, warnings)
    assert (gallery.total, len(gallery.items), gallery.paired, gallery.format) == (2, 1, True, "lossless WebP")
    assert gallery.means["l1"] == [20.0, 35.0] and gallery.items[0].scores["l1"] == [10.0, 60.0]
    assert gallery.items[0].source is not None and gallery.items[0].truth is not None and gallery.across == 4
    assert warnings == []  # its data set cannot be opened, but the label maps are there
    (narrow,) = galleries(runs, None, 1, 50, warnings)
    assert len(narrow.items) == 2 and narrow.left_out == 1 and narrow.format == "WebP, quality 50"
    frames = strips(runs[0], None)
    assert [[frame["step"] for frame in strip["frames"]] for strip in frames] == [[0, 100]] * 2


def test_the_truth_is_looked_for_in_every_run(picture_runs):
    """The first run knows one image that the other has not; each mean is over what its run has."""
    add_pictures(picture_runs / "0", {"c": 130})
    add_pictures(picture_runs / "1", {"d": 170})
    (gallery,) = galleries(collect([picture_runs]).runs, None, 8, None, [])
    scores = {item.name: item.scores["l1"] for item in gallery.items}
    assert scores == {"a": [10.0, 60.0], "b": [30.0, 10.0], "c": [30.0, None], "d": [None, 70.0]}
    assert gallery.total == 4 and gallery.counts == [3, 3]
    assert gallery.means["l1"] == [pytest.approx(70 / 3), pytest.approx(140 / 3)]
    assert all(item.truth is not None for item in gallery.items)


def test_a_damaged_label_map_costs_its_source_alone(picture_runs):
    (picture_runs / "0" / "eval" / "images" / "labels" / "a.png").write_bytes(b"no picture")
    warnings: list[str] = []
    (gallery,) = galleries(collect([picture_runs]).runs, None, 8, None, warnings)
    assert [item.source is None for item in gallery.items] == [True, False]
    assert len(warnings) == 1 and "labels/a.png" in warnings[0]


def test_without_pictures_there_is_nothing_to_compare(picture_runs):
    text = report(config(runs=str(picture_runs), images=0)).read_text()
    assert 'class="blink"' not in text and 'class="sort"' not in text and "Mean scores, shapes" in text


def test_a_picture_that_is_none_cannot_be_pressed(picture_runs):
    (picture_runs / "1" / "eval" / "images" / "100" / "b.png").unlink()
    text = report(config(runs=str(picture_runs))).read_text()
    assert text.count('<span class="none">none</span>') == 1
    assert text.count('<button type="button" class="view"><img') == text.count('<button type="button" class="view">')


def test_without_truth_the_score_is_change_and_says_so(picture_runs):
    for folder in picture_runs.iterdir():
        text = (folder / "config.yaml").read_text().replace("engine.settings.Paired", "engine.settings.Unpaired")
        (folder / "config.yaml").write_text(text)
    (gallery,) = galleries(collect([picture_runs]).runs, None, 8, None, [])
    assert not gallery.paired and set(gallery.means) == {"change"} and gallery.items[0].truth is None


def test_the_page_is_one_file_that_asks_for_nothing(picture_runs, tmp_path):
    path = report(config(runs=str(picture_runs), out=str(tmp_path / "out"), note=NOTE))
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "report.html", "results.csv", "results.md", "results.tex",
    ]  # fmt: skip
    text = path.read_text()
    for attribute in re.findall(r"""\b(?:src|href|action|data)\s*=\s*["']([^"']*)""", text):
        assert attribute.startswith(("data:", "#")), attribute[:80]
    outside = set(re.findall(r"https?://[^\s\"'<>)]+", text))
    assert outside <= {"http://www.w3.org/2000/svg"}  # the name of a format, never fetched
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|WebSocket|sendBeacon|\bimport\(", text)
    assert "default-src 'none'" in text and text.count("<script") == 2
    assert f"<small>{NOTE.replace(chr(39), '&#39;')}</small>" in text


def test_the_data_of_the_page_is_json_that_cannot_end_its_script(picture_runs):
    text = report(config(runs=str(picture_runs))).read_text()
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])
    assert [run["name"] for run in data["runs"]] == ["one", "two </script> & co"]
    assert "two </script>" not in text
    assert data["galleries"][0][0]["scores"]["l1"] == [10.0, 60.0]
    (chart,) = data["losses"]["shapes"]
    assert chart["series"][1]["points"][1] == [2, 5.0]


def test_the_choices_of_experiment_and_data_set_stand_together(picture_runs):
    file = picture_runs / "0" / "config.yaml"
    file.write_text(file.read_text() + "deviations_data: [one of the data]\n")
    text = report(config(runs=str(picture_runs))).read_text()
    assert "<li>one of the data</li>" in text


def test_the_same_runs_make_the_same_files(picture_runs, tmp_path):
    one, two = (report(config(runs=str(picture_runs), out=str(tmp_path / name))).read_bytes() for name in ("a", "b"))
    assert one == two


def test_the_report_lies_where_the_runs_are(picture_runs):
    assert report(config(runs=[str(picture_runs / "0"), str(picture_runs / "1")])).parent == picture_runs
    assert report(config(runs=f"{picture_runs}/*")).parent == picture_runs
    assert report(config(runs=str(picture_runs / "0"))).parent == picture_runs / "0"


@pytest.mark.parametrize(
    "values, words",
    [
        ({"out": "file/below"}, "cannot be written"),
    ],
)
def test_a_wrong_value_is_told(picture_runs, tmp_path, monkeypatch, values, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=words):
        report(config(runs=str(picture_runs), **values))


def test_the_command_prints_the_tables_and_the_path(picture_runs, tmp_path):
    words = [sys.executable, str(ROOT / "report.py"), f"runs={picture_runs}"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(picture_runs / "report.html") and "## Runs on shapes" in done.stdout
    assert list(tmp_path.iterdir()) == [picture_runs]  # no folder of Hydra's
