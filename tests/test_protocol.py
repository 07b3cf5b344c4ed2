"""Reports: what is compared, what is refused, what is written."""

import copy
import json
import math

import pytest

from errors import UserError
from metrics.images import image_files, survey
from metrics.protocol import SCHEMA, compare, content_sha256, folder_block, manifest_sha256, read, versions, write


def report(fid=50.0, n=100, **metrics):
    block = {"network": "inception", "weights_sha256": "67", "versions": {"torch": "2"}}
    return {
        "schema": SCHEMA,
        "subject": {"fake": "out", "step": 100},
        "protocol": {
            "fake": {"n": n, "sizes": {"256x256": n}, "formats": {"PNG": n}},
            "real": {"n": 100, "content_sha256": "ab"},
            "selection": "last",
            "metrics": {"fid": block, "swd": {"seeds": [0, 1, 2]}, "segmentation": {"void": 255}},
        },
        "floor": None,
        "metrics": {
            "fid": {"value": fid, "better": "lower"},
            "miou": {"value": 40.0, "better": "higher"},
            "channel_range": {"value": 0.1, "better": "real", "real": 0.2},
            **metrics,
        },
        "warnings": [],
    }


def test_equal_protocols_are_compared_by_the_direction_of_each_metric():
    a, b = report(50.0), report(45.0, miou={"value": 38.0, "better": "higher"})
    b["subject"]["step"] = 900  # what is measured may differ, that is the point
    found = compare(a, b)
    assert found["fid"] == {"a": 50.0, "b": 45.0, "difference": -5.0, "better": "b"}
    assert found["miou"]["better"] == "a"
    assert found["channel_range"]["better"] is None
    assert compare(a, a)["fid"]["better"] is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("fake.n", 120),
        ("fake.formats", {"JPEG": 100}),
        ("real.content_sha256", "cd"),
        ("selection", "best(fid, test)"),
        ("metrics.fid.weights_sha256", "00"),
        ("metrics.fid.versions.torch", "3"),
        ("metrics.swd.seeds", [1, 2, 3]),
    ],
)
def test_each_differing_field_is_refused_by_name_unless_forced(path, value):
    a, b = report(), report(40.0)
    *parents, last = path.split(".")
    place = b["protocol"]
    for parent in parents:
        place = place[parent]
    place[last] = value
    with pytest.raises(UserError, match="different protocols") as caught:
        compare(a, b)
    assert path in str(caught.value) and "force=true" in str(caught.value) and "\n" not in str(caught.value)
    assert compare(a, b, force=True)["fid"]["better"] == "b"


def test_a_metric_that_only_one_report_has_is_no_difference():
    a, b = report(), report()
    del b["protocol"]["metrics"]["swd"], b["metrics"]["miou"]
    assert set(compare(a, b)) == {"fid", "channel_range"}
    b["metrics"] = {"kid": {"value": 1.0, "better": "lower"}}
    with pytest.raises(UserError, match="share no metric"):
        compare(a, b)


def test_written_and_read_again(tmp_path):
    original = report(kid={"value": 1.5, "better": "lower", "standard_error": math.nan})
    kept = copy.deepcopy(original)
    path = tmp_path / "deep" / "eval.json"
    write(original, path)
    assert "NaN" not in path.read_text() and [p.name for p in path.parent.iterdir()] == ["eval.json"]
    kept["metrics"]["kid"]["standard_error"] = None
    assert read(path) == kept


def test_unreadable_reports_and_places(tmp_path):
    (tmp_path / "no.json").write_text("{")
    (tmp_path / "old.json").write_text(json.dumps({"schema": 0}))
    for name, words in {
        "no.json": "not a report",
        "old.json": "schema 0; 1 was wanted",
        "none.json": "not a report",
    }.items():
        with pytest.raises(UserError, match=f"{name}.*{words}"):
            read(tmp_path / name)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"out=.*cannot be written"):
        write(report(), tmp_path / "file" / "eval.json")


def test_hashes_of_contents_and_of_the_manifest(tmp_path):
    from PIL import Image

    folder = tmp_path / "set" / "test" / "target"
    folder.mkdir(parents=True)
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (4, 3), colour).save(folder / name)
    files = image_files(folder)
    before = content_sha256(folder, files)
    assert content_sha256(folder, files) == before != content_sha256(folder, files[:1])
    assert folder_block(files, survey(files)) == {"n": 2, "sizes": {"4x3": 2}, "formats": {"PNG": 2}}
    assert manifest_sha256(folder) is None
    (tmp_path / "set" / "manifest.json").write_text("{}")
    assert manifest_sha256(folder) is not None
    Image.new("RGB", (4, 3), "green").save(folder / "a.png")
    changed = content_sha256(folder, files)
    (folder / "a.png").rename(folder / "c.png")
    assert len({before, changed, content_sha256(folder, image_files(folder))}) == 3


def test_versions_name_what_is_installed_and_what_is_not():
    found = versions("torch", "no-such-package")
    assert found["torch"][0].isdigit() and found["no-such-package"] == "absent"
