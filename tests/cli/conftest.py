"""What the tests of the command line share."""

from pathlib import Path

import pytest

from segtune.__main__ import main


def message(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run in this process; return the error message, after checking the exit code and that there is no traceback."""
    code = main(list(arguments))
    out, err = capsys.readouterr()
    assert code == 2, out + err
    assert "Traceback" not in out + err
    return err.strip()


def discs(root: Path, count: int = 8) -> Path:
    import cv2
    import numpy as np

    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for i in range(count):
        mask = np.zeros((64, 64), np.uint8)
        cv2.circle(mask, (20 + 3 * i, 32), 12 + i, 255, -1)
        cv2.imwrite(str(root / "masks" / f"d{i}.png"), mask)
        cv2.imwrite(str(root / "images" / f"d{i}.jpg"), np.dstack([mask // 2 + 60, mask // 3 + 9 * i, 200 - mask // 2]))
    return root


SMALL = (
    "data=folder",
    "data.root=photos",
    "data.image_size=64",
    "backbone=resnet50",
    "backbone.weights=none",
    "taps.low=layer1.0.act2",
    "taps.high=layer1.2.act2",
    "decoder.channels=8",
    "freeze=none",
    "freeze.phases.all.epochs=1",
    "train.workers=0",
    "checkpoint.minutes=1",
)
