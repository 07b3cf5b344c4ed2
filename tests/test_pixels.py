"""What pixels mean: the same file gives the same image, or the same one line, in training and in evaluation."""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, PngImagePlugin

import pixels
from data.reading import LabelReader, check_images, read_depth, read_image, read_instance
from errors import UserError
from listing import find_images
from metrics.images import read, survey
from metrics.labels import read_labels, score_table
from pixels import Header, a, load, note, read_header
from tests.test_folders import error_of, ids, make, paired, photo, save

INVERSE = {  # how an upright array is stored under each orientation of EXIF
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, 1),
    7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    8: lambda x: np.rot90(x, -1),
}


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def grey_png(file, values, bits, late=b""):
    """A grey PNG of 1, 2, 4 or 8 bits, or of 16, written by hand; `late` goes behind the pixels."""
    height, width = values.shape
    rows = []
    for row in values:
        line = b"".join(int(value).to_bytes(2, "big") for value in row) if bits == 16 else b""
        if bits < 16:
            digits = "".join(f"{value:0{bits}b}" for value in row)
            digits += "0" * (-len(digits) % 8)
            line = int(digits, 2).to_bytes(len(digits) // 8, "big")
        rows.append(b"\0" + line)
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + late + chunk(b"IEND", b"")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return file


def rgb16_png(file, kind=2):
    """A PNG of 16 bits a channel: 2 RGB, 4 grey with alpha, 6 RGB with alpha."""
    channels = {2: 3, 4: 2, 6: 4}[kind]
    head = struct.pack(">IIBBBBB", 2, 2, 16, kind, 0, 0, 0)
    rows = (b"\0" + b"\x12\x34" * (2 * channels)) * 2
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return file


# ---------------------------------------------------------------- orientation


@pytest.mark.parametrize("form", ["png", "jpg", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_every_format_is_read_upright(tmp_path, form, orientation):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8] = 255  # the upper left corner
    upright[8:, :8, 0] = 128
    stored = np.ascontiguousarray(INVERSE[orientation](upright))
    file = tmp_path / f"x.{form}"
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(form, {})
    Image.fromarray(stored).save(file, exif=exif(orientation), **options)
    found = read_image(file)
    assert (found.movedim(0, -1).numpy().astype(int) - upright).__abs__().max() <= 2
    assert read_header(file).size == (16, 24)
    assert torch.equal(read(file), found)


@pytest.mark.parametrize("orientation", [3, 6])
def test_maps_of_ids_are_turned_as_images_are(tmp_path, orientation):
    upright = ids(1)
    stored = Image.fromarray(np.ascontiguousarray(INVERSE[orientation](upright)))
    stored.save(tmp_path / "l.png", exif=exif(orientation))
    assert np.array_equal(LabelReader(4).read(tmp_path / "l.png")[0].numpy(), upright)
    found = read_labels(tmp_path / "l.png", score_table(None), 4, upright.shape)
    assert np.array_equal(found.numpy(), upright)
    deep = Image.fromarray(np.ascontiguousarray(INVERSE[orientation](upright.astype(np.uint16) * 1000)))
    deep.save(tmp_path / "d.png", exif=exif(orientation))
    for reader in (read_instance, read_depth):
        assert np.array_equal(reader(tmp_path / "d.png")[0].numpy(), upright.astype(int) * 1000)


def test_a_turned_photo_is_the_partner_of_an_upright_map(tmp_path):
    make(tmp_path, names=["a"])
    stored = np.ascontiguousarray(INVERSE[6](photo(0)))
    save(tmp_path / "train/target/a.png", stored, exif=exif(6))
    data = paired(tmp_path)
    data.verify()
    assert np.array_equal(data[0]["target"].movedim(0, -1).numpy(), photo(0))


def test_an_orientation_behind_the_pixels_is_refused_and_a_damaged_one_ignored(tmp_path):
    late = chunk(b"eXIf", exif(3).tobytes().removeprefix(b"Exif\0\0"))
    file = grey_png(tmp_path / "late.png", ids(0), 8, late)
    assert "behind its pixels" in error_of(read_image, file)
    Image.fromarray(photo()).save(tmp_path / "broken.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff", quality=100)
    assert read_header(tmp_path / "broken.jpg").size == (12, 16)
    assert read_image(tmp_path / "broken.jpg").shape == (3, 12, 16)


# ---------------------------------------------------------------- bits


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_labels_of_few_bits_are_the_ids_as_stored(tmp_path, bits):
    values = np.arange(12 * 16).reshape(12, 16) % min(2**bits, 200)
    file = grey_png(tmp_path / "x.png", values, bits)
    assert np.array_equal(LabelReader(256).read(file)[0].numpy(), values)
    assert np.array_equal(read_instance(file)[0].numpy(), values)
    found = read_labels(file, score_table(None), 256, values.shape)
    assert np.array_equal(found.numpy(), values)
    scale = 255 // (2**bits - 1)
    assert np.array_equal(read_image(file, 1)[0].numpy(), values * scale)  # as an image a viewer shows it


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_palette_labels_of_few_bits_are_their_indices(tmp_path, bits):
    values = (np.arange(12 * 16).reshape(12, 16) % 2**bits).astype(np.uint8)
    image = Image.fromarray(values).convert("P")
    image.putpalette([level for index in range(2**bits) for level in (9 * index, 255 - index, 3)])
    image.putdata(values.flatten().tolist())
    image.save(tmp_path / "x.png", bits=bits, transparency=0)
    assert np.array_equal(LabelReader(16).read(tmp_path / "x.png")[0].numpy(), values)


@pytest.mark.parametrize("most", [1, 3, 10, 150, 254])
@pytest.mark.parametrize("plain", [False, True])
def test_a_pgm_holds_the_numbers_that_it_states(tmp_path, most, plain):
    values = np.arange(12 * 16) % (most + 1)
    body = " ".join(map(str, values)).encode() if plain else bytes(values.tolist())
    (tmp_path / "x.pgm").write_bytes(b"P%d 16 12 %d\n" % (2 if plain else 5, most) + body)
    assert LabelReader(256).read(tmp_path / "x.pgm").flatten().tolist() == values.tolist()


def test_maps_whose_numbers_are_not_those_meant_are_refused(tmp_path):
    (tmp_path / "deep.pgm").write_bytes(b"P5 2 1 4095\n" + b"\x0f\xff\x00\x01")
    assert "save the map as a PNG" in error_of(read_instance, tmp_path / "deep.pgm")
    (tmp_path / "x.pbm").write_bytes(b"P4 8 1\n\x0f")
    assert "1 is black" in error_of(LabelReader(2).read, tmp_path / "x.pbm")
    Image.fromarray(ids()).save(tmp_path / "white.tif", tiffinfo={262: 0})
    assert "counts from white" in error_of(LabelReader(256).read, tmp_path / "white.tif")


@pytest.mark.parametrize("kind", ["rgb", "grey and alpha", "rgb and alpha", "grey", "tiff", "ppm", "pgm", "float"])
def test_more_than_eight_bits_are_one_line_wherever_they_are_read(tmp_path, kind):
    file = tmp_path / "x.png"
    if kind == "grey":
        grey_png(file, ids().astype(int) * 999, 16)
    elif kind in ("tiff", "float"):
        file = tmp_path / "x.tif"
        Image.fromarray(np.ones((4, 4), np.float32 if kind == "float" else np.int32)).save(file)
    elif kind == "ppm":
        file = tmp_path / "x.ppm"
        file.write_bytes(b"P6 1 1 65535\n" + b"\x12\x34" * 3)
    elif kind == "pgm":
        file = tmp_path / "x.pgm"
        file.write_bytes(b"P5 1 1 4095\n\x01\x02")
    else:
        rgb16_png(file, {"rgb": 2, "grey and alpha": 4, "rgb and alpha": 6}[kind])
    messages = {error_of(read_image, file), error_of(read_image, file, 1), error_of(read, file)}
    assert len(messages) == 1 and "more than 8 bits" in messages.pop()
    headers = [read_header(file)]
    assert "more than 8 bits" in error_of(check_images, find_images(tmp_path), headers)


def test_a_tiff_of_sixteen_bits_a_colour_is_not_cut_to_eight(tmp_path):
    """Written by hand: Pillow cannot write one."""
    entries = [(256, 3, 1, 1), (257, 3, 1, 1), (259, 3, 1, 1), (262, 3, 1, 2), (277, 3, 1, 3), (278, 3, 1, 1)]
    entries += [(258, 3, 3, 200), (273, 4, 1, 210), (279, 4, 1, 6)]
    table = b"".join(
        struct.pack("<HHI", tag, form, count) + struct.pack("<I" if form == 4 or count > 1 else "<HH", *value)
        for tag, form, count, at in sorted(entries)
        for value in [(at,) if form == 4 or count > 1 else (at, 0)]
    )
    data = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + table + b"\0\0\0\0"
    data = data.ljust(200, b"\0") + struct.pack("<HHH", 16, 16, 16)
    (tmp_path / "x.tif").write_bytes(data.ljust(210, b"\0") + b"\x12\x34" * 3)
    assert Image.open(tmp_path / "x.tif").mode == "RGB"
    assert "more than 8 bits" in error_of(read_image, tmp_path / "x.tif")


# ---------------------------------------------------------------- transparency, colour, frames


def test_what_lies_below_transparency_never_shows(tmp_path):
    hidden = np.random.default_rng(0).integers(0, 256, (6, 8, 4), np.uint8)
    hidden[..., 3] = 0
    hidden[0, :, 3] = 255
    hidden[1, 0] = (0, 0, 0, 128)
    Image.fromarray(hidden).save(tmp_path / "rgba.png")
    found = read_image(tmp_path / "rgba.png")
    assert (found[:, 2:] == 255).all() and found[:, 1, 0].tolist() == [127, 127, 127]
    assert torch.equal(found[:, 0], torch.from_numpy(hidden[0, :, :3].T.copy()))
    assert torch.equal(read(tmp_path / "rgba.png"), found)

    grey = Image.merge("LA", [Image.fromarray(hidden[..., 0].copy()), Image.new("L", (8, 6), 0)])
    grey.save(tmp_path / "la.png")
    assert (read_image(tmp_path / "la.png", 1) == 255).all() and (read_image(tmp_path / "la.png") == 255).all()

    index = Image.fromarray(ids(0, 6, 8)).convert("P")
    index.putpalette([10, 20, 30] * 4)
    index.putdata(ids(0, 6, 8).flatten().tolist())
    for name, transparency in (("one.png", 2), ("many.png", bytes([255, 255, 0, 255])), ("one.gif", 2)):
        index.save(tmp_path / name, transparency=transparency)
        shown = read_image(tmp_path / name)[0].numpy()
        assert np.array_equal(shown, np.where(ids(0, 6, 8) == 2, 255, 10)), name

    Image.fromarray(photo(0)).save(tmp_path / "key.png", transparency=tuple(map(int, photo(0)[0, 0])))
    assert read_image(tmp_path / "key.png")[:, 0, 0].tolist() == [255, 255, 255]
    opaque = np.dstack([photo(0), np.full((12, 16), 255, np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "opaque.png")
    assert np.array_equal(read_image(tmp_path / "opaque.png").movedim(0, -1).numpy(), photo(0))


def test_coloured_labels_may_have_alpha_but_no_transparent_pixel(tmp_path):
    palette = {(200, 10, 20): 0, (0, 180, 40): 1}
    colours = np.array(list(palette), np.uint8)[ids(0, classes=2)]
    layers = np.dstack([colours, np.full((12, 16), 255, np.uint8)])
    save(tmp_path / "x.png", layers)
    assert np.array_equal(LabelReader(2, palette=palette).read(tmp_path / "x.png")[0].numpy(), ids(0, classes=2))
    layers[0, 0, 3] = 0
    save(tmp_path / "x.png", layers)
    assert "transparent pixels" in error_of(LabelReader(2, palette=palette).read, tmp_path / "x.png")


def test_cmyk_and_grey_become_rgb(tmp_path):
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "x.jpg", quality=100)
    red = read_image(tmp_path / "x.jpg")[:, 0, 0].tolist()
    assert red[0] > 240 and max(red[1:]) < 15
    assert torch.equal(read(tmp_path / "x.jpg"), read_image(tmp_path / "x.jpg"))


@pytest.mark.parametrize("name", ["x.gif", "x.png", "x.webp", "x.tiff"])
def test_of_several_frames_the_first_is_read_and_a_line_says_so(tmp_path, capfd, name):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    lossless = {"lossless": True} if name.endswith("webp") else {}
    first.save(tmp_path / name, save_all=True, append_images=[second], **lossless)
    assert read_image(tmp_path / name)[:, 0, 0].tolist() == [255, 0, 0]
    files = find_images(tmp_path)
    for _ in range(2):
        check_images(files, [read_header(tmp_path / name)])
    survey([tmp_path / name], tmp_path)
    assert capfd.readouterr().err == f"{tmp_path}: of 1 images 1 with several frames (the first is read)\n"


def test_one_line_a_folder_says_what_is_done_to_its_images(tmp_path, capfd, monkeypatch):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(photo(0)).save(tmp_path / "a.png", icc_profile=profile)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(photo(0)).save(tmp_path / "b.png", icc_profile=lab)
    Image.new("RGBA", (4, 4)).save(tmp_path / "c.png")
    Image.new("CMYK", (4, 4)).save(tmp_path / "d.jpg")
    survey(sorted(tmp_path.iterdir()), tmp_path)
    told = capfd.readouterr().err
    assert told.count("\n") == 1 and told.startswith(f"{tmp_path}: of 4 images ")
    for words in ("1 with transparency (over white)", "1 in CMYK", "1 with a colour profile that is not sRGB"):
        assert words in told
    note(tmp_path / "labels", {Header("PNG", "P", (4, 4), 3, 8, ("alpha",)): 2}, ids=True)
    monkeypatch.setenv("RANK", "1")
    note(tmp_path / "other", {Header("PNG", "P", (4, 4), 3, 8, ("alpha",)): 2})
    assert capfd.readouterr().err == ""


# ---------------------------------------------------------------- damage


def test_the_same_damage_is_the_same_line_everywhere(tmp_path):
    save(tmp_path / "x.png", photo(0, 64, 64))
    whole = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(whole[: len(whole) // 2])
    messages = {error_of(call, tmp_path / "x.png") for call in (read_image, read, load)}
    assert len(messages) == 1 and "x.png: cannot be decoded" in messages.pop()
    (tmp_path / "x.png").write_text("<html>")
    calls = (read_image, read, load, read_header, read_instance, read_depth, LabelReader(4).read)
    messages = {error_of(call, tmp_path / "x.png") for call in calls}
    messages |= {error_of(survey, [tmp_path / "x.png"])}
    messages |= {error_of(read_labels, tmp_path / "x.png", score_table(None), 4, (4, 4))}
    assert len(messages) == 1 and "cannot identify it as an image" in messages.pop()


def test_a_file_of_another_kind_does_not_reach_its_parser(tmp_path):
    """PostScript would start Ghostscript."""
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    assert "cannot identify" in error_of(read_header, tmp_path / "x.png")


def test_huge_images_are_one_line_with_their_size(tmp_path, monkeypatch, recwarn):
    for name, side in (("x.png", 60000), ("large.png", 9600)):
        head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    for call in (read_header, read_image, read, LabelReader(4).read, read_instance):
        assert "60000x60000, 3600 million pixels" in error_of(call, tmp_path / "x.png")
    assert read_header(tmp_path / "large.png").size == (9600, 9600)  # Pillow would warn
    monkeypatch.setattr(pixels, "MAX_PIXELS", 100)
    np.save(tmp_path / "x.npy", np.zeros((12, 16, 4), np.uint8))
    assert "16x12" in error_of(read_header, tmp_path / "x.npy")
    assert not recwarn.list


def npy(header):
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64)


def npz():
    packed = io.BytesIO()
    np.savez(packed, x=np.zeros((4, 4, 3), np.uint8))
    return packed.getvalue()


ARRAYS = {
    "open bracket": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (4, 4, 3"),
    "nested": npy("(" * 100),
    "no header": npy("1"),
    "huge shape": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999, 99999999999, 3), }"),
    "negative": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-4, 4, 3), }"),
    "object": npy("{'descr': '|O', 'fortran_order': False, 'shape': (4, 4, 3), }"),
    "zero height": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (0, 4, 3), }"),
    "zero width": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (4, 0, 3), }"),
    "no channels": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (4, 4, 0), }"),
    "structured": npy("{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (4, 4, 3), }"),
    "npz": npz(),
    "broken npz": npz()[:60],
    "zip without arrays": b"PK\x05\x06" + bytes(18),
    "empty": b"",
    "magic alone": b"\x93NUMPY",
    "pickle": b"\x80\x04N.",
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_a_broken_array_is_one_line(tmp_path, kind):
    (tmp_path / "x.npy").write_bytes(ARRAYS[kind])
    for call in (read_header, read_image):
        assert "x.npy" in error_of(call, tmp_path / "x.npy")
    if kind == "npz":
        assert ".npz" in error_of(read_header, tmp_path / "x.npy") and zipfile.is_zipfile(tmp_path / "x.npy")


def test_an_image_without_height_is_one_line(tmp_path):
    (tmp_path / "x.ppm").write_bytes(b"P6 4 0 255\n")
    for call in (read_header, read_image, read):
        assert "x.ppm" in error_of(call, tmp_path / "x.ppm")


def test_a_text_chunk_that_unpacks_to_much_is_one_line(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("x", "a" * 2**22, zip=True)
    Image.fromarray(photo()).save(tmp_path / "x.png", pnginfo=info)
    assert "cannot be decoded" in error_of(read_header, tmp_path / "x.png")


@pytest.mark.parametrize(
    ("mode", "said"), [("RGB", "an RGB"), ("RGBA", "an RGBA"), ("L", "an L"), ("I;16", "an I;16"), ("P", "a P")]
)
def test_modes_have_the_article_that_is_spoken(mode, said):
    assert a(mode) == said


def test_labels_say_an_rgb_image(tmp_path):
    save(tmp_path / "x.png", photo())
    assert "is an RGB image; wanted one 8-bit id" in error_of(LabelReader(4).read, tmp_path / "x.png")
    assert "is an RGB image; a depth map" in error_of(read_depth, tmp_path / "x.png")
    with pytest.raises(UserError, match="is an RGB image; an instance map"):
        read_instance(tmp_path / "x.png")
