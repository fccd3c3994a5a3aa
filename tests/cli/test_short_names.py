"""Short names on the command line: what they set, what stays as given, and where they mean nothing."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from segtune.__main__ import main
from segtune.cli import short_names
from segtune.runtime.paths import notice
from tests.cli.conftest import message


@pytest.fixture(autouse=True)
def _fresh_notices() -> None:
    notice.cache_clear()


def composed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], str]:
    assert main([*arguments, "--cfg", "job"]) == 0
    out, err = capsys.readouterr()
    return OmegaConf.to_container(OmegaConf.create(out)), err  # type: ignore[return-value]


def phases(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[list[Any], str]:
    settings, said = composed(capsys, "train", *arguments)
    found = settings["freeze"]["phases"]
    return [(name, each.get("epochs"), each.get("steps"), each["lr"]) for name, each in found.items()], said


def test_epochs_and_lr_are_those_of_every_phase(capsys: pytest.CaptureFixture[str]) -> None:
    found, said = phases(capsys, "epochs=5", "lr=1e-2")
    assert found == [("head", 5, None, 0.01), ("all", 5, None, 0.01)]
    assert said == (
        "epochs=5 of every phase: head, all (freeze.phases.NAME.epochs).\n"
        "lr=0.01 of every phase: head, all (freeze.phases.NAME.lr).\n"
    )


@pytest.mark.parametrize("order", [1, -1])
def test_what_a_phase_is_given_itself_stays_in_any_order(capsys: pytest.CaptureFixture[str], order: int) -> None:
    found, said = phases(capsys, *["lr=0.5", "freeze.phases.head.lr=0.25"][::order])
    assert [(name, lr) for name, _, _, lr in found] == [("head", 0.25), ("all", 0.5)]
    assert said == "lr=0.5 of every phase: all; head as given (freeze.phases.NAME.lr).\n"


def test_lengths_in_steps(capsys: pytest.CaptureFixture[str]) -> None:
    late = "+freeze.phases.late={backbone: all, steps: 9, lr: 1}"
    given = ("freeze.phases.head.epochs=null", "freeze.phases.head.steps=7")
    found, said = phases(capsys, "epochs=5", *given, late)
    assert found == [("head", None, 7, 0.001), ("all", 5, None, 0.0003), ("late", None, 9, 1)]
    assert said == "epochs=5 of every phase: all; head, late as given (freeze.phases.NAME.epochs).\n"


def test_batch_size_and_image_size(capsys: pytest.CaptureFixture[str]) -> None:
    settings, said = composed(capsys, "train", "batch_size=3", "image_size=[64,96]")
    assert (settings["train"]["batch_size"], settings["data"]["image_size"], said) == (3, [64, 96], "")
    settings, _ = composed(capsys, "evaluate", "checkpoint=a.pt", "image_size=64")
    assert settings["data"]["image_size"] == 64
    settings, _ = composed(capsys, "predict", "checkpoint=a.pt", "input=b", "image_size=64")
    assert settings["image_size"] == 64  # predict has one of its own


def test_tile_and_overlap(capsys: pytest.CaptureFixture[str]) -> None:
    settings, _ = composed(capsys, "evaluate", "checkpoint=a.pt", "data=folder", "data.root=b", "tile=256", "overlap=0")
    assert (settings["data"]["eval_tile"], settings["data"]["eval_overlap"]) == (256, 0)
    settings, _ = composed(capsys, "evaluate", "checkpoint=a.pt", "data=folder", "data.root=b")
    assert (settings["data"]["eval_tile"], settings["data"]["eval_overlap"]) == (None, None)  # as in training
    settings, _ = composed(capsys, "predict", "checkpoint=a.pt", "input=b", "tile=256", "overlap=0.5")
    assert (settings["tile"], settings["overlap"]) == (256, 0.5)  # predict has its own


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("train", "epochs=0"), "One setting is wrong:\n  epochs: got 0; expected: greater than or equal to 1."),
        (("train", "lr=fast"), "One setting is wrong:\n  lr: got 'fast'; expected: a valid number."),
        (("train", "lr=[1,2]"), "One setting is wrong:\n  lr: got [1, 2]; expected: a valid number."),
        (("plan", "lr=-1"), "One setting is wrong:\n  lr: got -1; expected: greater than 0."),
        (
            ("train", "batch_size=3", "train.batch_size=4"),
            "batch_size and train.batch_size are the same setting: give one of them.",
        ),
        (
            ("train", "image_size=8"),
            "One setting is wrong:\n  data.image_size: got 8; expected: greater than or ",
        ),
        (
            ("evaluate", "checkpoint=a.pt", "epochs=3"),
            "epochs is a setting of training; evaluate has none of this name. Leave it out.",
        ),
        (
            ("predict", "checkpoint=a.pt", "input=b", "batch_size=2"),
            "predict has no batch_size: it predicts one image after the other. Leave it out.",
        ),
        (("export", "checkpoint=a.pt", "image_size=64"), "export has no image_size. Leave it out."),
    ],
)
def test_what_short_names_cannot_mean(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], expected: str
) -> None:
    assert message(capsys, *arguments).startswith(f"segtune {arguments[0]}: {expected}")


def test_a_setting_without_effect_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = "train.batch_size=0"  # ends the command once the settings are composed
    said = message(capsys, "train", "optimizer.power=2", "freeze.phases.head.patience=2", wrong)
    assert said.splitlines()[:2] == [
        "optimizer.power has no effect with optimizer.schedule=cosine: poly uses it (optimizer.schedule=poly).",
        "freeze.phases.head.patience has no effect without freeze.phases.head.until=plateau.",
    ]
    notice.cache_clear()
    assert "no effect" not in message(capsys, "train", "optimizer.power=2", "optimizer.schedule=poly", wrong)


@pytest.mark.parametrize(
    ("given", "optimizer", "head", "said"),
    [
        (
            "optimizer.gamma",
            {"schedule": "cosine"},
            {"schedule": "poly"},
            "optimizer.gamma has no effect with optimizer.schedule=cosine: exponential and multistep use it "
            "(optimizer.schedule=exponential).",
        ),
        (  # a phase with another schedule does not take it over
            "optimizer.gamma",
            {"schedule": "cosine"},
            {"schedule": "exponential"},
            "optimizer.gamma has no effect with optimizer.schedule=cosine: exponential and multistep use it "
            "(optimizer.schedule=exponential).",
        ),
        ("optimizer.power", {"schedule": "cosine"}, {"schedule": "poly"}, ""),
        ("optimizer.decay_epochs", {"schedule": "cosine"}, {}, ""),
        (
            "freeze.phases.head.milestones",
            {"schedule": "cosine"},
            {},
            "freeze.phases.head.milestones has no effect with freeze.phases.head.schedule=cosine: multistep uses it "
            "(freeze.phases.head.schedule=multistep).",
        ),
        ("freeze.phases.head.milestones", {"schedule": "cosine"}, {"schedule": "multistep"}, ""),
        ("optimizer.momentum", {"name": "adamw"}, {"optimizer": "rmsprop"}, ""),
        (
            "optimizer.momentum",
            {"name": "adamw"},
            {"optimizer": "adam"},
            "optimizer.momentum has no effect with optimizer=adam, adamw: sgd, rmsprop and rmsprop_tf use it "
            "(optimizer=sgd).",
        ),
    ],
)
def test_settings_of_other_schedules_and_optimizers_are_said(
    monkeypatch: pytest.MonkeyPatch, given: str, optimizer: dict[str, Any], head: dict[str, Any], said: str
) -> None:
    spoken: list[str] = []
    monkeypatch.setattr(short_names, "notice", spoken.append)
    short_names.say_unused({"optimizer": optimizer, "freeze": {"phases": {"head": head, "all": {}}}}, {given})
    assert "\n".join(spoken) == said


def test_settings_that_no_phase_takes_over_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    spoken: list[str] = []
    monkeypatch.setattr(short_names, "notice", spoken.append)
    phases = {"head": {"schedule": "poly"}, "all": {"schedule": "multistep"}}
    settings = {"optimizer": {"schedule": "cosine"}, "freeze": {"phases": phases}}
    short_names.say_unused(settings, {"optimizer.milestones", "optimizer.power"})
    assert spoken == [
        "optimizer.milestones has no effect: every phase has a schedule of its own, and takes milestones from itself "
        "alone (freeze.phases.NAME.milestones)."
    ]
