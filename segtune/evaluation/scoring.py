"""Score a model on a split: summary, rows per image, a tuned threshold, a comparison with another model."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from segtune.config.command_settings import EvaluateSettings, TTASettings
from segtune.config.data_settings import DataSettings
from segtune.config.loss_settings import LossSettings
from segtune.config.output_settings import CleanSettings
from segtune.config.training_settings import TrainSettings
from segtune.data.sources.base import Pair
from segtune.evaluation.evaluator import Evaluation, Evaluator
from segtune.evaluation.predictions import SamplePredictions, predict_samples
from segtune.evaluation.selection import warnings_of
from segtune.evaluation.subgroups import Labels, groups_by_size, groups_by_tone, groups_of_table
from segtune.evaluation.summary import (
    Array,
    Facts,
    assess,
    choose_threshold,
    compare_paired,
    dice_at,
    mean,
    scores_per_image,
)
from segtune.losses import build_loss
from segtune.metrics.overlap import Empty
from segtune.models.checkpoint import Checkpoint
from segtune.models.model import SegmentationModel
from segtune.runtime import distributed
from segtune.runtime.console import say
from segtune.runtime.device import Device
from segtune.runtime.files import without_nan
from segtune.runtime.paths import expanded


@dataclass(frozen=True)
class EvaluatedModel:
    """A model to evaluate, and the settings to do it with."""

    name: str
    model: SegmentationModel
    data: DataSettings
    options: TrainSettings
    loss: LossSettings
    compute: Device
    tta: TTASettings = field(default_factory=TTASettings)
    tolerance: float = 2.0
    resamples: int = 2000
    clean: CleanSettings = field(default_factory=CleanSettings)

    def evaluate(self, pairs: Sequence[Pair]) -> Evaluation:
        """Return an evaluation with all details."""
        loss, more = build_loss(self.loss), {"tta": self.tta, "tolerance": self.tolerance, "clean": self.clean}
        result = Evaluator(pairs, self.data, self.options, loss, self.compute, **more)(self.model)  # type: ignore[arg-type]
        assert result is not None  # it was not asked to stop
        return result

    def predict_samples(self, pairs: Sequence[Pair]) -> SamplePredictions:
        """Return predictions of some images for display."""
        views = predict_samples(self.model, pairs, self.data, self.options, self.compute, self.tta, self.clean)
        return zip(pairs, views, strict=True)


def evaluated_model(settings: EvaluateSettings, checkpoint: Checkpoint, compute: Device) -> EvaluatedModel:
    """Return a checkpoint's model, rebuilt; settings that are not given are those of its training run."""
    trained = checkpoint.settings
    return EvaluatedModel(
        checkpoint.name,
        compute.place(checkpoint.rebuild().model),
        settings.data.completed(trained.data),
        settings.train.completed(trained.train),
        trained.loss,
        compute,
        settings.tta,
        settings.tolerance,
        settings.resamples,
        settings.clean,
    )


@dataclass(frozen=True)
class Scored:
    """The scores of a model on a split: `facts` of `evaluation.json`, and `rows` of `per_image.csv`."""

    facts: Facts
    rows: list[Facts]


def score(
    evaluated: EvaluatedModel, pairs: Sequence[Pair], *, tune: Sequence[Pair] = (), other: EvaluatedModel | None = None
) -> Scored | None:
    """Return the scores of a model on images, computed by all processes; None in all but the first.

    Args:
        evaluated: The model.
        pairs: The images of the split.
        tune: Images to choose a threshold on; without any, it is chosen on `pairs`, which the result says.
        other: A model to compare with.

    Raises:
        UserError: The table of groups is invalid.
        FailedError: The model returns NaN.
    """
    empty = evaluated.options.empty
    tables = read_groups(evaluated.data, pairs)  # first, so that its errors are not found after an hour
    result = evaluated.evaluate(pairs)
    tuned = evaluated.evaluate(tune) if tune else result
    others = other.evaluate(pairs) if other else None
    if distributed.rank() > 0:
        return None
    groups = _groups(evaluated.data, result) | tables
    facts = assess(result, empty, evaluated.resamples, groups) | _settings_of(evaluated, result)
    each = scores_per_image(result, empty)
    facts["tuned"] = _tuned(tuned, result, empty, evaluated, "val" if tune else "")
    rows = _rows(pairs, each, result, groups)
    if other and others:
        theirs = scores_per_image(others, empty)["dice"]
        if not others.scores.all_empty:
            facts["warnings"] += [f"{other.name}: {warning}" for warning in warnings_of(others.scores)]
        facts["compared"] = {"checkpoint": other.name, "dice_mean": mean(theirs)} | compare_paired(
            each["dice"], theirs, evaluated.resamples
        )
        rows = [row | {"dice_of_other": round(dice, 6)} for row, dice in zip(rows, theirs.tolist(), strict=True)]
    return Scored(dict(without_nan(facts)), rows)


def _settings_of(evaluated: EvaluatedModel, result: Evaluation) -> Facts:
    return {
        "loss": result.loss,
        "split": evaluated.data.split,
        "checkpoint": evaluated.name,
        "data": str(expanded(evaluated.data.root).resolve()),
        "foreground": evaluated.data.foreground,
        "invert": evaluated.data.invert,
        "ignore": evaluated.data.ignore or None,
        "max_value": evaluated.data.max_value,
        "image_size": list(evaluated.data.evaluation_size),
        "tile": evaluated.data.eval_tile,
        "overlap": evaluated.data.eval_overlap if evaluated.data.eval_tile else None,
        "threshold": evaluated.options.threshold,
        "empty": evaluated.options.empty,
        "tolerance": evaluated.tolerance,
        "tta": asdict(evaluated.tta),
        "clean": asdict(evaluated.clean),
        "resamples": evaluated.resamples,
    }


def read_groups(data: DataSettings, pairs: Sequence[Pair]) -> dict[str, Labels]:
    """Return the groups of the user's table, if there is one.

    Raises:
        UserError: The table is invalid.
    """
    return (
        groups_of_table(expanded(data.groups, "data.groups"), [pair.name for pair in pairs], say) if data.groups else {}
    )


def _groups(data: DataSettings, result: Evaluation) -> dict[str, Labels]:
    counted = result.counts.double()
    fractions = ((counted[:, 0] + counted[:, 2]) / counted.sum(1).clamp(min=1)).numpy()
    groups = {"object size": groups_by_size(fractions)}
    if data.skin:
        groups["skin tone"] = groups_by_tone(result.detailed.tones.numpy())
    return groups


def _tuned(tuned: Evaluation, result: Evaluation, empty: Empty, evaluated: EvaluatedModel, on: str) -> Facts | None:
    """Return a threshold chosen on `tuned` and its scores on `result`; None if no image of `tuned` has a Dice.

    Those are of masks before a clean-up, and compared with such.
    """
    if not (chosen := choose_threshold(tuned, empty)):
        return None
    threshold, there = chosen
    here, usual = dice_at(result, threshold, empty), scores_per_image(result, empty)["dice"]
    if evaluated.clean.active:
        usual = dice_at(result, evaluated.options.threshold, empty)
    return {
        "threshold": threshold,
        "chosen_on": on or "the same images",
        "dice_mean_there": there,
        "dice_mean": mean(here),
        "against_usual": compare_paired(usual, here, evaluated.resamples),
    }


def _rows(
    pairs: Sequence[Pair], each: Mapping[str, Array], result: Evaluation, groups: Mapping[str, Labels]
) -> list[Facts]:
    details = result.detailed
    return [
        {"name": pair.name}
        | {name: round(float(values[i]), 6) for name, values in each.items()}
        | dict(zip(("tp", "fp", "fn", "tn"), result.counts[i].tolist(), strict=True))
        | {"contradicted": round(details.label_errors[i].item(), 6)}
        | ({"void": int(details.void[i])} if details.void.any() else {})
        | ({"typology_angle": round(details.tones[i].item(), 2)} if "skin tone" in groups else {})
        | {f"group: {name}": labels[i] for name, labels in groups.items()}
        for i, pair in enumerate(pairs)
    ]
