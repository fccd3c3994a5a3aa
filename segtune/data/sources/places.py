"""Where photos or masks are: a folder, or a pattern of folders and files, as `data.images` and `data.masks` name it."""

import os
import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import NamedTuple

from segtune.config.types import SPLIT
from segtune.data.file_formats import EXTENSIONS
from segtune.data.sources.folder_words import SPLIT_WORD, split_of
from segtune.data.sources.listing import Listing, is_image_name

_SPECIAL = re.compile(r"(/\*\*$|\*\*/|\*\*|[*?]+|\{split\})")


class Key(NamedTuple):
    """The split that a place names, or "", and the name of an image in it: a path with `/`, without extension."""

    split: str
    name: str


@dataclass(frozen=True)
class Place:
    """A folder or a pattern relative to a listed folder.

    A folder means all files in it and below it. `*` and `?` stand for characters of one name, `**` for any number of
    folders, `{split}` for the name of a split. What they stand for is the name of the image, with the path below the
    folder: `images` names `images/p1/a.jpg` p1/a, and so does `*/images/*.jpg` with `p1/images/a.jpg`.
    """

    text: str

    def files(self, listing: Listing) -> list[tuple[Key, str]]:
        """Return the images of this place, each with its path relative to the root of the listing."""
        found = []
        for folder in sorted(listing.files):
            path = _plain(folder)
            if (match := self._folder.fullmatch(path)) is not None:
                begin = _said(match)
                for name in listing.images(folder):
                    found.append((_key(match, [*begin, os.path.splitext(name)[0]]), _path(folder, name)))
            elif (match := self._parent.fullmatch(path)) is not None:
                for name in listing.images(folder):
                    if (of_file := self._file.fullmatch(_plain(name))) is not None:
                        said = [*_said(match), *_said(of_file)] or [os.path.splitext(name)[0]]
                        found.append(
                            (_key(of_file if "split" in of_file.re.groupindex else match, said), _path(folder, name))
                        )
        return found

    def others(self, listing: Listing) -> list[str]:
        """Return the names of files in its folders that are no images."""
        folders = [folder for folder in sorted(listing.files) if self._folder.fullmatch(_plain(folder))]
        return [name for folder in folders if folder for name in listing.files[folder] if not is_image_name(name)]

    def covers(self, folder: str) -> bool:
        """Return whether a folder of the listing belongs to this place, or may hold folders that do."""
        return any(regex.fullmatch(_plain(folder)) for regex in (self._folder, self._parent))

    @cached_property
    def _clean(self) -> str:
        return "" if self.text == "." else _plain(self.text)

    @cached_property
    def _folder(self) -> "re.Pattern[str]":
        here = _regex(self._clean)
        return re.compile(rf"{here}(?:/(.+))?" if here else "(.+)?", re.DOTALL)  # names may hold line breaks

    @cached_property
    def _parent(self) -> "re.Pattern[str]":
        return re.compile(_regex(self._clean.rpartition("/")[0]), re.DOTALL)

    @cached_property
    def _file(self) -> "re.Pattern[str]":
        name = self._clean.rpartition("/")[2]
        stem, dot, extension = name.rpartition(".")
        if dot and (f".{extension.lower()}" in EXTENSIONS or extension == "*"):
            return re.compile(_regex(stem) + (r"\.[^.]*" if extension == "*" else rf"(?i:\.{re.escape(extension)})"))
        return re.compile(_regex(name) + r"\.[^.]*")


def _regex(text: str) -> str:
    parts: list[str] = []
    for piece in _SPECIAL.split(text):
        if piece == SPLIT:
            seen = any("(?P<split>" in part for part in parts)
            parts.append("(?P=split)" if seen else f"(?P<split>{SPLIT_WORD})")
        elif piece == "/**":
            parts.append("(?:/(.+))?")
        elif piece == "**/":
            parts.append("(?:(.+)/)?")
        elif piece == "**":
            parts.append("(.*)")
        elif piece and set(piece) <= {"*", "?"}:
            parts.append(f"({piece.replace('*', '[^/]*').replace('?', '[^/]')})")
        else:
            parts.append(re.escape(piece))
    return "".join(parts)


def _said(match: "re.Match[str]") -> list[str]:
    """Return what the stars of a place stand for, without the split."""
    split = match.re.groupindex.get("split")
    return [text for number, text in enumerate(match.groups(), start=1) if text and number != split]


def _key(match: "re.Match[str]", parts: list[str]) -> Key:
    split = split_of(match["split"]) if "split" in match.re.groupindex else ""
    return Key(split or "", _plain("/".join(parts)))


def _plain(text: str) -> str:
    """Return a text with accents as macOS does not write them: photo and mask may come from different systems."""
    return unicodedata.normalize("NFC", text)


def _path(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def is_pattern(text: str) -> bool:
    """Return whether a place is more than one folder."""
    return _SPECIAL.search(text) is not None


def fixed_part(text: str) -> str:
    """Return the folder without `*`, `?` and `{split}` at the beginning of a place, "" for none."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    return "/".join(takewhile(lambda part: not is_pattern(part), parts))
