"""What is written of each image, and what every format of annotations does with it."""

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from segtune.inference.inputs import Source
from segtune.inference.objects import FoundObject
from segtune.runtime.write_errors import naming_write_errors


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """A photo, its height and width as displayed, and the objects in it."""

    source: Source
    height: int
    width: int
    objects: Sequence[FoundObject]


class Annotations(ABC):
    """The annotations of many images in one format, below a folder of their own.

    Attributes:
        shared: The name of the one file of all images; empty if there is none.
        folder: The folder.
        category: What the objects are called.
    """

    shared: ClassVar[str] = ""

    def __init__(self, folder: Path, category: str) -> None:
        self.folder, self.category = folder, category

    @staticmethod
    def file_of(source: Source) -> str:
        """Return the name of an image's own file, below the folder; empty if it has none."""
        return ""

    @staticmethod
    def link_of(source: Source) -> str:
        """Return where the format expects the photo, below the folder; empty if it may be anywhere."""
        return ""

    @abstractmethod
    def add(self, image: AnnotatedImage) -> str:
        """Return the content of an image's own file, or keep what the shared one will hold."""

    def content(self) -> str:
        """Return the content of the shared file, with all images that were added."""
        return ""

    def link(self, source: Source) -> None:
        """Put a link to a photo where the format expects one; where the system has no links, a copy.

        Raises:
            UserError: It cannot be written.
        """
        name = self.link_of(source)
        link, photo = self.folder / name, source.path.absolute()
        if not name:
            return
        with naming_write_errors(str(link)):
            if link.exists() and link.samefile(photo):
                return
            link.parent.mkdir(parents=True, exist_ok=True)
            if link.is_symlink() or not link.exists():
                link.unlink(missing_ok=True)
                with suppress(OSError, NotImplementedError):
                    link.symlink_to(relative_to(photo, link.parent))
                    return
            shutil.copyfile(photo, link)


def relative_to(file: Path, folder: Path) -> str:
    """Return the path that leads from a folder to a file, with /; the whole one where none does (Windows' drives)."""
    target = Path(os.path.realpath(file.parent), file.name)
    try:
        return Path(os.path.relpath(target, os.path.realpath(folder))).as_posix()
    except ValueError:
        return target.as_posix()
