"""Find files and folders named by the user; imports nothing heavy, so a wrong path is reported at once."""

from contextlib import suppress
from pathlib import Path

from segtune.errors import UserError


def find_folder(setting: str, path: str | Path, advice: str = "") -> Path:
    """Return the folder that a setting names.

    Raises:
        UserError: It does not exist; the message ends with `advice`.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        text = f"{setting}={folder} is not a folder (current folder: {Path.cwd()})."
        raise UserError(f"{text} {advice}".rstrip())
    return folder


def find_data_folder(root: str | Path) -> Path:
    """Return the folder of the user's data set.

    Raises:
        UserError: It does not exist.
    """
    return find_folder("data.root", root, "Set it to the folder of your data set.")


def find_checkpoint(path: str | Path) -> Path:
    """Return the file of a checkpoint.

    Raises:
        UserError: It does not exist; the message names other checkpoints in its folder.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        near = sorted(str(p) for p in file.parent.glob("*.pt")) if file.parent.is_dir() else []
        raise UserError(
            f"No checkpoint at {file}."
            + (f" There are: {', '.join(near)}." if near else " Expected a file such as RUN/checkpoints/best.pt.")
        )
    return file


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
        raise UserError(f"Cannot create the folder {path}: {error.strerror or error}.") from error
    raise UserError(f"Cannot create the folder {path}: there are {len(names)} of this name.")
