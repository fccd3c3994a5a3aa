"""Which images are on the contact sheet, and where."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from segtune.data.checks import contact_sheet as module
from segtune.data.checks.contact_sheet import choose, contact_sheet
from segtune.data.checks.scan import SampleStats, scan
from segtune.data.labels import Foreground
from segtune.data.sources.base import Pair


def samples(split: str, count: int) -> list[SampleStats]:
    made = [Pair(f"{split}{number}", Path("photo.png"), Path("mask.png")) for number in range(count)]
    return [SampleStats(split, pair, b"", (9, 9), (0,), 0.0) for pair in made]


def names(chosen: list[SampleStats]) -> list[str]:
    return [one.pair.name for one in chosen]


def test_suspects_take_at_most_half_and_splits_share_the_rest() -> None:
    seen = samples("train", 30) + samples("val", 2) + samples("test", 9)
    suspects = {f"train{number}" for number in range(10, 20)}
    chosen = names(choose(seen, suspects, 16))
    assert len(chosen) == len(set(chosen)) == 16
    assert set(chosen[:8]) <= suspects
    assert not set(chosen[8:]) & suspects
    assert [sum(name.startswith(split) for name in chosen[8:]) for split in ("train", "val", "test")] == [3, 2, 3]


def test_what_few_suspects_leave_is_filled() -> None:
    seen = samples("train", 30)
    assert len(choose(seen, {"train3"}, 12)) == 12
    assert "train3" in names(choose(seen, {"train3"}, 12))
    assert names(choose(seen[:5], set(), 12)) == names(seen[:5])
    assert choose(seen, {"train3"}, 0) == []


def test_the_sheet_has_rows_of_eight_with_suspects_in_red(tmp_path: Path) -> None:
    pairs = []
    for number in range(9):
        pair = Pair(f"p{number}" + "_long" * 20, tmp_path / f"p{number}.png", tmp_path / f"m{number}.png")
        Image.fromarray(np.full((20, 40, 3), 25 * number, np.uint8)).save(pair.photo)
        mask = np.zeros((20, 40), np.uint8)
        mask[:, :10] = 1
        Image.fromarray(mask).save(pair.mask)
        pairs.append(pair)
    seen, _ = scan({"train": pairs}, Foreground(), workers=1)
    sheet = contact_sheet(seen, {pairs[8].name}, Foreground())
    width, height = 200 + 8, 200 + 2 * 16 + 8
    assert sheet.shape == (2 * height + 8, 8 * width + 8, 3)
    for number in range(9):
        left, top = 8 + number % 8 * width, 8 + number // 8 * height
        cell = sheet[top : top + 200, left : left + 200]
        assert (cell[110:190, 60:190] == 25 * number).all()  # 100 rows at the bottom of the cell, without the mask
        expected = 0.65 * 25 * number + 0.35 * np.array((255, 0, 200))
        assert np.abs(cell[110:190, 10:40] - expected).max() <= 1
        red = (sheet[top - 3, left : left + 200] == (210, 40, 30)).all()
        assert red == (number == 8)


def test_a_turn_of_only_one_file_is_written_below(tmp_path: Path) -> None:
    (seen,) = samples("train", 1)
    texts = {(1, 1): "", (3, 1): ", photo turned", (1, 2): ", mask turned", (3, 2): ", both turned", (6, 6): ""}
    for orientations, text in texts.items():
        assert module._facts(replace(seen, orientations=orientations)) == f"train, 0.0% foreground{text}"
    sideways = replace(seen, orientations=(6, 1), size=(9, 16))  # sizes tell
    assert module._facts(sideways) == "train, 0.0% foreground"


def test_void_is_striped_and_written_below(tmp_path: Path) -> None:
    pair = Pair("p", tmp_path / "p.png", tmp_path / "m.png")
    Image.fromarray(np.full((40, 40, 3), 250, np.uint8)).save(pair.photo)
    mask = np.zeros((40, 40), np.uint8)
    mask[:10], mask[30:] = 1, 255
    Image.fromarray(mask).save(pair.mask)
    rule = Foreground(ignore=(255,))
    seen, _ = scan({"train": [pair]}, rule, workers=1)
    cell = contact_sheet(seen, set(), rule)[8:208, 8:208]
    assert {tuple(colour) for colour in cell[155:].reshape(-1, 3)} == {(96, 96, 96), (160, 160, 160)}
    assert (cell[60:145] == 250).all()
    assert module._facts(seen[0]) == "train, 33.3% foreground, 25.0% void"
