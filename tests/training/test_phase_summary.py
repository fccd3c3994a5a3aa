"""The facts of a phase: spans and lines by hand."""

from dataclasses import replace
from typing import Any

import pytest

from segtune.config.training_settings import PhaseSettings
from segtune.training.freezing import Scope
from segtune.training.phase_summary import _spans, brief, everything
from segtune.training.phases import Phase

PARTS = {"stem": (0, 10), "one": (5, 5), "two": (3, 9), "three": (0, 4), "four": (1, 1), "decoder": (2, 2)}


def test_neighbouring_blocks_are_joined() -> None:
    assert _spans(PARTS, lambda trainable, _: trainable > 0) == "one … two, four, decoder"
    assert _spans(PARTS, lambda trainable, total: trainable < total) == "stem, two … three"
    assert _spans(PARTS, lambda *_: True) == "stem … four, decoder"
    assert _spans(PARTS, lambda *_: False) == ""


FACTS: dict[str, Any] = {
    "trains": "one, decoder",
    "frozen": "stem",
    "trainable": 1234,
    "parameters": 5678,
    "backward_stops": "block1.conv",
    "optimizer": "adamw",
    "optimizer_bytes": 2_500_000,
}


def test_the_lines_of_a_phase() -> None:
    phase = PhaseSettings(epochs=3, lr=1e-3, backbone_lr_scale=0.1)
    assert brief(FACTS, phase) == [
        "trains  one, decoder",
        "frozen  stem",
        "1,234 of 5,678 parameters train, 2.5 MB of optimizer state",
        "gradients stop at block1.conv",
        "epochs  3, adamw at 0.001, the backbone at 0.0001",
    ]


@pytest.mark.parametrize(
    ("facts", "given", "line", "text"),
    [
        ({}, {"steps": 7, "layer_decay": 0.5}, -1, "steps   7, adamw at 0.1, the backbone at 0.1 times 0.5 for each "),
        ({}, {"epochs": 9, "until": "plateau", "patience": 2}, -1, "epochs  9 at most, until 2 epochs bring no better"),
        ({"trains": "decoder"}, {"epochs": 1, "backbone_lr_scale": 0.1}, -1, "epochs  1, adamw at 0.1"),
        ({}, {"epochs": 1, "batchnorm": "frozen"}, 1, "frozen  stem; BatchNorm of the whole backbone"),
        ({"frozen": ""}, {"epochs": 1}, 1, "frozen  nothing"),
    ],
)
def test_what_a_phase_adds_to_its_lines(facts: dict[str, Any], given: dict[str, Any], line: int, text: str) -> None:
    assert brief(FACTS | facts, PhaseSettings(lr=0.1, **given))[line].startswith(text)


def test_everything_trains_in_the_phase_that_costs_are_compared_with() -> None:
    given = PhaseSettings(epochs=2, lr=0.1, backbone=1, stop_gradient="stem", batchnorm="frozen", weight_decay=0.5)
    found = everything(Phase("head", given, Scope(("decoder",))))
    assert found.scope == Scope(("backbone", "decoder"))
    assert found.settings == replace(given, backbone="all", decoder="all", stop_gradient=None, batchnorm="train")
    assert (found.settings.lr, found.settings.weight_decay) == (0.1, 0.5)
