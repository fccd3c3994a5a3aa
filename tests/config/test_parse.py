"""Parsing plain values: every problem is reported, by the dotted name of its setting."""

import copy
from dataclasses import field
from typing import Any

import pytest
from pydantic.dataclasses import dataclass

from segtune.config.loss_settings import BCESettings, DiceSettings, LossSettings
from segtune.config.model_settings import DecoderSettings
from segtune.config.parse import flat, parse
from segtune.config.schema import Settings
from segtune.config.types import STRICT, Count
from segtune.errors import UserError
from tests.models.test_checkpoint import SETTINGS


@dataclass(frozen=True, config=STRICT)
class Inner:
    count: Count = 1
    size: int | list[int] = 8

    def __post_init__(self) -> None:
        if self.count == 13:
            raise ValueError("13 is no count")


@dataclass(frozen=True, config=STRICT)
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)


@dataclass(frozen=True, config=STRICT)
class Choices:
    loss: LossSettings
    decoder: DecoderSettings


def problems(values: dict[str, object]) -> list[str]:
    with pytest.raises(UserError) as error:
        parse(Outer, values)
    return str(error.value).splitlines()


def test_values_become_an_instance_with_defaults_for_the_rest() -> None:
    assert parse(Outer, {"name": "a", "inner": {"size": [1, 2]}}) == Outer("a", Inner(1, [1, 2]))


def test_a_number_is_a_text_where_a_text_is_expected() -> None:
    assert parse(Outer, {"name": 2024}).name == "2024"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "name is required. Set name=…"),
        ({"name": "a", "inner": {"cuont": 2}}, "inner.cuont: there is no such setting. Did you mean count?"),
        ({"name": "a", "inner": {"zzz": 2}}, "inner.zzz: there is no such setting."),
        ({"name": "a", "inner": {"count": 0}}, "inner.count: got 0; expected: greater than or equal to 1."),
        ({"name": "a", "inner": {"size": "x"}}, "inner.size: got 'x'; expected: a valid integer, or a valid list."),
        ({"name": "a", "inner": {"count": 13}}, "inner: 13 is no count."),
    ],
)
def test_one_problem_is_one_line(values: dict[str, object], expected: str) -> None:
    assert problems(values) == ["One setting is wrong:", f"  {expected}"]


def test_all_problems_are_reported_at_once() -> None:
    assert problems({"name": None, "inner": {"count": "many", "size": None, "x": 1}})[0] == "4 settings are wrong:"


@pytest.mark.parametrize(
    ("group", "expected"), [("loss", "'dice_bce', 'dice', 'bce'"), ("decoder", "'fcn8s', 'deeplabv3plus'")]
)
def test_an_unknown_choice_is_answered_with_those_there_are(group: str, expected: str) -> None:
    values = {"loss": {"name": "dice"}, "decoder": {"name": "fcn8s"}} | {group: {"name": "foo", "smooth": 1.0}}
    with pytest.raises(UserError) as error:
        parse(Choices, values)
    assert str(error.value) == f"One setting is wrong:\n  {group}.name: got 'foo'; expected: {expected}."


def test_losses_of_earlier_files_name_the_options_of_all() -> None:
    options = {"dice_weight": 1.0, "bce_weight": 1.0, "per_image": False, "empty": "skip", "smooth": 2.0}
    values = {"decoder": {"name": "fcn8s"}, "loss": {"name": "dice", **options}}
    assert parse(Choices, values).loss == DiceSettings(per_image=False, empty="skip", smooth=2.0)
    values = {"decoder": {"name": "fcn8s"}, "loss": {"name": "bce", **options}}
    assert parse(Choices, values).loss == BCESettings()
    with pytest.raises(UserError, match=r"loss\.smoth: there is no such setting\. Did you mean smooth\?"):
        parse(Choices, {"decoder": {"name": "fcn8s"}, "loss": {"name": "dice", "smoth": 5}})


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("data.image_size", [256, 10], "data.image_size[1]: got 10; expected: greater than or equal to 32."),
        (
            "data.image_size",
            [1, 2, 3],
            "data.image_size: got [1, 2, 3]; expected: a valid integer, or a list of at most 2 items, not 3.",
        ),
        (
            "data.foreground",
            [1, "x"],
            "data.foreground[1]: got 'x'; expected: a valid integer, or a colour, such as '#ff8000'.",
        ),
        ("optimizer.betas", [0.9, 2], "optimizer.betas[1]: got 2; expected: less than 1."),
        ("decoder.atrous_rates", [6, 12, -1], "decoder.atrous_rates[2]: got -1; expected: greater than or equal to 1."),
        (
            "freeze.phases.all.backbone",
            ["block1", {"a": 1}],
            "freeze.phases.all.backbone[1]: got {'a': 1}; expected: a valid string.",
        ),
    ],
)
def test_the_failing_item_of_a_list_is_named(setting: str, value: Any, expected: str) -> None:
    values: dict[str, Any] = copy.deepcopy(SETTINGS)
    *groups, key = setting.split(".")
    place = values
    for group in groups:
        place = place[group]
    place[key] = value
    with pytest.raises(UserError) as error:
        parse(Settings, values)
    assert str(error.value) == f"One setting is wrong:\n  {expected}"


def test_flat_settings_have_dotted_names() -> None:
    nested = {"a": {"b": 1, "c": {"d": [2], "e": {}}}, "f": None}
    assert dict(flat(nested)) == {"a.b": 1, "a.c.d": [2], "a.c.e": {}, "f": None}
