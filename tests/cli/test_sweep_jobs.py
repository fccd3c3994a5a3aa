"""Which job of a folder the overrides of a command mean."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from segtune.cli.sweep_jobs import Jobs, name_of
from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.errors import UserError
from segtune.runtime.sweep_files import SweepJob, SweepRecord, read_sweep
from segtune.training.run_folder import write_settings
from tests.config.test_conf import composed

LINE = "python -m segtune train -m …"


def never(overrides: Sequence[str]) -> Settings:
    raise AssertionError("the settings do not matter")


def taken(jobs: Jobs, *batch: str) -> list[int]:
    return [job.number for job in jobs.take([each.split() for each in batch], never)]


def test_jobs_are_known_by_their_overrides_in_any_order(tmp_path: Path) -> None:
    jobs = Jobs.found(tmp_path, "train", LINE, resume=False)
    assert taken(jobs, "seed=1 lr=1 run_dir=s", "seed=2 lr=1 run_dir=s", "seed=1 lr=1 run_dir=s") == [0, 1, 0]
    jobs.write()
    jobs = Jobs.found(tmp_path, "train", "again", resume=True)
    assert taken(jobs, "lr=1 seed=3 resume=auto", "lr=1 seed=2 resume=auto", "seed=2 lr=2 hydra.verbose=true") == [
        2,
        1,
        3,
    ]
    jobs.write()
    overrides = [("seed=1", "lr=1"), ("seed=2", "lr=1"), ("lr=1", "seed=3"), ("seed=2", "lr=2")]
    expected = tuple(SweepJob(number, str(number), each) for number, each in enumerate(overrides))
    assert read_sweep(tmp_path) == SweepRecord("again", expected)
    assert [jobs.heading(job) for job in jobs.mine] == [
        "run 1 of 3: lr=1 seed=3",
        "run 2 of 3: seed=2 lr=1",
        "run 3 of 3: seed=2 lr=2",
    ]


def test_overrides_are_kept_as_typed(tmp_path: Path) -> None:
    jobs = Jobs.found(tmp_path, "train", LINE, resume=False)
    jobs.take([["data.root='2026_11_28'", "++freeze.phases.all.epochs=1", "+augment.x={p: 1}"]], never)
    assert jobs.all[0].overrides == ("data.root=2026_11_28", "freeze.phases.all.epochs=1", "+augment.x={p: 1}")
    assert jobs.words(jobs.all[0], ["data.root=b", "train.workers=1"]) == [
        "freeze.phases.all.epochs=1",
        "+augment.x={p: 1}",
        "data.root=b",
        "train.workers=1",
    ]


def test_settings_that_may_change_do_not_tell_jobs_apart_unless_the_sweep_varies_them(tmp_path: Path) -> None:
    jobs = Jobs.found(tmp_path, "train", LINE, resume=False)
    assert taken(jobs, "data.root=a seed=1", "data.root=b seed=1") == [0, 1]
    assert taken(jobs, "data.root=b seed=1", "data.root=a seed=1") == [1, 0]
    jobs = Jobs(tmp_path, "train", LINE, jobs.all[:1])
    assert taken(jobs, "data.root=moved seed=1 train.workers=2") == [0]
    jobs = Jobs(tmp_path, "train", LINE, jobs.all[:1])
    assert taken(jobs, "data.root=c seed=1", "data.root=d seed=1") == [1, 2]


def test_runs_are_known_by_their_settings_too(tmp_path: Path) -> None:
    """Those of an earlier version, without a record; and those that the command now says in other words."""
    given = parse(Settings, composed("train", "freeze=none"))
    for seed in (0, 1):
        write_settings(tmp_path / str(seed), asdict(replace(given, seed=seed, run_dir="elsewhere")))
    (tmp_path / "notes").mkdir()
    with pytest.raises(UserError, match=r"^There is a sweep in .* already\. To go on with it: the same command with"):
        Jobs.found(tmp_path, "train", LINE, resume=False)
    jobs = Jobs.found(tmp_path, "train", LINE, resume=True)
    composes = {"seed=2": replace(given, seed=2), "seed=1": replace(given, seed=1), "freeze=none": given}

    def settings_of(overrides: Sequence[str]) -> Settings:
        if overrides[0] not in composes:
            raise UserError("wrong")
        return composes[overrides[0]]

    batch = [["seed=2"], ["seed=1"], ["freeze=none"], ["seed=-1"]]
    assert [job.number for job in jobs.take(batch, settings_of)] == [2, 1, 0, 3]
    assert [job.overrides for job in jobs.all] == [("freeze=none",), ("seed=1",), ("seed=2",), ("seed=-1",)]


@pytest.mark.parametrize("override", ["seed=1", "+seed=1", "++seed='='"])
def test_the_name_in_an_override(override: str) -> None:
    assert name_of(override) == "seed"
