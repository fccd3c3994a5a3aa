"""Colours and textures of the scenes: ranges, ends and directions."""

import colorsys

import cv2
import numpy as np

from segtune.data.sources.portrait_colours import HAIR_RGB, any_colour, axes, cloth, mix, noise, skin_tone


def test_swatches_are_their_hexadecimal_codes() -> None:
    assert HAIR_RGB.shape == (10, 3)
    np.testing.assert_allclose(HAIR_RGB[0] * 255, (0x14, 0x12, 0x11), atol=1e-4)


def test_skin_tones_span_very_light_to_very_dark() -> None:
    """By the individual typology angle: above 55 degrees is very light, below -30 dark (Chardon, 1991)."""
    rng = np.random.default_rng(0)
    tones = np.array([skin_tone(rng) for _ in range(300)], np.float32)
    light, _, blue = cv2.cvtColor(tones[None], cv2.COLOR_RGB2Lab)[0].T
    angle = np.degrees(np.arctan2(light - 50, blue))
    counts = np.histogram(angle, [-90, -30, 10, 28, 41, 55, 90])[0]
    assert (counts >= 0.03 * len(tones)).all(), counts


def test_colours_that_are_not_earthy_have_every_hue() -> None:
    rng = np.random.default_rng(0)
    colours = np.array([any_colour(rng, 0) for _ in range(200)])
    assert colours.min() >= 0
    assert colours.max() <= 1
    hues = [colorsys.rgb_to_hsv(*map(float, colour))[0] for colour in colours]
    assert (np.histogram(hues, 6, (0, 1))[0] > 15).all()


def test_a_mixture_goes_from_the_first_colour_to_the_second() -> None:
    first, second = (0.2, 0.4, 0.6), (1.0, 0.0, 0.6)
    mixed = mix(first, second, np.array([[-1, 0, 0.25, 1, 2]], np.float32))
    np.testing.assert_allclose(mixed[:, 0].T, [first, first, (0.4, 0.3, 0.6), second, second], atol=1e-6)


def test_axes_turn_by_their_angle() -> None:
    along, across = axes(5, 0)
    np.testing.assert_allclose(along, np.tile(np.linspace(-0.5, 0.5, 5), (5, 1)) + 0.5, atol=1e-6)
    np.testing.assert_allclose(across, along.T, atol=1e-6)
    turned, _ = axes(5, np.pi / 2)
    np.testing.assert_allclose(turned, along.T, atol=1e-6)


def test_noise_has_unit_scale_and_its_cells() -> None:
    made = noise(np.random.default_rng(0), 256, 256, 256)
    assert abs(made.mean()) < 0.02
    assert abs(made.std() - 1) < 0.02
    smooth = noise(np.random.default_rng(0), 256, 4, 4)
    assert np.abs(np.diff(smooth)).max() < 0.1


def test_the_same_generator_makes_the_same_cloth() -> None:
    first, again, other = (cloth(np.random.default_rng(seed), 32) for seed in (3, 3, 4))
    assert first.shape == (3, 32, 32)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
