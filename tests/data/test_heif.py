"""HEIC photos, written by pillow-heif, an extra; and what is said without it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from segtune.data import decoding
from segtune.data.decoding import ImageError, stored_size
from segtune.data.images import load_photo, read_mask, read_photo
from segtune.data.labels import Foreground
from segtune.data.sources.portraits import draw_scene

SCENE, TRUTH = (part[:48, :64] for part in draw_scene(1, 64))
EXACT = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}


@pytest.fixture
def heif() -> ModuleType:
    found = pytest.importorskip("pillow_heif", reason="pillow-heif is missing: pip install 'segtune[heif]'")
    found.register_heif_opener()
    return found


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    decoding._can_read_heif.cache_clear()
    yield
    decoding._can_read_heif.cache_clear()


def refusal(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_photo(path)
    return caught.value.reason


def test_without_the_extra_it_is_named(tmp_path: Path, without: None) -> None:
    """The first bytes are those of an iPhone's photo."""
    advice = "install it with `pip install 'segtune[heif]'`, or convert the photo to JPEG or PNG"
    for name, whatever in (("a.HEIC", ""), ("a.hif", ""), ("a.jpg", ", whatever its name")):
        (tmp_path / name).write_bytes(b"\0\0\0\x24ftypheic\0\0\0\0mif1MiHEMiPrmiafheic" + bytes(40))
        assert refusal(tmp_path / name) == (
            f"an HEIC photo{whatever}, for which the package pillow-heif is missing; {advice}"
        )
        assert stored_size(tmp_path / name) is None


@pytest.mark.parametrize("name", ["a.heic", "a.HEIF", "a.hif", "a.jpg"])
def test_photos_and_masks_come_back(tmp_path: Path, heif: ModuleType, name: str) -> None:
    Image.fromarray(SCENE).save(tmp_path / name, "HEIF", **EXACT)
    photo = load_photo(tmp_path / name)
    assert np.array_equal(photo.samples, SCENE)
    assert (photo.samples.dtype, photo.orientation, photo.frames) == (np.uint8, 1, 1)
    assert stored_size(tmp_path / name) == (48, 64)
    Image.fromarray((TRUTH > 0) * np.uint8(255)).convert("RGB").save(tmp_path / name, "HEIF", **EXACT)
    assert np.array_equal(Foreground()(read_mask(tmp_path / name)), TRUTH > 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_once(tmp_path: Path, heif: ModuleType, orientation: int) -> None:
    """As Pillow turns the same photo in a PNG; the decoder of HEIC turns photos itself."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(SCENE).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(SCENE).save(tmp_path / "a.heic", exif=exif.tobytes(), **EXACT)  # as a turn of the file too
    assert (b"irot" in (content := (tmp_path / "a.heic").read_bytes()) or b"imir" in content) == (orientation > 1)
    expected, found = load_photo(tmp_path / "a.png"), load_photo(tmp_path / "a.heic")
    assert expected.orientation == orientation
    assert np.array_equal(found.samples, expected.samples)
    assert found.orientation == 1


def test_ten_bits_arrive_as_their_eight_highest(tmp_path: Path, heif: ModuleType) -> None:
    deep = np.random.default_rng(0).integers(0, 1024, (48, 64, 3), np.uint16) << 6
    made = heif.from_bytes("RGB;16", (64, 48), deep.tobytes())
    made.save(tmp_path / "a.heic", **EXACT)
    assert heif.open_heif(tmp_path / "a.heic", convert_hdr_to_8bit=False).info["bit_depth"] == 10
    photo = load_photo(tmp_path / "a.heic")
    assert photo.samples.dtype == np.uint8
    assert np.abs(photo.samples.astype(int) - (deep >> 8)).max() <= 1


def test_alpha_is_dropped_from_photos_and_can_be_the_mask(tmp_path: Path, heif: ModuleType) -> None:
    alpha = (TRUTH > 0) * np.uint8(255)
    Image.fromarray(np.dstack([SCENE, alpha])).save(tmp_path / "a.heic", **EXACT)
    assert read_photo(tmp_path / "a.heic").shape == (48, 64, 3)
    assert np.array_equal(read_mask(tmp_path / "a.heic", "alpha").array, alpha)


def test_of_several_photos_in_a_file_the_first_is_used(tmp_path: Path, heif: ModuleType) -> None:
    pages = [Image.fromarray(SCENE), Image.fromarray(SCENE[::-1].copy())]
    pages[0].save(tmp_path / "a.heic", save_all=True, append_images=pages[1:], **EXACT)
    photo = load_photo(tmp_path / "a.heic")
    assert photo.frames == 2
    assert np.array_equal(photo.samples, SCENE)


def test_damaged_and_enormous_photos_are_refused(
    tmp_path: Path, heif: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.heic"
    Image.fromarray(SCENE).save(path, **EXACT)
    whole = path.read_bytes()
    for kept in (24, 100, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:kept])
        assert refusal(path)
        assert stored_size(path) in (None, (48, 64))
    Image.new("RGB", (1001, 1000)).save(path)
    monkeypatch.setenv("SEGTUNE_MAX_MEGAPIXELS", "1")
    assert refusal(path).startswith("1000 x 1001 pixels are 1 megapixels, more than 1; if there is memory for it")
