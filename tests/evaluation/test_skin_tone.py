"""The typology angle by the formulas of CIELAB, written out."""

import math

import numpy as np
import pytest

from segtune.evaluation.skin_tone import TONES, tone, typology_angle


def by_hand(red: int, green: int, blue: int) -> float:
    """From sRGB (IEC 61966-2-1) by way of XYZ to CIELAB under D65 (CIE 15), then atan2(L* - 50, b*)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red / 255, green / 255, blue / 255)]
    y = 0.2126729 * linear[0] + 0.7151522 * linear[1] + 0.0721750 * linear[2]
    z = 0.0193339 * linear[0] + 0.1191920 * linear[1] + 0.9503041 * linear[2]

    def f(t: float) -> float:
        return t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29

    return math.degrees(math.atan2(116 * f(y) - 66, 200 * (f(y) - f(z / 1.08883))))


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ((244, 208, 177), "very light"),
        ((231, 180, 143), "light"),
        ((210, 158, 124), "intermediate"),
        ((186, 120, 81), "tan"),
        ((165, 94, 43), "brown"),
        ((60, 31, 29), "dark"),
    ],
)
def test_angles_and_classes(colour: tuple[int, int, int], name: str) -> None:
    photo = np.zeros((4, 6, 3), np.uint8)
    skin = np.zeros((4, 6), bool)
    skin[1:3, 2:5] = True
    photo[skin] = colour
    angle = typology_angle(photo, skin)
    assert angle == pytest.approx(by_hand(*colour), abs=0.4)  # OpenCV interpolates its tables
    assert tone(angle) == name


def test_only_skin_counts_and_a_few_odd_pixels_do_not_matter() -> None:
    photo = np.full((10, 10, 3), 255, np.uint8)
    skin = np.zeros((10, 10), bool)
    skin[:5] = True
    photo[:5] = (186, 120, 81)
    plain = typology_angle(photo, skin)
    photo[0, :5] = 255  # gleams
    assert typology_angle(photo, skin) == plain


def test_without_skin_there_is_no_tone() -> None:
    assert math.isnan(typology_angle(np.zeros((3, 3, 3), np.uint8), np.zeros((3, 3), bool)))
    assert tone(math.nan) == ""


def test_the_classes_meet() -> None:
    assert [tone(above + 0.01) for _, above in TONES[:-1]] == [name for name, _ in TONES[:-1]]
    assert [tone(above) for _, above in TONES[:-1]] == [name for name, _ in TONES[1:]]
