import pytest

from segtune.config.data_settings import DataSettings


def test_sizes_are_height_and_width() -> None:
    settings = DataSettings(name="folder", root="photos", image_size=[64, 96])
    assert settings.size == settings.evaluation_size == (64, 96)
    assert DataSettings(name="folder", root="photos", eval_size=128).evaluation_size == (128, 128)


def test_the_shares_leave_something_to_train_on() -> None:
    with pytest.raises(ValueError, match="leave nothing to train on"):
        DataSettings(name="folder", root="photos", val_share=0.5, test_share=0.5)
