"""Arrays that NumPy saved; those that are refused; and that nothing is ever unpickled."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segtune.data.images import ImageError, load_mask, load_photo, read_mask
from segtune.data.npy import read_array, size_of

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), np.uint8)
LABELS = RNG.integers(0, 4, (5, 7), np.uint8)


def saved(folder: Path, array: Any, **options: Any) -> Path:
    np.save(folder / "a.npy", array, **options)
    return folder / "a.npy"


def read(path: Path) -> np.ndarray:
    return read_array(path, lambda height, width: None)


def refusal(call: Any, *given: Any) -> str:
    with pytest.raises(ImageError) as caught:
        call(*given)
    return caught.value.reason


@pytest.mark.parametrize("dtype", [bool, "i1", "u1", ">i2", "<u2", ">u2", "i4", "u4", "i8", "u8", "f2", "f4", ">f8"])
def test_masks_of_every_type_hold_their_labels(tmp_path: Path, dtype: str) -> None:
    labels = (LABELS > 1 if dtype is bool else LABELS).astype(dtype)
    for array in (labels, labels[None], labels[..., None], labels[None, None], np.asfortranarray(labels)):
        mask = read_mask(saved(tmp_path, array))
        assert np.array_equal(mask.array, labels)
        assert mask.legend is None
        assert mask.array.dtype in (np.uint8, np.int8, np.uint16, np.int32, np.uint32)
        assert size_of(tmp_path / "a.npy") == (5, 7)


def test_labels_keep_their_values_in_the_smallest_type_that_has_them(tmp_path: Path) -> None:
    for highest, lowest, dtype in (
        (255, 0, "u1"),
        (256, 0, "u2"),
        (65536, 0, "i4"),
        (2**32 - 1, 0, "u4"),
        (5, -1, "i1"),
    ):
        array = np.array([[lowest, highest]], np.int64)
        found = read_mask(saved(tmp_path, array)).array
        assert (found.dtype, found.tolist()) == (np.dtype(dtype), array.tolist())
    for beyond in (np.array([[0, 2**32]]), np.array([[-(2**31) - 1, 0]]), np.array([[0.0, np.inf]])):
        assert refusal(read_mask, saved(tmp_path, beyond)).startswith("a mask's labels have at most 32 bits; this file")


def test_fractions_are_no_labels(tmp_path: Path) -> None:
    for array, extent in ((LABELS / 4, "0 to 0.75"), (np.full((5, 7), np.nan), "no number")):
        assert refusal(read_mask, saved(tmp_path, array)) == (
            f"a mask of fractions ({extent}), such as probabilities, holds no labels; save where they are the object, "
            "as in `numpy.save('FILE.npy', array > 0.5)`"
        )


def test_photos_of_8_and_16_bits_come_back_exactly(tmp_path: Path) -> None:
    alpha = np.dstack([RGB, RGB[..., :1]])
    for array, samples in (
        (RGB, RGB),
        (RGB[None], RGB),
        (alpha, RGB),
        (LABELS, np.dstack([LABELS] * 3)),
        (RGB.astype(">u2") * 200, RGB.astype(np.uint16) * 200),
        (alpha.astype(np.uint16) * 200, RGB.astype(np.uint16) * 200),
        (LABELS.astype(np.uint16)[..., None] * 9, np.dstack([LABELS.astype(np.uint16) * 9] * 3)),
    ):
        photo = load_photo(saved(tmp_path, array))
        assert photo.samples.dtype == samples.dtype
        assert np.array_equal(photo.samples, samples)
        assert (photo.orientation, photo.frames, photo.size) == (1, 1, (5, 7))


def test_photos_without_a_known_range_are_refused(tmp_path: Path) -> None:
    advice = "samples have no defined range; save the photo with 8 or 16 bits a channel, unsigned (this file has"
    grey = RGB[..., 0]
    assert refusal(load_photo, saved(tmp_path, grey / 255)).startswith(f"floating-point {advice} ")
    wide = np.array([[0, 300]])
    assert refusal(load_photo, saved(tmp_path, wide)) == f"64-bit integer {advice} signed 0 to 300)"
    assert refusal(load_photo, saved(tmp_path, wide.astype(np.uint32))) == f"32-bit integer {advice} unsigned 0 to 300)"
    assert refusal(load_photo, saved(tmp_path, grey > 9)) == (
        "true and false are no samples of a photo; expected unsigned ones of 8 or 16 bits"
    )


def test_colours_in_a_mask_are_colours(tmp_path: Path) -> None:
    colours = np.zeros((5, 7, 3), np.uint8)
    colours[1:3, 2:5] = (200, 0, 10)
    assert [str(value) for value in read_mask(saved(tmp_path, colours)).values()] == ["0", "#c8000a"]
    assert refusal(read_mask, saved(tmp_path, colours.astype(np.uint16))) == (
        "a mask cannot have several 16-bit channels; save it as 8-bit or 16-bit grey"
    )
    alpha = np.dstack([colours, LABELS * 60])
    assert np.array_equal(read_mask(saved(tmp_path, alpha), "alpha").array, LABELS * 60)
    assert np.array_equal(
        read_mask(saved(tmp_path, alpha.astype(np.uint16) * 9), "alpha").array, LABELS.astype(int) * 540
    )
    assert np.array_equal(read_mask(saved(tmp_path, LABELS.astype(np.int64)), "red").array, LABELS)


@pytest.mark.parametrize(
    ("shape", "dtype", "advice"),
    [
        ((3, 5, 7), "uint8", "; with channels first: `numpy.save('FILE.npy', numpy.moveaxis(array, 0, -1))`"),
        (
            (6, 5, 7),
            "float32",
            "; with a mask for each class: `numpy.argmax` over the classes, or save the one that is meant",
        ),
        (
            (5, 7, 3),
            "int64",
            "; with a mask for each class: `numpy.argmax` over the classes, or save the one that is meant",
        ),
        ((5, 7, 3, 2), "uint8", ""),
        ((5,), "uint8", ""),
        ((), "uint8", ""),
        ((0, 7), "uint8", ""),
        ((5, 7), "complex64", ""),
        ((5, 7), "datetime64[s]", ""),
        ((5, 7), "<U3", ""),
        ((5, 7), "[('a', '<i8')]", ""),
    ],
)
def test_other_shapes_and_types_say_what_was_found(tmp_path: Path, shape: tuple, dtype: str, advice: str) -> None:
    array = np.zeros(shape, [("a", "<i8")] if dtype.startswith("[") else dtype)
    for reader in (load_photo, load_mask):
        assert refusal(reader, saved(tmp_path, array)) == (
            f"an array of shape {shape} and type {dtype}; expected (H, W) of labels or grey, or (H, W, 3) of RGB, "
            f"perhaps with alpha, in uint8 or uint16{advice}"
        )


class Trap:
    """Leaves a trace if it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("sprung",)


def test_objects_are_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path, np.array([[Trap()]], object), allow_pickle=True)
    for reader in (load_photo, load_mask):
        assert refusal(reader, path).startswith("an array of Python objects, which are pickled and never loaded,")
    fields = np.zeros((5, 7), [("a", object)])
    assert refusal(read_mask, saved(tmp_path, fields, allow_pickle=True)).startswith("an array of Python objects")
    path.write_bytes(pickle.dumps(Trap()))
    assert refusal(read_mask, path).startswith("a Python pickle, which is never loaded")
    assert not (tmp_path / "sprung").exists()
    np.load(saved(tmp_path, np.array([[Trap()]], object), allow_pickle=True), allow_pickle=True)
    assert (tmp_path / "sprung").is_dir()  # the trap works


def test_a_file_that_is_cut_off_says_so(tmp_path: Path) -> None:
    path = saved(tmp_path, np.zeros((50, 70)))
    whole = path.read_bytes()
    for kept in (8, 9, 30, 127):
        path.write_bytes(whole[:kept])
        assert refusal(read, path).startswith("a NumPy file with a damaged header: ")
    for kept in (128, 500, len(whole) - 1):
        path.write_bytes(whole[:kept])
        assert refusal(read, path) == f"it is cut off: it holds {kept - 128} of the 28000 bytes of its array"
    path.write_bytes(whole + b"more")
    assert read(path).shape == (50, 70)


def test_a_header_that_lies_asks_for_no_memory(tmp_path: Path) -> None:
    path = saved(tmp_path, np.zeros((50, 70), np.uint8))
    lie = path.read_bytes().replace(b"(50, 70), ", b"(50000, 9)")
    path.write_bytes(lie)
    assert refusal(read, path) == "it is cut off: it holds 3500 of the 450000 bytes of its array"


def test_the_limit_of_megapixels_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGTUNE_MAX_MEGAPIXELS", "1")
    path = saved(tmp_path, np.zeros((1001, 1000), np.uint8))
    for reader in (load_photo, load_mask):
        assert refusal(reader, path).startswith("1001 x 1000 pixels are 1 megapixels, more than 1; if there is memory")
