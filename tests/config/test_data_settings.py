from dataclasses import asdict, replace

import pytest

from segtune.config.data_settings import FOUND, AugmentSettings, DataSettings, of_earlier_run
from segtune.config.parse import parse
from segtune.errors import UserError


def test_sizes_are_height_and_width() -> None:
    settings = DataSettings(name="folder", root="photos", image_size=[64, 96])
    assert settings.size == settings.evaluation_size == (64, 96)
    assert DataSettings(name="folder", root="photos", eval_size=128).evaluation_size == (128, 128)
    tiles = DataSettings(name="folder", root="photos", image_size=64, eval_tile=256)
    assert (tiles.size, tiles.evaluation_size) == ((64, 64), (256, 256))


def test_tiles_as_text() -> None:
    assert DataSettings("folder", "photos").tiles == ""
    tiles = DataSettings("folder", "photos", eval_tile=256, eval_overlap=0.5)
    assert tiles.tiles == "in tiles of 256 x 256 pixels that share 50%"


def test_the_shares_leave_something_to_train_on() -> None:
    with pytest.raises(ValueError, match="leave nothing to train on"):
        DataSettings(name="folder", root="photos", val_share=0.5, test_share=0.5)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"eval_tile": 256, "eval_size": 128},
            "eval_tile=256 predicts an image at its own size, eval_size=128 at a fixed one: set only one of them.",
        ),
        ({"eval_tile": 64}, "eval_tile: got 64; expected: greater than or equal to 128."),
        ({"eval_overlap": 0.6}, "eval_overlap: got 0.6; expected: less than or equal to 0.5."),
    ],
)
def test_tiles_that_cannot_be(given: dict, expected: str) -> None:
    with pytest.raises(UserError) as error:
        parse(DataSettings, {"name": "folder", "root": "photos", **given})
    assert str(error.value) == f"One setting is wrong:\n  {expected}"


def test_a_crop_is_resized_or_of_fixed_size() -> None:
    resized = {"scale": [0.5, 1.0], "ratio": [1.0, 1.0]}
    found = [AugmentSettings(crop) for crop in (None, resized, {"object_fraction": 0})]
    assert [each.at_own_scale for each in found] == [False, False, True]
    assert [each.random for each in found] == [False, True, True]
    assert [each.crops_per_image for each in found] == [1, 1, 1]
    assert AugmentSettings({"object_fraction": 0, "per_image": 7}).crops_per_image == 7


@pytest.mark.parametrize(
    ("crop", "expected"),
    [
        (
            {"scale": [0.5, 1.0], "object_fraction": 0.5, "ratio": [1, 1]},
            "crop: got object_fraction and ratio, scale; expected object_fraction and per_image, for crops of "
            "data.image_size pixels that are not resized (augment=crops has them), or scale and ratio, for crops that "
            "are.",
        ),
        ({"object_fraction": 1.5}, "crop.object_fraction: got 1.5; expected a number from 0 to 1."),
        ({"object_fraction": float("nan")}, "crop.object_fraction: got nan; expected a number from 0 to 1."),
        ({"object_fraction": "half"}, "crop.object_fraction: got 'half'; expected a number from 0 to 1."),
        ({"object_fraction": True}, "crop.object_fraction: got True; expected a number from 0 to 1."),
        ({"object_fraction": None}, "crop.object_fraction: got None; expected a number from 0 to 1."),
        (
            {"object_fraction": 0, "per_image": 0},
            "crop.per_image: got 0; expected a whole number of 1 or more.",
        ),
        (
            {"object_fraction": 0, "per_image": 1.5},
            "crop.per_image: got 1.5; expected a whole number of 1 or more.",
        ),
    ],
)
def test_crops_that_cannot_be(crop: dict, expected: str) -> None:
    with pytest.raises(UserError) as error:
        parse(AugmentSettings, {"crop": crop})
    assert str(error.value) == f"One setting is wrong:\n  {expected}"


@pytest.mark.parametrize(
    ("given", "pattern"),
    [
        ({}, None),
        ({"mask_name": "gt_*"}, "gt_*"),
        ({"mask_suffix": "_mask"}, "*_mask"),
        ({"mask_suffix": "_mask.PNG"}, "*_mask"),
        ({"mask_suffix": ".jpg"}, "*.jpg"),
        ({"mask_suffix": ".v2"}, "*.v2"),
    ],
)
def test_the_name_of_a_mask(given: dict[str, str], pattern: str | None) -> None:
    assert DataSettings(name="folder", root="photos", **given).mask_pattern == pattern  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mask_name": "*_a", "mask_suffix": "_b"}, "mask_name and mask_suffix say the same: give one of them"),
        (
            {"mask_suffix": "*_b"},
            "what masks have behind the names of photos, such as _mask; with a * it is data.mask_name",
        ),
        ({"images": "{splits}/x"}, "a folder or a pattern, in which {split} may stand for train, val and test"),
        ({"folds": 5, "fold": 5}, "fold=5 is not one of folds=5: expected 0 to 4"),
        ({"fold": 1}, "fold=1 needs folds, the number of folds, such as folds=5"),
        ({"missing": "ignore"}, "missing"),
    ],
)
def test_settings_that_make_no_sense(given: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(DataSettings, {"name": "folder", "root": "photos", **given})
    assert message in str(caught.value)


def test_what_an_earlier_run_has_found_counts_where_nothing_is_given() -> None:
    had = asdict(DataSettings("folder", "photos", images="a", masks="b", mask_name="*_m", group="patient"))
    new = DataSettings("folder", "photos")
    assert asdict(replace(new, **of_earlier_run(new, had, FOUND))) == had
    given = replace(new, mask_suffix="_x", masks="c")
    assert of_earlier_run(given, had, FOUND) == {"images": "a", "pairs": None, "missing": None, "group": "patient"}
