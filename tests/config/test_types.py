from dataclasses import dataclass

from segtune.config.types import without_fields_of


@dataclass
class Circle:
    name: str
    radius: float


@dataclass
class Square:
    name: str
    side: float


def test_fields_of_other_classes_alone_are_dropped() -> None:
    given = {"name": "circle", "radius": 1, "side": 2, "misspelt": 3}
    kept = {"name": "circle", "radius": 1, "misspelt": 3}
    assert without_fields_of(given, [Circle, Square], Circle) == kept
    assert without_fields_of(given, [Circle, Square], None) is given
    assert without_fields_of("circle", [Circle, Square], Circle) == "circle"
