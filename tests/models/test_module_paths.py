"""Patterns and paths by hand."""

import pytest
from torch import nn

from segtune.errors import UserError
from segtune.models.module_paths import matching, owners, within

NAMES = ["a", "a.b", "a.b.c", "ab", "d.1", "d.12"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a", ["a", "a.b", "a.b.c"]),  # not ab
        ("a.b", ["a.b", "a.b.c"]),
        ("d.1", ["d.1"]),  # not d.12
        ("re:a.*", ["a", "a.b", "a.b.c", "ab"]),
        (r"re:d\.\d", ["d.1"]),  # as a whole
        ("re:.*b", ["a.b", "ab"]),
    ],
)
def test_names_that_a_pattern_means(pattern: str, found: list[str]) -> None:
    assert matching(pattern, iter(NAMES), "setting") == found


@pytest.mark.parametrize(
    ("pattern", "names", "message"),
    [
        ("re:[", NAMES, "'re:[' is not a valid regular expression: unterminated character set at position 0."),
        ("re:x", NAMES, "'re:x' matches nothing. The names are: a, a.b, a.b.c, …, d.1, d.12."),
        ("layer", ["layer1", "stem"], "'layer' matches nothing. Did you mean layer1? The names are: layer1, stem."),
        (
            "d.*",
            NAMES[4:],
            "'d.*' matches nothing. A pattern is a regular expression behind re:, such as 're:d\\.1.*'. "
            "The names are: d.1, d.12.",
        ),
        ("x", [], "'x' matches nothing. The names are: none."),
    ],
)
def test_a_pattern_that_matches_nothing(pattern: str, names: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        matching(pattern, names, "setting")
    assert str(caught.value) == f"setting: {message}"


def test_owners_hold_parameters_of_their_own() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Sequential(nn.Linear(1, 1, bias=False)))
    assert owners(model) == ["0", "2.0"]


@pytest.mark.parametrize(
    ("path", "inside"), [("a", True), ("a.b", True), ("ab", False), ("c.d", True), ("c", False), ("", False)]
)
def test_within(path: str, inside: bool) -> None:
    assert within(path, ["a", "c.d"]) is inside
