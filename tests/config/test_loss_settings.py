import pytest
import yaml
from pydantic import TypeAdapter

from segtune.cli.help import config_folder
from segtune.config.loss_settings import BCESettings, DiceBCESettings, LossSettings


def test_defaults_are_those_of_the_yaml_file() -> None:
    full = yaml.safe_load((config_folder() / "loss" / "dice_bce.yaml").read_text(encoding="utf-8"))
    assert vars(DiceBCESettings()).items() >= full.items()


def test_saved_options_of_other_losses_are_dropped() -> None:
    saved = {"name": "bce", "dice_weight": 1.0, "smooth": 1.0}
    assert TypeAdapter(LossSettings).validate_python(saved) == BCESettings()


def test_a_loss_of_two_zero_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="the loss would be constant"):
        DiceBCESettings(dice_weight=0, bce_weight=0)
