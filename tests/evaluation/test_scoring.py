"""Scores of a model whose logits are known: facts, rows, a tuned threshold, a comparison."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from segtune.config.data_settings import DataSettings
from segtune.config.loss_settings import BCESettings
from segtune.config.output_settings import CleanSettings
from segtune.config.training_settings import TrainSettings
from segtune.data.sources.base import Pair
from segtune.errors import UserError
from segtune.evaluation.scoring import EvaluatedModel, Scored, read_groups, score
from segtune.runtime.device import Device
from tests.evaluation.conftest import Red

CPU = Device(torch.device("cpu"), torch.float32)


@pytest.fixture
def evaluated() -> EvaluatedModel:
    data = DataSettings("folder", root="here", image_size=64, split="val")
    options = TrainSettings(batch_size=2, workers=0, threshold=0.9)
    return EvaluatedModel("best.pt", Red(), data, options, BCESettings(), CPU, resamples=100)  # type: ignore[arg-type]


def scored(evaluated: EvaluatedModel, pairs: list[Pair], **options: object) -> Scored:
    found = score(evaluated, pairs, **options)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_facts_follow_from_the_rows(evaluated: EvaluatedModel, pairs: list[Pair]) -> None:
    found = scored(evaluated, pairs)
    assert [row["name"] for row in found.rows] == [pair.name for pair in pairs]
    for row, pair in zip(found.rows, pairs, strict=True):
        truth = pair.read_mask().array > 0
        assert row["tp"] + row["fn"] == truth.sum()
        assert row["tp"] + row["fp"] + row["fn"] + row["tn"] == truth.size
        if truth.any():
            assert row["dice"] == pytest.approx(2 * row["tp"] / (2 * row["tp"] + row["fp"] + row["fn"]), abs=1e-6)
    assert found.facts["dice_mean"] == pytest.approx(np.mean([row["dice"] for row in found.rows]), abs=1e-6)
    assert (found.facts["checkpoint"], found.facts["split"], found.facts["threshold"]) == ("best.pt", "val", 0.9)
    assert found.facts["data"] == str(Path("here").resolve())
    assert (found.facts["image_size"], found.facts["tile"], found.facts["overlap"]) == ([64, 64], None, None)
    assert {"object size"} == found.facts["groups"].keys()
    assert "typology_angle" not in found.rows[0]


def test_tiles_are_said(evaluated: EvaluatedModel, wide_pairs: list[Pair]) -> None:
    tiled = replace(evaluated, data=replace(evaluated.data, eval_tile=128, eval_overlap=0.5))
    found = scored(tiled, wide_pairs)
    assert (found.facts["image_size"], found.facts["tile"], found.facts["overlap"]) == ([128, 128], 128, 0.5)
    sizes = [row["tp"] + row["fp"] + row["fn"] + row["tn"] for row in found.rows]
    assert sizes == [200 * 300, 90 * 260, 100 * 120, 20 * 40]


def test_a_threshold_is_tuned_on_other_images(evaluated: EvaluatedModel, pairs: list[Pair]) -> None:
    here = scored(evaluated, pairs).facts["tuned"]
    assert here["chosen_on"] == "the same images"
    assert here["dice_mean"] == here["dice_mean_there"]
    tuned = scored(evaluated, pairs[:2], tune=pairs[2:4]).facts["tuned"]
    assert tuned["chosen_on"] == "val"
    at_threshold = replace(evaluated, options=replace(evaluated.options, threshold=tuned["threshold"]))
    assert tuned["dice_mean"] == pytest.approx(scored(at_threshold, pairs[:2]).facts["dice_mean"], abs=0.002)
    assert tuned["dice_mean_there"] == pytest.approx(scored(at_threshold, pairs[2:4]).facts["dice_mean"], abs=0.002)


def test_corrected_masks_are_scored_and_thresholds_compared_before_that(
    evaluated: EvaluatedModel, pairs: list[Pair]
) -> None:
    options = replace(evaluated.options, threshold=0.3)  # many small objects
    plain = scored(replace(evaluated, options=options), pairs)
    clean = CleanSettings(min_area=0.5)
    found = scored(replace(evaluated, options=options, clean=clean), pairs)
    assert found.facts["clean"] == {"fill_holes": False, "min_area": 0.5, "largest": False}
    assert plain.facts["clean"]["min_area"] == 0
    assert found.facts["dice_mean"] != plain.facts["dice_mean"]
    assert found.facts["curves"] == plain.facts["curves"]
    ours, theirs = (each.facts["tuned"] for each in (found, plain))
    assert (ours["threshold"], ours["dice_mean"]) == (theirs["threshold"], theirs["dice_mean"])
    assert ours["against_usual"]["difference"] == pytest.approx(theirs["against_usual"]["difference"], abs=0.002)


def test_two_models_are_compared_image_by_image(evaluated: EvaluatedModel, pairs: list[Pair]) -> None:
    other = replace(evaluated, name="other.pt", model=Red(-1))
    found = scored(evaluated, pairs, other=other)
    assert found.facts["compared"]["checkpoint"] == "other.pt"
    theirs = [row["dice"] for row in scored(other, pairs).rows]
    assert [row["dice_of_other"] for row in found.rows] == theirs
    mean = np.mean(np.array(theirs) - [row["dice"] for row in found.rows])
    assert found.facts["compared"]["difference"] == pytest.approx(mean, abs=1e-6)


def test_groups_come_from_skin_and_from_a_table(evaluated: EvaluatedModel, pairs: list[Pair], tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    table.write_text("name,camera\n" + "".join(f"p{number},{'ab'[number % 2]}\n" for number in range(5)))
    data = replace(evaluated.data, skin=True, groups=str(table))
    found = scored(replace(evaluated, data=data), pairs)
    assert [row["group: camera"] for row in found.rows] == list("ababa")
    assert found.facts["groups"].keys() == {"object size", "skin tone", "camera"}
    assert found.rows[4]["group: skin tone"] == ""  # an empty mask has no skin
    assert math.isfinite(found.rows[0]["typology_angle"])


def test_a_wrong_table_is_found_before_the_model_runs(evaluated: EvaluatedModel, pairs: list[Pair]) -> None:
    data = replace(evaluated.data, groups="gone.csv")
    assert read_groups(evaluated.data, pairs) == {}
    with pytest.raises(UserError, match=r"gone\.csv cannot be read"):
        score(replace(evaluated, data=data, model=None), pairs)  # type: ignore[arg-type]
