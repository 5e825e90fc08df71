"""Where picture files lie. Folders are listed once: a look at each of a million files by itself takes minutes."""

# And so does a Path object for each of them:
# ruff: noqa: PTH100, PTH118, PTH120, PTH122, PTH208

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ymir_tmi.errors import DataError, ImageError
from ymir_tmi.imaging import IMAGE_SUFFIXES, image_size

_CHUNK = 256  # pictures that one thread looks at in one go


class FolderListings:
    """The names in folders, each listed at the first question."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}
        self._stems: dict[str, dict[str, str]] = {}

    def names(self, folder: str) -> frozenset[str]:
        """Return the names in a folder; none if there is no such folder."""
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(folder or "."))
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = frozenset()
        return self._names[folder]

    def has(self, path: str) -> bool:
        """Return whether there is such a file (or folder)."""
        folder, name = os.path.split(path)
        return name in self.names(folder)

    def picture(self, folder: str, stem: str) -> str | None:
        """Return the picture in a folder whose name without its suffix is `stem`; the first of several.

        `stem` may begin with folders of its own.
        """
        folder, stem = os.path.split(os.path.join(folder, stem))
        if folder not in self._stems:
            pictures = sorted((name for name in self.names(folder) if is_picture(name)), reverse=True)
            self._stems[folder] = {os.path.splitext(name)[0]: name for name in pictures}
        name = self._stems[folder].get(stem)
        return None if name is None else os.path.join(folder, name)


class PictureFinder:
    """Finds pictures by the names that an annotation file uses.

    Args:
        folders: Where to look, in this order; names may hold folders of their own, or be absolute.

    Attributes:
        missing: names that were found nowhere, by the path in the first folder.
    """

    def __init__(self, folders: Iterable[str | Path]) -> None:
        self.folders = tuple(dict.fromkeys(str(folder) for folder in folders))
        self.missing: dict[str, str] = {}
        self._listings = FolderListings()

    def find(self, name: str) -> str:
        """Return the path of a picture, in the first folder if it is found nowhere."""
        written = (name, name.replace("\\", "/")) if "\\" in name else (name,)  # on Windows
        for name in written:
            for folder in self.folders:
                path = os.path.join(folder, name)
                if self._listings.has(path):
                    return path
        path = os.path.join(self.folders[0], name)
        self.missing[path] = name
        return path

    def find_stem(self, name: str, stem: str) -> str:
        """Return the path of `name`, or else of any picture called `stem` but for its suffix."""
        if not any(self._listings.has(os.path.join(folder, name)) for folder in self.folders):
            for folder in self.folders:
                path = self._listings.picture(folder, stem)
                if path is not None:
                    return path
        return self.find(name)


def is_picture(name: str) -> bool:
    """Return whether a file name is that of a picture. Hidden files are none (macOS leaves such beside pictures)."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")


def list_pictures(folder: Path) -> list[str]:
    """Return every picture in a folder and the folders inside it, sorted by path.

    Raises:
        DataError: the folder cannot be read, or the name of a picture is not UTF-8.
    """
    try:
        found = list(_walk(str(folder), set()))
    except OSError as error:
        raise DataError(f"cannot read this folder: {error.strerror}", where=error.filename) from error
    for path in found:
        if not path.isascii() and path.encode(errors="ignore") != os.fsencode(path):
            name = path.encode(errors="backslashreplace").decode()
            raise DataError("the name of this picture is not UTF-8", where=name, fix="Rename it.")
    return sorted(found)


def _walk(folder: str, seen: set[str]) -> Iterable[str]:
    """Yield pictures; links to folders are followed, each folder is visited once."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if is_picture(entry.name):
                yield entry.path
            elif not entry.name.startswith(".") and entry.is_dir():
                yield from _walk(entry.path, seen)


def common_names(paths: Sequence[str]) -> list[str]:
    """Return the paths as seen from the deepest folder that holds them all, with "/" between folders.

    Raises:
        DataError: a picture occurs twice.
    """
    full = [os.path.abspath(path) for path in paths]
    base = os.path.commonpath([os.path.dirname(path) for path in full]) if full else ""
    names = [os.path.relpath(path, base).replace(os.sep, "/") for path in full]
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise DataError("this picture occurs twice in the data set", where=os.path.join(base, twice))
    return names


def place_picture(source: str, target: Path, *, copy: bool) -> None:
    """Make a picture appear at `target`: as a link to `source`, or as a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if copy:
        shutil.copyfile(source, target)
    else:
        target.symlink_to(os.path.abspath(source))


def picture_sizes(paths: Sequence[str], *, stored: bool = False) -> tuple[npt.NDArray[np.int32], dict[int, ImageError]]:
    """Return (N, 2) width and height of pictures, (0, 0) for those that cannot be read, and why by position.

    With `stored` they are those before EXIF turns the picture.
    """
    sizes = np.zeros((len(paths), 2), np.int32)
    errors: dict[int, ImageError] = {}
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    with ThreadPoolExecutor() as pool:  # on a network disk the time goes into waiting
        found = pool.map(partial(_sizes_or_errors, stored), chunks)
        for start, chunk in zip(range(0, len(paths), _CHUNK), found, strict=True):
            for row, size in enumerate(chunk, start):
                if isinstance(size, ImageError):
                    errors[row] = size
                else:
                    sizes[row] = size
    return sizes, errors


def _sizes_or_errors(stored: bool, paths: Sequence[str]) -> list[tuple[int, int] | ImageError]:
    def size_or_error(path: str) -> tuple[int, int] | ImageError:
        try:
            return image_size(path, as_stored=stored)
        except ImageError as error:
            return error

    return [size_or_error(path) for path in paths]
