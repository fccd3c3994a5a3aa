"""Slow: the wheel holds the configuration and works outside the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_works_outside_the_repository(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", str(tmp_path), str(REPOSITORY)], check=True, timeout=120)
    (wheel,) = tmp_path.glob("segtune-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    packed = {path.relative_to(tmp_path / "site" / "segtune" / "conf") for path in (tmp_path / "site").rglob("*.yaml")}
    assert packed == {path.relative_to(REPOSITORY / "conf") for path in (REPOSITORY / "conf").rglob("*.yaml")}
    pages = {path.name for path in (tmp_path / "site" / "segtune" / "reporting" / "pages").glob("*.html")}
    assert (
        pages
        == {path.name for path in (REPOSITORY / "segtune" / "reporting" / "pages").glob("*.html")}
        >= {"report.html"}
    )
    assert (tmp_path / "site" / "segtune" / "py.typed").is_file()
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-m", "segtune", "train", "backbone=resnet50", "--cfg", "job", "--resolve"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "conv4_block6_2_relu" in done.stdout
