"""Which photos are reduced, what is said of it, and under which name they are kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtune.config.data_settings import AugmentSettings
from segtune.config.schema import Settings
from segtune.data.sources.base import Pair
from segtune.training.feature_store import FolderStore
from segtune.training.photo_cache import folder_name, reduced_photos
from tests.training.conftest import settings

WHAT = "2 of 3 training photos are four times as large as needed, or larger; they are"


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    """Photos of 256 x 512, 512 x 256 and 64 x 64 pixels; the network takes 64 x 64."""
    made = []
    for number, size in enumerate([(256, 512), (512, 256), (64, 64)]):
        made.append(Pair(f"p{number}", tmp_path / f"p{number}.png", tmp_path / f"m{number}.png"))
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(made[-1].photo)
    return made


def chosen(tmp_path: Path, **cache) -> Settings:
    base = settings(tmp_path)
    return replace(base, cache=replace(base.cache, photos="auto", folder=str(tmp_path / "cache"), **cache))


def test_large_photos_are_kept(pairs: list[Pair], tmp_path: Path) -> None:
    photos, said = reduced_photos(chosen(tmp_path), pairs)
    assert photos
    assert isinstance(photos.store, FolderStore)
    assert said == f"{WHAT} reduced once and kept in {tmp_path}/cache: 0 MB"


def test_those_of_validation_are_kept_with_masks_at_their_size(pairs: list[Pair], tmp_path: Path) -> None:
    """Reduced to 64 x 64, 4 bytes a pixel, and 256 x 512 bits of each mask: 65,536 bytes for two."""
    wanted, _ = reduced_photos(chosen(tmp_path, limit_gb=65_536e-9), pairs, validation=True)
    assert wanted
    assert isinstance(wanted.store, FolderStore)
    assert wanted.truth
    assert wanted.ranges is None
    photos, said = reduced_photos(chosen(tmp_path, limit_gb=65_535e-9), pairs, validation=True)
    assert photos
    assert photos.store is None
    assert said.startswith("2 of 3 validation photos are four times as large as needed, or larger; they are reduced an")


def test_photos_that_are_seen_at_their_own_size_are_not_reduced(pairs: list[Pair], tmp_path: Path) -> None:
    base = chosen(tmp_path)
    crops = replace(base, augment=AugmentSettings({"object_fraction": 0.5}))
    tiles = replace(base, data=replace(base.data, eval_tile=128))
    for given, validation in ((crops, False), (tiles, True)):
        assert reduced_photos(given, pairs, validation=validation) == (None, "")
        assert reduced_photos(given, pairs, validation=not validation)[0]


def test_beyond_the_limit_they_are_reduced_but_not_kept(pairs: list[Pair], tmp_path: Path) -> None:
    photos, said = reduced_photos(chosen(tmp_path, limit_gb=1e-5), pairs)
    assert photos
    assert photos.store is None
    assert said == f"{WHAT} reduced anew each time, for they would take 0.0 GB, more than cache.limit_gb=1e-05"
    assert not (tmp_path / "cache").exists()


def test_without_large_photos_or_the_setting_nothing_is_done(pairs: list[Pair], tmp_path: Path) -> None:
    pairs[2].photo.write_bytes(b"")  # which the check of the data reports
    assert reduced_photos(chosen(tmp_path), pairs[2:]) == (None, "")
    assert reduced_photos(settings(tmp_path), pairs) == (None, "")
    assert not (tmp_path / "cache").exists()


def test_the_name_covers_what_decides_a_reduced_photo(tmp_path: Path) -> None:
    base = chosen(tmp_path)
    others = [
        replace(base, data=replace(base.data, **changes))
        for changes in (
            {"image_size": 96},
            {"foreground": "nonzero"},
            {"invert": True},
            {"mask_channel": "alpha"},
            {"max_value": 4095},
            *({"ignore": [255]}, {"ignore": [255, 254]}),
        )
    ]
    others.append(replace(base, augment=replace(base.augment, crop={"scale": [0.5, 1.0]})))
    assert len({folder_name(each) for each in [base, *others]}) == 1 + len(others)
    no_crop = replace(base, augment=replace(base.augment, crop=None))
    assert folder_name(no_crop, validation=True) != folder_name(no_crop)  # which has masks at one size alone
    assert folder_name(no_crop, validation=True) == folder_name(base, validation=True)
    larger = replace(base, data=replace(base.data, eval_size=96))
    assert folder_name(larger, validation=True) != folder_name(base, validation=True)
    same = replace(base, seed=7, augment=replace(base.augment, transforms={}), train=replace(base.train, batch_size=3))
    assert folder_name(same) == folder_name(base)
