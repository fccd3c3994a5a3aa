"""Slow: a short form of `tools/fault.py`, and that the tool finds what it is there to find."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from signal import SIGKILL, SIGTERM
from types import ModuleType

import pytest
import torch

import segtune
from segtune.models.checkpoint import Checkpoint

TOOL = Path(segtune.__file__).parents[1] / "tools" / "fault.py"


@pytest.mark.slow
def test_a_run_killed_six_times_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """In a process of its own: the tool forks, which PyTorch refuses after a backward pass such as other tests make."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, TOOL.parents[:2]))}
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def kill_six_times(tmp_path: Path) -> None:
    fault = import_tool()
    settings = fault.prepare(tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    end = fault.undisturbed(whole, settings)
    signals = [SIGKILL, SIGTERM, SIGKILL, SIGKILL, SIGTERM, SIGKILL]
    kills = fault.disturbed(killed, settings, signals, end.done, seed=0)
    assert [kill.signal for kill in kills] == [sent.name for sent in signals]
    assert sum(kill.in_checkpoint for kill in kills) >= 1
    assert len({kill.position.phase for kill in kills}) > 1  # which of the three depends on the machine's speed
    assert fault.differences(whole, killed) == []

    # The comparison would have seen it: one bit of one weight, one digit of one row, a file left half-written.
    last, metrics = killed / "checkpoints" / "last.pt", killed / "metrics.csv"
    checkpoint = Checkpoint.load(last)
    weight = checkpoint.model["decoder.project.0.weight"].view(torch.int32)
    weight.view(-1)[0] ^= 1
    checkpoint.save(last)
    metrics.write_text(metrics.read_text().replace("head", "Head", 1))
    (killed / "checkpoints" / ".best.pt.ab12.partial").touch()
    assert fault.differences(whole, killed) == [
        "last.pt/model/decoder.project.0.weight",
        "metrics.csv",
        "partial file left: best.pt",
    ]


def import_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fault", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["fault"] = importlib.util.module_from_spec(spec)  # dataclasses look for their module there
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    kill_six_times(Path(sys.argv[1]))
