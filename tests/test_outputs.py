"""What commands write: listed, never over inputs or foreign files, never half done without a word."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

import outputs
from engine.paths import check_training
from errors import UserError
from metrics.folders import Sets
from metrics.images import image_files
from tests.compose import TINY, config, entry_file
from tests.mutations import damaged, mutated
from train import train

EVALUATE, TEST = entry_file("evaluate.py"), entry_file("test.py")


def image(path, value=0, size=(16, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def write(folder, *names):
    outputs.start("output", folder, names, {})
    for name in names:
        image(folder / name)
    outputs.finish("output", folder, names, {})


def names_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# ---------------------------------------------------------------- the list


def test_leftovers_go_and_strangers_stay(tmp_path):
    write(tmp_path, "a.png", "deep/b.png")
    image(tmp_path / "deep" / "mine.png")
    (tmp_path / "notes.txt").write_text("")
    write(tmp_path, "a.png")
    assert names_in(tmp_path) == ["a.png", "deep/mine.png", "notes.txt", "render.json"]
    write(tmp_path, "a.png", "c/d.png")
    write(tmp_path, "a.png")
    assert not (tmp_path / "c").exists()


def test_a_file_that_no_list_names_is_never_overwritten(tmp_path):
    image(tmp_path / "a.png", 7)
    with pytest.raises(UserError, match=r"output=.*: a\.png would be overwritten, but render\.json there"):
        outputs.start("output", tmp_path, ["a.png", "b.png"], {})
    assert names_in(tmp_path) == ["a.png"]
    (tmp_path / "b.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"b\.png"):
        outputs.start("output", tmp_path, ["b.png"], {})


def test_two_outputs_of_one_name_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="two inputs share this name"):
        outputs.start("output", tmp_path / "new", ["a.png", "a.png"], {})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "", ".."])
def test_a_list_of_elsewhere_removes_nothing(tmp_path, name):
    folder = tmp_path / "out"
    image(tmp_path / "a.png")
    write(folder, "b.png")
    note = json.loads((folder / "render.json").read_text())
    (folder / "render.json").write_text(json.dumps({**note, "names": [name]}))
    with pytest.raises(UserError, match="is no list of the images here"):
        outputs.start("output", folder, ["b.png"], {})
    assert (tmp_path / "a.png").is_file() and (folder / "b.png").is_file()


def test_leftovers_are_not_removed_through_a_link(tmp_path):
    folder, other = tmp_path / "out", tmp_path / "other"
    write(folder, "deep/a.png")
    image(other / "a.png")
    shutil.rmtree(folder / "deep")
    (folder / "deep").symlink_to(other)
    write(folder, "b.png")
    assert (other / "a.png").is_file()


def test_readers_take_what_is_listed(tmp_path):
    fake, real = tmp_path / "fake", tmp_path / "real"
    write(fake, "a.png")
    image(fake / "stranger.png")
    image(real / "a.png")
    assert [path.name for path in image_files(fake)] == ["a.png"]
    warnings = Sets.of(fake, real, None, "fake", 0).warnings
    assert warnings == [f"fake={fake}: left out stranger.png, which render.json there does not list"]
    (fake / "a.png").unlink()
    with pytest.raises(UserError, match=r"lacks a\.png of the 1 images in render\.json"):
        image_files(fake)


def test_a_half_done_folder_is_refused(tmp_path):
    outputs.start("output", tmp_path, ["a.png", "b.png"], {})
    image(tmp_path / "a.png")
    with pytest.raises(UserError, match="holds a part of 2 images"):
        image_files(tmp_path, "fake")


def test_folders_of_an_older_version(tmp_path):
    """Their render.json gives the number of images alone: believed where it fits."""
    for name in ("a", "b"):
        image(tmp_path / f"{name}.png")
    (tmp_path / "render.json").write_text('{"images": 2}')
    assert len(image_files(tmp_path)) == 2
    image(tmp_path / "c.png")
    with pytest.raises(UserError, match=r"holds 3 images where render\.json says 2"):
        image_files(tmp_path)
    with pytest.raises(UserError, match="would be overwritten"):
        outputs.start("output", tmp_path, ["a.png"], {})
    (tmp_path / "c.png").unlink()
    write(tmp_path, "a.png")
    assert names_in(tmp_path) == ["a.png", "render.json"]


def test_a_list_of_another_shape_is_one_line(tmp_path):
    write(tmp_path, "a.png", "deep/b.png")
    note = tmp_path / "render.json"
    text = note.read_bytes()
    value = json.loads(text) | {"network": "generator", "split": None, "input": "x"}
    for broken in [*(text.encode() for text in mutated(value)), *damaged(text)]:
        note.write_bytes(broken)
        try:
            image_files(tmp_path)
            TEST.refuse_mixture(tmp_path, {"network": "generator", "split": None, "input": "x"})
        except UserError as error:
            assert "\n" not in str(error)
        assert (tmp_path / "a.png").is_file()


# ---------------------------------------------------------------- test.py and evaluate.py


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps on label maps."""
    folder = tmp_path_factory.mktemp("outputs") / "run"
    train(config(*TINY), folder)
    return folder


@pytest.fixture
def labels(tmp_path):
    for name in "ab":
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "in" / f"{name}.png")
    return tmp_path / "in"


def translate(run, **words):
    TEST.test(config(f"checkpoint={run}", *(f"{key}={value}" for key, value in words.items()), name="test"))


def test_translating_never_touches_its_input(run, labels, tmp_path):
    before = {path: path.read_bytes() for path in labels.iterdir()}
    (tmp_path / "link").symlink_to(labels)
    for output in (labels, labels / "t", tmp_path, tmp_path / "link", tmp_path / "link" / "t"):
        with pytest.raises(UserError, match=r"output=.*: overlaps input="):
            translate(run, input=labels, output=output)
    with pytest.raises(UserError, match=r"output=.*: overlaps input="):
        translate(run, input=labels / "a.png", output=labels)
    with pytest.raises(UserError, match=r"output=.*: overlaps input="):
        translate(run, input=f"{labels}/*.png", output=labels / "t")
    assert {path: path.read_bytes() for path in labels.iterdir()} == before


def test_a_removed_input_leaves_no_image_behind(run, labels, tmp_path):
    out = tmp_path / "out"
    translate(run, input=labels, output=out)
    note = json.loads((out / "render.json").read_text())
    assert (note["names"], note["images"], note["complete"]) == (["a.png", "b.png"], 2, True)
    (labels / "a.png").unlink()
    translate(run, input=labels, output=out)
    assert names_in(out) == ["b.png", "render.json"]
    image(out / "a.png", 9)
    shutil.copy(labels / "b.png", labels / "a.png")
    with pytest.raises(UserError, match=r"a\.png would be overwritten"):
        translate(run, input=labels, output=out)


def test_a_picture_of_two_halves_is_told(run, tmp_path, capsys):
    for name, width in (("wide", 128), ("square", 64), ("wider", 192)):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((64, width), np.uint8)).save(tmp_path / name / "a.png")
        capsys.readouterr()
        translate(run, input=tmp_path / name, output=tmp_path / f"out_{name}")
        told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
        assert len(told) == (name == "wide")
    assert not told


def test_an_evaluation_keeps_foreign_files_in_its_folder(run):
    quick = ("metrics=[appearance]", "floor=false", "shown=1", f"checkpoint={run}")
    EVALUATE.evaluate(config(*quick, name="evaluate"))
    images = run / "eval" / "images"
    assert json.loads((images / "2" / "render.json").read_text())["complete"]
    image(images / "real" / "mine.png", 3)
    EVALUATE.evaluate(config(*quick, name="evaluate"))
    assert (images / "real" / "mine.png").is_file()
    told = json.loads((run / "eval" / "2.json").read_text())["warnings"]
    assert any("left out mine.png" in line for line in told)
    for folder in images.iterdir():  # of a version that left no lists
        (folder / "render.json").unlink()
    EVALUATE.evaluate(config(*quick, name="evaluate"))
    for report in (run / "eval").glob("*.json"):
        report.unlink()
    (images / "2" / "render.json").unlink()
    with pytest.raises(UserError, match=r"images/2: test_00000\.png, .* would be overwritten"):
        EVALUATE.evaluate(config(*quick, name="evaluate"))


@pytest.mark.parametrize("where", ["fake/a.json", "real/deep/a.json", "link/a.json"])
def test_a_report_does_not_lie_in_its_inputs(tmp_path, where):
    for folder in ("fake", "real"):
        image(tmp_path / folder / "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "fake")
    words = (f"fake={tmp_path / 'fake'}", f"real={tmp_path / 'real'}", f"out={tmp_path / where}")
    with pytest.raises(UserError, match=r"out=.*: overlaps (fake|real)="):
        EVALUATE.evaluate(config(*words, name="evaluate"))


def test_a_report_replaces_reports_alone(tmp_path):
    for folder in ("fake", "real"):
        image(tmp_path / folder / "a.png")
    out = tmp_path / "mine.json"
    words = (f"fake={tmp_path / 'fake'}", f"real={tmp_path / 'real'}", "metrics=[appearance]", f"out={out}")
    for content in ("my notes", '{"schema": "mine"}', "[]", "{}"):
        out.write_text(content)
        with pytest.raises(UserError, match="would be overwritten, but is no report"):
            EVALUATE.evaluate(config(*words, name="evaluate"))
        assert out.read_text() == content
    out.write_text('{"schema": 0}')
    EVALUATE.evaluate(config(*words, name="evaluate"))
    EVALUATE.evaluate(config(*words, name="evaluate"))
    assert json.loads(out.read_text())["schema"] == 1


def test_swd_without_a_floor_says_so(tmp_path):
    for folder in ("fake", "real", "more"):
        for index in range(2):
            pixels = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{index}.png")
    words = (f"fake={tmp_path / 'fake'}", f"real={tmp_path / 'real'}", "metrics=[swd]", f"out={tmp_path / 'x.json'}")
    found = EVALUATE.evaluate(config(*words, name="evaluate"))
    assert found["metrics"]["swd"]["value"] > 0 and any("swd: no floor was measured" in w for w in found["warnings"])
    found = EVALUATE.evaluate(config(*words, f"train_real={tmp_path / 'more'}", name="evaluate"))
    assert "floor" in found["metrics"]["swd"] and not any("no floor" in w for w in found["warnings"])


# ---------------------------------------------------------------- the other commands


def test_training_keeps_away_from_its_data(tmp_path):
    (tmp_path / "data" / "train").mkdir(parents=True)
    cfg = config("dataset=folder", f"dataset.root={tmp_path / 'data'}", "dataset.classes=2")
    for folder in (tmp_path, tmp_path / "data", tmp_path / "data" / "run"):
        with pytest.raises(UserError, match=r"hydra\.run\.dir=.*: overlaps dataset\.root="):
            check_training(cfg, folder)


def test_a_report_page_replaces_reports_alone(tmp_path):
    from tests.run_folders import make_run, metric_entries

    report = entry_file("report.py").report
    folder = make_run(tmp_path / "runs" / "a", metrics=metric_entries(fid=1.0), log=2)
    out = tmp_path / "out"
    out.mkdir()
    (out / "results.md").write_text("mine")
    words = (f"runs={tmp_path / 'runs'}", f"out={out}")
    with pytest.raises(UserError, match=r"results\.md: would be overwritten, but is of no report"):
        report(config(*words, name="report"))
    assert names_in(out) == ["results.md"]
    (out / "results.md").unlink()
    report(config(*words, name="report"))
    report(config(*words, name="report"))
    assert names_in(out) == ["report.html", "results.csv", "results.md", "results.tex"]
    with pytest.raises(UserError, match=r"overlaps .*/eval="):
        report(config(f"runs={folder}", f"out={folder / 'eval' / 'x'}", name="report"))
    report(config(f"runs={folder}", name="report"))  # its own folder may hold its report


def test_a_report_page_leaves_out_images_that_no_list_names(tmp_path):
    from results.collect import collect
    from results.gallery import galleries
    from tests.run_folders import add_pictures, make_run, metric_entries

    folder = make_run(tmp_path / "a", metrics=metric_entries(fid=1.0))
    add_pictures(folder, {"x": 3, "y": 4})
    made = folder / "eval" / "images" / "100"
    (made / "render.json").write_text(json.dumps({"images": 1, "complete": True, "names": ["x.png"]}))
    warnings: list[str] = []
    (gallery,) = galleries(collect([tmp_path]).runs, None, 8, None, warnings)
    assert gallery.total == 1 and any("left out y.png" in line for line in warnings)
    (made / "render.json").write_text(json.dumps({"images": 1, "complete": False, "names": ["x.png"]}))
    assert galleries(collect([tmp_path]).runs, None, 8, None, warnings)[0].total == 0


def test_an_export_replaces_exports_alone(tmp_path):
    refuse = entry_file("scripts/export.py").refuse_foreign
    for name in ("x.pt2", "x.json"):
        (tmp_path / name).write_text("{}")
        with pytest.raises(UserError, match=rf"{name}: would be overwritten"):
            refuse(tmp_path / "x.pt2")
        (tmp_path / name).unlink()
    about = {"schema": 1, "checkpoint": "c", "network": "generator", "torch": "2"}
    (tmp_path / "x.json").write_text(json.dumps(about))
    (tmp_path / "x.pt2").write_text("")
    refuse(tmp_path / "x.pt2")


def test_an_imported_checkpoint_is_not_its_source(tmp_path):
    from scripts.import_checkpoint import import_checkpoint

    (tmp_path / "net_G.pth").write_bytes(b"x")
    (tmp_path / "link.pt").symlink_to(tmp_path / "net_G.pth")
    for out in ("net_G.pth", "link.pt"):
        with pytest.raises(UserError, match=r"OUT=.*: overlaps"):
            import_checkpoint([tmp_path / "net_G.pth"], tmp_path / out)


def test_a_segmenter_replaces_segmenters_alone(tmp_path):
    from scripts.train_segmenter import refuse_foreign

    (tmp_path / "mine.pt").write_text("notes")
    with pytest.raises(UserError):
        refuse_foreign(tmp_path / "mine.pt")
    with pytest.raises(UserError, match="its folder cannot be made"):
        refuse_foreign(tmp_path / "mine.pt" / "x.pt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"cannot be written \(Permission denied\); change output="):
        outputs.start("output", tmp_path / "out", ["a.png"], {})


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(outputs, "write_text", refuse)
    with pytest.raises(UserError, match=r"cannot be written \(Permission denied\); change output="):
        outputs.start("output", tmp_path / "out", ["a.png"], {})
