"""An evaluation on the terminal."""

import re
from typing import Any

import pytest
from rich.console import Console

from segtune.reporting.evaluation_tables import show
from segtune.runtime import console

NAMES = ("dice", "iou", "precision", "recall", "boundary_f")
MEANS = {f"{name}_mean": 0.1 * number for number, name in enumerate(NAMES, start=1)}
POOLED = {"dice_pooled": 0.6, "iou_pooled": 0.7, "precision": 0.8, "recall": None, "boundary_f_pooled": 1.0}
FACTS: dict[str, Any] = {
    **MEANS,
    **POOLED,
    "intervals": {name: [0.25, 0.75] for name in MEANS} | {name: [None, None] for name in POOLED},
    "split": "test",
    "images": 12,
    "empty_images": 2,
    "empty": "one",
    "empty_pictures": {"images": 2, "with_false_alarm": 1, "dice_mean_of_others": 0.5},
    "threshold": 0.5,
    "tolerance": 2.0,
    "tuned": None,
    "warnings": ["nothing predicted on any picture"],
    "groups": {
        "camera": [
            {"group": "x", "images": 7, "dice_mean": 0.8, "interval": [0.7, 0.9], "dice_pooled": 0.85},
            {"group": "y", "images": 5, "dice_mean": None, "interval": [None, None], "dice_pooled": None},
        ]
    },
    "gaps": {"camera": {"best": "x", "worst": "y", "gap": 0.3}},
}


@pytest.fixture(params=[None, 80])
def out(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What is shown in a file, and on a terminal of 80 columns."""
    terminal = Console(width=request.param, force_terminal=bool(request.param), color_system=None, markup=False)
    monkeypatch.setattr(console, "console", terminal)
    show(FACTS)
    return capsys.readouterr().out


def cells(out: str) -> list[list[str]]:
    return [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in out.splitlines() if line[:1] in "│┃"]


def test_each_score_has_its_mean_its_pooled_value_and_intervals(out: str) -> None:
    assert cells(out)[1:6] == [
        ["Dice", "0.1000", "0.250 – 0.750", "0.6000", ""],
        ["IoU", "0.2000", "0.250 – 0.750", "0.7000", ""],
        ["precision", "0.3000", "0.250 – 0.750", "0.8000", ""],
        ["recall", "0.4000", "0.250 – 0.750", "–", ""],
        ["boundary F, 2 px", "0.5000", "0.250 – 0.750", "1.0000", ""],
    ]


def test_groups_and_their_gap_are_shown(out: str) -> None:
    assert cells(out)[6:] == [
        ["camera", "images", "mean Dice", "95 % interval", "pooled"],
        ["x", "7", "0.8000", "0.700 – 0.900", "0.8500"],
        ["y", "5", "–", "", "–"],
    ]
    assert "Gap in mean Dice from the best group (x) to the worst (y): 0.3000" in out


def test_the_title_explains_pooled_and_counts_the_images(out: str) -> None:
    words = " ".join(out.split())
    assert (
        "test: 12 images, 2 without foreground; mean over images, and pooled (micro-averaged over all pixels)" in words
    )
    assert "An image without foreground counts as 1 if nothing is predicted, else 0 (train.empty=one)" in words
