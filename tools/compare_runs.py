"""Compare two run folders bit by bit: weights, optimizer, schedule, metrics, best checkpoint, samples.

    python tools/compare_runs.py RUN OTHER

Prints every difference, except in times, memory, folders and the number of workers; exits with code 1 if there is one.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from segtune.errors import UserError
from segtune.runtime.paths import find_checkpoint

TIMES = (
    *("seconds", "train_seconds", "cache_seconds", "wait_seconds", "trained_images", "start_images", "start_seconds"),
    *("images_per_second", "images_per_second_with_start", "peak_memory_bytes"),
)


def differences(one: Path, other: Path) -> list[str]:
    """Return the names of all differences between two run folders, except in times and memory."""
    found = []
    for name in ("last.pt", "best.pt"):
        contents = [load(folder, name) for folder in (one, other)]
        for content in contents:
            content["settings"]["run_dir"] = content["settings"]["train"]["workers"] = None
            content.get("data", {})["folder"] = None  # where the runs were started
            content["state"] = _without_times(content["state"])
        found += [f"{name}{place}" for place in _unlike(contents[0], contents[1])]
    names = {str(path.relative_to(folder)) for folder in (one, other) for path in folder.glob("samples/*")}
    for name in ("metrics.csv", *sorted(names)):
        files = [folder / name for folder in (one, other)]
        if not all(file.is_file() for file in files) or files[0].read_bytes() != files[1].read_bytes():
            found.append(name)
    summaries = [_without_times(json.loads((folder / "summary.json").read_text())) for folder in (one, other)]
    found += [f"summary.json{place}" for place in _unlike(summaries[0], summaries[1])]
    return found + [f"partial file left: {name}" for folder in (one, other) for name in being_written(folder)]


def being_written(folder: Path) -> tuple[str, ...]:
    """Return the files being written: `.last.pt.x1y2.partial` is the temporary file of `last.pt`."""
    return tuple(sorted(path.name[1:].rsplit(".", 2)[0] for path in folder.glob("**/.*.partial")))


def load(folder: Path, name: str) -> dict[str, Any]:
    """Return the content of a run's checkpoint; fail if it is incomplete."""
    import torch

    content: dict[str, Any] = torch.load(find_checkpoint(folder / "checkpoints" / name), weights_only=True)
    return content


def main() -> int:
    """Compare the folders on the command line; return 1 if they differ, 2 if one holds no finished run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument("other", type=Path, help="the folder of another finished run")
    options = parser.parse_args()
    try:
        found = differences(options.run, options.other)
    except (UserError, OSError) as error:
        parser.error(str(error))
    print("\n".join([*found, f"{len(found)} differences"]))
    return int(bool(found))


def _without_times(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in TIMES}


def _unlike(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Yield the paths at which two nested values differ, tensors bit by bit."""
    import torch

    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            yield from _unlike(one.get(key), other.get(key), f"{place}/{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from _unlike(*pair, f"{place}/{number}")
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.dtype != other.dtype or one.shape != other.shape or one.numpy().tobytes() != other.numpy().tobytes():
            yield place
    elif one != other and not (one != one and other != other):  # NaN equals NaN here
        yield place


if __name__ == "__main__":
    sys.exit(main())
