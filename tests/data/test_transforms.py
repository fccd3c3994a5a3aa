"""Augmentation: photo and mask move together, masks stay binary, mistakes in the settings are named."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from segtune.data.transforms import A, build_transform
from segtune.errors import UserError
from segtune.metrics import VOID

CONF = Path(__file__).parents[2] / "conf" / "augment"
GROUPS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(CONF.glob("*.yaml"))}
EVERY = {
    f"{group}-{name}": (name, arguments)
    for group, settings in GROUPS.items()
    for name, arguments in settings["transforms"].items()
}
GEOMETRIC = {"HorizontalFlip", "VerticalFlip", "Affine", "GridDistortion"}


def disc(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A photo that is its own mask: two white discs on black, off the middle, so that every move shows."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    mask = ((x - 0.3) ** 2 + (y - 0.35) ** 2 < 0.04) | ((x - 0.65) ** 2 + (y - 0.5) ** 2 < 0.02)
    return np.dstack([mask * np.uint8(255)] * 3), mask.astype(np.uint8)


def seeded(transform: A.Compose, seed: int, photo: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    transform.set_random_seed(seed)
    out = transform(image=photo, mask=mask)
    return out["image"], out["mask"]


@pytest.mark.slow
def test_importing_it_does_not_go_to_the_network() -> None:
    """In a fresh process: here it is imported already."""
    code = (
        "import os, socket; os.environ.pop('NO_ALBUMENTATIONS_UPDATE', None)\n"
        "def refuse(*_): os._exit(3)\n"
        "socket.getaddrinfo = socket.socket.connect = refuse\n"
        "import segtune.data.transforms"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0


def error(*args: Any) -> str:
    with pytest.raises(UserError) as caught:
        build_transform(*args)
    return str(caught.value)


def test_the_five_groups_are_there() -> None:
    assert list(GROUPS) == ["crops", "heavy", "light", "medium", "none"]
    assert all(settings.keys() == {"crop", "transforms", "border"} for settings in GROUPS.values())
    assert set(GROUPS["light"]["transforms"]) < set(GROUPS["medium"]["transforms"]) < set(GROUPS["heavy"]["transforms"])


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_gives_binary_masks_and_moves_them_with_the_photo(group: str) -> None:
    photo, mask = disc(150, 200)
    full = build_transform((96, 128), GROUPS[group]["crop"], GROUPS[group]["transforms"])
    moving = {name: given for name, given in GROUPS[group]["transforms"].items() if name in GEOMETRIC}
    geometry = build_transform((96, 128), GROUPS[group]["crop"], moving)
    agreement = []
    for seed in range(12):
        image, moved = seeded(full, seed, photo, mask)
        assert (image.shape, image.dtype) == ((96, 128, 3), np.uint8)
        assert (moved.shape, moved.dtype) == ((96, 128), np.uint8)
        assert set(np.unique(moved)) <= {0, 1}
        image, moved = seeded(geometry, seed, photo, mask)
        agreement.append(np.mean((image[..., 0] > 127) == moved))
    assert min(agreement) > 0.98


@pytest.mark.parametrize("name", EVERY)
def test_every_transform_of_a_group_does_its_part(name: str) -> None:
    kind, arguments = EVERY[name]
    photo, mask = disc(128, 128)
    grain = np.random.default_rng(0).integers(40, 200, photo.shape, np.uint8)
    transform = build_transform((128, 128), None, {kind: {**arguments, "p": 1}})
    changed = 0
    for seed in range(4):
        image, moved = seeded(transform, seed, photo, mask)
        assert set(np.unique(moved)) == {0, 1}
        if kind in GEOMETRIC:
            assert np.mean((image[..., 0] > 127) == moved) > 0.98
        else:
            assert np.array_equal(moved, mask)
        changed += not np.array_equal(seeded(transform, seed, grain, mask)[0], grain)
    assert changed >= 3


def test_shrinking_a_mask_takes_the_middle_of_each_cell() -> None:
    # Cells of 5 pixels: the oracle is the pixel in the middle. Plain nearest takes the corner.
    mask = (np.random.default_rng(0).random((100, 100)) > 0.5).astype(np.uint8)
    photo = np.zeros((100, 100, 3), np.uint8)
    for crop in (None, {"scale": [1, 1], "ratio": [1, 1]}):
        _, small = seeded(build_transform((20, 20), crop, {}), 0, photo, mask)
        assert np.array_equal(small, mask[2::5, 2::5])


def test_shrinking_a_photo_averages_and_enlarging_interpolates() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    mask = np.zeros((80, 80), np.uint8)
    small, _ = seeded(build_transform((20, 20), None, {}), 0, photo, mask)
    means = photo.reshape(20, 4, 20, 4, 3).mean((1, 3))
    assert np.abs(small - means).max() <= 0.5 + 1e-6
    large, _ = seeded(build_transform((160, 160), None, {}), 0, photo, mask)
    corner = photo[:2, :2, 0].astype(float)
    assert large[1, 1, 0] == pytest.approx(np.sum(corner * [[9, 3], [3, 1]]) / 16, abs=1)


def test_masks_stay_nearest_whatever_a_transform_asks_for() -> None:
    photo, mask = disc(64, 64)
    turn = build_transform((64, 64), None, {"Rotate": {"limit": [30, 30], "mask_interpolation": 1, "p": 1}})
    assert set(np.unique(seeded(turn, 0, photo, mask * 1)[1])) == {0, 1}
    assert turn[1].mask_interpolation == 0


def test_an_unknown_transform_gets_the_nearest_names() -> None:
    assert error((64, 64), None, {"HorizontalFlop": {}}) == (
        "augment.transforms.HorizontalFlop: no albumentations transform of this name takes plain "
        "settings; nearest: HorizontalFlip."
    )


@pytest.mark.parametrize(
    "name",
    [
        "Lambda",
        "BasicTransform",
        "FDA",
        "TextImage",
        "ToTensorV2",
        "Pad3D",
        "Compose",
        "OneOf",
        "__class__",
        "os",
    ],
)
def test_code_files_and_containers_are_refused(name: str) -> None:
    assert error((64, 64), None, {name: {}}).startswith(
        f"augment.transforms.{name}: no albumentations transform of this name takes plain settings; "
    )


def test_wrong_arguments_are_named() -> None:
    assert error((64, 64), None, {"HorizontalFlip": {"prob": 0.5}}) == (
        "augment.transforms.HorizontalFlip: got the argument 'prob'; expected p."
    )
    assert error((64, 64), None, {"RandomGamma": {"gamma": 3}}) == (
        "augment.transforms.RandomGamma: got the argument 'gamma'; expected gamma_limit, p."
    )
    assert error((64, 64), {"size": 3}, {}) == (
        "augment.crop: got the argument 'size'; expected scale, ratio, or object_fraction without these."
    )
    assert error((64, 64), None, {"HorizontalFlip": 0.5}) == (
        "augment.transforms.HorizontalFlip: got 0.5; expected a mapping of arguments, such as {p: 0.5}."
    )


def test_numbers_that_are_not_finite_are_named() -> None:
    """Albumentations takes them, and the images become nonsense."""
    nan = float("nan")
    for limit in (nan, [-0.1, nan], float("inf")):
        assert error((64, 64), None, {"RandomBrightnessContrast": {"brightness_limit": limit}}) == (
            f"augment.transforms.RandomBrightnessContrast.brightness_limit: got {limit!r}; expected finite numbers."
        )


def test_wrong_values_are_named() -> None:
    assert error((64, 64), None, {"HorizontalFlip": {"p": 2}}) == (
        "augment.transforms.HorizontalFlip: p=2: Input should be less than or equal to 1"
    )
    assert error((64, 64), {"scale": [0.5, 3]}, {}).startswith("augment.crop: scale=")
    assert error((64, 64), None, {"CenterCrop": {"height": 32}}) == (
        "augment.transforms.CenterCrop: width Field required"
    )


def test_transforms_that_break_the_contract_are_found_before_training() -> None:
    assert error((64, 48), None, {"Normalize": {}}) == (
        "augment.transforms.Normalize: returns an image of float32 (64, 48, 3); expected uint8 (64, 48, 3): "
        "data.image_size sets the size, and the backbone the normalisation."
    )
    for name in ("Transpose", "RandomRotate90", "D4"):
        assert "returns an image of uint8 (48, 64, 3)" in error((64, 48), None, {name: {}})
        build_transform((64, 64), None, {name: {}})
    assert error((64, 48), None, {"PixelDropout": {"dropout_prob": 0.5, "mask_drop_value": 9}}) == (
        "augment.transforms.PixelDropout: returns a mask that is not 0 and 1 at the image's size."
    )
    assert error((64, 48), None, {"CenterCrop": {"height": 99, "width": 99}}).startswith(
        "augment.transforms.CenterCrop: fails on a photo of 64 x 48 pixels with a mask: "
    )


# --- void ---


@pytest.mark.parametrize("void_border", [False, True])
@pytest.mark.parametrize("group", GROUPS)
def test_void_moves_as_a_mask_of_its_own_would(group: str, void_border: bool) -> None:
    photo, mask = disc(150, 200)
    mask[40:90, 60:130] = VOID  # over a part of a disc
    moving = {name: given for name, given in GROUPS[group]["transforms"].items() if name in GEOMETRIC}
    crop = GROUPS[group]["crop"]
    if group == "crops":
        crop = {**crop, "object_fraction": 0}  # else it would follow the object, which each mask has elsewhere
    transform = build_transform((96, 128), crop, moving, void_border=void_border)
    for seed in range(6):
        moved = seeded(transform, seed, photo, mask)[1]
        assert set(np.unique(moved)) <= {0, 1, VOID}
        for label in (0, 1):
            alone = seeded(transform, seed, photo, (mask == label).astype(np.uint8))[1]
            assert np.array_equal(moved == label, alone == 1)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Affine", {"rotate": [30, 30], "border_mode": 4}),
        ("Affine", {"translate_px": {"x": [9, 9], "y": [-5, -5]}}),
        ("Rotate", {"limit": [-40, -40]}),
        ("SafeRotate", {"limit": [20, 20]}),
        ("Perspective", {"scale": [0.2, 0.2], "fit_output": True}),
        ("CropAndPad", {"px": 7, "border_mode": 1}),
    ],
)
def test_what_comes_in_from_outside_may_be_void(name: str, arguments: dict[str, Any]) -> None:
    """Of a grey photo that is all object, whatever the mode of its border: what is black is void."""
    photo, mask = np.full((64, 64, 3), 200, np.uint8), np.ones((64, 64), np.uint8)
    image, moved = seeded(
        build_transform((64, 64), None, {name: {**arguments, "p": 1}}, void_border=True), 3, photo, mask
    )
    assert set(np.unique(moved)) == {1, VOID}
    black, grey = (image[..., 0] == level for level in (0, 200))
    assert (moved[black] == VOID).mean() > 0.97  # but for the edge, where the two are sampled differently
    assert (moved[grey] == 1).mean() > 0.97
    assert 0.02 < black.mean() < 0.6
    assert black.mean() + grey.mean() > 0.85


def test_without_the_setting_borders_are_what_each_transform_says() -> None:
    photo, mask = np.full((64, 64, 3), 200, np.uint8), np.ones((64, 64), np.uint8)
    for mode, values in ((4, {1}), (0, {0, 1})):
        turn = {"Affine": {"rotate": [30, 30], "border_mode": mode, "p": 1}}
        assert set(np.unique(seeded(build_transform((64, 64), None, turn), 0, photo, mask)[1])) == values
