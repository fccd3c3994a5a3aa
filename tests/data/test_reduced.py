"""Large photos come reduced: the same sample without a crop, nearly the same with one, and whether kept or not."""

from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from segtune.data.dataset import SegmentationDataset
from segtune.data.decoding import ImageError
from segtune.data.images import read_mask, read_photo
from segtune.data.labels import Foreground
from segtune.data.record import with_checksums
from segtune.data.reduced import ReducedPhotos
from segtune.data.sources.base import Pair
from segtune.data.sources.portraits import draw_scene
from segtune.data.transforms import build_transform
from segtune.metrics import VOID
from segtune.training.feature_store import FolderStore

CROP = {"scale": [0.6, 1.0], "ratio": [0.8, 1.25]}
SIZE = (32, 40)


def pair_of(folder: Path, height: int, width: int, kind: str = "png", *, void: bool = False) -> Pair:
    """A smooth photo with a disc on it, and perhaps a rim of void, 255, around that."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    inside = (x - 0.4) ** 2 + (y - 0.35) ** 2 < 0.05
    photo = np.dstack([255 * x, 255 * y, 120 + 60 * np.sin(20 * x) * inside]).astype(np.uint8)
    pair = Pair("a", folder / f"a.{kind}", folder / "a_mask.png")
    Image.fromarray(photo).save(pair.photo)
    mask = inside.astype(np.uint8)
    if void:
        mask[cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((9, 9), np.uint8)) > 0] = 255
    Image.fromarray(mask).save(pair.mask)
    return with_checksums(pair, bytes(16))


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return pair_of(tmp_path, 300, 400)


def samples(pair: Pair, photos: ReducedPhotos | None, crop: dict | None, count: int = 4) -> list[dict]:
    transform = build_transform(SIZE, crop, {"HorizontalFlip": {"p": 0.5}, "GaussNoise": {"p": 0.3}} if crop else {})
    data = SegmentationDataset([pair], Foreground(), transform, 0, photos=photos)
    return [data[epoch, 0] for epoch in range(count)]


def same(some: list[dict], others: list[dict]) -> bool:
    return all((a[key] == b[key]).all() for a, b in zip(some, others, strict=True) for key in ("image", "mask"))


@pytest.mark.parametrize(
    ("crop", "size", "expected"),
    [
        # A quarter of 1024 x 1024 is 512 x 512, 8 times 64; times the root of 2, 91 remain of it: 182 of all.
        ({"scale": [0.25, 1.0], "ratio": [1.0, 1.0]}, (1024, 1024), (182, 182)),
        ({"scale": [0.25, 1.0], "ratio": [1.0, 1.0]}, (512, 512), (182, 182)),
        ({"scale": [0.25, 1.0], "ratio": [1.0, 1.0]}, (511, 511), None),
        # The narrowest crop, of width / height 1/4, is half as wide as a square one.
        ({"scale": [0.25, 1.0], "ratio": [0.25, 1.0]}, (1024, 1024), (363, 363)),
        # No square crop has a quarter of this area: the height is the limit.
        ({"scale": [0.25, 1.0], "ratio": [1.0, 1.0]}, (256, 2560), (91, 906)),
        (None, (256, 300), (64, 64)),
        (None, (255, 300), None),
    ],
)
def test_a_photo_is_reduced_to_twice_the_pixels_that_the_smallest_crop_needs(crop, size, expected) -> None:
    assert ReducedPhotos((64, 64), crop).target(*size) == expected


@pytest.mark.parametrize("size", [(1000, 1000), (600, 2400), (3000, 500), (400, 4000)])
def test_no_crop_of_a_reduced_photo_has_fewer_than_twice_the_pixels_of_the_input(size: tuple[int, int]) -> None:
    """By the boxes that albumentations draws, which are whole pixels."""
    crop = {"scale": [0.2, 1.0], "ratio": [0.6, 1.67]}
    target = ReducedPhotos((20, 30), crop).target(*size)
    assert target
    drawing = A.RandomResizedCrop((20, 30), **crop)
    drawing.set_random_seed(0)
    for _ in range(300):
        left, top, right, bottom = drawing.get_params_dependent_on_data({"shape": (*target, 3)}, {})["crop_coords"]
        assert bottom - top >= 2**0.5 * 20 - 1
        assert right - left >= 2**0.5 * 30 - 1


def test_without_a_crop_no_bit_changes(pair: Pair, tmp_path: Path) -> None:
    photos = ReducedPhotos(SIZE, None, FolderStore(tmp_path / "kept", {}))
    assert photos.target(300, 400) == SIZE
    assert same(samples(pair, photos, None), samples(pair, None, None))
    assert len(list((tmp_path / "kept").glob("*-0.safetensors"))) == 1


@pytest.mark.parametrize(("kind", "void"), [("png", False), ("jpg", False), ("png", True)])
@pytest.mark.parametrize("size", [(304, 400), (257, 321), (127, 200)], ids=["whole bytes", "odd", "not large"])
def test_for_validation_no_bit_changes_at_the_original_size_either(tmp_path: Path, size, kind: str, void: bool) -> None:
    pair, large = pair_of(tmp_path, *size, kind, void=void), size != (127, 200)
    transform = build_transform(SIZE, None, {})

    def sample(photos: ReducedPhotos | None) -> dict:
        rule = Foreground(ignore=(255,))
        return SegmentationDataset([pair], rule, transform, 0, truth=True, photos=photos)[0, 0]

    whole = sample(None)
    assert set(whole["truth"].unique().tolist()) == {0, 1, *[VOID] * void}
    assert tuple(whole["truth"].shape) == size
    kept = FolderStore(tmp_path / "kept", {})
    found = [sample(ReducedPhotos(SIZE, None, store, truth=True)) for store in (None, kept)]
    assert len(kept.names()) == large
    if large:
        pair.photo.unlink()  # it is not read again
        pair.mask.unlink()
    found.append(sample(ReducedPhotos(SIZE, None, kept, truth=True)))
    for each in found:
        assert all(torch.equal(torch.as_tensor(each[key]), torch.as_tensor(whole[key])) for key in whole)


def test_small_photos_are_not_touched(tmp_path: Path) -> None:
    small = pair_of(tmp_path, 150, 200)
    photos = ReducedPhotos(SIZE, CROP, FolderStore(tmp_path / "kept", {}))
    assert same(samples(small, photos, CROP), samples(small, None, CROP))
    assert not (tmp_path / "kept").exists()


def test_a_reduced_sample_is_nearly_the_same(pair: Pair) -> None:
    transform = build_transform(SIZE, CROP, {})
    whole, reduced = (
        SegmentationDataset([pair], Foreground(), transform, 0, photos=photos)
        for photos in (None, ReducedPhotos(SIZE, CROP))
    )
    for epoch in range(10):
        one, other = whole[epoch, 0], reduced[epoch, 0]
        assert (one["image"].float() - other["image"].float()).abs().mean() < 2.5  # crops start at whole pixels
        assert (one["mask"] != other["mask"]).float().mean() < 0.02
        assert one["mask"].any()


def test_kept_or_not_a_sample_is_the_same(pair: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = samples(pair, ReducedPhotos(SIZE, CROP), CROP)
    cold = ReducedPhotos(SIZE, CROP, FolderStore(tmp_path / "kept", {}))
    assert same(samples(pair, cold, CROP), expected)
    (file,) = (tmp_path / "kept").glob("*-0.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert same(samples(pair, ReducedPhotos(SIZE, CROP, FolderStore(tmp_path / "kept", {})), CROP), expected)
    assert caplog.messages == []
    pair.photo.unlink()  # it is not read again
    pair.mask.unlink()
    assert same(samples(pair, ReducedPhotos(SIZE, CROP, FolderStore(tmp_path / "kept", {})), CROP), expected)


def test_photos_that_cannot_be_kept_are_read_each_time(pair: Pair, tmp_path: Path, caplog) -> None:
    (tmp_path / "kept").write_text("a file")
    photos = ReducedPhotos(SIZE, CROP, FolderStore(tmp_path / "kept", {}))
    assert same(samples(pair, photos, CROP), samples(pair, ReducedPhotos(SIZE, CROP), CROP))
    (said,) = caplog.messages
    assert said.startswith("Reduced photos are no longer kept: ")


def test_pairs_without_checksums_are_not_kept(pair: Pair, tmp_path: Path) -> None:
    unchecked = Pair(pair.name, pair.photo, pair.mask)
    photos = ReducedPhotos(SIZE, CROP, FolderStore(tmp_path / "kept", {}))
    assert same(samples(unchecked, photos, CROP), samples(pair, ReducedPhotos(SIZE, CROP), CROP))
    assert not (tmp_path / "kept").exists()


def test_a_photo_that_has_changed_since_it_was_checked_is_not_kept(pair: Pair, tmp_path: Path) -> None:
    """It would be under the name of the photo that was there, and other runs would take it for that one."""
    store = FolderStore(tmp_path / "kept", {})
    photos = ReducedPhotos(SIZE, None, store)
    before = pair.photo.read_bytes()
    Image.new("RGB", (400, 300)).save(pair.photo)
    photos.read(pair, Foreground(), None)
    assert list(store.names()) == []
    pair.photo.write_bytes(before)
    photos.read(pair, Foreground(), None)
    assert len(store.names()) == 1


@pytest.mark.parametrize(("side", "turn", "scale"), [(88, 1, 2), (88, 5, 2), (44, 6, 4), (22, 3, 8)])
def test_a_jpeg_that_is_decoded_smaller_gives_nearly_the_pixels_of_the_whole_one(
    tmp_path: Path, side: int, turn: int, scale: int
) -> None:
    """Within what the class says of drawn scenes, by the whole photo and OpenCV; the mask to the bit."""
    photos = ReducedPhotos((side * 3 // 4, side * 2 // 3), {"scale": [0.9, 1.0], "ratio": [1.0, 1.2]})
    for seed in range(2):
        scene, skin = draw_scene(seed, 512)
        (tmp_path / str(seed)).mkdir()
        pair = Pair("a", tmp_path / str(seed) / "a.jpg", tmp_path / str(seed) / "a.png")
        for image, path in ((scene, pair.photo), (skin, pair.mask)):
            exif = Image.Exif()
            exif[0x0112] = turn
            Image.fromarray(image[:480]).save(path, exif=exif, quality=90)
        whole, mask = read_photo(pair.photo), read_mask(pair.mask).array
        size = photos.target(*whole.shape[:2])
        assert size
        found, found_mask, _ = photos.read(pair, Foreground("nonzero"), None)
        expected = cv2.resize(whole, size[::-1], interpolation=cv2.INTER_AREA)
        apart = np.abs(found.astype(int) - expected)
        assert 0 < apart.mean() < 1.5
        assert apart.max() <= 24
        nearest = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        assert np.array_equal(found_mask, nearest > 0)
        assert pair.load_photo(photos.enough).scale == scale


def test_a_mask_of_another_size_than_its_photo_is_refused(pair: Pair) -> None:
    Image.fromarray(np.eye(100, 200, dtype=np.uint8)).save(pair.mask)
    with pytest.raises(ImageError) as caught:
        ReducedPhotos(SIZE, CROP).read(pair, Foreground(), None)
    assert str(caught.value) == (
        f"{pair.mask}: 100 x 200 pixels, its photo 300 x 400; a mask must have the size of its photo"
    )
