"""The page of a leaderboard: what stands on it, for any set of runs."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from segtune.reporting.leaderboard import Leaderboard
from segtune.reporting.leaderboard_page import effects_of, write_leaderboard
from segtune.reporting.run_results import find_runs
from tests.reporting.conftest import write_run, write_six

EVIL = "<script>foo()</script>"


class Cells(HTMLParser):
    """Collects the rows of all tables as text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, _: object) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


def page_of(folder: Path) -> str:
    board = Leaderboard(find_runs(folder), folder)
    path = folder / "report.html"
    write_leaderboard(path, board, effects_of(board))
    return path.read_text(encoding="utf-8")


def test_a_sweep_with_all_that_can_happen(tmp_path: Path) -> None:
    write_six(tmp_path)
    (tmp_path / "1" / "report.html").touch()
    text = page_of(tmp_path)
    heading, best, *_ = Cells(text).rows
    assert heading == [
        *("", "run", "Dice", "95 % interval", "backbone", "lr", "epochs", "minutes", "images/s", "trained", "memory"),
        "best in",
    ]
    assert best == ["1", "1", "0.7000", "0.100 – 0.900", "vgg16", "0.001", "2 of 2", "1.0", "–", "–", "–", "100%"]
    for expected in (
        "<h1>6 runs: 3 finished, 1 failed, 1 interrupted, 1 not started, in ",
        '<a href="1/report.html">1</a>',
        "<h2>3 of 6 runs did not finish</h2>",
        "<pre>Out of memory.</pre>",
        "<h2>What mattered</h2>",
        "optimistically biased",
        "evaluate checkpoint=",
        "Orange: not beaten at less time, by rank: 3, 1.",  # not as good as the second and quicker; the best
        "<pre>python -m segtune train -m backbone=vgg16,resnet50 lr=1e-4,1e-3,1e-2</pre>",
    ):
        assert expected in text, expected
    assert text.count("<svg") == 4  # two settings, Dice by time, learning curves


def test_seeds_stand_below_their_mean(tmp_path: Path) -> None:
    for seed, dice in enumerate((0.5, 0.7)):
        write_run(tmp_path / f"s{seed}", dice, settings={"seed": seed, "lr": 1})
    write_run(tmp_path / "other", 0.4, settings={"seed": 0, "lr": 2})
    text = page_of(tmp_path)
    rows = [row[:3] for row in Cells(text).rows]
    assert rows[1:] == [
        ["1", "2 runs", "0.6000 ± 0.1414 (n=2)"],
        ["", "s1, seed 1", "0.7000"],
        ["", "s0, seed 0", "0.5000"],
        ["2", "other", "0.4000"],
    ]
    assert "standard deviation 0.1414" in text


@pytest.mark.parametrize("failed", [0, 3])
def test_nothing_has_finished(tmp_path: Path, failed: int) -> None:
    for number in range(failed):
        write_run(tmp_path / str(number), failure={"reason": "why not"}, dices=[])
    write_run(tmp_path / "begun", dices=[0.3])
    text = page_of(tmp_path)
    assert "<strong>No run has finished.</strong>" in text
    assert "<table" not in text
    assert text.count("why not") == (1 if failed else 0)
    assert text.count("<svg") == 1  # the curve of what was interrupted


def test_no_run_has_a_dice(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 1.0, val_dice_object=None, dices=[float("nan")])
    text = page_of(tmp_path)
    assert "<strong>No run has a Dice: none of their validation images has an object.</strong>" in text
    assert [row[:3] for row in Cells(text).rows[1:]] == [["", "a", "–"]]
    assert "<svg" not in text


def test_one_run(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0.8, overrides=["lr=1"], dices=[0.8])
    text = page_of(tmp_path)
    assert "biased" not in text
    assert "What mattered" not in text
    assert text.count("<svg") == 1


def test_effects_come_from_runs_on_the_same_images(tmp_path: Path) -> None:
    for name, rate, image, dice in (("a", 1, "x", 0.9), ("b", 2, "x", 0.8), ("c", 3, "y", 0.1)):
        write_run(tmp_path / name, dice, settings={"lr": rate}, scores={image: dice})
    effects = effects_of(Leaderboard(find_runs(tmp_path), tmp_path))
    assert effects is not None
    assert {level.text: level.mean for level in effects.found[0].levels} == pytest.approx({"1": 0.9, "2": 0.8})


def test_names_are_escaped(tmp_path: Path) -> None:
    for number in range(2):
        write_run(tmp_path / str(number), 0.5, overrides=[f"'x={EVIL}{number}'"], settings={EVIL: EVIL})
    write_run(tmp_path / "f", failure={"reason": EVIL, "kind": EVIL, "command": EVIL})
    text = page_of(tmp_path)
    assert EVIL not in text
    assert text.count("&lt;script&gt;") > 5
