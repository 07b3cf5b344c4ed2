"""Kept features of real images: found by all that they depend on, made again by anything that changes or breaks."""

from typing import ClassVar

import pytest
import torch

from metrics import measure as module
from metrics.cache import FeatureCache, default_folder
from metrics.measure import measure
from tests.test_measure import Means, folder

KEY = {"content_sha256": "ab", "network": "lite2", "size": None}


def test_kept_whole_and_found_by_its_key_alone(tmp_path):
    cache, features = FeatureCache(tmp_path / "deep"), torch.randn(5, 3)
    assert cache.get(KEY) is None
    cache.put(KEY, features)
    assert torch.equal(cache.get(KEY), features)
    assert [path.suffix for path in (tmp_path / "deep").iterdir()] == [".npz"]
    for change in ({"content_sha256": "cd"}, {"network": "inception"}, {"size": "64x64"}, {"more": 1}):
        assert cache.get({**KEY, **change}) is None


def test_a_damaged_or_foreign_file_is_not_taken(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.put(KEY, torch.ones(4, 2))
    path, other = cache.path(KEY), cache.path({**KEY, "size": "8x8"})
    other.write_bytes(path.read_bytes())  # under the name of another key
    assert cache.get({**KEY, "size": "8x8"}) is None
    path.write_bytes(path.read_bytes()[:-20])
    assert cache.get(KEY) is None
    path.write_bytes(b"")
    assert cache.get(KEY) is None


def test_no_folder_and_an_unwritable_one_keep_nothing(tmp_path):
    FeatureCache(None).put(KEY, torch.ones(1))
    assert FeatureCache(None).get(KEY) is None
    (tmp_path / "file").write_text("")
    cache = FeatureCache(tmp_path / "file" / "below")
    cache.put(KEY, torch.ones(1))
    assert cache.get(KEY) is None


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("PATCHWISE_CACHE", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("PATCHWISE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "patchwise"


class Counted(Means):
    """Counts images by network, over all instances."""

    made: ClassVar[list] = []


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.setattr(module, "FeatureNetwork", Counted)
    monkeypatch.setattr(Counted, "made", [])
    return lambda: Counted.made[-1].images


def test_real_images_are_read_once_for_all_checkpoints_until_one_byte_changes(tmp_path, counted):
    fake, real = folder(tmp_path / "fake", 4), folder(tmp_path / "real", 6, seed=1)
    train = folder(tmp_path / "train", 9, seed=2)
    options = {"metrics": ["kid"], "train_real": train, "cache": tmp_path / "cache"}
    first = measure(fake, real, **options)
    assert counted() == 4 + 6 + 4
    assert measure(fake, real, **options) == first and counted() == 4
    other = folder(tmp_path / "other", 4, seed=7)
    uncached = measure(other, real, ["kid"], train_real=train)
    assert measure(other, real, **options) == uncached and counted() == 4
    measure(fake, real, seed=1, **options)
    assert counted() == 4 + 4  # another sample for the floor
    content = bytearray((real / "00.png").read_bytes())
    (real / "00.png").write_bytes((real / "01.png").read_bytes())
    changed = measure(fake, real, **options)
    assert counted() == 4 + 6 and changed["metrics"]["kid"]["value"] != first["metrics"]["kid"]["value"]
    (real / "00.png").write_bytes(content)
    assert measure(fake, real, **options) == first and counted() == 4
    small = folder(tmp_path / "small", 4, seed=0, size=(16, 16))
    measure(small, real, **options)
    assert counted() == 4 + 6 + 4  # resized to another size
