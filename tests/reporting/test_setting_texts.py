"""Settings as text: one form for each value, overrides by name."""

from typing import Any

import pytest

from segtune.reporting.setting_texts import as_typed, flat, overrides_of, plain, rounded, words_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("1e-3", "0.001"), ("0.0010", "0.001"), ("1.0", "1"), ("007", "7"), (".5", "0.5"), ("1e3", "1000")),
        *(("vgg16", "vgg16"), ("2026_11_28", "2026_11_28"), ("nan", "nan"), ("", ""), ("1.2.3", "1.2.3")),
        *(("'a b'", "a b"), ('"x"', "x"), ("'", "'"), ("[1, 2]", "[1,2]"), ("{a: 1, b: 2}", "{a:1,b:2}")),
    ],
)
def test_values_have_one_form(text: str, expected: str) -> None:
    assert plain(text) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "null"), (True, "true"), ([0.001, "a", [2]], "[0.001,a,[2]]"), (1e-05, "1e-05"), (3.0, "3")],
)
def test_settings_read_as_one_types_them(value: Any, expected: str) -> None:
    assert as_typed(value) == expected


def test_values_for_people_have_six_digits() -> None:
    values = ["0.00123456789", "1.2345678901e-05", "123456789", "0.5", "2026_11.28123456", "x1.23456789"]
    assert [rounded(value) for value in values] == ["0.00123457", "1.23457e-05", *values[2:]]


def test_overrides_by_name() -> None:
    words = [
        "python",
        "-m",
        "a=1",
        "++lr=1e-3",
        "+freeze.phases.late={lr: 1}",
        "~x",
        "run_dir=r",
        "resume=auto",
        "a=2",
        "b=",
    ]
    assert overrides_of(words) == {"a": "2", "lr": "0.001", "freeze.phases.late": "{lr:1}", "~x": "removed", "b": ""}


def test_words_of_a_command() -> None:
    assert words_of("python -m segtune train 'a=b c' ~d --flag") == ["a=b c", "~d"]
    assert words_of("python 'a=b") == []


def test_nested_settings_have_dotted_names() -> None:
    settings = {"a": {"b": {"c": None}, "d": [1, 2]}, "run_dir": "x", "resume": "y"}
    assert flat(settings) == [("a.b.c", "null"), ("a.d", "[1,2]")]
