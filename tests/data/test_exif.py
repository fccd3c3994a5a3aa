"""EXIF data that Pillow cannot parse cost a photo its orientation, not itself."""

from pathlib import Path
from warnings import filterwarnings

import numpy as np
import pytest
from PIL import Image

from segtune.data.exif import exif_orientation, log
from segtune.data.images import read_photo


def stored() -> np.ndarray:
    """The left third red, the rest blue; 4 x 6."""
    picture = np.full((4, 6, 3), (0, 0, 200), np.uint8)
    picture[:, :2] = (255, 0, 0)
    return picture


@pytest.mark.parametrize("kind", ["png", "webp", "jpg", "tif", "avif"])
@pytest.mark.parametrize("number", range(1, 9))
def test_photos_are_turned_upright(tmp_path: Path, kind: str, number: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = number
    best = {"quality": 100, "subsampling": "4:4:4"}
    options = {"webp": {"lossless": True}, "jpg": best, "avif": best}.get(kind, {})
    Image.fromarray(stored()).save(tmp_path / f"a.{kind}", exif=exif, **options)
    rows = np.flip(stored(), {1: (), 2: 1, 3: (0, 1), 4: 0, 5: (), 6: 0, 7: (0, 1), 8: 1}[number])
    upright = rows.swapaxes(0, 1) if number > 4 else rows
    found = read_photo(tmp_path / f"a.{kind}")
    assert found.shape == upright.shape
    assert (found[..., 0] > 128).tolist() == (upright[..., 0] > 128).tolist()


@pytest.mark.parametrize("kind", ["png", "webp"])
@pytest.mark.parametrize("exif", [b"not exif at all", b"Exif\0\0garbage!", b"Exif\0\0XX*\0\x08\0\0\0"])
def test_a_photo_with_damaged_exif_data_is_read_as_it_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, exif: bytes
) -> None:
    said = list[str]()
    monkeypatch.setattr(log, "warning", lambda text, *values: said.append(text % values))
    path = tmp_path / f"a.{kind}"
    Image.fromarray(stored()).save(path, exif=exif, lossless=True)
    for _ in range(2):
        assert (read_photo(path) == stored()).all()
    (warning,) = said
    assert warning.startswith(f"{path}: its EXIF data cannot be read (SyntaxError: not a TIFF file")
    assert warning.endswith("), so it is used as it is stored, not rotated.")


@pytest.mark.parametrize("kind", ["png", "webp", "jpg"])
def test_exif_data_that_end_too_early_are_said_by_the_name_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder, kind: str
) -> None:
    said = list[str]()
    monkeypatch.setattr(log, "warning", lambda text, *values: said.append(text % values))
    filterwarnings("ignore", "Corrupt EXIF data", module=r"PIL\.")  # as the module does; each test begins without
    whole = b"Exif\0\0MM\0*\0\0\0\x08\0\x00"  # without any entry, which is no damage
    for name, exif in (("whole", whole), ("damaged", whole[:-2] + b"\xff\xff" + 30 * b"\xff")):
        path = tmp_path / f"{name}.{kind}"
        Image.fromarray(stored()).save(path, exif=exif)
        assert read_photo(path).shape == (4, 6, 3)
    assert said == [
        f"{path}: its EXIF data cannot be read (it holds no entry that is whole), so it is used as it is stored, "
        "not rotated."
    ]
    assert not recwarn.list


def test_an_orientation_that_there_is_not_is_none(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 99
    Image.fromarray(stored()).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        assert exif_orientation(tmp_path / "a.png", image) == 1
