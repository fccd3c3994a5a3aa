from pathlib import Path

from segtune.training.tracker import Start


def test_a_run_is_named_as_its_folder_and_a_job_of_a_sweep_with_the_sweep(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "multirun" / "night" / "3").mkdir(parents=True)
    (tmp_path / "multirun" / "night" / "multirun.yaml").touch()
    monkeypatch.chdir(tmp_path)
    alone, job = Start(Path("runs", "a")), Start(Path("multirun", "night", "3"))
    assert (alone.name, job.name) == ("a", "night/3")
    assert alone.place == {
        "folder": str(tmp_path / "runs" / "a"),
        "checkpoint": str(tmp_path / "runs" / "a" / "checkpoints" / "best.pt"),
        "report": str(tmp_path / "runs" / "a" / "report.html"),
    }
    assert job.place.items() >= {"sweep": "night", "job": "3"}.items()
