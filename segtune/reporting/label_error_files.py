"""Likely label errors as a list, and as files that labelme opens."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segtune.config.output_settings import PolygonSettings
from segtune.evaluation.label_errors import contradicted_regions
from segtune.evaluation.predictions import SamplePrediction, SamplePredictions
from segtune.inference.annotations.base import AnnotatedImage
from segtune.inference.annotations.labelme import Labelme
from segtune.inference.inputs import Source
from segtune.inference.objects import FoundObject, find_objects
from segtune.reporting.wording import Facts
from segtune.runtime.files import write_atomically, write_csv

#: The list, and the folder of labelme's files.
LIST, FOLDER = "label_errors.csv", "label_errors"
#: The labels of regions that are perhaps missing from a mask, and perhaps wrongly in it.
MISSING, WRONG = "missing?", "wrong?"
#: The most images for which files are written: each is predicted once more.
MOST_FILES = 30

#: The least label-error score, a fraction of the image, for a mask to be listed.
_LEAST_SCORE = 0.002


def suspects(rows: Sequence[Facts]) -> list[int]:
    """Return the indices of the images with a likely label error, the largest first."""
    ranked = sorted(range(len(rows)), key=lambda i: -rows[i]["contradicted"])
    return [i for i in ranked if rows[i]["contradicted"] >= _LEAST_SCORE]


def write_label_errors(
    folder: Path, rows: Sequence[Facts], category: str, predict: Callable[[Sequence[int]], SamplePredictions]
) -> int:
    """Write the list of likely label errors, and files for labelme of the first ones; return how many there are.

    Such a file holds the mask as it is, called `category`, and the regions that the model contradicts. One that is
    there already is left alone: it may have been corrected.

    Args:
        folder: The folder of the evaluation.
        rows: A row for each image.
        category: What the objects are called.
        predict: Returns the images with these indices, and their predictions.

    Raises:
        UserError: A file cannot be written.
    """
    found = suspects(rows)
    if not found:
        (folder / LIST).unlink(missing_ok=True)
        return 0
    files = Labelme(folder / FOLDER, category)
    table = [{name: rows[i][name] for name in ("name", "contradicted", "dice")} for i in found]
    for row, (pair, sample) in zip(table, predict(found[:MOST_FILES]), strict=False):
        source = Source(pair.photo, pair.name)
        row["file"] = f"{FOLDER}/{files.file_of(source)}"
        if not (folder / row["file"]).exists():
            image = AnnotatedImage(source, *sample.size, _shapes(sample, category))
            write_atomically(folder / row["file"], files.add(image).encode())
            files.link(source)
    write_csv(folder / LIST, table)
    return len(found)


def _shapes(sample: SamplePrediction, category: str) -> list[FoundObject]:
    """Return the contradicted regions at the photo's size, with their mean probabilities, and the true objects."""
    settings, regions = PolygonSettings(), contradicted_regions(sample)
    truth = _enlarged(sample.truth, sample.size) if sample.original is None else sample.original == 1
    missing, wrong = (_enlarged(regions & where, sample.size) for where in (~sample.truth, sample.truth))
    probability = np.asarray(cv2.resize(sample.probability, sample.size[::-1]), np.float32)
    return [  # in labelme what comes later hides what lies below it: the mask stays as it is
        *find_objects(missing, probability, settings, MISSING),
        *find_objects(wrong, 1 - probability, settings, WRONG),
        *find_objects(truth, None, settings, category),
    ]


def _enlarged(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    return np.asarray(cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), bool)
