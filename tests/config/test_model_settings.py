import pytest
import yaml

from segtune.cli.help import config_folder
from segtune.config.model_settings import DeepLabV3PlusSettings, RestoreSettings


def test_defaults_are_those_of_the_yaml_file() -> None:
    """One truth: a setting left out means what the file says."""
    full = yaml.safe_load((config_folder() / "decoder" / "deeplabv3plus.yaml").read_text(encoding="utf-8"))
    assert vars(DeepLabV3PlusSettings()).items() >= full.items()


def test_the_rates_of_the_pyramid_are_three() -> None:
    assert DeepLabV3PlusSettings(atrous_rates=[1, 2, 3]).atrous_rates == [1, 2, 3]
    with pytest.raises(ValueError, match="expected three dilation rates"):
        DeepLabV3PlusSettings(atrous_rates=[6])


def test_restores_do_not_share_their_lists() -> None:
    assert RestoreSettings().exclude is not RestoreSettings().exclude
