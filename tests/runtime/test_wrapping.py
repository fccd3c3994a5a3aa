"""Lines for terminals, without rich."""

import io

import pytest

from segtune.runtime.wrapping import terminal_width, wrap


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("one two three", None, "one two three"),
        ("one two three", 13, "one two three"),
        ("one two three", 12, "one two\nthree"),
        ("  one two\nthree four", 7, "  one\n  two\nthree\nfour"),
        ("see /a/long-path/of/one-word here", 10, "see\n/a/long-path/of/one-word\nhere"),
        ("a\n\n  b", 5, "a\n\n  b"),
        ("", 5, ""),
    ],
)
def test_lines_are_broken_between_words(text: str, width: int | None, expected: str) -> None:
    assert wrap(text, width) == expected


def test_only_a_terminal_has_a_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "61")
    file = io.StringIO()
    assert terminal_width(file) is None
    monkeypatch.setattr(file, "isatty", lambda: True, raising=False)
    assert terminal_width(file) == 61
