"""Ranges of values, orientations and pages, in small data sets."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segtune.data.checks.integrity import check_data
from segtune.data.labels import Foreground
from segtune.data.sources.base import Pair
from tests.data.tiff_files import write_tiff

RNG = np.random.default_rng(0)


def pair(root: Path, name: str, samples: np.ndarray, turn: int = 1, turn_of_mask: int = 1) -> Pair:
    """Write a photo, and a mask of the size that the file has."""
    made = Pair(name, root / f"images/{name}.png", root / f"masks/{name}.png")
    for path in (made.photo, made.mask):
        path.parent.mkdir(exist_ok=True)
    if samples.dtype == np.uint8:
        exif = Image.Exif()
        exif[0x0112] = turn
        Image.fromarray(samples).save(made.photo, exif=exif)
    else:
        cv2.imwrite(str(made.photo), samples[..., ::-1])
    mask = np.zeros(samples.shape[:2], np.uint8)
    mask[:5] = 255
    exif = Image.Exif()
    exif[0x0112] = turn_of_mask
    Image.fromarray(mask).save(made.mask, exif=exif)
    return made


def deep(largest: int, *, least: int = 0) -> np.ndarray:
    samples = RNG.integers(least, largest, (12, 16, 3), np.uint16, endpoint=True)
    samples[0, 0, 0] = largest
    return samples


def problems(*pairs: Pair, max_value: int | None = None) -> list[str]:
    _, found = check_data({"train": pairs}, Foreground(), workers=1, max_value=max_value)
    return [str(each) for each in found]


@pytest.mark.parametrize(("largest", "setting"), [(4095, 4095), (3000, 4095), (255, 255), (200, 255), (1000, 1023)])
def test_bits_that_are_not_used_are_an_error_that_names_the_setting(tmp_path: Path, largest: int, setting: int) -> None:
    pairs = [pair(tmp_path, "a", deep(largest)), pair(tmp_path, "b", deep(largest // 2))]
    assert problems(*pairs) == [
        f"error: images: nearly black: the values of 2 photos of 16 bits go up to {largest}, and 65535 is white; set "
        f"data.max_value={setting}, or data.max_value=65535 to keep them so"
    ]
    assert problems(*pairs, max_value=setting) == []
    assert problems(*pairs, max_value=65535) == [
        f"warning: images: nearly black: the values of 2 photos of 16 bits go up to {largest}, and 65535 is white; set "
        f"data.max_value={setting}"
    ]


def test_the_whole_range_and_half_of_it_are_fine(tmp_path: Path) -> None:
    assert problems(pair(tmp_path, "a", deep(65535)), pair(tmp_path, "b", deep(40_000))) == []
    assert problems(pair(tmp_path, "a", deep(16_383))) == [
        "warning: images: dark: the values of 1 photos of 16 bits go up to 16383, and 65535 is white; set "
        "data.max_value=16383"
    ]


def test_a_hot_pixel_does_not_hide_that_the_rest_is_black(tmp_path: Path) -> None:
    samples = np.tile(deep(4000), (5, 1, 1))
    samples[3, 4, 1] = 65535
    assert problems(pair(tmp_path, "a", samples)) == [
        "warning: images: nearly black but for outliers: the values of 1 photos of 16 bits go up to 65535, and 65535 "
        "is white, but 99.9 % are at most 4095; if brighter ones are faults or markers, set data.max_value=4095"
    ]


def test_photos_in_another_range_than_the_others_are_named(tmp_path: Path) -> None:
    assert problems(pair(tmp_path, "a", deep(65535)), pair(tmp_path, "b", deep(1000))) == [
        "warning: images: nearly black: the values of 2 photos of 16 bits go up to 65535, and 65535 is white, but "
        "those of 1 only to 1000: train b; save all photos with one range of values"
    ]
    assert problems(pair(tmp_path, "c", np.eye(12, dtype=np.uint8) * 9)) == [
        "warning: images: nearly black: 1 photos of 8 bits have no value above 15 of 255: train c; brighten them, or "
        "leave them out"
    ]


def test_values_above_white_and_a_setting_without_effect(tmp_path: Path) -> None:
    assert problems(pair(tmp_path, "a", deep(4095)), pair(tmp_path, "b", deep(8190, least=5000)), max_value=4095) == [
        "warning: images: values above data.max_value=4095: 50.00% of all, up to 8190, become white, in 1 of 2 photos "
        "of 16 bits: train b"
    ]
    flat = RNG.integers(0, 256, (12, 16, 3), np.uint8)
    assert problems(pair(tmp_path, "c", flat), max_value=4095) == [
        "warning: images: data.max_value=4095 has no effect: it is for photos of 16 bits, and all have 8"
    ]


def photo(height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def test_photos_that_exif_turns_without_their_masks_are_counted(tmp_path: Path) -> None:
    pairs = [
        pair(tmp_path, "a", photo(12, 16), 3),
        pair(tmp_path, "b", photo(12, 16), 2),
        pair(tmp_path, "c", photo(12, 12), 6),
        pair(tmp_path, "d", photo(12, 16)),
        pair(tmp_path, "e", photo(12, 16), 4, 4),  # both are turned
    ]
    upright = pair(tmp_path, "f", photo(12, 16), 8)
    Image.fromarray(np.array(Image.open(upright.mask)).T.copy()).save(upright.mask)  # drawn as displayed: 16 x 12
    (found,) = problems(*pairs, upright)
    assert found == (
        "warning: images: turned by EXIF: 3 photos (1 mirrored, 1 turned by 180°, 1 turned by 90°), but not their "
        "masks: train a, train b, train c. That is right if the masks were drawn on the photos as displayed, which "
        "sizes cannot tell here (1 other masks have the size of their turned photo); `check` marks them on its contact "
        "sheet. If the masks were drawn on the pixels as stored, remove the turn from the photos: "
        "`exiftool -Orientation= FILE`"
    )
    assert problems(*pairs[3:], upright) == []


def test_masks_with_an_orientation_of_their_own_are_counted(tmp_path: Path) -> None:
    pairs = [pair(tmp_path, "a", photo(12, 16), 1, 3), pair(tmp_path, "b", photo(12, 16), 4, 2)]
    assert problems(*pairs, pair(tmp_path, "c", photo(12, 16), 6, 6)) == [
        "warning: masks: turned by EXIF: 2 masks, but their photos not in the same way: train a, train b; `check` "
        "marks them on its contact sheet. If they do not fit, remove the turn: `exiftool -Orientation= FILE`"
    ]


def test_a_mask_that_fits_only_without_a_turn_says_which(tmp_path: Path) -> None:
    (found,) = problems(pair(tmp_path, "a", photo(12, 16), 6))
    assert found.startswith(
        "error: a: sizes differ: photo 16 x 12, mask 12 x 16 (height x width); they are each other's transpose: the "
        "photo is turned by 90° by its EXIF orientation, and the mask was drawn without it"
    )


def test_pages_of_photos_and_masks(tmp_path: Path) -> None:
    made = pair(tmp_path, "a", photo(12, 16))
    page = np.zeros((12, 16), np.uint8)
    page[:4] = 255
    mask = write_tiff(tmp_path / "masks/a.tif", page, page, page, colours=1)
    several = write_tiff(tmp_path / "images/a.tif", photo(12, 16), photo(12, 16))
    assert problems(Pair("a", made.photo, mask), Pair("b", several, made.mask)) == [
        "warning: images/a.tif: several images in one file: only the first of 2 is used",
        "warning: masks/a.tif: several images in one file: only the first of 3 is used",
    ]
