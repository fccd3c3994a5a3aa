"""What the leaderboard says: what failed and why, how sure the best is, what mattered, and what to do next."""

import re
import shlex
from pathlib import Path

import pytest

from segtune.reporting.effects import Effect, Effects, Level
from segtune.reporting.leaderboard import Leaderboard
from segtune.reporting.leaderboard_words import (
    Unfinished,
    heading_of,
    next_commands,
    notes_on,
    repeated,
    sentence_of,
    unfinished,
    warnings_of_choice,
)
from segtune.reporting.run_results import RunResult, find_runs
from tests.reporting.conftest import write_run, write_six

LEVELS = (Level("vgg16", 1, 0.5, None), Level("", 3, 0.75, None))


def board_of(folder: Path) -> Leaderboard:
    return Leaderboard(find_runs(folder), folder)


def test_what_did_not_finish_has_its_settings_and_its_reason(tmp_path: Path) -> None:
    board = board_of(write_six(tmp_path))
    failed, interrupted, not_started = unfinished(board)
    assert failed == Unfinished("failed", "Out of memory.", [("2", "backbone=vgg16 lr=0.01", "python -m …")])
    assert (interrupted.status, interrupted.runs[0][:2]) == ("interrupted", ("4", "backbone=resnet50 lr=0.001"))
    assert not_started == Unfinished("not started", "", [("5", "backbone=resnet50 lr=0.01", "")])
    assert heading_of(board) == "3 of 6 runs did not finish"


def test_runs_that_failed_for_one_reason_are_one(tmp_path: Path) -> None:
    for number in range(3):
        write_run(tmp_path / str(number), failure={"reason": "no such folder\n", "overrides": [f"lr={number}"]})
    board = board_of(tmp_path)
    (each,) = unfinished(board)
    assert [name for name, *_ in each.runs] == ["0", "1", "2"]
    assert [settings for _, settings, _ in each.runs] == ["lr=0", "lr=1", "lr=2"]
    assert each.reason == "no such folder"
    assert heading_of(board) == "3 of 3 runs failed"
    assert (warnings_of_choice(board), next_commands(board)) == ([], [])


def test_the_warning_counts_what_lies_in_the_interval(tmp_path: Path) -> None:
    for name, scores in {"a": (0.8, 0.9, 0.7), "b": (0.9, 0.6, 0.6), "c": (0.02, 0.03, 0.01)}.items():
        by_image = dict(zip("xyz", scores, strict=True))
        write_run(tmp_path / name, sum(scores) / 3, settings={"lr": name}, scores=by_image)
    first, within, resampled = warnings_of_choice(board_of(tmp_path))
    assert first.startswith("The best of 3 on the same validation images is optimistically biased")
    assert within == "Of the other 2, 1 has a Dice within the best one's 95 % interval."
    # Of the 27 samples, a loses those of x alone and of x twice and z: 1 + 3.
    share = re.fullmatch(
        r"In resamples of the 3 validation images .* best in (\d+)%\. .* Dice of 0\.\d{4} .*", resampled
    )
    assert share is not None
    assert int(share[1]) == pytest.approx(100 * 23 / 27, abs=3)


def test_the_spread_of_seeds_says_which_lines_it_could_have_ordered(tmp_path: Path) -> None:
    """Deviations 0.1 and 0.02 with one degree each are 0.0721 with two; t is 4.303, so means of two differ by 0.310."""
    for rate, dices in enumerate(((0.9, 0.9 - 0.1 * 2**0.5), (0.6, 0.6 - 0.02 * 2**0.5), (0.48,), (0.4,))):
        for seed, dice in enumerate(dices):
            write_run(tmp_path / f"{rate}{seed}", dice, settings={"lr": rate, "seed": seed})
    assert warnings_of_choice(board_of(tmp_path))[-1] == (
        "Between seeds the standard deviation is 0.0721 (2 degrees of freedom): by Student's t (95 %), 2 of the "
        "other 3 could be behind the first by their seeds alone."
    )  # the second is 0.243 behind; those of one run, whose limit is 0.380, are 0.349 and 0.429


def test_different_images_are_pointed_out_even_for_one_dice(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0.5, settings={"lr": 1}, scores={"x": 0.5})
    write_run(tmp_path / "b", 0.4, settings={"lr": 2}, scores={"y": 0.4})
    said = warnings_of_choice(board_of(tmp_path))
    assert (
        said[0] == "Not all runs were validated on the same images and masks: their Dice cannot be compared directly."
    )
    assert len(said) == 3


@pytest.mark.parametrize(
    ("interval", "end"),
    [
        (None, "."),
        ((0.1, 0.4), " (95 %: +0.1000 to +0.4000)."),
        ((-0.1, 0.6), " (95 %: -0.1000 to +0.6000): it may be no difference at all."),
    ],
)
def test_an_effect_in_words(interval: tuple[float, float] | None, end: str) -> None:
    text = "backbone: default 0.7500 (3 runs) against vgg16 0.5000 (1 run), 0.2500 more"
    assert sentence_of(Effect("backbone", LEVELS, (), interval)) == text + end


def test_long_values_are_shortened() -> None:
    effect = Effect("a", (Level("x" * 500, 1, 0.5, None), LEVELS[1]), (), None)
    assert len(sentence_of(effect)) < 160


def test_what_the_effects_rest_on() -> None:
    balanced, adjusted = (
        notes_on(Effects((), ("a", "b"), 4, True, 0.0123)),
        notes_on(Effects((), ("a",), 3, False, None)),
    )
    assert balanced[0].startswith("From the Dice of 4 finished runs. Every combination was run equally often")
    assert balanced[1] == "Added up, the effects miss the Dice of a run by a standard deviation of 0.0123."
    assert balanced[2] == "Too few combinations were run to tell the effects of these settings from others: a; b."
    assert adjusted[0].startswith(
        "From the Dice of 3 finished runs. Not every combination was run equally often: each mean is adjusted"
    )
    assert adjusted[1] == "Too few combinations were run to tell the effects of these settings from others: a."


def test_commands_that_evaluate_repeat_and_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_six(tmp_path / "my sweep")
    assert next_commands(board_of(Path("my sweep"))) == [
        (
            "Evaluate the best run on the test split",
            "python -m segtune evaluate 'checkpoint=my sweep/1/checkpoints/best.pt' data.split=test",
        ),
        ("Train the best run again", "python -m segtune train backbone=vgg16 lr=1e-3"),
        ("Run what is missing of the sweep", "python -m segtune train 'resume=my sweep'"),
    ]


def test_a_run_without_model_and_command_has_none(tmp_path: Path) -> None:
    (write_run(tmp_path / "a", 0.5) / "checkpoints" / "best.pt").unlink()
    assert next_commands(board_of(tmp_path)) == []


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("segtune train lr=1 run_dir=x resume=auto 'data.root=a b'", ["segtune", "train", "lr=1", "data.root=a b"]),
        ("segtune train lr=1 ++epochs=2 && segtune train resume=x epochs=4", ["segtune", "train", "lr=1", "epochs=4"]),
        ("segtune train 'lr=1", []),
        ("", []),
    ],
)
def test_the_command_of_a_run_alone(command: str, expected: list[str]) -> None:
    assert shlex.split(repeated(RunResult(Path(), command=command))) == expected
