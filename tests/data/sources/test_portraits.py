from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from segtune.data.sources import portraits
from segtune.data.sources.portraits import draw_scene, make_portraits
from segtune.errors import UserError

VAL_SEEDS = range(400, 448, 3)


@pytest.fixture(scope="module")
def val() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A third of the validation images `(N, 128, 128, 3)` and masks, those with somebody in them."""
    scenes = [draw_scene(seed, 128) for seed in VAL_SEEDS]
    peopled = [(rgb, mask > 0) for rgb, mask in scenes if mask.any()]
    return np.stack([rgb for rgb, _ in peopled]), np.stack([mask for _, mask in peopled])


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portraits, "SPLITS", {"train": 3, "val": 2, "test": 1})
    monkeypatch.setattr(portraits, "SIDE", 64)


def dice_mean(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    both, total = (found & truth).sum((1, 2)), found.sum((1, 2)) + truth.sum((1, 2))
    return float(np.mean(2 * both / total))


def test_a_seed_gives_the_same_bits_and_another_seed_others():
    first, again, other = draw_scene(7, 96), draw_scene(7, 96), draw_scene(8, 96)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).mean() > 0.5


@pytest.mark.parametrize("size", [33, 256])
def test_image_is_rgb_bytes_and_mask_binary(size: int):
    rgb, mask = draw_scene(2, size)
    assert (rgb.shape, rgb.dtype, mask.shape, mask.dtype) == ((size, size, 3), np.uint8, (size, size), np.uint8)
    assert set(np.unique(mask)) == {0, 255}


def test_size_changes_the_sharpness_not_the_scene():
    large, small = draw_scene(250, 256)[1], draw_scene(250, 128)[1]
    shrunk = cv2.resize(large, (128, 128), interpolation=cv2.INTER_AREA) >= 128
    assert dice_mean(shrunk[None], small[None] > 0) > 0.96


def test_skin_takes_a_fair_share_of_the_image(val):
    shares = val[1].mean((1, 2))
    assert 0.05 < shares.mean() < 0.45
    assert shares.min() > 0.01


def test_scenes_hold_nobody_to_two_people(monkeypatch: pytest.MonkeyPatch):
    people: list[int] = []

    class Ghost:
        def __init__(self, *_: object) -> None:
            people[-1] += 1

        def draw(self) -> None: ...

    monkeypatch.setattr(portraits, "Person", Ghost)
    for seed in range(100):
        people.append(0)
        assert not draw_scene(seed, 16)[1].any()  # all else is no skin
    counts = np.bincount(people)
    assert len(counts) == 3
    assert 1 <= counts[0] <= 8


def test_the_classic_ycrcb_rule_fails(val):
    images, truth = val
    _, cr, cb = np.moveaxis(np.stack([cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb) for rgb in images]), -1, 0)
    found = (cr >= 133) & (cr <= 173) & (cb >= 77) & (cb <= 127)
    assert dice_mean(found, truth) < 0.75


def test_no_rule_on_colour_alone_can_do_well(val):
    """Upper bound: the likeliest label of each of 4096 colours, learned from the very images it is tried on.

    What a network must reach in `experiment=first` is 0.90.
    """
    images, truth = val
    cells = (images // 16).astype(int) @ (256, 16, 1)
    skin, other = (np.bincount(cells[part], minlength=4096) for part in (truth, ~truth))
    share = (skin / np.maximum(skin + other, 1))[cells]
    assert max(dice_mean(share > cut, truth) for cut in np.arange(0.1, 0.9, 0.1)) < 0.80


def test_drawn_skin_spans_dark_to_light(val):
    luma = [cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[mask].mean() for rgb, mask in zip(*val, strict=True)]
    assert min(luma) < 80
    assert max(luma) > 150


def test_folder_holds_images_masks_and_splits(tmp_path: Path, few: None):
    root, seen = tmp_path / "deep" / "portraits", []
    make_portraits(root, lambda done, total: seen.append((done, total)))
    stems = [f"portrait_{k:04d}" for k in range(6)]
    assert seen == [(k, 6) for k in range(1, 7)]
    assert sorted(p.name for p in root.iterdir()) == ["VERSION", "images", "masks", "test.txt", "train.txt", "val.txt"]
    assert [(root / f"{split}.txt").read_text().split() for split in ("train", "val", "test")] == [
        stems[:3], stems[3:5], stems[5:]]  # fmt: skip
    for seed, stem in enumerate(stems):
        rgb, mask = draw_scene(seed, 64)
        np.testing.assert_array_equal(cv2.imread(str(root / "images" / f"{stem}.png"))[..., ::-1], rgb)
        np.testing.assert_array_equal(cv2.imread(str(root / "masks" / f"{stem}.png"), cv2.IMREAD_UNCHANGED), mask)
    assert [p.name for p in root.parent.iterdir()] == ["portraits"]


def test_complete_folder_is_left_alone(tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch):
    root = tmp_path / "portraits"
    root.mkdir()  # an empty folder is as good as none
    make_portraits(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    monkeypatch.setattr(portraits, "draw_scene", lambda *_: pytest.fail("drew again"))
    make_portraits(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_interrupted_run_leaves_nothing(tmp_path: Path, few: None):
    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_portraits(tmp_path / "portraits", interrupt)
    assert list(tmp_path.iterdir()) == []


def test_of_two_runs_at_once_the_first_to_finish_wins(tmp_path: Path, few: None):
    root = tmp_path / "portraits"
    make_portraits(root, lambda done, total: make_portraits(root) if done == 1 else None)
    assert sorted(path.name for path in tmp_path.rglob("*.txt")) == ["test.txt", "train.txt", "val.txt"]
    assert list(tmp_path.iterdir()) == [root]


def _own_pictures(root: Path) -> Path:
    (root / "images").mkdir(parents=True)
    (root / "images" / "mine.png").write_bytes(b"mine")
    return root / "images" / "mine.png"


def _other_version(root: Path) -> Path:
    make_portraits(root)
    (root / "VERSION").write_text("0\n")
    return root / "VERSION"


def _mask_lost(root: Path) -> Path:
    make_portraits(root)
    (root / "masks" / "portrait_0003.png").unlink()
    return root / "VERSION"


def _a_file(root: Path) -> Path:
    root.write_text("notes")
    return root


@pytest.mark.parametrize("target", ["nowhere", "portraits"])
def test_a_link_to_nothing_is_refused_before_anything_is_drawn(tmp_path: Path, few: None, target: str) -> None:
    root = tmp_path / "portraits"
    root.symlink_to(target)
    with pytest.raises(UserError, match="contains something other than the complete built-in portraits"):
        make_portraits(root, lambda *_: pytest.fail("drawn"))


@pytest.mark.parametrize("occupy", [_own_pictures, _other_version, _mask_lost, _a_file])
def test_folder_with_other_content_is_refused_and_kept(tmp_path: Path, few: None, occupy):
    root = tmp_path / "portraits"
    kept = occupy(root)
    content = kept.read_bytes()
    with pytest.raises(UserError) as refusal:
        make_portraits(root)
    assert str(refusal.value) == (
        f"{root} contains something other than the complete built-in portraits, version 1; "
        "expected no folder or an empty one. Move it away, or set data.root to another folder."
    )
    assert kept.read_bytes() == content


def test_place_that_cannot_be_written_is_named(tmp_path: Path, few: None):
    (tmp_path / "file").write_text("in the way")
    root = tmp_path / "file" / "portraits"
    with pytest.raises(UserError) as refusal:
        make_portraits(root)
    assert str(refusal.value).startswith(f"Cannot write the built-in portraits to {root}: ")
    assert " is a file, not a folder (" in str(refusal.value)
    assert str(refusal.value).endswith(". Set data.root to a writable folder.")
