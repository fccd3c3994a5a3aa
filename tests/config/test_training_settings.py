import pytest
import yaml

from segtune.cli.help import config_folder
from segtune.config.training_settings import OptimizerSettings, PhaseSettings, TrainSettings


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
