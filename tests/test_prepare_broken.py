"""Broken files of downloads: MATLAB lists, HDF5, keypoints and mappings; one line each, never a traceback."""

import random

import numpy as np
import pytest
from scipy.io import savemat

from data.prepare.celebahq import _splits
from data.prepare.joints import HEADER, read_openpose, read_table
from data.prepare.lists import read_lists
from data.prepare.nyu_depth import _depth, _photo, _shapes
from errors import UserError

SUBSET = " ".join(f"{i}.0" for i in range(18)) + " 10 18"
CANDIDATE = "\n".join(f"{10 + i}.5 {20 + i}.5 0.9 {i}.0" for i in range(18))
WORDS = ("nan", "inf", "-1", "1e400", "1e30", "", "x", "99", "-1.5", "1_0")
LISTS = (
    "[NaN]", "[Infinity]", "[[1]]", "{}", "null", "1", '"a"', "[" * 100_000, "[1e999]", "[null]", str([[1]] * 18),
    f"[{'1' * 5000}]", str([10**400] * 18), str([None] * 18),
)  # fmt: skip


def one_line(read):
    """Whether reading was refused, in one line."""
    try:
        read()
    except UserError as error:
        assert "\n" not in str(error)
        return True
    return False


def flipped(data, count, seed=0):
    """Copies with up to 8 other bytes, mostly among the first, or cut short."""
    rng = random.Random(seed)
    for _ in range(count):
        copy = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 8))):
            copy[rng.randrange(min(len(copy), rng.choice((64, 256, len(copy)))))] = rng.choice((0, 255, 127, 128))
        yield bytes(copy[: rng.randrange(len(copy))] if rng.random() < 0.15 else copy)


def test_lists_that_crash_their_reader(tmp_path):
    """scipy's compiled reader dies of some of these with a bus error."""
    file = tmp_path / "split.mat"
    savemat(file, {"trainIds": np.arange(1, 8)[:, None], "valIds": np.arange(8, 12)[:, None]})
    keys = {"train": "trainIds", "val": "valIds"}
    assert read_lists(file, keys, "cure")["val"] == [8, 9, 10, 11]
    for content in [b"", *flipped(file.read_bytes(), 5)]:
        file.write_bytes(content)
        one_line(lambda: read_lists(file, keys, "cure"))


@pytest.mark.parametrize("program", ["import os; os.abort()", "raise SystemExit(3)", "print('{')", "print('[[1]]')"])
def test_the_end_of_a_reader_is_one_line(tmp_path, monkeypatch, program):
    from data.prepare import lists

    monkeypatch.setattr(lists, "PROGRAM", program)
    assert one_line(lambda: read_lists(tmp_path / "x.mat", {"train": "a", "val": "b"}, "cure"))


def test_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    file = tmp_path / "nyu.mat"
    images, depths = np.zeros((3, 3, 8, 6), np.uint8), np.full((3, 8, 6), 2, np.float32)

    def read():
        count, maps, size = _shapes(file)
        for index in range(min(count, maps, 3)):
            _photo(file, index, size)
            _depth(file, index, size)

    def store(first, second):
        with h5py.File(file, "w") as held:
            for key, value in (("images", first), ("depths", second)):
                held.create_group(key) if value is None else held.create_dataset(key, data=value)

    store(images, depths)
    read()
    for content in flipped(file.read_bytes(), 400):
        file.write_bytes(content)
        one_line(read)
    for first, second in [
        (None, None), (images, None), ("text", "text"), (images.astype(np.float64), depths),
        (images, depths.astype(np.int32)), (images, depths.astype(np.complex64)), (images[:, :, :0], depths[:, :0]),
        (images.astype("S3"), depths.astype("S3")),
    ]:  # fmt: skip
        store(first, second)
        assert one_line(read)


@pytest.mark.parametrize("which", [0, 1])
def test_openpose(tmp_path, which):
    files = tmp_path / "candidate.txt", tmp_path / "subset.txt"
    texts = [CANDIDATE, SUBSET]
    for at in range(18):
        for word in WORDS:
            for file, text in zip(files, texts, strict=True):
                file.write_text(text)
            parts = texts[which].split(" ")
            parts[at] = word
            files[which].write_text(" ".join(parts))
            one_line(lambda: read_openpose(*files))


@pytest.mark.parametrize("value", LISTS, ids=range(len(LISTS)))
def test_tables(tmp_path, value):
    file = tmp_path / "table.csv"
    for text in (f"a.jpg: {[1] * 18}: {value}", f"a.jpg: {value}: {value}"):
        file.write_text(f"{HEADER}\n{text}")
        assert one_line(lambda: read_table(file))


def test_mappings(tmp_path):
    file = tmp_path / "mapping.txt"
    whole = b"idx orig_idx orig_file\n0 119613 119614.jpg\n1 5 000006.jpg\n"
    long = b"h\n" + b"1" * 5000 + b" 3 x\n"
    for content in [*flipped(whole, 200), long, b"h\n-1 2 x", "h\n٣ ٤ x".encode(), b"\xff" + whole]:
        file.write_bytes(content)
        one_line(lambda: _splits(file))
