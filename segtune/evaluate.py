"""The command `evaluate`, and what it shares with the end of a training: score a model, write numbers and a report."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.table import Table

from segtune import checkpoint, distributed
from segtune.assessment import (
    Array,
    Facts,
    assess,
    choose_threshold,
    compare_pictures,
    dice_at,
    mean,
    scores_of_pictures,
)
from segtune.build import build_loss, build_splits, find_splits, rebuild
from segtune.compute import Compute, choose_compute
from segtune.config import (
    OF_THE_CHECKPOINT,
    AveragingSettings,
    DataSettings,
    EvaluateSettings,
    LossSettings,
    Settings,
    TrainSettings,
    UserError,
    known,
    parse,
    some,
)
from segtune.console import counting, print_table, say, set_up_logging, shown
from segtune.data.pairs import Pair, find_pairs
from segtune.evaluation import Evaluation, Evaluator, look
from segtune.groups import Labels, size_groups, table_groups, tone_groups
from segtune.metrics import Empty
from segtune.model import SegmentationModel
from segtune.phrases import interval_text, number, score_names, sentences
from segtune.records import without_nan, write_csv, write_json
from segtune.report import Pictures, Source, earlier, write_report


@dataclass(frozen=True)
class Subject:
    """A model to score, and how."""

    name: str
    model: SegmentationModel
    data: DataSettings
    options: TrainSettings
    loss: LossSettings
    compute: Compute
    average: AveragingSettings
    tolerance: float
    resamples: int

    def evaluate(self, pairs: Sequence[Pair]) -> Evaluation:
        """Evaluate with all details."""
        loss, more = build_loss(self.loss), {"average": self.average, "tolerance": self.tolerance}
        result = Evaluator(pairs, self.data, self.options, loss, self.compute, **more)(self.model)  # type: ignore[arg-type]
        assert result is not None  # nobody asked it to stop
        return result

    def look(self, pairs: Sequence[Pair]) -> Pictures:
        """Predict some pictures to be looked at."""
        views = look(self.model, pairs, self.data, self.options, self.compute, self.average)
        return zip(pairs, views, strict=True)


def evaluate(settings: EvaluateSettings, folder: Path, command: str = "") -> Facts:
    """Measure a checkpoint, or compare two, on a split.

    Writes `evaluation.json`, `per_image.csv` and `report.html`, and returns the first.

    Raises:
        UserError: The checkpoint or the data cannot be used.
    """
    set_up_logging()
    given = settings.checkpoint
    names = [given] if isinstance(given, str) else list(given)
    if settings.data.name == "folder":
        find_pairs(Path(settings.data.root).expanduser())  # before anything is loaded
    contents = [checkpoint.load(Path(name).expanduser()) for name in names]
    compute = choose_compute(settings.train)
    with distributed.together(compute.device):
        subjects = [subject_of(settings, name, content, compute) for name, content in zip(names, contents, strict=True)]
        first, *others = subjects
        _check_truths(subjects)
        if (folder / "config.yaml").exists() and (folder / "checkpoints").exists():
            raise UserError(f"run_dir={folder} is a run: its own report would be lost. Give another folder.")
        seed = parse(Settings, contents[0]["settings"]).seed if settings.seed is None else settings.seed
        splits = load_splits(first.data, seed, settings.train, whole=first.data.split == "all")
        pairs = splits[first.data.split]
        if not pairs:
            there = ", ".join(f"{name} {len(split)}" for name, split in splits.items())
            raise UserError(f"data.split={first.data.split}: there are no pictures in it. There are: {there}.")
        for name, content in zip(names, contents, strict=True):
            _warn_of_known(name, parse(Settings, content["settings"]), first.data, pairs)
        tune = splits.get("val", []) if settings.tune and first.data.split != "val" else []
        source = Source(command, contents[0]["settings"], first.model.features, None, [])
        return score(first, pairs, folder, source, tune=tune, other=others[0] if others else None)


def load_splits(data: DataSettings, seed: int, train: TrainSettings, *, whole: bool = False) -> dict[str, list[Pair]]:
    """Find and check the data, once for all processes."""

    def find() -> dict[str, list[Pair]]:
        with counting("preparing the data") as progress:
            return build_splits(data, seed, train.workers, progress, whole=whole)

    return distributed.on_first(find)


def score(
    subject: Subject,
    pairs: Sequence[Pair],
    folder: Path,
    source: Source,
    *,
    tune: Sequence[Pair] = (),
    other: Subject | None = None,
) -> Facts:
    """Score a model on pictures, with all processes; the first writes numbers and report, and shows them.

    Args:
        subject: The model.
        pairs: The pictures of the split.
        folder: Where the files go.
        source: What the report says of the model's origin.
        tune: Pictures to choose a threshold on; without any, it is chosen on `pairs`, and said to be.
        other: A model to compare.
    """
    empty: Empty = known(subject.options.empty)
    tables = read_groups(subject.data, pairs)  # first: what is wrong with it should not be found after an hour
    result = subject.evaluate(pairs)
    tuned = subject.evaluate(tune) if tune else result
    others = other.evaluate(pairs) if other else None
    if distributed.rank() > 0:
        return {}
    groups = _groups(subject.data, result) | tables
    facts = assess(result, empty, subject.resamples, groups) | _settings_of(subject, result)
    each = scores_of_pictures(result, empty)
    facts["tuned"] = _tuned(tuned, result, empty, subject, "val" if tune else "")
    rows = _rows(pairs, each, result, groups)
    if other and others:
        theirs = scores_of_pictures(others, empty)["dice"]
        facts["compared"] = {"checkpoint": other.name, "dice_mean": mean(theirs)} | compare_pictures(
            each["dice"], theirs, subject.resamples
        )
        rows = [row | {"dice_of_other": round(dice, 6)} for row, dice in zip(rows, theirs.tolist(), strict=True)]
    facts = dict(without_nan(facts))
    before = earlier(folder, facts, rows, partial(compare_pictures, resamples=subject.resamples))
    write_json(folder / "evaluation.json", facts)
    write_csv(folder / "per_image.csv", rows)
    write_report(
        folder / "report.html", facts, rows, source, before, lambda chosen: subject.look([pairs[i] for i in chosen])
    )
    show(facts)
    say(f"evaluation.json, per_image.csv and report.html are in {shown(folder)}.")
    return facts


def _check_truths(subjects: Sequence[Subject]) -> None:
    """Refuse to compare models that were trained for different objects.

    Raises:
        UserError: They were, and no setting says which is meant.
    """
    truths = [f"data.foreground={subject.data.foreground} data.invert={subject.data.invert}" for subject in subjects]
    if len(set(truths)) > 1:
        raise UserError(
            f"The checkpoints were trained for different objects: {' and '.join(truths)}. To compare them all "
            "the same, "
            "say which is meant."
        )


def _warn_of_known(name: str, trained: Settings, data: DataSettings, pairs: Sequence[Pair]) -> None:
    """Say so if a model was trained on some of the pictures: without lists each seed splits a folder otherwise."""
    if data.name != trained.data.name or Path(data.root).resolve() != Path(trained.data.root).resolve():
        return
    try:
        seen = {pair.name for pair in find_splits(trained.data, trained.seed)[0]["train"]}
    except UserError:
        return  # the folder has changed since
    if known_ones := [pair.name for pair in pairs if pair.name in seen]:
        say(
            f"{name} was trained on {len(known_ones)} of these {len(pairs)} pictures ({some(known_ones)}): "
            "its scores are too good to be expected of others."
        )


def subject_of(settings: EvaluateSettings, name: str, content: Mapping[str, Any], compute: Compute) -> Subject:
    """Rebuild a model from a checkpoint's content; what the settings leave open is as in its training."""
    trained = parse(Settings, content["settings"])
    seen = replace(trained.data, image_size=trained.data.eval_size or trained.data.image_size)
    model = rebuild(content, trained).model.to(compute.device).to(memory_format=torch.channels_last)
    return Subject(
        name,
        model,
        _filled(settings.data, seen, OF_THE_CHECKPOINT["data"]),
        _filled(settings.train, trained.train, OF_THE_CHECKPOINT["train"]),
        trained.loss,
        compute,
        settings.average,
        settings.tolerance,
        settings.resamples,
    )


T = TypeVar("T", DataSettings, TrainSettings)


def _filled(given: T, trained: T, names: Sequence[str]) -> T:
    """Take the settings of the training where none are given."""
    taken = {name: getattr(trained, name) for name in names if getattr(given, name) is None}
    return parse(type(given), asdict(given) | taken)


def _settings_of(subject: Subject, result: Evaluation) -> Facts:
    return {
        "loss": result.loss,
        "split": subject.data.split,
        "checkpoint": subject.name,
        "data": str(Path(subject.data.root).expanduser().resolve()),
        "foreground": subject.data.foreground,
        "invert": subject.data.invert,
        "image_size": list(subject.data.evaluation_size),
        "threshold": subject.options.threshold,
        "empty": subject.options.empty,
        "tolerance": subject.tolerance,
        "average": asdict(subject.average),
        "resamples": subject.resamples,
    }


def read_groups(data: DataSettings, pairs: Sequence[Pair]) -> dict[str, Labels]:
    """Read the user's table of groups, if there is one.

    Raises:
        UserError: It cannot be used.
    """
    return table_groups(Path(data.groups).expanduser(), [pair.name for pair in pairs], say) if data.groups else {}


def _groups(data: DataSettings, result: Evaluation) -> dict[str, Labels]:
    counted = result.counts.double()
    shares = ((counted[:, 0] + counted[:, 2]) / counted.sum(1)).numpy()
    groups = {"object size": size_groups(shares)}
    if data.skin:
        groups["skin tone"] = tone_groups(known(result.details).tones.numpy())
    return groups


def _tuned(tuned: Evaluation, result: Evaluation, empty: Empty, subject: Subject, on: str) -> Facts | None:
    """Choose a threshold on validation pictures and say what it gives here; None if they are all left out as empty."""
    if not (chosen := choose_threshold(tuned, empty)):
        return None
    threshold, there = chosen
    here, usual = dice_at(result, threshold, empty), scores_of_pictures(result, empty)["dice"]
    return {
        "threshold": threshold,
        "chosen_on": on or "the same pictures",
        "dice_mean_there": there,
        "dice_mean": mean(here),
        "against_usual": compare_pictures(usual, here, subject.resamples),
    }


def _rows(
    pairs: Sequence[Pair], each: Mapping[str, Array], result: Evaluation, groups: Mapping[str, Labels]
) -> list[Facts]:
    details = known(result.details)
    return [
        {"name": pair.name}
        | {name: round(float(values[i]), 6) for name, values in each.items()}
        | dict(zip(("tp", "fp", "fn", "tn"), result.counts[i].tolist(), strict=True))
        | {"contradicted": round(details.doubts[i].item(), 6)}
        | ({"typology_angle": round(details.tones[i].item(), 2)} if "skin tone" in groups else {})
        | {f"group: {name}": labels[i] for name, labels in groups.items()}
        for i, pair in enumerate(pairs)
    ]


def show(facts: Facts) -> None:
    """Print what an evaluation says."""
    empty = facts["empty_images"]
    title = (
        f"{facts['split']}: {facts['images']} pictures, {empty} without foreground; "
        "mean over pictures, and all pixels pooled"
    )
    table = Table(title=title)
    for heading in ("", "mean", "95 % interval", "pooled", "95 % interval"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, pair in score_names(facts).items():
        cells = [text for key in pair for text in (number(facts[key]), interval_text(facts["intervals"][key]))]
        table.add_row(name, *cells)
    print_table(table)
    for name, rows in facts["groups"].items():
        print_table(_group_table(name, rows))
        if gap := facts["gaps"].get(name):
            say(f"Between the best ({gap['best']}) and the worst ({gap['worst']}) lie {gap['gap']:.4f} of Dice.")
    say("\n".join(sentences(facts)))


def _group_table(name: str, rows: Sequence[Facts]) -> Table:
    table = Table(title=f"by {name}")
    for heading in (name, "pictures", "mean Dice", "95 % interval", "pooled"):
        table.add_column(heading, justify="left" if heading == name else "right")
    for row in rows:
        cells = (number(row["dice_mean"]), interval_text(row["interval"]), number(row["dice_pooled"]))
        table.add_row(row["group"], str(row["images"]), *cells)
    return table
