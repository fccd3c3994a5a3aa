"""Find files and folders named by the user; imports nothing heavy, so a wrong path is reported at once."""

import errno
import os
import stat
import sys
from contextlib import suppress
from functools import cache
from itertools import islice
from pathlib import Path

from segtune.errors import UserError, some
from segtune.runtime.write_errors import why


def find_folder(setting: str, path: str | Path, advice: str = "") -> Path:
    """Return the folder that a setting names.

    Raises:
        UserError: It is empty or does not exist; the message ends with `advice`.
    """
    if not str(path):
        raise UserError(f"{setting} is empty. Set it to a path; the current folder is a dot: {setting}=.")
    folder = expanded(path, setting)
    if not os.path.isdir(folder):  # Path.is_dir raises an error where a folder above must not be read
        text = f"{setting}={folder} is not a folder (current folder: {Path.cwd()})."
        raise UserError(f"{text} {advice}".rstrip())
    return folder


def expanded(path: str | Path, setting: str = "") -> Path:
    """Return a path with ~ expanded.

    Args:
        path: The path.
        setting: The setting that names it, for the message.

    Raises:
        UserError: It begins with a user who does not exist.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        named = f"{setting}={path}" if setting else str(path)
        raise UserError(f"{named}: there is no home folder of {Path(path).parts[0]}.") from error


def user_cache(name: str) -> Path:
    """Return segtune's folder of a name in the user's cache folder: `$XDG_CACHE_HOME`, or `~/.cache`.

    Raises:
        UserError: There is no home folder.
    """
    home = os.environ.get("XDG_CACHE_HOME", "")
    return expanded(Path(home if os.path.isabs(home) else "~/.cache", "segtune", name))


def find_data_folder(root: str | Path) -> Path:
    """Return the folder of the user's data set.

    Raises:
        UserError: It does not exist.
    """
    return find_folder("data.root", root, "Set it to the folder of your data set.")


def special_kind(path: str | Path) -> str | None:
    """Return what is at a path that cannot be read as a file, such as "a named pipe"; None for a file or nothing.

    Nothing is opened: to read a pipe or a device may wait, or go on, for ever. Links are followed.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if not os.path.islink(path):
            return None
        return "a link that leads back to itself" if error.errno == errno.ELOOP else "a link to nothing"
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "not a regular file")


_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def refuse_data_folder(folder: Path, root: str | Path, setting: str = "run_dir") -> None:
    """Check that a command does not write among the files of a data set.

    Raises:
        UserError: `folder`, which `setting` names, is the data set's folder `root`, or in its images/ or masks/.
    """
    here, data = folder.resolve(), expanded(root).resolve()
    if here == data or any(here.is_relative_to(data / name) for name in ("images", "masks")):
        raise UserError(f"{setting}={folder} is inside the data set, which is never changed. Set another {setting}.")


def find_checkpoint(path: str | Path) -> Path:
    """Return the file of a checkpoint; of a run's folder its `best.pt`, which is said.

    Raises:
        UserError: It does not exist; the message names other checkpoints in its folder.
    """
    file = expanded(path, "checkpoint")
    if is_folder(file):
        return _best_of(file, "checkpoint")
    if not is_file(file):
        near = sorted(str(p) for p in file.parent.glob("*.pt")) if is_folder(file.parent) else []
        raise UserError(
            f"No checkpoint at {file}."
            + (f" There are: {', '.join(near)}." if near else " Expected a file such as RUN/checkpoints/best.pt.")
        )
    return file


def find_model_file(setting: str, path: str | Path, otherwise: str) -> Path:
    """Return a file that holds tensors; of a run's folder its `best.pt`, which is said.

    Raises:
        UserError: It does not exist, which the text `otherwise` says.
    """
    file = expanded(path, setting)
    if is_folder(file):
        return _best_of(file, setting)
    if not is_file(file):
        raise UserError(otherwise)
    return file


def _best_of(folder: Path, setting: str) -> Path:
    for file in (folder / "checkpoints" / "best.pt", folder / "best.pt"):
        if file.is_file():
            notice(f"{setting}={folder} is a folder: taking {file}.")
            return file
    begin = f"{setting}={folder} is a folder without a best.pt"
    if last := next((f for f in (folder / "checkpoints" / "last.pt", folder / "last.pt") if f.is_file()), None):
        raise UserError(f"{begin}: no epoch of this run is finished. Resume it, or name {last}.")
    below = sorted(str(file) for file in islice(folder.glob("**/checkpoints/best.pt"), 50))
    models = sorted(str(file) for file in folder.iterdir() if file.suffix in _ENDINGS)
    if not below and not models:
        raise UserError(f"{begin}. Expected a file such as RUN/checkpoints/best.pt.")
    raise UserError(f"{begin}. Name one of the files below it: {some(below or models)}.")


_ENDINGS = (".pt", ".pth", ".safetensors", ".bin", ".ckpt", ".h5", ".onnx")


def from_here(path: Path) -> str:
    """Return a path relative to the current folder if it is inside it, otherwise unchanged."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def is_file(path: Path) -> bool:
    """Return whether a path is a file; False where the system cannot tell, as for a name that is too long."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; False where the system cannot tell, as for a name that is too long."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


@cache
def notice(text: str) -> None:
    """Say on stderr what a setting was taken for: once, and of several processes in the first."""
    if os.environ.get("RANK", "0") == "0":
        sys.stderr.write(f"{text}\n")


def new_folder(path: Path) -> Path:
    """Create a folder that nobody else has, and return it: `path`, or where that exists `path` with _2, _3, … added.

    Raises:
        UserError: It cannot be created.
    """
    names = (path, *(path.with_name(f"{path.name}_{number}") for number in range(2, 1000)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in names:
            with suppress(FileExistsError):
                folder.mkdir()  # of several processes only one succeeds
                return folder
    except OSError as error:
        raise UserError(f"Cannot create the folder {path}: {why(error)}") from error
    raise UserError(f"Cannot create the folder {path}: there are {len(names)} of this name.")
