"""`export` as a command: what it refuses before work, and what is left where the result deviates.

`tests/inference/test_export.py` runs it with a trained model.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from segtune.commands import export as command
from segtune.config.command_settings import ExportSettings
from segtune.errors import FailedError, UserError


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list of the checkpoints that are loaded; each file is one, and is exported as its own bytes."""
    paths: list[Path] = []

    def load(path: Path) -> Any:
        paths.append(path)
        names = SimpleNamespace(name="net")
        data = SimpleNamespace(evaluation_size=(64, 64), eval_tile=None)
        settings = SimpleNamespace(backbone=names, decoder=names, data=data)
        return SimpleNamespace(rebuild=lambda: SimpleNamespace(model=path.read_bytes()), settings=settings)

    def write(program: bytes, target: Path, _: object) -> None:
        target.write_bytes(program)

    monkeypatch.setattr(command, "Checkpoint", SimpleNamespace(load=load))
    for name, value in {
        "Deployed": lambda model: model,
        "trace": lambda model: model,
        "describe": lambda _: {},
        "write_program": write,
        "load_program": Path.read_bytes,
        "compare_outputs": lambda network, written, _: None if network == written else pytest.fail("another file"),
    }.items():
        monkeypatch.setattr(command, name, value)
    return paths


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "best.pt").write_bytes(b"weights")
    return tmp_path / "best.pt"


def settings(source: Path, **changes: Any) -> ExportSettings:
    return ExportSettings(str(source), format="torch", **changes)


def test_the_file_stands_beside_the_checkpoint(loaded: list[Path], source: Path) -> None:
    target = command.export(settings(source))
    assert target == source.with_suffix(".pt2")
    assert target.read_bytes() == b"weights"
    assert loaded == [source]


def test_what_cannot_be_written_is_refused_before_anything_is_loaded(loaded: list[Path], source: Path) -> None:
    there = source.parent / "there.pt2"
    there.write_text("before")
    for output, message in ((source, "the checkpoint itself"), (source.parent, "a folder"), (there, "already exists")):
        with pytest.raises(UserError, match=message):
            command.export(settings(source, output=str(output)))
    assert not loaded
    assert there.read_text() == "before"
    assert command.export(settings(source, output=str(there), overwrite=True)).read_bytes() == b"weights"


def test_a_deviation_leaves_what_was_there(loaded: list[Path], source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deviate(*_: object) -> None:
        raise FailedError("deviates")

    monkeypatch.setattr(command, "compare_outputs", deviate)
    there = source.with_suffix(".pt2")
    there.write_text("before")
    with pytest.raises(FailedError, match="deviates"):
        command.export(settings(source, overwrite=True))
    assert there.read_text() == "before"
    assert sorted(path.name for path in source.parent.iterdir()) == ["best.pt", "best.pt2"]
