"""The settings of commands: what they take from the training run where they are silent."""

from dataclasses import replace
from typing import Any

import pytest

from segtune.config.command_settings import (
    EvaluateSettings,
    EvaluationDataSettings,
    PredictSettings,
    TTASettings,
)
from segtune.config.data_settings import DataSettings
from segtune.config.parse import parse
from segtune.config.training_settings import TrainSettings
from segtune.errors import UserError

TRAINED = DataSettings(
    "folder",
    "photos",
    mask_channel="alpha",
    foreground=[3],
    image_size=[96, 64],
    eval_size=128,
    val_share=0.2,
    limit=7,
    groups="g.csv",
    max_value=4095,
)


def test_an_evaluation_is_as_in_training_where_it_is_silent() -> None:
    data = EvaluationDataSettings("folder", "others").completed(TRAINED)
    assert data == replace(TRAINED, root="others", image_size=128, eval_size=None, limit=None, groups=None)


def test_another_folder_is_looked_at_anew() -> None:
    trained = replace(TRAINED, images="{split}", masks="{split}", mask_name="*_m", folds=5, fold=2, group="p.")
    others = EvaluationDataSettings("folder", "others").completed(trained)
    assert (others.images, others.masks, others.mask_name) == (None, None, None)
    assert (others.group, others.folds, others.fold) == ("p.", 5, 2)  # so that moved data are split as before
    same = EvaluationDataSettings("folder", "./photos", mask_suffix="_x").completed(trained)
    assert (same.images, same.masks, same.mask_name, same.mask_pattern) == ("{split}", "{split}", None, "*_x")
    assert EvaluationDataSettings().completed(trained).mask_name == "*_m"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "folder photos"),
        ({"split": "val", "foreground": "nonzero", "groups": "g.csv"}, "folder photos"),
        ({"root": "others"}, "folder others"),
        ({"name": "portraits"}, "portraits data/portraits"),
        ({"name": "portraits", "root": "others"}, "portraits others"),
    ],
)
def test_the_data_of_the_training_run_are_evaluated_unless_others_are_named(
    given: dict[str, Any], expected: str
) -> None:
    settings = EvaluationDataSettings(**given)
    completed = settings.completed(TRAINED)
    assert f"{completed.name} {completed.root}" == expected
    assert settings.named == bool({"name", "root"} & given.keys())


def test_a_folder_of_data_has_a_root() -> None:
    with pytest.raises(UserError, match="data: root is required where name is folder"):
        parse(EvaluateSettings, {"checkpoint": "a.pt", "data": {"name": "folder"}, "train": {}})


def test_what_an_evaluation_says_counts() -> None:
    data = EvaluationDataSettings("folder", "others", foreground="auto", eval_size=[32, 48], limit=3, split="all")
    completed = data.completed(TRAINED)
    assert (completed.foreground, completed.limit, completed.split) == ("auto", 3, "all")
    assert completed.evaluation_size == (32, 48)
    assert (completed.val_share, completed.max_value) == (0.2, 4095)
    assert completed.mask_channel == "alpha"
    assert EvaluationDataSettings("folder", "others", mask_channel="all").completed(TRAINED).mask_channel == "all"
    assert EvaluationDataSettings("folder", "others", max_value=65535).completed(TRAINED).max_value == 65535


TILED = DataSettings("folder", "photos", image_size=64, eval_tile=256, eval_overlap=0.5)


@pytest.mark.parametrize(
    ("trained", "given", "tile", "overlap", "size"),
    [
        (TILED, {}, 256, 0.5, (256, 256)),
        (TILED, {"eval_tile": 512}, 512, 0.5, (512, 512)),
        (TILED, {"eval_overlap": 0.0}, 256, 0.0, (256, 256)),
        (TILED, {"image_size": 96}, None, 0.5, (96, 96)),  # whole images
        (TILED, {"eval_size": [32, 48]}, None, 0.5, (32, 48)),
        (TRAINED, {}, None, 0.25, (128, 128)),
        (TRAINED, {"eval_tile": 256}, 256, 0.25, (256, 256)),
    ],
)
def test_an_evaluation_is_in_tiles_if_the_validation_was_unless_it_says_otherwise(
    trained: DataSettings, given: dict[str, Any], tile: int | None, overlap: float, size: tuple[int, int]
) -> None:
    completed = EvaluationDataSettings("folder", "others", **given).completed(trained)
    assert (completed.eval_tile, completed.eval_overlap, completed.evaluation_size) == (tile, overlap, size)


def test_an_evaluation_has_a_size_or_a_tile() -> None:
    with pytest.raises(UserError) as error:
        EvaluationDataSettings("folder", "others", eval_tile=512, image_size=96).completed(TILED)
    assert str(error.value) == (
        "data.eval_tile=512 predicts an image at its own size, data.image_size=96 at a fixed one: set only one of them."
    )


def test_together_they_must_leave_something_to_train_on() -> None:
    with pytest.raises(UserError, match="val_share and test_share together leave nothing to train on"):
        EvaluationDataSettings("folder", "others", test_share=0.85).completed(TRAINED)


def test_scoring_keeps_what_it_does_not_set() -> None:
    trained = TrainSettings(batch_size=2, threshold=0.3, empty="skip", clip=5.0)
    data = {"name": "folder", "root": "photos"}
    group = {"batch_size": 4, "threshold": 0.6, "clip": 1.0}  # clip is of training steps
    settings = parse(EvaluateSettings, {"checkpoint": "a.pt", "data": data, "train": group})
    assert settings.train.completed(trained) == replace(trained, batch_size=4, threshold=0.6)
    auto = parse(EvaluateSettings, {"checkpoint": "a.pt", "data": data, "train": {"batch_size": "auto"}})
    assert auto.train.completed(trained).batch_size == 2
    with pytest.raises(UserError, match=r"train\.treshold: there is no such setting\. Did you mean threshold\?"):
        parse(EvaluateSettings, {"checkpoint": "a.pt", "data": data, "train": group | {"treshold": 0.9}})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"checkpoint": ["a", "b", "c"]},
            "checkpoint: got ['a', 'b', 'c']; expected: one file, or two to compare: [A,B]",
        ),
        ({"resamples": 99}, "resamples: got 99; expected: greater than or equal to 100."),
        ({"tta": {"scales": []}}, "tta.scales: got []; expected: "),
    ],
)
def test_evaluate_refuses(changes: dict[str, Any], text: str) -> None:
    values = {"checkpoint": "a", "data": {"name": "folder", "root": "x"}, "train": {}}
    assert parse(EvaluateSettings, values).tta == TTASettings(flips=False, scales=[1.0])
    with pytest.raises(UserError) as error:
        parse(EvaluateSettings, values | changes)
    assert text in str(error.value)


@pytest.mark.parametrize(("name", "value"), [("tile", 64), ("overlap", 0.6), ("frames", 0), ("image_size", 16)])
def test_predict_refuses(name: str, value: object) -> None:
    with pytest.raises(UserError, match=f"{name}: got {value}; expected: "):
        parse(PredictSettings, {"checkpoint": "a", "input": "b", "train": {}, name: value})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("clip", "word", "a valid number, unable to parse string as a number"),
        ("accumulate", -1, "greater than or equal to 1"),
        ("sync_batchnorm", [1], "a valid boolean"),
    ],
)
def test_settings_of_training_steps_are_ignored_but_not_if_they_are_wrong(name: str, value: Any, expected: str) -> None:
    given = {"checkpoint": "best.pt", "input": "photos", "train": {"batch_size": 2, "clip": 0.5}}
    assert parse(PredictSettings, given).train.batch_size == 2
    with pytest.raises(UserError) as caught:
        parse(PredictSettings, {**given, "train": {name: value}})
    assert str(caught.value) == f"One setting is wrong:\n  train: {name}: got {value!r}; expected {expected}."
