import re

import pytest
import yaml

from segtune.cli.help import config_folder
from segtune.config.parse import parse
from segtune.config.training_settings import (
    OPTIMIZER_DEFAULTS,
    SCHEDULE_DEFAULTS,
    OptimizerSettings,
    PhaseSettings,
    TrainSettings,
)
from segtune.errors import UserError


@pytest.mark.parametrize(
    ("settings", "file"), [(TrainSettings(), "train/default"), (OptimizerSettings("adamw"), "optimizer/adamw")]
)
def test_defaults_are_those_of_the_yaml_files(settings, file: str) -> None:
    full = yaml.safe_load((config_folder() / f"{file}.yaml").read_text(encoding="utf-8"))
    assert {name: value for name, value in vars(settings).items() if name in full} == full


def test_a_phase_has_one_length() -> None:
    with pytest.raises(ValueError, match="got neither"):
        PhaseSettings(lr=1)
    with pytest.raises(ValueError, match="got epochs=1 and steps=2: set one to null"):
        PhaseSettings(lr=1, epochs=1, steps=2)


def test_a_phase_overrides_the_optimizer() -> None:
    phase = PhaseSettings(lr=1, epochs=1, optimizer="sgd", weight_decay=0.0)
    optimizer = OptimizerSettings("adamw", weight_decay=0.1, warmup=0.2).of_phase(phase)
    assert (optimizer.name, optimizer.weight_decay, optimizer.warmup) == ("sgd", 0.0, 0.2)


@pytest.mark.parametrize("name", OPTIMIZER_DEFAULTS)
def test_comments_in_the_yaml_files_name_the_defaults(name: str) -> None:
    """A setting that is null says in its comment what that means."""
    text = (config_folder() / "optimizer" / f"{name}.yaml").read_text(encoding="utf-8")
    own = {key: float(value) for key, value in re.findall(r"^(\w+): null  # .*; null: (\S+)$", text, re.MULTILINE)}
    defaults = {key: value for key, value in OPTIMIZER_DEFAULTS[name].items() if key != "betas"}
    assert own == defaults
    of_schedules = {key: SCHEDULE_DEFAULTS[s][key] for s in SCHEDULE_DEFAULTS for key in SCHEDULE_DEFAULTS[s]}
    assert of_schedules.keys() <= yaml.safe_load(text).keys()
    assert (SCHEDULE_DEFAULTS["exponential"]["gamma"], SCHEDULE_DEFAULTS["multistep"]["gamma"]) == (0.94, 0.1)
    assert "null: 0.94 of exponential, 0.1 of multistep" in text


def test_a_phase_with_a_schedule_of_its_own_has_its_own_lengths() -> None:
    group = OptimizerSettings("sgd", schedule="exponential", gamma=0.5, decay_epochs=2, power=3, end_factor=0.1)
    same = group.of_phase(PhaseSettings(lr=1, epochs=1, decay_steps=7))
    assert (same.gamma, same.decay_epochs, same.decay_steps) == (0.5, None, 7)
    other = group.of_phase(PhaseSettings(lr=1, epochs=1, schedule="poly"))
    assert (other.gamma, other.decay_epochs, other.decay_steps) == (None, None, None)
    assert (other.power, other.end_factor) == (3, 0.1)


def test_what_an_optimizer_and_a_schedule_use() -> None:
    settings = OptimizerSettings("rmsprop_tf", alpha=0.5, momentum=0, schedule="exponential")
    assert settings.options == {
        **{"alpha": 0.5, "momentum": 0, "epsilon": 1.0},
        **{"gamma": 0.94, "staircase": True, "decay_epochs": 2, "decay_steps": None},
    }
    assert OptimizerSettings("adam", alpha=0.5, schedule="constant", gamma=0.5).options == {
        "betas": [0.9, 0.999],
        "epsilon": 1e-8,
    }


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"warmup": 1.5}, "warmup: got 1.5; expected: a fraction of the phase below 1, or a whole number of steps."),
        ({"milestones": [3, 2]}, "milestones: got [3, 2]; expected: a list of increasing numbers."),
        ({"milestone_steps": []}, "milestone_steps: got []; expected: a list of increasing numbers."),
        (
            {"decay_epochs": 1, "decay_steps": 2},
            "expected one of decay_epochs and decay_steps; got decay_epochs=1.0 and decay_steps=2: set one to null.",
        ),
    ],
)
def test_wrong_schedules_are_named(given: dict, text: str) -> None:
    with pytest.raises(UserError) as error:
        parse(OptimizerSettings, {"name": "sgd", **given})
    assert str(error.value) == f"One setting is wrong:\n  {text}"
