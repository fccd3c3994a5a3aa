"""The leaderboard: seeds as one line, the order, the settings that differ, the Pareto front, how sure the best is."""

import random
import statistics
from pathlib import Path

import pytest

from segtune.reporting.leaderboard import Leaderboard, differing, front, link_to, varied
from segtune.reporting.run_results import RunResult, find_runs
from tests.reporting.conftest import write_run, write_six

PHASE = "freeze.phases.late"


def run(name: str, dice: float | None, overrides: dict[str, str] | None = None, **settings: str) -> RunResult:
    """Return a finished run."""
    return RunResult(
        Path(name), overrides=overrides or {}, settings=settings, summary={"val_dice_object": dice, "epochs": 2}
    )


def board(*runs: RunResult) -> Leaderboard:
    return Leaderboard(runs, Path())


def test_runs_that_differ_only_in_their_seed_are_ranked_by_their_mean() -> None:
    lucky = [run(f"a{seed}", dice, lr="1", seed=str(seed)) for seed, dice in enumerate((0.9, 0.6, 0.66))]
    steady = [run(f"b{seed}", dice, lr="2", seed=str(seed)) for seed, dice in enumerate((0.8, 0.79))]
    found = board(*lucky, *steady, run("c", None, lr="3", seed="0"), run("d", 0.75, lr="4", seed="0"))
    assert [[each.folder.name for each in entry.runs] for entry in found.entries] == [
        ["b0", "b1"],
        ["d"],
        ["a0", "a2", "a1"],
        ["c"],
    ]
    assert [entry.dice for entry in found.entries] == [pytest.approx(0.795), 0.75, pytest.approx(0.72), None]
    assert found.entries[2].deviation == pytest.approx(((0.18**2 + 0.12**2 + 0.06**2) / 2) ** 0.5)
    assert found.entries[1].deviation is None
    assert (found.varied, found.columns) == (["lr", "seed"], ["lr"])


def test_a_sweep_of_seeds_alone_is_one_line_and_runs_with_a_seed_each_are_not() -> None:
    assert board(run("a", 0.5, seed="0"), run("b", 0.7, seed="1")).columns == []
    alone = board(run("a", 0.5, seed="0", lr="1"), run("b", 0.7, seed="1", lr="2"))
    assert (len(alone.entries), alone.columns) == (2, ["lr"])


def test_a_seed_without_an_object_does_not_count_in_the_mean() -> None:
    (entry,) = board(run("a", None, seed="0"), run("b", 0.7, seed="1"), run("c", 0.5, seed="2")).entries
    assert (entry.dice, entry.deviation) == (pytest.approx(0.6), pytest.approx(statistics.stdev([0.5, 0.7])))
    assert entry.best.folder.name == "b"


def test_means_of_costs_need_every_run() -> None:
    first, second = run("a", 0.5, seed="0"), run("b", 0.6, seed="1")
    first.summary["seconds"], second.summary["seconds"] = 60, 90
    first.summary["images_per_second"] = 5.0
    (entry,) = board(first, second).entries
    assert (entry.mean("seconds"), entry.mean("images_per_second"), entry.mean("trained")) == (75.0, None, None)


def test_how_many_ended_how(tmp_path: Path) -> None:
    found = Leaderboard(find_runs(write_six(tmp_path)), tmp_path)
    assert found.counts == "6 runs: 3 finished, 1 failed, 1 interrupted, 1 not started"
    assert [entry.best.folder.name for entry in found.entries] == ["1", "3", "0"]
    assert found.varied == ["backbone", "lr"]  # that of the phase follows
    assert board(run("a", 1.0)).counts == "1 run: 1 finished"


def test_a_choice_of_a_group_explains_the_settings_that_follow() -> None:
    one = run("a", 0.5, {"backbone": "vgg16"}, **{"backbone.name": "vgg16", "taps.low": "pool3"})
    two = run("b", 0.5, {"backbone": "resnet50"}, **{"backbone.name": "resnet50", "taps.low": "layer1"})
    assert varied([one, two]) == ["backbone"]
    same = run("c", 0.5, {"backbone": "vgg16"}, **{"backbone.name": "vgg16", "taps.low": "pool2"})
    assert varied([one, two, same]) == ["backbone", "taps.low"]  # nothing on the command line says it
    unknown = run("d", 0.5, **{"backbone.name": "vgg16", "taps.low": "pool3"})
    assert varied([one, unknown]) == []
    assert varied([unknown, run("e", 0.5, **{"backbone.name": "x", "taps.low": "y"})]) == ["backbone.name", "taps.low"]


def test_a_job_that_never_began_differs_in_its_overrides() -> None:
    failed = RunResult(Path("f"), "failed", overrides={"lr": "2"})
    assert varied([run("a", 0.5, {"lr": "1"}, **{f"{PHASE}.lr": "1"}), failed]) == ["lr"]


def test_settings_that_differ_or_are_missing_are_named() -> None:
    assert differing([{"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}, {"a": "1", "b": "2"}]) == ["b", "c"]
    assert differing([{"a": "1"}]) == []


def test_a_phase_that_some_runs_lack_differs_in_what_it_sets() -> None:
    own = {"lr": "0.1", "gamma": "null", "freeze": "[]", "backbone": "all", "power": "2", "epochs": "3"}
    phase = {f"{PHASE}.{key}": value for key, value in own.items()}
    assert differing([phase, {}]) == [f"{PHASE}.{key}" for key in ("lr", "power", "epochs")]


def test_runs_are_ranked_by_the_images_with_an_object(tmp_path: Path) -> None:
    """A run that predicts nothing has the best Dice over mostly empty masks; one without any object comes last."""
    for name, over_all, with_object in (("black", 0.9, 0.0), ("sees", 0.6, 0.7), ("none", 1.0, None)):
        write_run(tmp_path / name, over_all, val_dice_object=with_object, settings={"a": name})
    found = Leaderboard(find_runs(tmp_path), tmp_path)
    assert [(entry.best.folder.name, entry.dice) for entry in found.entries] == [
        ("sees", 0.7),
        ("black", 0.0),
        ("none", None),
    ]
    assert found.others == []


def test_the_choice_is_judged_on_the_images_of_the_best(tmp_path: Path) -> None:
    scores = {"best": {"a": 0.9, "b": 0.9}, "worse": {"a": 0.1, "b": 0.2}, "elsewhere": {"a": 0.5, "c": 0.5}}
    for name, each in scores.items():
        write_run(tmp_path / name, statistics.fmean(each.values()), settings={"a": name}, scores=each)
    write_run(tmp_path / "old", 0.3, settings={"a": "old"})  # of a version that wrote no scores
    found = Leaderboard(find_runs(tmp_path), tmp_path)
    assert [entry.best.folder.name for entry in found.judged] == ["best", "worse"]
    assert found.choice is not None
    assert [found.best_in(entry) for entry in found.entries] == [1.0, None, None, 0.0]
    assert found.choice.elsewhere == pytest.approx(0.9)
    assert found.within() == 3  # of the interval 0.1 to 0.9
    assert not found.same_images


def test_nothing_to_choose_from() -> None:
    for runs in ([], [run("a", 0.5)], [run("a", None), run("b", None)]):
        found = board(*runs)
        assert (found.choice, found.within()) == (None, None)


def test_the_front_holds_what_no_other_point_beats() -> None:
    generator = random.Random(0)
    for _ in range(50):
        points = [(generator.randrange(6), generator.randrange(6) / 10) for _ in range(12)]

        def beaten(cost: float, score: float, points: list[tuple[int, float]] = points) -> bool:
            return any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points)

        assert sorted(front(points)) == [i for i, point in enumerate(points) if not beaten(*point)]
    assert front([]) == []


def test_links_are_relative_and_quoted(tmp_path: Path) -> None:
    report, page = tmp_path / "a b" / "100%" / "report.html", tmp_path / "pages" / "report.html"
    assert link_to(report, page) == ""  # there is none
    report.parent.mkdir(parents=True)
    report.touch()
    assert link_to(report, page) == "../a%20b/100%25/report.html"
    assert link_to(report, report) == ""
