"""Settings of the feature cache."""

import pytest
import yaml

from segtune.config.cache_settings import CacheSettings
from segtune.config.parse import parse
from segtune.errors import UserError


def test_nothing_is_kept_unless_asked_for() -> None:
    assert parse(CacheSettings, {}).mode == "off"


def test_off_in_a_yaml_file_is_no_truth_value() -> None:
    assert parse(CacheSettings, yaml.safe_load("{mode: off, views: 3}")) == CacheSettings("off", 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "ram"}, "mode: got 'ram'"),
        ({"mode": True}, "mode: got True"),
        ({"views": 0}, "views: got 0"),
        ({"limit_gb": 0}, "limit_gb: got 0"),
        ({"dtype": "int8"}, "dtype: got 'int8'"),
        ({"seed": -1}, "seed: got -1"),
    ],
)
def test_wrong_values_are_named(given: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(CacheSettings, given)
