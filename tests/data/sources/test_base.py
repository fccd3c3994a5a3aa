"""A pair reads its files; a problem is one line."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtune.data.images import ImageError
from segtune.data.sources.base import Pair, Problem


def test_a_pair_reads_its_files(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    labels = np.arange(54, dtype=np.uint8).reshape(6, 9)
    pair = Pair("a", tmp_path / "photo.png", tmp_path / "mask.png")
    Image.fromarray(image).save(pair.photo)
    Image.fromarray(labels).save(pair.mask)
    assert np.array_equal(pair.read_photo(), image)
    assert np.array_equal(pair.read_mask().array, labels)
    Image.fromarray(image).save(pair.mask)
    assert np.array_equal(replace(pair, channel="green").read_mask().array, image[..., 1])
    pair.mask.unlink()
    with pytest.raises(ImageError, match=r"mask\.png: cannot be read"):
        pair.read_mask()


def test_a_problem_is_one_line() -> None:
    assert str(Problem("warning", "masks", "no foreground: 1")) == "warning: masks: no foreground: 1"
