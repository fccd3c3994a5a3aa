"""The settings of predicted masks and their formats."""

from typing import Any

import pytest

from segtune.config.command_settings import PredictSettings
from segtune.config.output_settings import CleanSettings, category_of
from segtune.config.parse import parse
from segtune.errors import UserError


def predict(**values: Any) -> PredictSettings:
    return parse(PredictSettings, {"checkpoint": "a.pt", "input": "photos", "train": {}} | values)


@pytest.mark.parametrize(
    ("values", "formats"),
    [
        ({}, ["masks"]),
        ({"format": "labelme"}, ["labelme"]),
        ({"format": ["labelme", "masks", "labelme"]}, ["labelme", "masks"]),
        ({"format": "labelme", "masks": True}, ["masks", "labelme"]),
        ({"format": ["masks", "coco"], "masks": False}, ["coco"]),
        ({"masks": False}, []),
    ],
)
def test_what_masks_are_written_as(values: dict[str, Any], formats: list[str]) -> None:
    assert predict(**values).formats == formats


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "voc"}, "format: got 'voc'; expected: 'masks', 'coco', 'labelme', 'yolo' or 'cvat'"),
        ({"format": []}, "format: got []; expected: at least one format."),
        ({"input": []}, "input: got []; expected: "),
        ({"clean": {"min_area": -1}}, "clean.min_area: got -1; expected: greater than or equal to 0."),
        ({"clean": {"holes": True}}, "clean.holes: there is no such setting."),
        ({"polygons": {"tolerance": 101}}, "polygons.tolerance: got 101; expected: less than or equal to 100."),
        ({"polygons": {"rle": "some"}}, "polygons.rle: got 'some'; expected: 'holes', 'all' or 'never'."),
    ],
)
def test_what_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        predict(**values)
    assert message in str(error.value)


@pytest.mark.parametrize(("value", "expected"), [(True, True), (False, False), (1, 1.0), (0.5, 0.5), (0, 0.0)])
def test_holes_are_a_choice_or_an_area(value: Any, expected: Any) -> None:
    found = predict(clean={"fill_holes": value}).clean
    assert (found.fill_holes, type(found.fill_holes)) == (expected, type(expected))
    assert found.active == bool(value)
    assert not CleanSettings().active
    assert CleanSettings(largest=True).active


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({}, "object"),
        ({"category": None}, "object"),
        ({"category": "skin"}, "skin"),
        ({"category": ["skin"]}, "skin"),
        ({"category": ["cat", "dog"]}, "object"),
    ],
)
def test_the_object_is_called_what_it_was_in_training(data: dict[str, Any], name: str) -> None:
    assert category_of(data) == name
