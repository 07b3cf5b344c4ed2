"""Reading folders of images: order, modes, sizes, and messages that name the file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from errors import UserError
from metrics.images import batches, image_files, load_all, read, survey


def picture(height, width, seed=0, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def save(path, pixels, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze()).convert(mode).save(path)
    return path


def test_files_are_sorted_by_relative_path_flat_and_nested(tmp_path):
    for name in ("b/2.png", "a.png", "b/1.JPG", "b.png", ".hidden/x.png", ".y.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    names = [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path)]
    assert names == ["a.png", "b.png", "b/1.JPG", "b/2.png"]


def test_missing_empty_and_file_instead_of_folder_have_messages_of_their_own(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.png").write_bytes(b"")
    for name, words in {"none": "does not exist", "empty": "holds no image", "file.png": "is a file"}.items():
        with pytest.raises(UserError, match=f"real=.*{name}.*{words}"):
            image_files(tmp_path / name, "real")


def test_grey_alpha_and_palette_become_rgb(tmp_path):
    rgb = picture(5, 7)
    grey = picture(5, 7, channels=1)
    assert torch.equal(read(save(tmp_path / "rgb.png", rgb)), torch.from_numpy(rgb).permute(2, 0, 1))
    assert torch.equal(read(save(tmp_path / "grey.png", grey)), torch.from_numpy(grey).permute(2, 0, 1).expand(3, 5, 7))
    rgba = np.concatenate([rgb, np.full((5, 7, 1), 255, np.uint8)], 2)
    assert torch.equal(read(save(tmp_path / "rgba.png", rgba, "RGBA")), torch.from_numpy(rgb).permute(2, 0, 1))
    palette = Image.fromarray(grey.squeeze() % 4)
    palette = palette.convert("P")
    palette.putpalette([9, 8, 7, 6, 5, 4, 3, 2, 1, 30, 20, 10])
    palette.save(tmp_path / "palette.png")
    assert set(read(tmp_path / "palette.png")[0].unique().tolist()) <= {9, 6, 3, 30}


def test_sixteen_bits_and_broken_files_are_named(tmp_path):
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "deep.png")
    whole = save(tmp_path / "whole.png", picture(64, 64)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no image")
    for name, words in {"deep.png": "8 bits", "cut.png": "cannot be decoded", "text.png": "cannot identify"}.items():
        with pytest.raises(UserError, match=f"{name}.*{words}") as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"text\.png"):
        survey([tmp_path / "whole.png", tmp_path / "text.png"])


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_keep_the_order_and_split_where_the_size_changes(tmp_path, batch_size, workers):
    sizes = [(6, 8), (6, 8), (6, 8), (8, 6), (8, 6), (6, 8)]
    files = [save(tmp_path / f"{i}.png", picture(*size, seed=i)) for i, size in enumerate(sizes)]
    found = list(batches(files, batch_size, workers))
    assert all(len(batch) <= batch_size and batch.dtype == torch.uint8 for batch in found)
    images = [image for batch in found for image in batch]
    assert len(images) == 6
    for i, image in enumerate(images):
        assert torch.equal(image, torch.from_numpy(picture(*sizes[i], seed=i)).permute(2, 0, 1))


def test_an_unreadable_file_stops_the_reading_and_is_named(tmp_path):
    files = [save(tmp_path / f"{i}.png", picture(4, 4, i)) for i in range(5)]
    files[3].write_text("no image")
    read_so_far = 0
    with pytest.raises(UserError, match=r"3\.png"):
        for batch in batches(files, 1):
            read_so_far += len(batch)
    assert read_so_far < 4


def test_resize_is_antialiased_and_leaves_the_right_size_alone(tmp_path):
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = 254
    path = save(tmp_path / "stripes.png", stripes)
    assert torch.equal(read(path, (32, 32)), read(path))
    small = read(path, (8, 16)).float()
    assert small.shape == (3, 8, 16)
    assert (small[:, :, 2:-2] - 127).abs().max() < 12  # without antialiasing: 0 or 254


def test_load_all_and_survey(tmp_path):
    files = [save(tmp_path / f"{i}.png", picture(6, 8, i)) for i in range(3)]
    images = load_all(files)
    assert images.shape == (3, 3, 6, 8) and np.array_equal(images[2].transpose(1, 2, 0), picture(6, 8, 2))
    found = survey(files)
    assert (found.sizes, found.formats, found.size) == ({"8x6": 3}, {"PNG": 3}, (6, 8))
    odd = save(tmp_path / "odd.jpg", picture(8, 8))
    assert survey([*files, odd]).size is None and survey([*files, odd]).formats == {"JPEG": 1, "PNG": 3}
    with pytest.raises(UserError, match=r"odd\.jpg: 8x8.*8x6"):
        load_all([*files, Path(odd)])
