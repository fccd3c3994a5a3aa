"""What trackers are told, by a fake one: once, behind a kill too, and a failing one never ends a run."""

import builtins
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from segtune.errors import DivergedError, Interrupted, UserError
from segtune.training import loop, tracking
from segtune.training.tracker import Start
from segtune.training.tracking import Tracking, check_trackers


class Fake:
    """Takes note of what it is told; `fails` at the method of a name."""

    takes_back = False
    told: list[tuple[Any, ...]]
    fails = ""

    def __init__(self, start: Start) -> None:
        self.kept = {"id": start.kept.get("id", "7")}
        self.note("start", dict(start.kept), start.epochs, start.steps)

    def note(self, *told: Any) -> None:
        if told[0] == self.fails:
            raise RuntimeError("server\nunreachable " + 500 * "x ")
        self.told.append(told)

    def step(self, *told: Any) -> None:
        self.note("step", *told)

    def epoch(self, *told: Any) -> None:
        self.note("epoch", *told)

    def end(self, *told: Any) -> None:
        self.note("end", *told)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Fake]]:
    """What `train.trackers=mlflow` starts here."""
    class_of = tracking._class_of
    monkeypatch.setattr(tracking, "_class_of", lambda name: Fake if name == "mlflow" else class_of(name))
    monkeypatch.setattr(Fake, "told", [], raising=False)
    monkeypatch.setattr(Fake, "fails", "")
    return Fake


def test_a_run_that_goes_on_tells_nothing_twice(fake: type[Fake], tmp_path: Path) -> None:
    """Its checkpoint is of step 2; a kill came behind step 4, in the second epoch."""
    killed = Tracking(Start(tmp_path), ["mlflow"])
    killed.step(2, {"loss": 2.0})
    killed.epoch(1, 3, {"dice": 0.5}, {})
    killed.step(4, {"loss": 4.0})
    resumed = Tracking(Start(tmp_path, epochs=0, steps=2), ["mlflow", "mlflow"])
    for step in (3, 4, 5):
        resumed.step(step, {"loss": float(step)})
    resumed.epoch(1, 3, {"dice": 0.5}, {})
    resumed.epoch(2, 6, {"dice": 0.75}, {})
    resumed.end("finished", {"val_dice": 0.75})
    assert fake.told == [
        ("start", {}, 0, 0),
        ("step", 2, {"loss": 2.0}),
        ("epoch", 1, 3, {"dice": 0.5}, {}),
        ("step", 4, {"loss": 4.0}),
        ("start", {"id": "7"}, 0, 2),
        ("step", 5, {"loss": 5.0}),
        ("epoch", 2, 6, {"dice": 0.75}, {}),
        ("end", "finished", {"val_dice": 0.75}),
    ]
    assert json.loads((tmp_path / "tracking.json").read_text()) == {
        "mlflow": {"epoch": 2, "step": 5, "kept": {"id": "7"}}
    }


@pytest.mark.parametrize("where", ["start", "step", "epoch", "end"])
def test_one_that_fails_is_left_out_with_one_warning(
    fake: type[Fake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    monkeypatch.setattr(fake, "fails", where)
    told = Tracking(Start(tmp_path), ["mlflow"])
    for step in (1, 2):
        told.step(step, {"loss": 1.0})
        told.epoch(step, step, {"dice": 0.5}, {})
    told.end("finished", {})
    (message,) = caplog.messages
    assert message.startswith("MLflow cannot be written (server unreachable x x")
    assert message.endswith("x [...]); metrics.csv is still written.")
    assert len(message) < 400
    behind = {"start": 0, "step": 1, "epoch": 2, "end": 5}
    assert len(fake.told) == behind[where]


def test_tensorboard_fails_as_the_others_do(fake: type[Fake], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "tensorboard").touch()
    told = Tracking(Start(tmp_path), ["mlflow"])
    told.step(1, {"loss": 1.0})
    told.end("killed", {})
    (message,) = caplog.messages
    assert message.startswith("TensorBoard cannot be written (")
    assert [each[0] for each in fake.told] == ["start", "step", "end"]


@pytest.mark.parametrize("content", ["", "[]", '{"mlflow": 1}', '{"mlflow": {"epoch": 1, "step": "x", "kept": {}}}'])
def test_a_damaged_record_means_to_begin_anew(fake: type[Fake], tmp_path: Path, content: str) -> None:
    (tmp_path / "tracking.json").write_text(content)
    Tracking(Start(tmp_path), ["mlflow"]).step(1, {"loss": 1.0})
    assert fake.told == [("start", {}, 0, 0), ("step", 1, {"loss": 1.0})]


def test_what_is_missing_is_said_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_extras(name: str, *more: Any) -> Any:
        if name in ("segtune.training.mlflow", "segtune.training.wandb"):
            raise ModuleNotFoundError(f"No module named '{name.rpartition('.')[2]}'")
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without_extras)
    check_trackers([])
    for name, title in (("mlflow", "MLflow"), ("wandb", "Weights & Biases")):
        with pytest.raises(UserError) as error:
            check_trackers([name])
        assert str(error.value) == (
            f"train.trackers={name}: {title} cannot be imported (No module named '{name}'). Install it with: "
            f"pip install 'segtune[{name}]', or leave it out."
        )


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "finished"), (Interrupted(), "killed"), (KeyboardInterrupt(), "killed"), (DivergedError("nan"), "failed")],
)
def test_a_run_has_the_status_of_its_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException | None, status: str
) -> None:
    ends: list[tuple[Any, ...]] = []

    def fit_phase(*_: Any) -> None:
        if error:
            raise error

    class Recorder:
        class tracking:  # noqa: N801
            end = staticmethod(lambda *told: ends.append(told))

    class Run:
        recorder, phases, folder = Recorder, ["one"], tmp_path

        class state:  # noqa: N801
            phase = 0

    monkeypatch.setattr(loop, "fit_phase", fit_phase)
    monkeypatch.setattr(loop, "_summary", lambda _: {"val_dice": 0.5})
    if error:
        with pytest.raises(type(error)):
            loop._fit_phases(Run, {})
    else:
        assert loop._fit_phases(Run, {}) == json.loads((tmp_path / "summary.json").read_text()) == {"val_dice": 0.5}
    assert ends == [(status, {} if error else {"val_dice": 0.5})]
