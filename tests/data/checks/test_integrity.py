"""Every kind of problem, planted by hand in small data sets."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtune.data.checks.integrity import check_data, report, small_objects
from segtune.data.labels import Foreground
from segtune.data.sources.base import Pair, Problem

SHAPE = (12, 16)


class Folder:
    """Writes pairs with a random photo each and a mask of given values."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rng = np.random.default_rng(0)
        for folder in ("images", "masks"):
            (root / folder).mkdir()

    def pair(self, name: str, mask: np.ndarray, photo: np.ndarray | None = None, suffix: str = "png") -> Pair:
        if photo is None:
            photo = self.rng.integers(0, 256, (*SHAPE, 3), np.uint8)
        pair = Pair(name, self.root / f"images/{name}.png", self.root / f"masks/{name}.{suffix}")
        Image.fromarray(photo).save(pair.photo)
        Image.fromarray(mask).save(pair.mask)
        return pair


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def half(*values: int, dtype: type = np.uint8) -> np.ndarray:
    """A mask that is 0 in its left half and shares the rest among values."""
    mask = np.zeros(SHAPE, dtype)
    mask[:, 8:] = np.resize(values, (SHAPE[0], 8))
    return mask


def problems(
    rule: object = "auto", invert: bool = False, ignore: tuple[int | str, ...] = (), **splits: list[Pair]
) -> list[str]:
    return [str(problem) for problem in check_data(splits, Foreground(rule, invert, ignore), workers=2)[1]]


@pytest.mark.parametrize("value", [1, 255, 128])
def test_sound_data_has_no_problem(folder: Folder, value: int) -> None:
    assert problems(train=[folder.pair("a", half(value)), folder.pair("b", half(value))]) == []


def test_progress_counts_every_pair(folder: Folder) -> None:
    pairs = [folder.pair(name, half(1)) for name in "abc"]
    calls: list[tuple[int, int]] = []
    check_data({"train": pairs}, Foreground(), workers=1, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_unreadable_files_are_all_listed(folder: Folder) -> None:
    pairs = [folder.pair(name, half(1)) for name in "abc"]
    pairs[0].photo.write_bytes(b"")
    pairs[0].mask.write_bytes(b"junk")
    whole = pairs[1].photo.read_bytes()
    pairs[1].photo.write_bytes(whole[: len(whole) // 2])
    found = problems(train=pairs)
    assert found[:2] == [
        "error: images/a.png: unreadable: the file is empty",
        "error: masks/a.png: unreadable: a text that begins with 'junk', not an image",
    ]
    assert found[2].startswith("error: images/b.png: unreadable: ")
    assert len(found) == 3


def test_sizes_that_differ(folder: Folder) -> None:
    pairs = [folder.pair("a", half(1)[:-2]), folder.pair("b", np.ascontiguousarray(half(1).T))]
    assert problems(train=pairs) == [
        "error: a: sizes differ: photo 12 x 16, mask 10 x 16 (height x width); a mask must have the size of its photo",
        "error: b: sizes differ: photo 12 x 16, mask 16 x 12 (height x width); they are each other's transpose, "
        "by no EXIF orientation: turn one of them",
    ]


def test_a_rotated_photo_fits_the_mask_of_what_it_shows(folder: Folder) -> None:
    pair = folder.pair("a", np.ascontiguousarray(half(1).T))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(pair.photo).save(pair.photo, exif=exif)
    assert problems(train=[pair]) == []


def test_several_ids_are_ambiguous_only_under_auto(folder: Folder) -> None:
    pairs = [folder.pair("a", half(1, 2)), folder.pair("b", half(2)), folder.pair("c", half(255))]
    assert problems(train=pairs) == [
        "error: masks: ambiguous mask values: data.foreground=auto needs exactly one non-zero value, got 3; "
        "values (with the number of masks): 1 in 1, 2 in 2, 255 in 1. This looks like ids of several classes: name "
        "those you want, as in data.foreground=[2], or take all of them with data.foreground=nonzero."
    ]
    for rule in ("nonzero", 1, (1, 2, 255)):
        assert problems(rule, train=pairs) == []


def test_grey_edges_are_told_from_ids(folder: Folder) -> None:
    blurred = folder.pair("a", half(*range(56, 256, 4)))
    assert problems(train=[blurred]) == [
        "error: masks: ambiguous mask values: data.foreground=auto needs exactly one non-zero value, got 50; "
        "values (with the number of masks): 56 in 1, 60 in 1, 64 in 1, 68 in 1, 72 in 1, 76 in 1, 80 in 1, 84 in 1, "
        ".... This looks like grey edges from JPEG or anti-aliasing (51 values in one mask): take the bright half with "
        "data.foreground=126."
    ]
    jpeg = folder.pair("b", half(255), suffix="jpg")
    ringing = np.asarray(Image.open(jpeg.mask)).copy()
    assert len(np.unique(ringing)) >= 2
    ringing[0, 0], ringing[0, 1] = 3, 252  # few values, yet a JPEG
    Image.fromarray(ringing).save(jpeg.mask, format="PNG")
    (found,) = problems(train=[jpeg])
    assert found.endswith("take the bright half with data.foreground=128.")
    assert problems(128, train=[jpeg]) == []


def test_rules_that_nothing_meets(folder: Folder) -> None:
    pairs = [folder.pair("a", half(1, 2)), folder.pair("b", half(2))]
    values = "values (with the number of masks): 0 in 2, 1 in 1, 2 in 2"
    assert problems((2, 7, 9), train=pairs) == [
        f"error: masks: ids of data.foreground that occur in no mask: 7, 9; {values}"
    ]
    assert problems(128, train=pairs) == [
        f"error: masks: no mask reaches data.foreground=128: the largest value is 2; {values}"
    ]


def test_wide_masks_are_counted_too(folder: Folder) -> None:
    pair = folder.pair("a", half(40_000, dtype=np.uint16))
    assert problems(train=[pair]) == []
    assert problems(40_001, train=[pair]) == [
        "error: masks: no mask reaches data.foreground=40001: the largest value is 40000; values (with "
        "the number of masks): 0 in 1, 40000 in 1"
    ]


def test_masks_without_foreground(folder: Folder) -> None:
    train = [folder.pair("a", half(1))] + [folder.pair(f"e{i}", half(0)) for i in range(6)]
    val = [folder.pair("v", half(0))]
    assert problems(train=train, val=val) == [
        "warning: val: no object in this split: all 1 masks are empty, so its scores say only whether there are false "
        "alarms, and no epoch is chosen as the best; check data.foreground and data.invert",
        "warning: masks: no foreground: 7 of 8 masks (87.5%): train e0, train e1, train e2, train e3, "
        "train e4 and 2 more",
    ]


def test_training_masks_of_one_class(folder: Folder) -> None:
    empty, full = folder.pair("e", half(0)), folder.pair("f", np.ones(SHAPE, np.uint8))
    both = folder.pair("v", half(1))
    check = "check data.foreground and data.invert"
    no_foreground = f"error: train: no training mask has any foreground: all 1 are empty; {check}"
    no_background = f"error: train: no training mask has any background: all 1 are full; {check}"
    assert problems(train=[empty], val=[both]) == [no_foreground]
    assert problems(train=[full], val=[both]) == [no_background]
    assert problems(invert=True, train=[full], val=[both]) == [no_foreground]
    assert problems(train=[both], val=[full]) == []


@pytest.mark.parametrize("value", [1, 255])
def test_masks_of_one_value_in_the_whole_data_set(folder: Folder, value: int) -> None:
    full, empty = (folder.pair(name, np.full(SHAPE, each, np.uint8)) for name, each in (("f", value), ("e", 0)))
    check = "check data.foreground and data.invert (every mask is {} everywhere)"
    said = f"all 1 are full; {check.format(value)}"
    assert problems(train=[full]) == [f"error: train: no training mask has any background: {said}"]
    assert problems(all=[full]) == [f"error: masks: no mask has any background: {said}"]
    assert problems(train=[empty]) == [
        f"error: train: no training mask has any foreground: all 1 are empty; {check.format(0)}"
    ]


def test_masks_with_a_white_background_are_noticed_before_training(folder: Folder) -> None:
    mask = np.full(SHAPE, 255, np.uint8)
    mask[4:7, 5:9] = 0
    pairs = [folder.pair(name, mask) for name in "ab"]
    assert problems(train=pairs) == [
        "warning: masks: perhaps all inverted: in half of the masks at least 100% of the image's border is foreground; "
        "if that is the background, set data.invert=true"
    ]
    assert problems(invert=True, train=pairs) == []
    pairs = [folder.pair(name, ~mask) for name in "cd"]
    assert problems(train=pairs) == []
    assert problems(invert=True, train=pairs) == [
        "warning: masks: perhaps all inverted: in half of the masks at least 100% of the image's border is foreground; "
        "if that is the background, set data.invert=false"
    ]


def test_masks_of_which_half_are_inverted_are_noticed(folder: Folder) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:7, 5:9] = 255
    black, white = ([folder.pair(f"{name}{i}", each) for i in range(3)] for name, each in (("b", mask), ("w", ~mask)))
    assert problems(train=black + white) == [
        "warning: masks: perhaps half inverted: foreground is the image's whole border in 3 masks and none of it in 3, "
        "as where the object is white in some masks and black in others: compare train w0 and train b0"
    ]
    assert problems(train=black[:1] + white) == [
        "warning: masks: perhaps all inverted: in half of the masks at least 100% of the image's border is foreground; "
        "if that is the background, set data.invert=true, and invert the masks in which it is nowhere on the border: "
        "train b0"
    ]


def test_a_threshold_above_the_object_of_some_masks_is_said(folder: Folder) -> None:
    pairs = [folder.pair(f"m{i}", half(value)) for i, value in enumerate((1, 255, 1, 255))]
    assert problems(128, train=pairs) == [
        "warning: masks: no foreground: 2 of 4 masks (50.0%): train m0, train m2; 2 of them hold values below "
        "data.foreground=128: values (with the number of masks): 1 in 2; if they are the object in these masks, set "
        "data.foreground=nonzero"
    ]
    assert problems(1, train=pairs) == []


def test_the_same_image_twice(folder: Folder) -> None:
    photo = np.arange(SHAPE[0] * SHAPE[1] * 3, dtype=np.uint8).reshape(*SHAPE, 3)
    a, b, c = (folder.pair(name, half(1), photo) for name in "abc")
    copy = Pair("c", c.photo.with_suffix(".bmp"), c.mask)
    Image.open(c.photo).save(copy.photo)  # other bytes, the same pixels
    near = folder.pair("d", half(1), photo ^ np.uint8(1))
    assert problems(train=[a, near], val=[copy]) == [
        "error: a: the same image in two splits: scores would be optimistically biased; keep one of train a, val c"
    ]
    assert problems(train=[a, b]) == ["warning: a: the same image twice in one split: train a, train b"]


def test_the_report_puts_errors_first_and_cuts_each_kind() -> None:
    missing = [Problem("error", f"images/{i}.jpg", f"photo without mask: no masks/{i}.*") for i in range(25)]
    found = [
        Problem("warning", "masks", "no foreground: 1"),
        *missing,
        Problem("error", "a", "sizes differ: 1, 2"),
    ]
    lines = report(found).splitlines()
    assert lines[0] == "error: images/0.jpg: photo without mask: no masks/0.*"
    assert lines[20:] == [
        "... and 5 more of this kind",
        "error: a: sizes differ: 1, 2",
        "warning: masks: no foreground: 1",
    ]
    assert report([]) == ""


@pytest.mark.parametrize(
    ("only", "of", "expected"),
    [
        (0, 4, None),
        (1, 4, None),
        (2, 4, "all objects in 50% of the images with objects"),
        (4, 4, "all 9 objects"),
    ],
)
def test_objects_smaller_than_a_cell(only: int, of: int, expected: str | None) -> None:
    facts = {"objects": 9, "cell": 16, "pictures": of, "pictures_of_small_only": only}
    found = [str(each) for each in small_objects(facts, "layer4")]
    assert found == [
        f"warning: masks: small objects: {expected} are smaller than a cell of the deepest tap, layer4 (16 x 16 pixels "
        "at the network's input size), where they share a cell with their surroundings; increase data.image_size, or "
        "use a shallower tap or a smaller backbone.output_stride"
    ] * (expected is not None)
    assert small_objects({"objects": 0, "cell": 16}, "layer4") == []


def test_void_is_neither_object_nor_background(folder: Folder) -> None:
    partly, whole = half(1, 255), np.full(SHAPE, 255, np.uint8)
    pairs = [folder.pair(name, mask) for name, mask in (("a", partly), ("b", whole), ("c", half(1)))]
    listed = "wholly void: 1 of 3 masks, which count nowhere: train b; check data.ignore"
    assert problems(ignore=(255,), train=pairs) == [f"warning: masks: {listed}"]  # b is neither empty nor full
    (error, _) = problems(ignore=(255,), train=pairs[1:2])
    assert error == "error: train: nothing but void: no pixel of all 1 masks has a label; check data.ignore"
    (found,) = problems(ignore=(0,), train=pairs[2:])
    assert found == (
        "error: train: no training mask has any background: all 1 are full; check data.foreground, data.ignore and "
        "data.invert (every mask is 1 everywhere)"
    )
