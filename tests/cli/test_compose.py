"""Composing settings: flags, sweeps, open mappings, and the folders that commands write to."""

import importlib
from pathlib import Path

import pytest
import yaml
from hydra.core.hydra_config import HydraConfig

from segtune.__main__ import main
from segtune.cli import compose, tasks
from segtune.commands import predict, train
from segtune.data import record
from segtune.data.checks import integrity, once
from tests.cli.conftest import SMALL, discs, message


def test_flags_may_stand_between_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "seed=3", "--cfg", "job", "optimizer=sgd", "-p", "optimizer"]) == 0
    assert "name: sgd" in capsys.readouterr().out


ROOT = "data.root=photos"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "portraits data/portraits 128"),
        ((ROOT,), "folder photos 256"),
        (("data.root=data/portraits",), "folder data/portraits 256"),
        ((ROOT, "experiment=first"), "folder photos 96"),
        ((ROOT, "experiment=skin"), "folder photos 256"),
        ((ROOT, "data=portraits"), "portraits photos 128"),
        ((ROOT, "data.name=portraits"), "portraits photos 128"),
        ((ROOT, "data.name=folder"), "folder photos 256"),
        (("++data.root=photos", "data.image_size=64"), "folder photos 64"),
        (("--config-dir", "own", "experiment=rooted"), "folder elsewhere 256"),
        (("--config-dir", "own", "experiment=rooted", ROOT), "folder photos 256"),
        (("--config-dir", "own", "data=mine"), "folder mine 48"),
        (("--config-dir", "own", "experiment=choosing", ROOT), "folder photos 48"),
    ],
)
def test_a_root_means_a_folder_of_data(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    expected: str,
) -> None:
    """On the command line or in a file, unless the built-in data are chosen on the command line."""
    monkeypatch.chdir(tmp_path)
    files = {
        "experiment/rooted": "# @package _global_\ndata: {root: elsewhere}\n",
        "experiment/choosing": "# @package _global_\ndefaults: [{override /data: mine}]\n",
        "data/mine": "{name: folder, root: mine, image_size: 48}\n",
    }
    for name, text in files.items():
        path = tmp_path / "own" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert main(["train", *arguments, "--cfg", "job", "-p", "data"]) == 0
    data = yaml.safe_load(capsys.readouterr().out)
    assert f"{data['name']} {data['root']} {data['image_size']}" == expected


@pytest.mark.slow
def test_each_run_of_a_sweep_has_its_own_kind_of_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEGTUNE_SHARED", raising=False)
    seen: list[str] = []
    monkeypatch.setitem(tasks.TASKS, "train", lambda config: seen.append(f"{config.data.name} {config.data.root}"))
    for name in "abc":
        (tmp_path / name).mkdir()
    for arguments in (("data.root=a,b",), ("data=portraits,folder", "data.root=c"), ("experiment=skin,first",)):
        main(["train", "-m", *arguments])
    assert seen == [
        "folder a",
        "folder b",
        "portraits c",
        "folder c",
        "folder ../shared/data/skin_ecu",
        "portraits data/portraits",
    ]


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


@pytest.fixture
def noon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder, where all that happens happens in one second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compose, "_time", lambda: "2026-11-28_12-00-00")
    return tmp_path


@pytest.mark.parametrize("command", ["train", "evaluate", "probe", "check"])
def test_two_commands_in_one_second_write_to_two_folders(
    noon: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Each has it from the start; a third that writes nothing leaves nothing behind."""
    discs(noon / "photos", 1)
    (noon / "a.pt").touch()
    written = []

    def note(_: object, folder: Path, *__: object) -> dict[str, float]:
        assert not list(folder.iterdir())
        written.append(folder.name)
        if len(written) < 3:
            (folder / "result").touch()
        return {"val_dice": 1}

    monkeypatch.setattr(importlib.import_module(f"segtune.commands.{command}"), command, note)
    arguments = [command, *SMALL[:2], *(("checkpoint=a.pt",) if command == "evaluate" else ("backbone=resnet50",))]
    assert [main(arguments) for _ in range(3)] == [0, 0, 0]
    name = {"train": "resnet50_deeplabv3plus", "probe": "probe_resnet50"}.get(command, command)
    assert written == [f"2026-11-28_12-00-00_{name}{number}" for number in ("", "_2", "_3")]
    assert sorted(path.name for path in (noon / "runs").iterdir()) == written[:2]


def test_two_sweeps_in_one_second_write_to_two_folders(noon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = []
    monkeypatch.setattr(predict, "predict", lambda _: folders.append(Path(HydraConfig.get().runtime.output_dir)))
    (noon / "a.pt").touch()
    for _ in range(2):
        assert main(["predict", "-m", "checkpoint=a.pt", "input=a,b"]) == 0
    sweeps = noon / "multirun"
    assert folders == [sweeps / f"2026-11-28_12-00-00{sweep}" / job for sweep in ("", "_2") for job in "01"]


def test_text_reaches_the_command_as_typed_in_a_sweep_too(noon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr(train, "train", lambda s, folder, line: given.append((s.run_dir, folder, line)) or SUMMARY)
    for root in ("1e3", "2026_11_28"):
        discs(noon / root, 1)
    assert main(["train", "data=folder", "data.root=1e3", "run_dir=2026_11_28"]) == 0
    line = "python -m segtune train data=folder data.root={} run_dir=2026_11_28"
    assert given == [("2026_11_28", Path("2026_11_28"), line.format("1e3"))]
    given.clear()
    assert main(["train", "-m", "data=folder", "data.root=1e3,2026_11_28", "run_dir=1_0"]) == 0
    assert [(name, folder) for name, folder, _ in given] == [("1_0", noon / "1_0" / job) for job in "01"]
    assert [line.split()[-1] for *_, line in given] == ["data.root=1e3", "data.root=2026_11_28"]


SUMMARY = {"val_dice": 1.0}


def test_a_number_in_a_file_of_ones_own_is_no_text(noon: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (noon / "mine" / "experiment").mkdir(parents=True)
    (noon / "mine" / "experiment" / "day.yaml").write_text("# @package _global_\nrun_dir: 2026_11_28\n")
    assert message(capsys, "train", "--config-dir", "mine", "experiment=day") == (
        "segtune train: One setting is wrong:\n"
        "  run_dir: got 20261128; expected text. In a YAML file put it in quotes: '…'."
    )


def test_a_file_of_ones_own_that_is_no_yaml(noon: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (noon / "mine" / "freeze").mkdir(parents=True)
    path = noon / "mine" / "freeze" / "shallow.yaml"
    path.write_text("phases:\n  all: {backbone: all, epochs: 1, lr: 0.1, freeze: [:100]}\n")
    found = message(capsys, "plan", "--config-dir", "mine", "freeze=shallow")
    assert found.startswith("segtune plan: This is no valid YAML: while parsing a flow node\n")
    assert found.endswith("line 2, column 53.\nPut text with special characters in quotes, such as ':100'.")
    assert "shallow.yaml" in found


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("predict checkpoint=a.pt", "input"),
        ("train", "data.root"),
        ("report", "folder"),
        ("train", "run_dir"),
        ("train", "resume"),
    ],
)
def test_an_empty_text_is_not_the_current_folder(capsys: pytest.CaptureFixture[str], command: str, name: str) -> None:
    program, *rest = command.split()
    assert message(capsys, program, *rest, f"{name}=") == (
        f"segtune {program}: One setting is wrong:\n  {name}: got ''; expected text that is not empty."
    )


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.usefixtures("quick")
def test_a_sweep_and_a_config_folder_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    discs(tmp_path / "photos")
    (tmp_path / "mine" / "augment").mkdir(parents=True)
    (tmp_path / "mine" / "augment" / "mirror.yaml").write_text("transforms: {HorizontalFlip: {p: 0.5}}\n")
    for name, numbers in (("train", range(6)), ("val", (6, 7))):  # without lists, each seed has splits of its own
        (tmp_path / "photos" / f"{name}.txt").write_text("".join(f"d{number}\n" for number in numbers))
    checks: list[object] = []
    monkeypatch.setattr(record, "_SETTLED", -1)  # the photos are new
    monkeypatch.setattr(once, "check_data", lambda *a, **more: checks.append(a) or integrity.check_data(*a, **more))
    assert main(["train", "--config-dir", "mine", "-m", *SMALL, "augment=mirror", "seed=0,1", "run_dir=sweep"]) == 0
    assert len(checks) == 1  # by the first run, for both
    assert (tmp_path / "sweep" / "0" / "summary.json").is_file()
    assert 'href="1/report.html"' in (tmp_path / "sweep" / "report.html").read_text(encoding="utf-8")
    assert "Wrote sweep/report.html and sweep/leaderboard.csv." in capsys.readouterr().out
    assert "seed: 1" in (tmp_path / "sweep" / "1" / "config.yaml").read_text(encoding="utf-8")
    assert "HorizontalFlip" in (tmp_path / "sweep" / "1" / "config.yaml").read_text(encoding="utf-8")
