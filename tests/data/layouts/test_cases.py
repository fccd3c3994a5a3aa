"""Every layout ends with the same pairs and masks, or with an error whose settings then do it."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import segtune
from segtune.config.data_settings import DataSettings
from segtune.config.parse import parse
from segtune.data.splits import FoundSplits, find_splits
from segtune.errors import UserError
from tests.data.layouts.cases import CASES, Case
from tests.data.layouts.small_set import small_set


def found_in(settings: DataSettings) -> FoundSplits:
    """Return what is found; errors in the data are raised."""
    found = find_splits(settings, 0)
    if errors := [problem for problem in found.problems if problem.level == "error"]:
        raise UserError("\n".join(map(str, errors)))
    return found


def pasted(message: str) -> dict[str, str]:
    """Return the first settings that a message names, as a reader would paste them."""
    line = next(line for line in message.splitlines() if "data." in re.sub(r"data\.root", "", line))
    found = re.findall(r"'?data\.(\w+)=([^\s',]+)", line.split(", or ")[0])
    return {name: value for name, value in found if name != "root"}


def settings_of(case: Case, root: Path) -> DataSettings:
    given = {name: str(value).replace("{root}", str(root)) for name, value in case.settings.items()}
    settings = parse(DataSettings, {"name": "folder", "root": str(root), **given})
    if case.refused:
        with pytest.raises(UserError) as caught:
            found_in(settings)
        assert case.says in str(caught.value)
        settings = parse(DataSettings, {"name": "folder", "root": str(root), **pasted(str(caught.value))})
    return settings


@pytest.mark.parametrize("title", CASES)
def test_every_layout_gives_the_same_pairs(title: str, tmp_path: Path) -> None:
    case, samples = CASES[title], small_set()
    case.write(tmp_path, samples)
    found = found_in(settings_of(case, tmp_path))
    assert case.refused or case.says in found.words
    pairs = {pair.name: (split, pair) for split, chosen in found.splits.items() for pair in chosen}
    assert sorted(pairs) == sorted(sample.filled(case.name) for sample in samples)
    for sample in samples:
        split, pair = pairs[sample.filled(case.name)]
        assert pair.photo.read_bytes() == sample.photo
        assert np.array_equal(pair.read_mask().array > 0, sample.mask)
        assert split == sample.split or not case.splits
    assert find_splits(found.settings, 0) == replace(found)  # nothing is guessed a second time


def test_the_table_of_the_documents_has_all_of_them() -> None:
    text = (Path(segtune.__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert not [case.row for case in CASES.values() if not any(case.row in row for row in rows)]
    assert len(CASES) >= 40
