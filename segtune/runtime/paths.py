"""Finds the files and folders that a user names, without importing anything heavy: a wrong path is answered at once."""

from pathlib import Path

from segtune.errors import UserError


def find_folder(setting: str, path: str | Path, advice: str = "") -> Path:
    """Return the folder that a setting names.

    Raises:
        UserError: There is none; `advice` says what to do.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        text = f"{setting}={folder} is not a folder (seen from {Path.cwd()})."
        raise UserError(f"{text} {advice}".rstrip())
    return folder


def find_data_folder(root: str | Path) -> Path:
    """Return the folder of the user's data set.

    Raises:
        UserError: There is none.
    """
    return find_folder("data.root", root, "Give your data set's folder.")


def find_checkpoint(path: str | Path) -> Path:
    """Return the file of a checkpoint.

    Raises:
        UserError: There is none; the message names others beside it.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        near = sorted(str(p) for p in file.parent.glob("*.pt")) if file.parent.is_dir() else []
        raise UserError(
            f"No checkpoint at {file}."
            + (f" There are: {', '.join(near)}." if near else " Expected a file such as RUN/checkpoints/best.pt.")
        )
    return file
