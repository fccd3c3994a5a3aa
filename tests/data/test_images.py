"""Photos and masks of every format against the arrays they were made from."""

import contextlib
import os
import socket
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segtune.data.images import ImageError, load_mask, load_photo, read_mask, read_photo
from segtune.data.labels import Colour, Foreground, Value
from segtune.errors import UserError
from tests.data.tiff_files import DEFLATE, write_tiff

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), np.uint8)
GREY = RNG.integers(0, 256, (5, 7), np.uint8)
LABELS = RNG.integers(0, 4, (5, 7), np.uint8)


def numbers(path: Path) -> np.ndarray:
    return read_mask(path).array


def save(folder: Path, name: str, array: np.ndarray, **options: object) -> Path:
    path = folder / name
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "PNG", "bmp", "tif", "tiff", "webp", "jp2", "j2k"])
def test_a_lossless_photo_comes_back_exactly(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    photo = read_photo(save(tmp_path, f"a.{suffix}", RGB, **options))
    assert photo.dtype == np.uint8
    assert np.array_equal(photo, RGB)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "jpe", "jfif", "avif"])
def test_a_lossy_photo_comes_back_nearly(tmp_path: Path, suffix: str) -> None:
    smooth = cv2.resize(RGB, (70, 50), interpolation=cv2.INTER_CUBIC)
    photo = read_photo(save(tmp_path, f"a.{suffix}", smooth, quality=98, subsampling="4:4:4"))
    assert np.abs(photo.astype(int) - smooth).max() < 12


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_photos_keep_their_range(tmp_path: Path, suffix: str) -> None:
    colour, grey = tmp_path / f"colour.{suffix}", tmp_path / f"grey.{suffix}"
    cv2.imwrite(str(colour), RGB[..., ::-1].astype(np.uint16) * 257)  # an independent writer; Pillow has no such mode
    cv2.imwrite(str(grey), GREY.astype(np.uint16) * 257)
    assert np.array_equal(read_photo(colour), RGB)
    assert np.array_equal(read_photo(grey), np.dstack([GREY] * 3))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_the_value_that_is_white_scales_sixteen_bits(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    deep = RNG.integers(0, 4096, (5, 7, 3), np.uint16)
    cv2.imwrite(str(path), deep[..., ::-1])
    assert np.array_equal(load_photo(path).samples, deep)
    assert np.array_equal(read_photo(path), deep >> 8)
    assert np.array_equal(read_photo(path, 65535), deep >> 8)
    assert np.array_equal(read_photo(path, 4095), deep >> 4)
    assert np.array_equal(read_photo(path, 2999), np.minimum(deep.astype(int), 2999) * 256 // 3000)
    cv2.imwrite(str(path), RGB[..., ::-1].astype(np.uint16))  # 8 bits in 16
    assert np.array_equal(read_photo(path, 255), RGB)
    assert np.array_equal(read_photo(save(tmp_path, f"b.{suffix}", RGB), 4095), RGB)  # 8 bits are what they are


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_sixteen_bit_tiffs_are_read_exactly_and_upright(tmp_path: Path, planar: bool, orientation: int) -> None:
    for bands, options in ((3, {}), (4, {"extra": (2,)}), (3, {"colours": 1, "extra": (0, 0)})):
        deep = RNG.integers(0, 65536, (5, 7, bands), np.uint16)
        for compression in ({}, {"compression": DEFLATE, "predictor": True}):
            more = {"planar": planar, "orientation": orientation, **options, **compression}
            photo = load_photo(write_tiff(tmp_path / "a.tif", deep, **more))
            assert np.array_equal(photo.samples, ORIENTED[orientation](deep[..., :3]))
            assert (photo.orientation, photo.frames) == (orientation, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_plain_tiffs_are_upright_too(tmp_path: Path, orientation: int) -> None:
    """Pillow maps them into memory, and some versions at the size that they have when turned."""
    for dtype in (np.uint8, np.uint16):
        grey = RNG.integers(0, 250, (5, 7), dtype)
        path = write_tiff(tmp_path / "a.tif", grey, colours=1, rows=5, orientation=orientation)
        upright = ORIENTED[orientation](grey)
        assert np.array_equal(load_photo(path).samples, np.dstack([upright] * 3))
        mask = load_mask(path)
        assert np.array_equal(mask.mask.array, upright)
        assert mask.orientation == orientation


def test_white_is_zero_where_a_tiff_says_so(tmp_path: Path) -> None:
    for dtype in (np.uint8, np.uint16):
        values = RNG.integers(0, 250, (5, 7), dtype)
        inverted = np.iinfo(dtype).max - values
        path = write_tiff(tmp_path / "a.tif", values, colours=0)
        assert np.array_equal(load_photo(path).samples, np.dstack([inverted] * 3))
        assert np.array_equal(numbers(path), inverted)


def test_sixteen_bit_cmyk_shows_its_colour(tmp_path: Path) -> None:
    deep = RNG.integers(0, 65536, (5, 7, 4), np.uint16)
    expected = np.array(Image.frombytes("CMYK", (7, 5), (deep >> 8).astype(np.uint8).tobytes()).convert("RGB"))
    for planar in (False, True):
        assert np.array_equal(read_photo(write_tiff(tmp_path / "a.tif", deep, colours=5, planar=planar)), expected)


def test_pages_and_frames_are_counted(tmp_path: Path) -> None:
    pages = [RNG.integers(0, 65536, (5, 7, 3), np.uint16) for _ in range(3)]
    photo = load_photo(write_tiff(tmp_path / "a.tif", *pages, planar=True))
    assert (photo.frames, np.array_equal(photo.samples, pages[0])) == (3, True)
    mask = load_mask(write_tiff(tmp_path / "m.tif", GREY, LABELS, colours=1))
    assert (mask.frames, np.array_equal(mask.mask.array, GREY)) == (2, True)
    for suffix, options in (("png", {}), ("webp", {"lossless": True})):
        images = Image.fromarray(RGB), Image.fromarray(RGB[::-1])
        images[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=images[1:], **options)
        assert load_photo(tmp_path / f"a.{suffix}").frames == 2


def test_other_bands_say_what_was_found(tmp_path: Path) -> None:
    expected = (
        "expected grey, RGB or RGB with alpha, in unsigned 8 or 16 bits; save a mask as 8-bit grey, and of a photo "
        "three bands as RGB, scaled to that range"
    )
    for shape, dtype, options, found in (
        ((5, 7, 5), np.uint16, {}, "5 bands of unsigned 16 bits (RGB)"),
        ((5, 7, 2), np.uint8, {"colours": 1, "extra": (0,)}, "2 bands of unsigned 8 bits (grey)"),
        ((5, 7, 4), np.uint16, {"colours": 1, "extra": (0, 0, 0)}, "4 bands of unsigned 16 bits (grey)"),
        ((5, 7, 8), np.uint8, {"planar": True}, "8 bands of unsigned 8 bits (RGB)"),
        ((5, 7, 3), np.float32, {}, "3 bands of floating-point 32 bits (RGB)"),
        ((5, 7, 3), np.int16, {}, "3 bands of signed 16 bits (RGB)"),
    ):
        path = write_tiff(tmp_path / "a.tif", np.zeros(shape, dtype), **options)
        for read in (read_photo, read_mask):
            assert refusal(read, path) == f"it holds {found}; {expected}"
    path = write_tiff(tmp_path / "a.tif", np.zeros((5, 7), np.float64), colours=1)
    assert refusal(read_photo, path).startswith(
        "it holds 1 band of floating-point 64 bits (grey), in a way that cannot be read; expected grey, RGB or"
    )


def test_photos_by_the_name_of_another_format_are_read(tmp_path: Path) -> None:
    for kind in ("png", "gif", "webp", "tiff", "avif", "jpeg2000"):
        Image.fromarray(GREY).save(tmp_path / f"a.{kind}", kind.upper())
        expected = read_photo(tmp_path / f"a.{kind}")
        (tmp_path / f"a.{kind}").replace(tmp_path / "a.jpg")
        assert np.array_equal(read_photo(tmp_path / "a.jpg"), expected)


def test_a_cut_sixteen_bit_tiff_is_an_error(tmp_path: Path) -> None:
    for planar in (False, True):
        path = write_tiff(tmp_path / "a.tif", RNG.integers(0, 65536, (50, 70, 3), np.uint16), planar=planar, rows=50)
        content = path.read_bytes()
        where = int.from_bytes(content[4:8], "little")
        short = bytearray(content[:9000] + content[where:])  # its directory is whole, its pixels are not
        short[4:8] = (9000).to_bytes(4, "little")
        path.write_bytes(short)
        assert refusal(read_photo, path)


def test_grey_palette_alpha_and_one_bit_photos_become_rgb(tmp_path: Path) -> None:
    assert np.array_equal(read_photo(save(tmp_path, "grey.png", GREY)), np.dstack([GREY] * 3))
    assert np.array_equal(read_photo(save(tmp_path, "alpha.png", np.dstack([RGB, GREY]))), RGB)
    bits = np.array([[True, False, True]])
    assert np.array_equal(read_photo(save(tmp_path, "bits.png", bits)), np.dstack([bits * np.uint8(255)] * 3))
    palette = Image.fromarray(LABELS, "P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    palette.save(tmp_path / "palette.png", transparency=bytes([0, 128, 255, 255]))
    table = np.arange(10, 130, 10, dtype=np.uint8).reshape(4, 3)
    assert np.array_equal(read_photo(tmp_path / "palette.png"), table[LABELS])


def test_a_cmyk_jpeg_shows_its_colour(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.jpg")
    assert np.abs(read_photo(tmp_path / "red.jpg").astype(int) - (255, 0, 0)).max() < 4


def test_a_phone_image_of_several_frames_gives_the_first(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (16, 16), (200, 10, 10)), Image.new("RGB", (16, 16))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    assert np.abs(read_photo(tmp_path / "a.jpg").astype(int) - (200, 10, 10)).max() < 4


ORIENTED = {  # what undoes each, by hand, from the standard's table of row and column origins
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", ORIENTED)
def test_the_orientation_of_the_file_turns_photos_and_masks(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path, "a.png", RGB, exif=exif)
    assert np.array_equal(read_photo(path), ORIENTED[orientation](RGB))
    mask = numbers(save(tmp_path, "m.png", GREY, exif=exif))
    assert np.array_equal(mask, ORIENTED[orientation](GREY))
    deep = tmp_path / "deep.png"
    Image.fromarray(GREY.astype(np.uint16) * 257).save(deep, exif=exif)
    assert np.array_equal(read_photo(deep)[..., 0], ORIENTED[orientation](GREY))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "jp2"])
def test_grey_masks_give_their_values(tmp_path: Path, suffix: str) -> None:
    assert np.array_equal(numbers(save(tmp_path, f"a.{suffix}", GREY)), GREY)
    if suffix != "jp2":  # of which Pillow writes none
        bits = LABELS > 1
        mask = numbers(save(tmp_path, f"bits.{suffix}", bits))
        assert np.array_equal(mask, bits)
        assert mask.dtype == np.uint8


@pytest.mark.parametrize("suffix", ["png", "tif", "jp2"])
def test_wide_masks_give_their_values(tmp_path: Path, suffix: str) -> None:
    wide = GREY.astype(np.uint16) * 200 + 3
    assert np.array_equal(numbers(save(tmp_path, f"a.{suffix}", wide)), wide)


def test_whole_floating_point_numbers_are_labels(tmp_path: Path) -> None:
    """As programs for maps and microscopes save them."""
    mask = numbers(save(tmp_path, "a.tif", LABELS.astype(np.float32)))
    assert (mask.dtype, np.array_equal(mask, LABELS)) == (np.uint8, True)
    assert refusal(read_mask, save(tmp_path, "a.tif", LABELS.astype(np.float32) / 4)) == (
        "a mask of fractions (0 to 0.75), such as probabilities, holds no labels; save where they are the object, as "
        "in `numpy.save('FILE.npy', array > 0.5)`"
    )


def test_a_32_bit_integer_mask_gives_its_values(tmp_path: Path) -> None:
    ids = LABELS.astype(np.int32) * 100_000
    assert np.array_equal(numbers(save(tmp_path, "a.tif", ids)), ids)


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_a_palette_mask_gives_indices_not_colours(tmp_path: Path, suffix: str) -> None:
    pages = [Image.fromarray(labels, "P") for labels in (LABELS, LABELS[::-1])]
    for page in pages:
        page.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    pages[0].save(tmp_path / f"a.{suffix}")
    assert np.array_equal(numbers(tmp_path / f"a.{suffix}"), LABELS)
    assert [str(value) for value in read_mask(tmp_path / f"a.{suffix}").values()] == [
        "0",
        "1 (#800000)",
        "2 (#008000)",
        "3 (#808000)",
    ]
    if suffix == "gif":
        pages[0].save(tmp_path / "a.gif", save_all=True, append_images=pages[1:])
        animated = load_mask(tmp_path / "a.gif")
        assert (animated.frames, np.array_equal(animated.mask.array, LABELS)) == (2, True)


@pytest.mark.parametrize("white", [255, 1])
def test_a_gif_of_black_and_white_is_a_mask(tmp_path: Path, white: int) -> None:
    truth = LABELS > 1
    mask = read_mask(save(tmp_path, "a.gif", truth * np.uint8(white)))
    assert np.array_equal(Foreground()(mask), truth)
    assert np.array_equal(Foreground()(read_mask(save(tmp_path, "bits.gif", truth))), truth)


def test_colour_masks_that_leave_no_doubt(tmp_path: Path) -> None:
    opaque = np.full_like(GREY, 255)
    assert np.array_equal(numbers(save(tmp_path, "grey.png", np.dstack([GREY] * 3))), GREY)
    assert np.array_equal(numbers(save(tmp_path, "rgba.png", np.dstack([GREY] * 3 + [opaque]))), GREY)
    assert np.array_equal(numbers(save(tmp_path, "la.png", np.dstack([GREY, opaque]))), GREY)
    red = np.zeros((5, 7, 3), np.uint8)
    red[1:3, 2:5] = (200, 0, 10)
    assert np.array_equal(numbers(save(tmp_path, "red.png", red)), red[..., 0] > 0)
    assert read_mask(save(tmp_path, "all_red.png", np.full_like(red, (200, 0, 10)))).values() == [Colour(-1, 0xC8000A)]


def refusal(read: object, path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read(path)  # type: ignore[operator]
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    return caught.value.reason


def test_masks_that_would_need_a_guess_are_refused(tmp_path: Path) -> None:
    colours = np.zeros((1, 257, 3), np.uint8)
    colours[0, :, 0], colours[0, 256, 1] = np.arange(257) % 256, 1
    assert refusal(read_mask, save(tmp_path, "colours.png", colours)) == (
        "a colour mask with 257 colours (#000000, #000100, #010000, #020000, ...), as photos and JPEG files have; "
        "expected grey labels, a palette, or a few colours without blurred edges; save the wanted class as white on "
        "black"
    )
    for suffix in ("png", "tif"):
        cv2.imwrite(str(tmp_path / f"deep.{suffix}"), np.ones((5, 7, 3), np.uint16))
        assert refusal(read_mask, tmp_path / f"deep.{suffix}") == (
            "a mask cannot have several 16-bit channels; save it as 8-bit or 16-bit grey"
        )
    Image.new("CMYK", (4, 4)).save(tmp_path / "cmyk.jpg")
    assert refusal(read_mask, tmp_path / "cmyk.jpg") == "a mask cannot have colour mode CMYK; save it as 8-bit grey"


CUT = (LABELS > 1) * np.uint8(255)  # the alpha channel of an object that is cut out
SOFT = LABELS * np.uint8(80)  # one with soft edges


VARIES = (
    "the mask's alpha channel varies: if it is the mask, as in a cut-out, set data.mask_channel=alpha; if the colours "
    "are, save them without alpha"
)
ALONE = "the mask's alpha channel varies, its colour does not: set data.mask_channel=alpha"
HALF = "data.mask_channel=alpha data.foreground=128"


@pytest.mark.parametrize(
    ("colours", "alpha", "says"),
    [
        (255, CUT, ALONE),
        (0, CUT, ALONE),
        (7, SOFT, ALONE.replace("data.mask_channel=alpha", HALF)),
        (RGB, CUT, VARIES),
        (RGB * np.uint8(SOFT > 0)[..., None], SOFT, VARIES.replace("data.mask_channel=alpha", HALF)),
        (np.uint8(SOFT > 0)[..., None] * RGB[:1, :1], SOFT, VARIES.replace("data.mask_channel=alpha", HALF)),
    ],
)
def test_a_mask_in_the_alpha_channel_names_the_setting_that_reads_it(
    tmp_path: Path, colours: int | np.ndarray, alpha: np.ndarray, says: str
) -> None:
    path = save(tmp_path, "a.png", np.dstack([np.broadcast_to(np.uint8(colours), RGB.shape), alpha]))
    assert refusal(read_mask, path) == says
    mask = read_mask(path, "alpha")
    assert np.array_equal(mask.array, alpha)
    assert mask.legend is None
    assert np.array_equal(Foreground(128)(mask), alpha >= 128)


@pytest.mark.parametrize("grey", [False, True])
def test_a_cut_out_on_transparent_black_names_the_setting_too(tmp_path: Path, grey: bool) -> None:
    """Black alone is transparent, but a photo has too many colours to be labels."""
    colours = RNG.integers(1, 256, (20, 30, 1 if grey else 3), np.uint8)
    alpha = np.zeros((20, 30, 1), np.uint8)
    alpha[3:18] = 255
    path = save(tmp_path, "a.png", np.dstack([colours * (alpha > 0), alpha]))
    assert refusal(read_mask, path) == VARIES
    assert np.array_equal(read_mask(path, "alpha").array, alpha[..., 0])


def test_colours_on_transparent_black_are_the_same_by_colour_and_by_alpha(tmp_path: Path) -> None:
    colours = np.zeros((5, 7, 3), np.uint8)
    colours[CUT > 0] = (200, 0, 10)
    path = save(tmp_path, "a.png", np.dstack([colours, CUT]))
    assert read_mask(path).values() == [0, Colour(-1, 0xC8000A)]
    for channel in ("all", "alpha", "red"):
        assert np.array_equal(Foreground()(read_mask(path, channel)), CUT > 0)
    grey = save(tmp_path, "la.png", np.dstack([CUT, CUT]))
    assert np.array_equal(Foreground()(read_mask(grey)), CUT > 0)


def test_one_channel_of_a_mask(tmp_path: Path) -> None:
    path, wide = save(tmp_path, "a.png", RGB), save(tmp_path, "wide.png", GREY.astype(np.uint16) * 200)
    for number, channel in enumerate(("red", "green", "blue")):
        assert np.array_equal(read_mask(path, channel).array, RGB[..., number])
        assert np.array_equal(read_mask(save(tmp_path, "grey.png", GREY), channel).array, GREY)
        assert np.array_equal(read_mask(wide, channel).array, GREY.astype(np.uint16) * 200)
    for kind in (np.int32, np.float32):
        ids = save(tmp_path, "ids.tif", (LABELS * 100_000.0).astype(kind))
        assert np.array_equal(read_mask(ids, "red").array, LABELS * 100_000.0)
    cv2.imwrite(str(tmp_path / "deep.png"), RGB[..., ::-1].astype(np.uint16) * 200)
    assert np.array_equal(read_mask(tmp_path / "deep.png", "blue").array, RGB[..., 2].astype(np.uint16) * 200)
    bits = save(tmp_path, "bits.png", LABELS > 1)
    assert np.array_equal(read_mask(bits, "red").array, CUT)
    palette = Image.fromarray(LABELS, "P")
    palette.putpalette([0, 0, 0, 10, 0, 0, 20, 0, 0, 30, 0, 0])
    palette.save(tmp_path / "p.png", transparency=bytes([0, 99, 255, 255]))
    assert np.array_equal(read_mask(tmp_path / "p.png", "red").array, LABELS * 10)
    assert np.array_equal(read_mask(tmp_path / "p.png", "alpha").array, np.uint8([0, 99, 255, 255])[LABELS])
    for without in (path, bits, tmp_path / "deep.png"):
        assert refusal(lambda path: read_mask(path, "alpha"), without) == (
            "it has no alpha channel, which data.mask_channel=alpha names"
        )
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = save(tmp_path, "turned.png", np.dstack([RGB, GREY]), exif=exif)
    assert np.array_equal(read_mask(turned, "alpha").array, np.rot90(GREY, -1))


def test_photos_without_a_known_range_are_refused(tmp_path: Path) -> None:
    advice = "samples have no defined range; save the photo with 8 or 16 bits a channel, unsigned"
    signed = np.array([[-7, 300], [5, 9]])
    for values, kind, extent in (
        (signed.astype(np.float32), "floating-point", "-7 to 300"),
        (np.full((2, 2), np.nan, np.float32), "floating-point", "no number"),
        (signed.astype(np.int32), "32-bit integer", "signed -7 to 300"),
        (signed.astype(np.int16), "16-bit integer", "signed -7 to 300"),
        (signed[1:].astype(np.int8) - np.int8(8), "8-bit integer", "signed -3 to 1"),
        (abs(signed).astype(np.uint32), "32-bit integer", "unsigned 5 to 300"),
    ):
        path = write_tiff(tmp_path / "a.tif", values, colours=1)
        assert refusal(read_photo, path) == f"{kind} {advice} (this file has {extent})"


def test_signed_and_wide_masks_keep_their_values(tmp_path: Path) -> None:
    for dtype in (np.int8, np.int16, np.int32, np.uint32):
        least = 3_000_000_000 if dtype == np.uint32 else -1
        values = np.array([[least, 0], [5, 100]], dtype)
        assert np.array_equal(numbers(write_tiff(tmp_path / "a.tif", values, colours=1)), values)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp", "gif", "jp2", "avif"])
def test_damaged_files_are_errors(tmp_path: Path, suffix: str) -> None:
    whole = save(tmp_path, f"whole.{suffix}", RNG.integers(0, 256, (64, 64, 3), np.uint8)).read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole[: len(whole) // 2])
    assert refusal(read_photo, cut)
    cut.write_bytes(b"")
    assert refusal(read_photo, cut) == "the file is empty"
    cut.write_bytes(whole[:30])  # hardly more than what tells the format
    assert refusal(read_mask, cut)
    cut.write_bytes(b"<html>not found</html>" * 9)
    assert refusal(read_mask, cut) == (
        "a web page in place of the image, as failed downloads leave it; download the image itself"
    )
    cut.unlink()
    assert refusal(read_mask, cut) == "cannot be read: No such file or directory"


def test_other_formats_are_not_even_tried(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png", format="EPS")
    assert refusal(read_photo, tmp_path / "a.png").startswith("an image in a format that is not read; convert it: ")


@pytest.mark.filterwarnings("error")
def test_a_photo_of_200_megapixels_is_welcome_and_a_bomb_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def header(
        side: int,
    ) -> Path:  # a one-bit PNG that ends behind its header: size checks come before the pixels
        path = tmp_path / f"{side}.png"
        Image.new("1", (1, 1)).save(path)
        data = bytearray(path.read_bytes())
        data[16:24] = side.to_bytes(4, "big") * 2
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
        path.write_bytes(data)
        return path

    assert "megapixels" not in refusal(read_photo, header(14_000))
    too_large = (
        "23000 x 23000 pixels are 529 megapixels, more than 500; if there is memory for it (several times 3 bytes a "
        "pixel), set the environment variable SEGTUNE_MAX_MEGAPIXELS=600"
    )
    assert refusal(read_photo, header(23_000)) == too_large
    assert refusal(read_mask, header(23_000)) == too_large
    assert refusal(read_photo, header(90_000)).startswith("more than 500 megapixels; if there is memory")
    monkeypatch.setenv("SEGTUNE_MAX_MEGAPIXELS", "600")
    assert "megapixels" not in refusal(read_photo, header(23_000))
    for wrong in ("many", "0", "nan", "-5", ""):
        monkeypatch.setenv("SEGTUNE_MAX_MEGAPIXELS", wrong)
        with pytest.raises(UserError) as caught:
            read_photo(header(100))
        assert str(caught.value) == (
            f"The environment variable SEGTUNE_MAX_MEGAPIXELS={wrong}: expected megapixels, such as 1000."
        )


def palette(folder: Path, indices: np.ndarray, *colours: int, **options: object) -> Path:
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette([part for rgb in colours for part in rgb.to_bytes(3, "big")])
    image.save(folder / "palette.png", **options)
    return folder / "palette.png"


@pytest.mark.parametrize("colour", [(255, 255, 255), (200, 30, 90)])
def test_black_is_background_wherever_a_palette_has_it(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    """Pillow's `quantize` puts the brighter colour first."""
    truth = np.zeros((20, 30), bool)
    truth[5:12, 8:20] = True
    image = Image.fromarray(np.where(truth[..., None], np.uint8(colour), np.uint8(0))).quantize(2)
    indices, table = np.array(image), image.getpalette("RGB")
    for order in ((0, 1), (1, 0)):
        moved = Image.fromarray(np.array(order, np.uint8)[indices], mode="P")
        moved.putpalette([value for index in order for value in table[3 * index : 3 * index + 3]])
        moved.save(tmp_path / "mask.png")
        assert (Foreground()(read_mask(tmp_path / "mask.png")) == truth).all()


@pytest.mark.parametrize(
    ("colours", "values"),
    [
        ((0xFF0000, 0x000000, 0x0000FF), [Colour(0, 0xFF0000), Colour(1, 0), Colour(2, 0x0000FF)]),
        ((0x000000, 0xFF0000, 0x000000), [0, Colour(1, 0xFF0000), 2]),  # black fills what is not set
        ((0x000000, 0x010101, 0x020202), [0, 1, 2]),
        ((0xFFFFFF, 0x000000, 0x808080), [Colour(0, 0xFFFFFF), Colour(1, 0), Colour(2, 0x808080)]),
    ],
)
def test_the_values_of_a_palette_have_number_and_colour(
    tmp_path: Path, colours: tuple[int, ...], values: list[Value]
) -> None:
    indices = np.arange(12).reshape(3, 4) % 3
    mask = read_mask(palette(tmp_path, indices, *colours))
    assert np.array_equal(mask.array, indices)
    assert mask.values() == values


def test_one_bit_masks_are_white_as_well_as_1(tmp_path: Path) -> None:
    assert read_mask(save(tmp_path, "bits.png", LABELS > 1)).values() == [0, Colour(1, 0xFFFFFF)]


def test_the_colours_of_a_colour_mask(tmp_path: Path) -> None:
    colours = np.array([(0, 0, 0), (220, 20, 60), (70, 70, 70), (0, 0, 142)], np.uint8)
    mask = read_mask(save(tmp_path, "colours.png", colours[LABELS]))
    assert mask.values() == [0, Colour(-1, 0x00008E), 70, Colour(-1, 0xDC143C)]
    for number, rgb in enumerate(("#000000", "#dc143c", "#464646", "#00008e")):
        assert np.array_equal(Foreground((rgb,))(mask), number == LABELS)


def test_transparency_is_no_matter_where_black_and_only_black_has_it(tmp_path: Path) -> None:
    inside = LABELS > 1
    for transparent in (0, 255):
        path = save(tmp_path, "grey.png", inside * np.uint8(255), transparency=transparent)
        if transparent:
            assert refusal(read_mask, path) == VARIES
        else:
            assert np.array_equal(Foreground()(read_mask(path)), inside)
    for alpha in (bytes([0, 255]), bytes([0, 90]), bytes([255, 90])):
        path = palette(tmp_path, inside, 0x000000, 0xFF0000, transparency=alpha)
        assert np.array_equal(Foreground()(read_mask(path)), inside)
    for colours in ((0xFFFFFF, 0x000000), (0xFFFFFF, 0xFF0000)):
        path = palette(tmp_path, inside, *colours, transparency=bytes([0, 255]))
        assert refusal(read_mask, path) == VARIES
    for colours in ((0x000000, 0x000000), (0xFFFFFF, 0xFFFFFF)):
        path = palette(tmp_path, inside, *colours, transparency=bytes([0, 255]))
        assert refusal(read_mask, path) == ALONE


def test_what_is_no_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To read a pipe would wait for ever, to read a device would never end."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to("pipe.png")
    (tmp_path / "nothing.png").symlink_to("gone.png")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind("socket.png")  # a path in full may be too long for it
    for name, kind in {
        "pipe": "a named pipe",
        "device": "a device",
        "folder": "a folder",
        "link": "a named pipe",
        "nothing": "a link to nothing",
        "socket": "a socket",
    }.items():
        for read in (read_photo, read_mask):
            with pytest.raises(ImageError) as caught:
                read(tmp_path / f"{name}.png")
            assert str(caught.value) == f"{tmp_path / name}.png: {kind}, not a file"
