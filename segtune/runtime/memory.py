"""How much memory is free; recognise that it has run out, and say what to do."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from segtune.config.training_settings import DeviceSettings, TrainSettings
from segtune.errors import FailedError, StoppedError, UserError, out_of_memory, reason_of
from segtune.runtime.device import Device
from segtune.runtime.distributed import world


@contextmanager
def memory_advice(
    settings: DeviceSettings, size: tuple[int, int], compute: Device, *more: str, tiles: bool = False
) -> Iterator[None]:
    """Turn an error of the block that memory has run out into one message, with numbers and what to do.

    Args:
        settings: The batch size.
        size: Height and width of the network's input, in pixels.
        compute: Device and precision.
        more: Further advice.
        tiles: The input is the tiles of images, one by one.

    Raises:
        StoppedError: Memory has run out.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError | FailedError) or not out_of_memory(error):
            raise
        used = 1 if tiles else settings.images_per_batch
        what = "Tiles" if tiles else f"Batches of {used} image{'s' * (used > 1)}"
        half = used // 2
        steps = " train.accumulate=2 (the same steps)" if type(settings) is TrainSettings and world() == 1 else ""
        advice = [f"train.batch_size={half}{steps}"] if half else []
        advice += ["a smaller data.eval_tile" if tiles else "a smaller data.image_size"]
        advice += ["train.precision=bf16"] if compute.device.type == "cuda" and compute.precision == "float32" else []
        raise StoppedError(
            f"Out of memory: {reason_of(error)}.\n"
            f"{what} of {size[0]} x {size[1]} pixels, on {compute}. "
            f"Try {', or '.join([*advice, *more])}."
        ) from error


def free_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process can still use, within the limit of its container too.

    Where the system does not tell, half of its memory. `root` is the folder with `proc` and `sys`.
    """
    found = []
    with suppress(OSError, LookupError, ValueError):
        found.append(1024 * _numbers(root / "proc/meminfo")["MemAvailable:"])
    with suppress(OSError, LookupError, ValueError):
        group = root / "sys/fs/cgroup"
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        found.append(limit - used + _numbers(group / "memory.stat")["inactive_file"])  # what the system gives back
    if not found:
        with suppress(AttributeError, OSError, ValueError):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return max(min(found, default=0), 0)


def _numbers(path: Path) -> dict[str, int]:
    """Return the numbers of a file whose lines are a name and a number."""
    return {name: int(number) for name, number, *_ in map(str.split, path.read_text().splitlines())}
