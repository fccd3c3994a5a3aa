"""Conventions of masks in whole data sets: what is unambiguous is read right, the rest is refused with its settings."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segtune.data.checks.mask_values import list_values, order, value_problems
from segtune.data.checks.scan import scan
from segtune.data.images import read_mask
from segtune.data.labels import Colour, Foreground
from segtune.data.sources.base import Pair
from segtune.metrics import VOID

BLACK, WHITE, RED, GREEN = 0x000000, 0xFFFFFF, 0xE6194B, 0x3CB44B
TRUTHS = [cv2.circle(np.zeros((48, 48), np.uint8), (16 + 2 * i, 22), 8 + i, 1, -1) for i in range(4)]


def palette(indices: np.ndarray, *colours: int) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette([part for rgb in colours for part in rgb.to_bytes(3, "big")])
    return image


def in_colour(indices: np.ndarray, *colours: int) -> Image.Image:
    return palette(indices, *colours).convert("RGB")


def grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values)


def one_bit(truth: np.ndarray) -> Image.Image:
    return Image.fromarray(truth.astype(bool))


def every_other(
    even: Callable[[np.ndarray], Image.Image], odd: Callable[[np.ndarray], Image.Image]
) -> list[Image.Image]:
    return [(odd if i % 2 else even)(truth) for i, truth in enumerate(TRUTHS)]


def both_orders(one: int, two: int) -> list[Image.Image]:
    """Palette masks in which the object has the colour `two`; half of the palettes begin with it."""
    return every_other(lambda t: palette(t, one, two), lambda t: palette(1 - t, two, one))


class Data:
    def __init__(self, folder: Path, masks: Sequence[Image.Image], suffix: str = "png", **options: object) -> None:
        rng = np.random.default_rng(0)
        self.pairs = []
        for number, mask in enumerate(masks):
            pair = Pair(f"m{number}", folder / f"m{number}.png", folder / f"m{number}_mask.{suffix}")
            Image.fromarray(rng.integers(0, 256, (*mask.size[::-1], 3), np.uint8)).save(pair.photo)
            mask.save(pair.mask, **options)
            self.pairs.append(pair)

    def problems(self, rule: object = "auto", *ignore: int | str) -> list[str]:
        foreground = Foreground(rule, ignore=ignore)
        seen, _ = scan({"train": self.pairs}, foreground, workers=1)
        return [str(problem) for problem in value_problems(seen, foreground)]

    def read(self, rule: object = "auto", *ignore: int | str) -> list[np.ndarray]:
        assert self.problems(rule, *ignore) == []
        return [Foreground(rule, ignore=ignore)(read_mask(pair.mask)) for pair in self.pairs]


UNAMBIGUOUS = {
    "palettes of black and white in both orders": both_orders(BLACK, WHITE),
    "palettes of black and red in both orders": both_orders(BLACK, RED),
    "palettes and grey": every_other(lambda t: palette(t, BLACK, WHITE), lambda t: grey(t * 255)),
    "palettes and colours": every_other(lambda t: palette(1 - t, RED, BLACK), lambda t: in_colour(t, BLACK, RED)),
    "red palettes and grey, both with 1": every_other(lambda t: palette(t, BLACK, RED), grey),
    "1-bit and 0/255": every_other(one_bit, lambda t: grey(t * 255)),
    "1-bit and 0/1": every_other(one_bit, grey),
    "8-bit and 16-bit": every_other(grey, lambda t: grey(t.astype(np.uint16))),
    "32-bit": [grey(truth.astype(np.int32) * 70_000) for truth in TRUTHS],
    "colours": [in_colour(truth, BLACK, RED) for truth in TRUTHS],
}


@pytest.mark.parametrize("kind", UNAMBIGUOUS)
def test_one_object_is_read_whatever_its_number(tmp_path: Path, kind: str) -> None:
    masks = UNAMBIGUOUS[kind]
    data = Data(tmp_path, masks, "tif" if kind == "32-bit" else "png")
    assert np.array_equal(data.read(), TRUTHS)
    assert np.array_equal(data.read("nonzero"), TRUTHS)


def test_a_file_of_one_colour_is_all_object_if_that_is_the_object(tmp_path: Path) -> None:
    zeros = np.zeros((48, 48), np.uint8)
    data = Data(tmp_path, [palette(TRUTHS[0], BLACK, RED), palette(zeros, RED), in_colour(zeros, RED), grey(zeros)])
    assert [mask.mean() for mask in data.read()] == [TRUTHS[0].mean(), 1, 1, 0]


def test_palettes_without_black_name_their_colours(tmp_path: Path) -> None:
    for number, masks in enumerate((both_orders(WHITE, RED), [palette(truth, WHITE, RED) for truth in TRUTHS])):
        (tmp_path / str(number)).mkdir()
        data = Data(tmp_path / str(number), masks)
        (problem,) = data.problems()
        assert problem.startswith(
            "error: masks: ambiguous mask colours: data.foreground=auto needs black and exactly one other colour, "
            "got 2 others; values (with the number of masks): 0 ("
        )
        choices = {"data.foreground=[#e6194b]", "data.foreground=[#ffffff]"}
        start = (
            "None of the 4 masks has black, so none of these is the background by itself. Name those of the object: "
        )
        assert set(problem.partition(start)[2].removesuffix(".").split(" or ")) == choices
        assert np.array_equal(data.read(("#e6194b",)), TRUTHS)
        assert np.array_equal(data.read(("#ffffff",)), [1 - truth for truth in TRUTHS])
        (problem,) = data.problems("nonzero")
        assert problem.startswith("error: masks: data.foreground=nonzero takes everything: no mask has 0 or black; ")
    assert np.array_equal(data.read((1,)), TRUTHS)  # every palette has the same order


def test_numbers_are_refused_where_they_do_not_mean_the_same(tmp_path: Path) -> None:
    data = Data(tmp_path, both_orders(BLACK, RED))
    assert data.problems((1,)) == [
        "error: masks: numbers of data.foreground do not mean the same in all masks, whose palettes or kinds differ; "
        "values (with the number of masks): 0 in 2, 0 (#e6194b) in 2, 1 (#000000) in 2, 1 (#e6194b) in 2. Name colours "
        "instead: data.foreground=[#e6194b]"
    ]
    data = Data(tmp_path, every_other(one_bit, lambda t: grey(t * 255)))
    for number in (1, 255):
        assert data.problems((number,)) == [
            "error: masks: numbers of data.foreground do not mean the same in all masks, whose palettes or kinds "
            "differ; values (with the number of masks): 0 in 4, 1 (#ffffff) in 2, 255 in 2. Name colours instead: "
            "data.foreground=[#ffffff]"
        ]
    assert np.array_equal(data.read(("#ffffff",)), TRUTHS)
    assert np.array_equal(data.read(128), TRUTHS)


def test_thresholds_compare_greys_but_not_where_indices_may_be_meant(tmp_path: Path) -> None:
    thirds = [truth + cv2.erode(truth, np.ones((3, 3), np.uint8)) for truth in TRUTHS]
    data = Data(tmp_path, [palette(third, BLACK, 0x7F7F7F, WHITE) for third in thirds])
    assert np.array_equal(data.read(128), [third > 1 for third in thirds])
    assert data.problems(2) == [
        "error: masks: data.foreground=2 is ambiguous: palette indices and grey values of the masks differ; values "
        "(with the number of masks): 0 in 4, 1 (#7f7f7f) in 4, 2 (#ffffff) in 4. Name those of the object: "
        "data.foreground=[#7f7f7f] or data.foreground=[#ffffff]"
    ]
    data = Data(tmp_path, [palette(third, BLACK, RED, GREEN) for third in thirds])
    assert np.array_equal(data.read(2), [third > 1 for third in thirds])


def test_colours_of_several_classes(tmp_path: Path) -> None:
    classes = [truth + cv2.erode(truth, np.ones((5, 5), np.uint8)) for truth in TRUTHS]
    data = Data(tmp_path, [in_colour(each, BLACK, RED, GREEN) for each in classes])
    found = "error: masks: ambiguous mask colours: data.foreground=auto needs black and exactly one other colour, got 2"
    choices = (
        "data.foreground=[#3cb44b] or data.foreground=[#e6194b]; or take all but black with data.foreground=nonzero"
    )
    assert data.problems() == [
        f"{found} others; values (with the number of masks): #3cb44b in 4, #e6194b in 4. Name those of the object: "
        f"{choices}."
    ]
    assert np.array_equal(data.read(("#3cb44b",)), [each == 2 for each in classes])
    assert data.problems(("#3cb44c",)) == [
        "error: masks: colours of data.foreground that occur in no mask: #3cb44c; values (with the number of masks): "
        "0 in 4, #3cb44b in 4, #e6194b in 4"
    ]
    data = Data(tmp_path, every_other(lambda t: in_colour(t, BLACK, RED), lambda t: in_colour(t, BLACK, GREEN)))
    assert data.problems() == [
        f"{found} others; values (with the number of masks): #3cb44b in 2, #e6194b in 2. No mask has two of them. Name "
        f"those of the object: {choices}."
    ]


def test_two_conventions_in_one_data_set(tmp_path: Path) -> None:
    data = Data(tmp_path, every_other(grey, lambda t: grey(t * 255)))
    assert data.problems() == [
        "error: masks: ambiguous mask values: data.foreground=auto needs exactly one non-zero value, got 2; values "
        "(with the number of masks): 1 in 2, 255 in 2. No mask has both of them. If they mean the same object, as in "
        "masks of two tools, set data.foreground=nonzero; if they are two classes, take one with data.foreground=[1] "
        "or data.foreground=[255]."
    ]
    assert np.array_equal(data.read("nonzero"), TRUTHS)
    masks = every_other(one_bit, grey) + [grey(truth * 255) for truth in TRUTHS]
    assert "got 2 others" in Data(tmp_path, masks).problems()[0]


def test_a_stray_mask_is_named(tmp_path: Path) -> None:
    data = Data(tmp_path, [grey(TRUTHS[0] * 255)] * 12 + [grey(TRUTHS[1] * 7)])
    assert data.problems()[0].endswith(" Rare values are in train m12.")


def ids(count: int, dtype: type, *, zero: bool = True) -> Image.Image:
    """Return ids from 1 of squares, one pixel apart or, without zero, side by side."""
    numbers = np.arange(1, 401).reshape(20, 20)
    mask = np.kron(np.where(numbers > count, 0 if zero else count, numbers), np.ones((4, 4), int))
    if zero:
        mask[::4] = mask[:, ::4] = 0
    return Image.fromarray(mask.astype(dtype))


@pytest.mark.parametrize(("count", "dtype"), [(40, np.uint8), (300, np.uint16), (300, np.int32)])
def test_ids_of_objects_are_no_edges(tmp_path: Path, count: int, dtype: type) -> None:
    suffix = "tif" if dtype == np.int32 else "png"
    start = f"error: masks: ambiguous mask values: data.foreground=auto needs exactly one non-zero value, got {count}; "
    (problem,) = Data(tmp_path, [ids(count, dtype)] * 2, suffix).problems()
    assert problem.startswith(start)
    assert problem.endswith(
        "This looks like ids of objects or of many classes: name those you want, as in data.foreground=[1], or take "
        "all of them with data.foreground=nonzero."
    )
    (problem,) = Data(tmp_path, [ids(count, dtype, zero=False)] * 2, suffix).problems()
    assert problem.startswith(start)
    assert problem.endswith(
        "None of the 2 masks has 0, so none of these is the background by itself. Name those of the object: as in "
        "data.foreground=[1]. All but one, such as 1: data.foreground=[1] data.invert=true."
    )


def test_ids_in_a_lossless_webp_are_no_edges(tmp_path: Path) -> None:
    data = Data(tmp_path, [ids(40, np.uint8).convert("RGB")], "webp", lossless=True)
    assert "This looks like ids of objects" in data.problems()[0]


def test_trimaps_without_0_are_never_offered_nonzero(tmp_path: Path) -> None:
    outline = [cv2.morphologyEx(truth, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)) for truth in TRUTHS]
    trimaps = [np.where(edge, 3, 2 - truth).astype(np.uint8) for edge, truth in zip(outline, TRUTHS, strict=True)]
    data = Data(tmp_path, list(map(grey, trimaps)))
    values = "values (with the number of masks): 1 in 4, 2 in 4, 3 in 4. "
    choices = "data.foreground=[1] or data.foreground=[2] or data.foreground=[3]"
    assert data.problems() == [
        f"error: masks: ambiguous mask values: data.foreground=auto needs exactly one non-zero value, got 3; {values}"
        "None of the 4 masks has 0, so none of these is the background by itself. Name those of the object: "
        f"{choices}. All but one, such as 1: data.foreground=[1] data.invert=true. (In the trimaps of the Oxford-IIIT "
        "pets 1 is the animal, 2 the background and 3 the outline between them; data.foreground=[1] data.ignore=3 "
        "leaves the outline out.)"
    ]
    assert data.problems("nonzero") == [
        f"error: masks: data.foreground=nonzero takes everything: no mask has 0 or black; {values}Name those of the "
        f"object: {choices}"
    ]
    assert np.array_equal(data.read((1, 3)), [trimap != 2 for trimap in trimaps])
    assert np.array_equal(data.read((1,), 3), [np.where(trimap == 3, VOID, trimap == 1) for trimap in trimaps])
    (problem,) = Data(tmp_path, [*map(grey, trimaps), grey(TRUTHS[0] * 0)]).problems()
    assert "Only 1 of 5 masks have 0, so" in problem


def voc(truth: np.ndarray, number: int) -> np.ndarray:
    edge = cv2.morphologyEx(truth, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    return np.where(edge, 255, truth * number).astype(np.uint8)


ON_VOID = (
    "255 beside ids usually means void, pixels without a label: data.ignore=255 leaves it out of loss and scores, "
    "data.foreground=[{}] makes it background, nonzero makes it object."
)


def test_255_beside_ids_is_said_to_be_void(tmp_path: Path) -> None:
    masks = [voc(truth, 1 + i % 2) for i, truth in enumerate(TRUTHS)]
    colours = [BLACK, 0x800000, 0x008000, *range(3, 255), 0xE0E0C0]
    listed = {"grey": "1 in 2, 2 in 2, 255 in 4", "VOC": "1 (#800000) in 2, 2 (#008000) in 2, 255 (#e0e0c0) in 4"}
    for kind, values in listed.items():
        data = Data(tmp_path, [grey(mask) if kind == "grey" else palette(mask, *colours) for mask in masks])
        assert data.problems() == [
            "error: masks: ambiguous mask values: data.foreground=auto needs exactly one non-zero value, got 3; values "
            f"(with the number of masks): {values}. This looks like ids of several classes: name those you want, as in "
            f"data.foreground=[1], or take all of them with data.foreground=nonzero. {ON_VOID.format('1,2')}"
        ]
        for rule, text in (
            ("nonzero", "object: data.foreground=nonzero takes 255 too"),
            ((1,), "background: data.foreground does not name 255"),
        ):
            assert data.problems(rule) == [
                f"warning: masks: perhaps void as {text}; values (with the number of masks): {values}. "
                + ON_VOID.format("1,2")
            ]
        assert data.problems((1, 255)) == []  # named, so meant
        for rule, label in (("nonzero", [1, 2]), ((1,), [1])):
            expected = [np.where(mask == 255, VOID, np.isin(mask, label)) for mask in masks]
            assert np.array_equal(data.read(rule, 255), expected)
    data = Data(tmp_path, [grey(voc(truth, 1)) for truth in TRUTHS])
    (problem,) = data.problems()
    assert problem.endswith(f". With data.ignore=255 the object is 1. {ON_VOID.format('1')}")
    assert np.array_equal(data.read("auto", 255), [np.where(voc(t, 1) == 255, VOID, voc(t, 1)) for t in TRUTHS])
    (problem,) = Data(tmp_path, [grey(voc(truth, 128)) for truth in TRUTHS]).problems()
    assert problem.endswith(
        "name those you want, data.foreground=[128] or data.foreground=[255], or take all of them with "
        "data.foreground=nonzero."
    )


@pytest.mark.parametrize(("rule", "taken"), [(1, "255 too"), (128, "only 255"), (255, "only 255")])
def test_a_threshold_that_takes_void_is_warned_of(tmp_path: Path, rule: int, taken: str) -> None:
    data = Data(tmp_path, [grey(voc(truth, 1)) for truth in TRUTHS])
    assert data.problems(rule) == [
        f"warning: masks: perhaps void as object: data.foreground={rule} takes {taken}; values (with the number of "
        f"masks): 1 in 4, 255 in 4. {ON_VOID.format('1')}"
    ]


def test_the_void_colour_of_voc_is_recognised_without_numbers(tmp_path: Path) -> None:
    colours = [BLACK, RED, *range(2, 255), 0xE0E0C0]
    data = Data(tmp_path, [in_colour(voc(truth, 1), *colours) for truth in TRUTHS])
    on_void = (
        " #e0e0c0 beside other colours usually means void, pixels without a label: data.ignore=#e0e0c0 leaves it out "
        "of loss and scores, other colours in data.foreground make it background, nonzero makes it object."
    )
    assert data.problems() == [
        "error: masks: ambiguous mask colours: data.foreground=auto needs black and exactly one other colour, got 2 "
        "others; values (with the number of masks): #e0e0c0 in 4, #e6194b in 4. Name those of the object: "
        f"data.foreground=[#e6194b]; or take all but black with data.foreground=nonzero.{on_void}"
    ]
    for rule, text in (
        ("nonzero", "object: data.foreground=nonzero takes #e0e0c0 too"),
        (("#e6194b",), "background: data.foreground does not name #e0e0c0"),
    ):
        (problem,) = data.problems(rule)
        assert problem.startswith(f"warning: masks: perhaps void as {text}; values")
        assert problem.endswith(on_void)
    expected = [np.where(voc(truth, 1) == 255, VOID, voc(truth, 1)) for truth in TRUTHS]
    for rule in ("auto", "nonzero", ("#e6194b",)):
        assert np.array_equal(data.read(rule, "#e0e0c0"), expected)


@pytest.mark.parametrize("rule", ["nonzero", 1])
def test_masks_of_which_a_rule_takes_everything_are_named(tmp_path: Path, rule: object) -> None:
    masks = [grey(truth if i < 1 else truth + 1) for i, truth in enumerate(TRUTHS)]
    assert Data(tmp_path, masks).problems(rule) == [
        f"warning: masks: everything taken: data.foreground={rule} takes all values of 3 masks that have several: "
        "train m1, train m2, train m3; values (with the number of masks): 0 in 1, 1 in 4, 2 in 3"
    ]
    full = [*masks[:1], *(grey(truth * 0 + 1) for truth in TRUTHS[1:])]
    assert Data(tmp_path, full).problems(rule) == []


def test_half_of_the_brightest_value_is_offered_with_a_word_on_ids(tmp_path: Path) -> None:
    masks = [cv2.GaussianBlur(truth * 200, (5, 5), 0) for truth in TRUTHS]
    (problem,) = Data(tmp_path, list(map(grey, masks))).problems()
    assert problem.endswith("with data.foreground=100, unless they are ids, which only lossless masks keep apart.")


def test_grey_edges_are_halved_and_never_taken_whole_in_silence(tmp_path: Path) -> None:
    large = [cv2.resize(truth * 255, (192, 192), interpolation=cv2.INTER_LINEAR) for truth in TRUTHS]
    soft = [cv2.resize(mask, (64, 64), interpolation=cv2.INTER_AREA) for mask in large]
    for masks, options in ((soft, {}), (large, {"suffix": "jpg", "quality": 80})):
        data = Data(tmp_path, list(map(grey, masks)), **options)
        (problem,) = data.problems()
        assert " This looks like grey edges from JPEG or anti-aliasing (" in problem
        assert problem.endswith(" values in one mask): take the bright half with data.foreground=128.")
        assert data.problems(128) == []
        for rule in ("nonzero", (255,)):
            (problem,) = data.problems(rule)
            assert problem.startswith(
                "warning: masks: grey edges: data.foreground=128 would take the bright half of them; values"
            )


def test_grey_edges_in_palettes_and_colours_are_halved_too(tmp_path: Path) -> None:
    soft = [cv2.resize(cv2.resize(t * 255, (192, 192)), (64, 64), interpolation=cv2.INTER_AREA) for t in TRUTHS]
    data = Data(tmp_path, [grey(mask).convert("RGB").quantize(6) for mask in soft])
    (problem,) = data.problems()
    assert problem.endswith(" This looks like blurred edges: take the bright half with data.foreground=128.")
    assert np.abs(np.mean(data.read(128)) - np.mean(TRUTHS)) < 0.01
    reds = [grey(np.uint8(mask[..., None] / 255 * (230, 25, 75) + 0.5)) for mask in soft]
    data = Data(tmp_path, reds)
    (problem,) = data.problems()
    assert problem.endswith(" This looks like blurred edges: take the bright half with data.foreground=115.")
    assert np.abs(np.mean(data.read(115)) - np.mean(TRUTHS)) < 0.01
    two = [grey(np.uint8(np.dstack([mask, mask[::-1], 0 * mask]))) for mask in soft]
    (problem,) = Data(tmp_path, two).problems()
    assert problem.endswith(" This looks like blurred edges between colours: save the masks without anti-aliasing.")


def test_values_are_listed_by_number_the_most_common_ones() -> None:
    masks = {Colour(-1, RED): 3, 255: 2, Colour(1, GREEN): 9, 0: 9} | {value: 1 for value in range(10, 20)}
    assert list_values(masks) == (
        "values (with the number of masks): 0 in 9, 1 (#3cb44b) in 9, 10 in 1, 11 in 1, 12 in 1, 13 in 1, 255 in 2, "
        "#e6194b in 3, ..."
    )
    assert sorted([255, Colour(-1, RED), Colour(1, RED), 1, Colour(-1, GREEN)], key=order) == [
        1,
        Colour(1, RED),
        255,
        Colour(-1, GREEN),
        Colour(-1, RED),
    ]
