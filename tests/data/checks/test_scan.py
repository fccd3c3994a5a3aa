"""Statistics of single pairs against other libraries and by hand."""

from pathlib import Path

import cv2
import imagehash
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from segtune.data.checks.scan import hashes, image_stats, measure_objects, scan
from segtune.data.labels import Foreground
from segtune.data.sources.base import Pair


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def pair(folder: Path, name: str, image: np.ndarray, mask: np.ndarray) -> Pair:
    made = Pair(name, folder / "images" / f"{name}.png", folder / "masks" / f"{name}.png")
    for path in (made.photo, made.mask):
        path.parent.mkdir(exist_ok=True)
    Image.fromarray(image).save(made.photo)
    Image.fromarray(mask).save(made.mask)
    return made


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def test_a_hash_recognises_an_image_and_its_mirror_image() -> None:
    rng = np.random.default_rng(0)
    one, two = (resized(rng.integers(0, 256, (9, 9), np.uint8), (120, 90)) for _ in range(2))
    plain, mirror = hashes(one)
    assert hashes(np.ascontiguousarray(one[:, ::-1])) == (mirror, plain)
    assert (plain ^ hashes(resized(one, (60, 45)))[0]).bit_count() <= 4
    assert (plain ^ hashes(two)[0]).bit_count() > 12
    small = resized(one, (32, 32))
    assert f"{hashes(small)[0]:016x}" == str(imagehash.phash(Image.fromarray(small)))


def test_objects_are_measured_at_the_networks_size() -> None:
    mask = np.zeros((64, 128), bool)
    mask[0:8, 0:16] = True  # 4 x 4 at the network's size
    mask[8:12, 16:24] = True  # touches the first by a corner: 2 x 2
    mask[40:60, 64:128:2] = True  # every other column is an object, until the columns are halved
    areas, sides = measure_objects(mask, (32, 32))
    found = sorted(zip(areas.tolist(), sides.tolist(), strict=True))
    assert found[0] == (4 * 4 + 2 * 2, 6)
    assert found[1:] == [(10 * 16, 16)]
    assert [len(each) for each in measure_objects(np.zeros((9, 9), bool), (32, 32))] == [0, 0]


def test_objects_are_scipys_connected_components() -> None:
    mask = np.random.default_rng(0).random((40, 60)) < 0.2
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    boxes = ndimage.find_objects(labels)
    sides = [max(part.stop - part.start for part in box) for box in boxes]
    areas = ndimage.sum_labels(mask, labels, range(1, count + 1)).astype(int)
    found = measure_objects(mask, (40, 60))
    assert sorted(zip(*(each.tolist() for each in found), strict=True)) == sorted(
        zip(areas.tolist(), sides, strict=True)
    )


def test_border_spread_and_frames(tmp_path: Path, image: np.ndarray) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[0] = 1  # 30 of the 2 * 30 + 2 * 18 pixels of the border
    made = pair(tmp_path, "a", image, mask)
    Image.fromarray(image).save(made.photo, save_all=True, append_images=[Image.fromarray(image[::-1])])
    stats = image_stats(image, mask > 0, (20, 30))
    (seen,), _ = scan({"all": [made]}, Foreground(), workers=1)
    assert seen.border == pytest.approx(30 / 96)
    assert seen.frames == (2, 1)
    assert stats.spread == pytest.approx(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).std(), abs=1e-6)
    assert (stats.areas.tolist(), stats.sides.tolist()) == ([30], [30])


def test_pairs_keep_their_order_and_their_facts(tmp_path: Path, image: np.ndarray) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[:4] = 7
    splits = {"val": [pair(tmp_path, "b", image, mask)], "train": [pair(tmp_path, "a", image[::-1], mask)]}
    done: list[tuple[int, int]] = []
    seen, problems = scan(splits, Foreground((7,)), workers=2, progress=lambda *count: done.append(count))
    assert [str(one) for one in seen] == ["val b", "train a"]
    assert [(one.size, one.values, one.fraction, one.stats) for one in seen] == [((20, 30), (0, 7), 0.2, None)] * 2
    assert seen[0].checksum != seen[1].checksum
    assert (problems, done) == ([], [(1, 2), (2, 2)])
    sizes = {"val": (20, 30), "train": (10, 15)}
    seen, _ = scan(splits, Foreground((7,)), workers=1, sizes=sizes)
    assert [one.stats.areas.tolist() for one in seen if one.stats] == [[120], [30]]
    seen, _ = scan(splits, Foreground((7,)), workers=1, sizes={"val": None, "train": None})
    assert [one.stats.areas.tolist() for one in seen if one.stats] == [[120], [120]]  # at the images' own size


def test_the_checksum_is_of_pixels_and_shape(tmp_path: Path, image: np.ndarray) -> None:
    mask = np.zeros((20, 30), np.uint8)
    first = pair(tmp_path, "a", image, mask)
    copy = Pair("b", tmp_path / "b.bmp", first.mask)
    Image.fromarray(image).save(copy.photo)  # other bytes, the same pixels
    turned = pair(tmp_path, "c", image.reshape(30, 20, 3), mask.reshape(30, 20))
    seen, _ = scan({"all": [first, copy, turned]}, Foreground(), workers=1)
    checksums = [one.checksum for one in seen]
    assert checksums[0] == checksums[1] != checksums[2]


def test_files_that_cannot_be_used_are_problems(tmp_path: Path, image: np.ndarray) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[:, :15] = 255
    swapped = pair(tmp_path, "a", np.stack([255 - mask] * 3, axis=-1), mask)
    small = pair(tmp_path, "b", image[:4], mask[:4])
    cut = pair(tmp_path, "c", image, mask[:-1])
    seen, problems = scan({"all": [swapped, small, cut]}, Foreground(), workers=1)
    assert [(problem.level, problem.where, problem.text.partition(":")[0]) for problem in problems] == [
        ("error", "images/a.png", "the photo is its mask"),
        ("error", "images/b.png", "too small"),
        ("error", "c", "sizes differ"),
    ]
    assert [one.pair.name for one in seen] == ["a", "c"]


def test_a_mask_that_is_its_photo(tmp_path: Path, image: np.ndarray) -> None:
    photo = resized(image, (60, 40))
    grey = np.asarray(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), np.uint8)
    for mask in (photo, grey):
        _, problems = scan({"all": [pair(tmp_path, "a", photo, mask)]}, Foreground("nonzero"), workers=1)
        assert [str(problem) for problem in problems] == [
            "error: masks/a.png: the mask is its photo: it shows what images/a.png shows; replace it by the mask"
        ]
    small = np.zeros((40, 60), np.uint8)
    cv2.circle(small, (30, 20), 4, 255, -1)
    others = (photo, grey[::-1]), (photo, (grey > 128) * grey // 64), (photo // 64, cv2.GaussianBlur(small, (0, 0), 2))
    pairs = [pair(tmp_path, f"b{number}", *each) for number, each in enumerate(others)]
    assert scan({"all": pairs}, Foreground("nonzero"), workers=1)[1] == []


def test_void_is_left_out_of_the_facts(tmp_path: Path, image: np.ndarray) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[:4], mask[10:], mask[4] = 1, 255, 7
    made = pair(tmp_path, "a", image, mask)
    (seen,), _ = scan({"all": [made]}, Foreground(ignore=(255, 7)), workers=1, sizes={"all": (20, 30)})
    assert seen.fraction == 4 * 30 / (9 * 30)
    assert seen.border == (30 + 2 * 3) / (30 + 2 * 8)  # a row, and of the columns what is above void
    assert (seen.void, seen.values, seen.void_values) == (11 / 20, (0, 1), (7, 255))
    assert seen.stats
    assert seen.stats.areas.tolist() == [120]
    (seen,), problems = scan({"all": [made]}, Foreground(ignore=(0, 1, 7, 255)), workers=1)
    assert (seen.void, seen.fraction, seen.border, seen.values, problems) == (1, 0, 0, (), [])


def test_a_photo_is_its_mask_whatever_is_void(tmp_path: Path, image: np.ndarray) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[:, :15] = 255
    photo = np.stack([mask] * 3, axis=-1)
    mask[:8] = 7
    _, problems = scan({"all": [pair(tmp_path, "a", photo, mask)]}, Foreground(ignore=(7,)), workers=1)
    assert [problem.text.partition(":")[0] for problem in problems] == ["the photo is its mask"]
