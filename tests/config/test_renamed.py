"""Old names of settings: what they turn into, in overrides, in files and in checkpoints of earlier versions."""

from pathlib import Path

import pytest
import yaml

from segtune.__main__ import main
from segtune.cli import compose
from segtune.cli.short_names import OF_PHASES, SHORT
from segtune.commands import plan as commands_plan
from segtune.config.command_settings import PlanSettings
from segtune.config.parse import parse
from segtune.config.renamed import SYNONYMS, new_name, timm_name, with_new_names
from segtune.config.training_settings import FreezeSettings, PhaseSettings


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("average", "tta"),
        ("average.flips", "tta.flips"),
        ("averages", "averages"),
        ("tta.flips", "tta.flips"),
        ("data.average", "data.average"),
        ("freeze.phases.head.cut", "freeze.phases.head.stop_gradient"),
        ("freeze.phases.cut.epochs", "freeze.phases.cut.epochs"),
        ("cut", "cut"),
    ],
)
def test_new_name(name: str, expected: str) -> None:
    assert new_name(name) == expected


def test_nested_settings_get_their_new_names() -> None:
    values = {
        "average": {"flips": True},
        "tta": {"flips": False, "scales": [1.0, 2.0]},  # as the defaults have it
        "freeze": {"phases": {"one": {"cut": "layer1", "lr": 1}, "two": {"cut": None, "lr": 2}}},
    }
    assert with_new_names(values) == (
        {
            "tta": {"flips": True, "scales": [1.0, 2.0]},
            "freeze": {"phases": {"one": {"lr": 1, "stop_gradient": "layer1"}, "two": {"lr": 2}}},
        },
        ["average", "freeze.phases.one.cut"],
    )
    assert values["average"] == {"flips": True}  # what was given stays as it was


def test_what_is_given_on_the_command_line_stands_above_an_old_name_in_a_file() -> None:
    values = {
        "average": {"flips": True, "scales": [0.5]},
        "tta": {"flips": False, "scales": [1.0]},
        "freeze": {"phases": {"one": {"cut": "layer1", "stop_gradient": None}}},
    }
    found, used = with_new_names(values, given={"tta.flips", "freeze.phases.one.stop_gradient"})
    assert found == {
        "tta": {"flips": False, "scales": [0.5]},
        "freeze": {"phases": {"one": {"stop_gradient": None}}},
    }
    assert used == ["average", "freeze.phases.one.cut"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "block5"),
        (["freeze.phases.all.cut=null"], None),
        (["freeze.phases.all.stop_gradient=block6"], "block6"),
        (["~freeze.phases.all.cut"], None),
    ],
)
def test_an_old_name_in_a_file_of_the_users(
    overrides: list[str], expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "freeze").mkdir()
    text = "phases:\n  all: {backbone: all, epochs: 1, lr: 0.1, cut: block5}\n"
    (tmp_path / "freeze" / "mine.yaml").write_text(text, encoding="utf-8")
    found: list[PlanSettings] = []
    monkeypatch.setattr(commands_plan, "plan", found.append)
    assert main(["plan", f"--config-dir={tmp_path}", "freeze=mine", *overrides]) == 0
    assert found[0].freeze.phases["all"].stop_gradient == expected


def test_settings_of_earlier_runs_are_parsed() -> None:
    phases = {"one": {"lr": 1.0, "epochs": 1, "cut": "layer1"}, "two": {"lr": 1.0, "epochs": 1, "cut": None}}

    from pydantic.dataclasses import dataclass

    @dataclass(frozen=True)
    class Run:
        freeze: FreezeSettings

    freeze = parse(Run, {"freeze": {"phases": phases}}).freeze
    assert freeze.phases["one"] == PhaseSettings(lr=1.0, epochs=1, stop_gradient="layer1")
    assert freeze.phases["two"].stop_gradient is None


def test_an_old_name_on_the_command_line_works_and_says_so_once(capsys: pytest.CaptureFixture[str]) -> None:
    compose._announce.cache_clear()  # another test may have named it in this process
    arguments = ["train", "freeze=none", "--cfg", "job", "freeze.phases.all.cut=block5"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert yaml.safe_load(out)["freeze"]["phases"]["all"]["stop_gradient"] == "block5"
    assert err == (
        "The setting freeze.phases.all.cut is now called freeze.phases.all.stop_gradient; the old name still works.\n"
    )
    assert main(["predict", "--cfg", "job", "checkpoint=a.pt", "input=x", "average.flips=true"]) == 0
    out, err = capsys.readouterr()
    assert yaml.safe_load(out)["tta"] == {"flips": True, "scales": [1.0]}
    assert err == "The setting average.flips is now called tta.flips; the old name still works.\n"


def test_synonyms_are_short_names_or_settings_of_train() -> None:
    assert set(SYNONYMS.values()) <= {
        *(*SHORT, *OF_PHASES, "backbone", "train.workers", "train.device", "train.precision", "backbone.weights"),
        *(
            "data.root",
            "data.ignore",
            "run_dir",
            "train.trackers",
            *(f"optimizer.{name}" for name in ("schedule", "warmup", "epsilon")),
        ),
        *("train.trackers", *(f"optimizer.{name}" for name in ("gamma", "decay_epochs", "end_factor"))),
    }
    assert SYNONYMS["learning_rate"] == "lr"


def test_names_of_the_hub_are_timms() -> None:
    for name in (
        "timm/resnet18",
        "hf_hub:timm/resnet18",
        "hf-hub:timm/resnet18",
        "https://huggingface.co/timm/resnet18",
    ):
        assert timm_name(name) == "resnet18"
    assert timm_name("hf_hub:me/net") == "me/net"
