"""Which files count: the same for every command, links without loops, and one line about what is left out."""

import os
import socket
import unicodedata

import pytest

import listing
from data.files import find_inputs, match
from data.folders import Inputs, Paired
from data.manifest import names_hash, write_manifest
from listing import ImageFiles, counted, find_images, walk
from metrics.images import image_files
from metrics.labels import pair
from tests.test_folders import error_of, ids, make, paired, photo, save


def both(folder):
    """Names that training and evaluation find, which are the same."""
    names = list(find_images(folder))
    assert sorted(names) == sorted(file.relative_to(folder).with_suffix("").as_posix() for file in image_files(folder))
    return names


def test_every_kind_that_is_read_counts(tmp_path):
    for number, suffix in enumerate(sorted(listing.PICTURES)):
        name = tmp_path / f"{number:02d}{suffix if number % 2 else suffix.upper()}"
        name.touch()
    assert len(both(tmp_path)) == len(listing.PICTURES) == 15
    for suffix, form in ((".jfif", "JPEG"), (".jpe", "JPEG"), (".gif", "GIF"), (".dib", "DIB"), (".pnm", "PPM")):
        folder = tmp_path / suffix[1:]
        save(folder / f"x{suffix}", photo(), format=form)
        assert Inputs(folder, labels=False)[0]["source"].shape == (3, 12, 16)


def test_what_is_left_out_is_said_once_with_counts_by_kind(tmp_path, capfd, monkeypatch):
    save(tmp_path / "a.png", photo())
    for name in ("a.txt", "b.txt", "c.TXT", "film.mp4", "README", "manifest.json", "Thumbs.db", ".DS_Store"):
        (tmp_path / name).touch()
    for _ in range(2):
        assert both(tmp_path) == ["a"]
    assert capfd.readouterr().err == f"{tmp_path}: left out 3 .txt, 1 .mp4, 1 without a suffix\n"
    monkeypatch.setenv("RANK", "1")
    (tmp_path / "d.txt").touch()
    both(tmp_path)
    assert capfd.readouterr().err == ""
    assert counted({f".{letter}": 1 for letter in "abcdefghij"}).endswith(" and 2 of other kinds")


def test_arrays_are_left_out_where_images_are_measured(tmp_path, capfd):
    save(tmp_path / "a.png", photo())
    (tmp_path / "b.npy").touch()
    assert [file.name for file in image_files(tmp_path)] == ["a.png"]
    assert "left out 1 .npy" in capfd.readouterr().err


def test_a_link_into_itself_or_above_adds_nothing(tmp_path, capfd):
    folder = tmp_path / "data" / "A"
    for name in ("a", "b", "deep/c"):
        save(folder / f"{name}.png", photo())
    save(tmp_path / "data" / "B" / "x.png", photo())
    (folder / "self").symlink_to(folder, target_is_directory=True)
    (folder / "deep" / "up").symlink_to(folder.parent, target_is_directory=True)
    (folder / "deep" / "again").symlink_to(folder / "deep", target_is_directory=True)
    assert both(folder) == ["a", "b", "deep/c"]
    assert "left out 3 linked folder(s) read already" in capfd.readouterr().err
    linked = tmp_path / "elsewhere"
    linked.symlink_to(folder, target_is_directory=True)
    assert both(linked) == ["a", "b", "deep/c"]


def test_a_linked_folder_is_read_once_under_its_real_name_if_it_has_one(tmp_path):
    save(tmp_path / "other/x.png", photo())
    save(tmp_path / "root/z/y.png", photo())
    (tmp_path / "root/a").symlink_to(tmp_path / "root/z", target_is_directory=True)
    (tmp_path / "root/b").symlink_to(tmp_path / "other", target_is_directory=True)
    (tmp_path / "root/c").symlink_to(tmp_path / "other", target_is_directory=True)
    (tmp_path / "root/linked.png").symlink_to(tmp_path / "other/x.png")
    assert both(tmp_path / "root") == ["b/x", "linked", "z/y"]


def test_two_folders_that_link_to_each_other_end(tmp_path):
    for one, two in (("a", "b"), ("b", "a")):
        save(tmp_path / one / f"{one}.png", photo())
        (tmp_path / one / "other").symlink_to(tmp_path / two, target_is_directory=True)
    assert both(tmp_path / "a") == ["a", "other/b"]


def test_pipes_sockets_and_broken_links_are_left_out(tmp_path, capfd):
    save(tmp_path / "a.png", photo())
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "piped.png").symlink_to(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind(os.path.relpath(tmp_path / "plug.png"))
        assert both(tmp_path) == ["a"]
    told = capfd.readouterr().err
    assert "4 no regular file(s)" in told and "2 broken link(s)" in told


def test_a_pipe_named_as_input_or_palette_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert "neither a file nor a folder" in error_of(find_inputs, tmp_path / "pipe.png")
    make(tmp_path, names=["a"])
    assert "is no file" in error_of(paired, tmp_path, palette=tmp_path / "pipe.png")
    (tmp_path / "train/target/a.png").unlink()
    os.mkfifo(tmp_path / "train/target/a.png")
    assert "holds no images" in error_of(paired, tmp_path)


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path, monkeypatch):
    save(tmp_path / "a/a.png", photo())
    save(tmp_path / "b.png", photo())
    scan = os.scandir

    def refused(place):
        if str(place).rstrip("/").endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return scan(place)

    monkeypatch.setattr(os, "scandir", refused)
    assert "a: cannot be read (Permission denied)" in error_of(find_images, tmp_path)


# ---------------------------------------------------------------- names


def test_composed_and_decomposed_names_are_partners_and_outputs_keep_their_own(tmp_path):
    names = [f"Straße café {number}" for number in range(3)]
    for seed, name in enumerate(names):
        save(tmp_path / "train/input" / f"{unicodedata.normalize('NFD', name)}.png", ids(seed))
        save(tmp_path / "train/target" / f"{name}.png", photo(seed))
    data = paired(tmp_path)
    assert data.names == [unicodedata.normalize("NFD", name) for name in names]
    assert [data[at]["name"] for at in range(3)] == data.names
    assert all((data[at]["target"].movedim(0, -1).numpy() == photo(at)).all() for at in range(3))
    inputs = Inputs(tmp_path / "train/input", classes=4)
    assert inputs.names == data.names and (inputs[1]["source"][0].numpy() == ids(1)).all()
    folders = {
        side: (tmp_path / "train" / side, image_files(tmp_path / "train" / side)) for side in ("input", "target")
    }
    assert [len(files) for files in pair(folders).values()] == [3, 3]
    for form in ("NFC", "NFD"):
        write_manifest(
            tmp_path, dataset="mine", options={}, source_counts={}, instance=False, image_size=None, dropped=[],
            labels={"kind": "ids", "classes": 4, "ignore": None},
            splits={"train": [unicodedata.normalize(form, name) for name in names]},
        )  # fmt: skip
        assert len(paired(tmp_path)) == 3


def test_two_forms_of_one_name_in_one_folder_are_told_apart(tmp_path):
    for form in ("NFC", "NFD"):
        save(tmp_path / f"{unicodedata.normalize(form, 'é')}.png", photo())
    message = error_of(find_images, tmp_path)
    assert "have the same name" in message and r"\xe9.png" in message and r"e\u0301.png" in message


def test_names_that_are_no_utf8_are_read_and_hashed(tmp_path):
    make(tmp_path, names=["a"])
    for side in ("input", "target"):
        folder = os.fsencode(tmp_path / "train" / side)
        os.rename(folder + b"/a.png", folder + b"/caf\xe9.png")  # noqa: PTH104 - bytes
    data = Paired("train", True, name="mine", root=tmp_path, size=(12, 16), classes=4, cache=tmp_path / "cache")
    assert [os.fsencode(name) for name in data.names] == [b"caf\xe9"]
    assert data[0, 1]["target"].shape == (3, 12, 16)
    assert len(names_hash(data.names)) == 64
    manifest = {"labels": {"kind": "ids", "classes": 4, "ignore": None}, "splits": {"train": data.names}}
    write_manifest(
        tmp_path, dataset="mine", options={}, source_counts={}, instance=False, image_size=None, dropped=[], **manifest
    )
    assert len(paired(tmp_path)) == 1
    files = match(data.files, tmp_path)
    assert files == data.keys


@pytest.mark.parametrize("length", [240, 245, 251])
def test_the_longest_names_can_be_written_and_read(tmp_path, length):
    from engine.render import write_png

    write_png(photo(), tmp_path / f"{'n' * length}.png")
    assert both(tmp_path) == ["n" * length]
    assert "cannot be written" in error_of(write_png, photo(), tmp_path / f"{'n' * 252}.png")
    assert [file.name for file in tmp_path.iterdir()] == [f"{'n' * length}.png"]


def test_walk_gives_sorted_names_by_folder(tmp_path):
    for name in ("b.png", "a.png", "c/d.png", ".hidden/x.png", "c/.y.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert dict(walk(tmp_path)) == {"": ["a.png", "b.png"], "c/": ["d.png"]}
    assert ImageFiles.of(tmp_path, ["x/a.png"])["x/a"] == tmp_path / "x/a.png"
