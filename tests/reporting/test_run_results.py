"""Runs as they are read: how each ended and why, what it was set to, and results that can be trusted."""

import json
from pathlib import Path

import pytest

from segtune.errors import UserError
from segtune.reporting.run_results import RunResult, find_runs, sweeps
from segtune.runtime.sweep_files import SweepRecord, write_sweep
from tests.reporting.conftest import jobs_of, write_run, write_six


def ends(folder: Path) -> dict[str, tuple[str, str]]:
    """Return how each run in a folder has ended, and why."""
    return {run.folder.relative_to(folder).as_posix(): (run.status, run.reason) for run in find_runs(folder)}


def test_each_job_of_a_sweep_has_ended_in_some_way(tmp_path: Path) -> None:
    runs = find_runs(write_six(tmp_path))
    assert [(run.folder.name, run.status) for run in runs] == [
        ("0", "finished"),
        ("1", "finished"),
        ("2", "failed"),
        ("3", "finished"),
        ("4", "interrupted"),
        ("5", "not started"),
    ]
    assert runs[2].reason == "Out of memory."
    assert runs[4].reason == (
        f"Stopped after epoch 2, or still running. Resume: python -m segtune train resume={tmp_path / '4'}"
    )
    assert [dict(run.overrides) for run in (runs[2], runs[5])] == [
        {"backbone": "vgg16", "lr": "0.01"},
        {"backbone": "resnet50", "lr": "0.01"},
    ]
    assert sweeps(tmp_path) == ["python -m segtune train -m backbone=vgg16,resnet50 lr=1e-4,1e-3,1e-2"]


def test_runs_of_any_depth_are_found_by_number_and_a_probe_is_none(tmp_path: Path) -> None:
    for name in ("10", "9", "deep/er/b", "deep/er/a"):
        write_run(tmp_path / name, 0.5)
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "config.yaml").write_text("seed: 0")
    assert list(ends(tmp_path)) == ["9", "10", "deep/er/a", "deep/er/b"]
    with pytest.raises(UserError, match="is not a folder"):
        find_runs(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("UserError", "failed"),
        ("Pruned", "pruned"),
        ("KeyboardInterrupt", "interrupted"),
        (3, "failed"),
        (None, "failed"),
    ],
)
def test_the_kind_of_a_failure(tmp_path: Path, kind: object, status: str) -> None:
    write_run(tmp_path / "0", failure={"reason": "why", "kind": kind}, dices=[0.5])
    assert ends(tmp_path) == {"0": (status, "why")}
    assert find_runs(tmp_path)[0].dices == [0.5]  # as far as it came


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"reason": 3, "overrides": 4, "command": []}', "\udcff"])
def test_a_damaged_failure_is_a_failure(tmp_path: Path, content: str) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "failure.json").write_bytes(content.encode(errors="surrogateescape"))
    ((status, reason),) = ends(tmp_path).values()
    assert status == "failed"
    assert reason.startswith("unknown")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"jobs": 3}', '{"jobs": [1, {"folder": 2}, {"overrides": []}]}', '{"command": 3}', "\udcff"],
)
def test_a_damaged_plan_plans_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "sweep.json").write_bytes(content.encode(errors="surrogateescape"))
    write_run(tmp_path / "0", 0.5)
    assert ends(tmp_path) == {"0": ("finished", "")}
    assert sweeps(tmp_path) == []


def test_a_run_that_ended_in_its_first_epoch(tmp_path: Path) -> None:
    write_run(tmp_path / "0")
    (tmp_path / "0" / "metrics.csv").unlink()
    assert ends(tmp_path)["0"][1].startswith("Stopped in its first epoch, or still running.")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("summary.json", "{"),
        ("summary.json", '{"val_dice": 0.5}'),
        ("summary.json", json.dumps({"val_dice": None, "best_epoch": 1, "seconds": 1, "parameters": 1})),
        ("config.yaml", ""),
        ("config.yaml", "]"),
        ("metrics.csv", "epoch\n1\n"),
        ("metrics.csv", "epoch,val_dice\n1\n"),
        ("evaluation.json", '{"dice_mean": 0.5}'),
        ("evaluation.json", '{"dice_mean": 0.5, "split": "val", "intervals": {"dice_mean": ["low", "high"]}}'),
        ("per_image.csv", "name\na\n"),
    ],
)
def test_a_damaged_run_is_not_readable(tmp_path: Path, file: str, content: str) -> None:
    write_run(tmp_path / "0", 0.5, overrides=["lr=1"], scores={"a": 0.5})
    (tmp_path / "0" / file).write_text(content)
    ((status, reason),) = ends(tmp_path).values()
    assert status == "not readable"
    assert "Error: " in reason


def test_a_job_that_was_not_evaluated_was_interrupted(tmp_path: Path) -> None:
    write_six(tmp_path)
    (tmp_path / "0" / "report.html").unlink()
    status, reason = ends(tmp_path)["0"]
    assert status == "interrupted"
    assert reason.startswith("Stopped after its last epoch, before its evaluation, or still running. Resume: ")


def test_runs_compare_on_the_same_images_and_masks(tmp_path: Path) -> None:
    facts = {"split": "val", "dice_mean": 0.5, "intervals": {"dice_mean": [0.1, 0.9]}, "invert": False}
    for name, checksum, invert in (("a", "1", False), ("b", "1", False), ("c", "2", False), ("d", "1", True)):
        write_run(tmp_path / name, 0.5, scores={"x": 0.5})
        (tmp_path / name / "evaluation.json").write_text(json.dumps(facts | {"invert": invert}))
        (tmp_path / name / "data.json").write_text(json.dumps({"folder": name, "val": {"x": checksum}}))
    write_run(tmp_path / "old", 0.5)
    (tmp_path / "b" / "data.json").unlink()
    first, *others = find_runs(tmp_path)
    assert [first.comparable(other) for other in others] == [True, False, False, True]
    for name, ignore in (("b", [255]), ("d", None)):  # earlier versions ignored nothing, and did not say so
        (tmp_path / name / "evaluation.json").write_text(json.dumps(facts | {"ignore": ignore}))
    first, *others = find_runs(tmp_path)
    assert [first.comparable(other) for other in others] == [False, False, True, True]


def test_the_results_of_a_finished_run(tmp_path: Path) -> None:
    write_run(
        tmp_path / "0", 0.75, scores={"7": 0.7, "b": 0.8}, settings={"seed": 3, "train": {"clip": 1.0}, "run_dir": "x"}
    )
    (run,) = find_runs(tmp_path)
    assert (run.dice, run.interval, run.images) == (0.75, (0.1, 0.9), ("7", "b"))
    assert run.scores == {"7": 0.7, "b": 0.8}
    assert run.settings == {"seed": "3", "train.clip": "1"}  # without the folder
    assert run.dices == [0.1, 0.25]


@pytest.mark.parametrize(("dice", "split"), [(0.7, "val"), (0.75, "test")])
def test_another_evaluation_says_nothing_of_the_run(tmp_path: Path, dice: float, split: str) -> None:
    write_run(tmp_path / "0", 0.75, scores={"a": 0.7, "b": 0.7})
    facts = {"split": split, "dice_mean": dice, "intervals": {"dice_mean": [0.1, 0.9]}}
    (tmp_path / "0" / "evaluation.json").write_text(json.dumps(facts))
    (run,) = find_runs(tmp_path)
    assert run.interval is None
    assert run.scores == {}  # their mean is not the run's


def test_scores_leave_out_images_without_an_object(tmp_path: Path) -> None:
    write_run(tmp_path / "0", 0.8, val_dice_object=0.7)
    (tmp_path / "0" / "per_image.csv").write_text("name,dice,tp,fn\na,0.6,1,0\nb,0.8,0,1\nempty,1.0,0,0\n")
    (run,) = find_runs(tmp_path)
    assert run.scores == {"a": 0.6, "b": 0.8}
    assert run.images == ("a", "b", "empty")


def test_parameters_that_train_in_different_phases_add_up() -> None:
    phases = {
        "head": {"parts": {"backbone": {"trainable": 0}, "decoder": {"trainable": 5}}},
        "deep": {"parts": {"backbone": {"trainable": 30}, "decoder": {"trainable": 0}}},
    }
    assert RunResult(Path(), summary={"phases": phases}).trained_parameters == 35
    assert RunResult(Path(), summary={"trainable_parameters": {"head": 5, "all": 7}}).trained_parameters == 7
    assert RunResult(Path()).trained_parameters is None


def test_the_command_of_a_resume_changes_what_it_overrides(tmp_path: Path) -> None:
    words = ["epochs=2", "'data.root=a", "b'", "&&", "python", "-m", "segtune", "train", "resume=x", "epochs=4"]
    write_run(tmp_path / "0", 0.5, overrides=words)
    (run,) = find_runs(tmp_path)
    assert run.overrides == {"epochs": "4", "data.root": "a b"}
    assert run.command == f"python -m segtune train {' '.join(words)}"


def test_a_value_is_looked_up_under_the_names_one_knows() -> None:
    settings = {"backbone.name": "vgg16", "freeze.phases.a.lr": "1", "freeze.phases.b.lr": "1", "train.clip": "2"}
    run = RunResult(Path(), overrides={"epochs": "3"}, settings=settings | {"freeze.phases.a.epochs": "9"})
    found = {name: run.value(name) for name in ("epochs", "backbone", "lr", "train.clip", "freeze")}
    assert found == {"epochs": "3", "backbone": "vgg16", "lr": "1", "train.clip": "2", "freeze": ""}
    assert RunResult(Path(), settings=settings | {"freeze.phases.b.lr": "2"}).value("lr") == ""  # not one value


def test_a_job_is_found_once_however_its_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_six(tmp_path / "sweep")
    monkeypatch.chdir(tmp_path)
    for name in ("sweep", "./sweep/", "sweep/../sweep", "."):
        assert len(find_runs(Path(name))) == 6


def test_jobs_may_be_planned_anywhere(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    write_sweep(tmp_path / "a" / "b", SweepRecord("c", jobs_of([["lr=1"]])))
    write_sweep(tmp_path / "a", SweepRecord("d", ()))
    assert ends(tmp_path) == {"a/b/0": ("not started", "")}
    assert sweeps(tmp_path) == ["c", "d"] or sweeps(tmp_path) == ["d", "c"]
