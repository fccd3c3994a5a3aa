"""Composing settings: values that Hydra's grammar lacks, flags, sweeps, open mappings."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from segtune.__main__ import main
from segtune.cli.compose import quoted
from tests.cli.conftest import SMALL, discs, message


@pytest.mark.parametrize(
    "value", ["Müller.jpg", "a (1).jpg", "it's (1)", "my photos/x", "C:\\x\\ü", "$HOME/é", "a=b", "plain"]
)
def test_paths_of_all_kinds_are_values(value: str) -> None:
    assert OverridesParser.create().parse_override(quoted(f"input={value}")).value() == value


def test_paths_in_a_list_are_values() -> None:
    parsed = OverridesParser.create().parse_override(quoted("checkpoint=[ä.pt,b (1).pt,c.pt]"))
    assert parsed.value() == ["ä.pt", "b (1).pt", "c.pt"]


@pytest.mark.parametrize("argument", ["a=[a,b]", "a={b: 1}", "a='ü'", 'a="ü"', "a=1,2", "~a", "a=null", "a=1e-3", "a="])
def test_values_that_mean_more_stay_as_they_are(argument: str) -> None:
    assert quoted(argument) == argument


def test_flags_may_stand_between_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "seed=3", "--cfg", "job", "optimizer=sgd", "-p", "optimizer"]) == 0
    assert "name: sgd" in capsys.readouterr().out


def test_a_misspelt_phase_is_not_a_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert message(capsys, "train", "freeze.phases.haed.epochs=2") == (
        "segtune train: freeze.phases.haed: there is no such phase; expected head, all. Did you mean head? "
        "To add one: +freeze.phases.haed={backbone: …, epochs: …, lr: …}."
    )


def test_a_sweep_under_torchrun_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert message(capsys, "train", "-m", "seed=0,1") == (
        "segtune train: A sweep (-m) is not supported under torchrun. Start its runs one after the other."
    )


@pytest.mark.trains
@pytest.mark.usefixtures("quick")
def test_a_sweep_and_a_config_folder_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    discs(tmp_path / "photos")
    (tmp_path / "mine" / "augment").mkdir(parents=True)
    (tmp_path / "mine" / "augment" / "mirror.yaml").write_text("transforms: {HorizontalFlip: {p: 0.5}}\n")
    assert main(["train", "--config-dir", "mine", "-m", *SMALL, "augment=mirror", "seed=0,1", "run_dir=sweep"]) == 0
    assert (tmp_path / "sweep" / "0" / "summary.json").is_file()
    assert '<a href="1/report.html">1</a>' in (tmp_path / "sweep" / "report.html").read_text(encoding="utf-8")
    assert "Wrote sweep/report.html." in capsys.readouterr().out
    assert "seed: 1" in (tmp_path / "sweep" / "1" / "config.yaml").read_text(encoding="utf-8")
    assert "HorizontalFlip" in (tmp_path / "sweep" / "1" / "config.yaml").read_text(encoding="utf-8")
