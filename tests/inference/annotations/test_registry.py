"""The formats that a setting can name are those that can be written."""

from typing import get_args

from segtune.config.output_settings import Format
from segtune.inference.annotations.registry import FORMATS


def test_every_format_has_a_writer() -> None:
    assert {*get_args(Format)} == {"masks", *FORMATS}
    assert all(each.shared or each.file_of is not None for each in FORMATS.values())
