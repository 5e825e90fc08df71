"""`ymir-tmi weights download`: official weights from their servers, or from a mirror, into the cache."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ymir_tmi.errors import DownloadError
from ymir_tmi.weights.cache import cache_folder, check_file
from ymir_tmi.weights.table import OfficialWeights, find_weights
from ymir_tmi.weights.transfer import NotThereError, fetch, forget


@dataclass(frozen=True)
class DownloadedFile:
    """One file.

    Attributes:
        name: the weights.
        path: where the file is.
        licence: licence of the repository that publishes it.
        fetched: whether it was fetched now, or was there.
        checked: whether its checksum was compared; there is none for some.
    """

    name: str
    path: str
    licence: str
    fetched: bool
    checked: bool


@dataclass(frozen=True)
class Downloads:
    """What is in the cache now."""

    files: Sequence[DownloadedFile]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {"files": [asdict(file) for file in self.files]}

    def to_text(self) -> str:
        """Return one line for each file."""
        return "\n".join(
            f"{file.name}: {'downloaded' if file.fetched else 'was there'}, "
            f"{'checksum right' if file.checked else 'no checksum is published'}, licence {file.licence}\n  {file.path}"
            for file in self.files
        )


def download(
    names: Sequence[str], *, cache: Path | None = None, mirror: str | None = None, quiet: bool = False
) -> Downloads:
    """Fetch official weights that are not in the cache yet, and check them.

    Args:
        names: which; `official_weights` lists them.
        cache: the folder; by default `cache_folder()`.
        mirror: base address or folder to take the files from, laid out as on the original server or flat.
        quiet: whether to show no progress.

    Raises:
        ModelError: a name is not in the list.
        DownloadError: a file has no address, is not there or cannot be fetched, or has another checksum than the list
            says.
    """
    folder = cache_folder(cache)
    rows = [find_weights(name) for name in names]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Downloads([_provide(row, folder, mirror, quiet) for row in rows])
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else f"cannot write: {error.strerror or error}"
        raise DownloadError(
            what, where=error.filename or folder, fix="Make room, or choose another --cache."
        ) from error


def _provide(row: OfficialWeights, folder: Path, mirror: str | None, quiet: bool) -> DownloadedFile:
    path = folder / row.file
    there = check_file(row, path) in ("right", "unchecked")
    if not there:
        part = path.with_name(path.name + ".part")
        _fetch(row, part, mirror, quiet)
        _require_right(row, part, mirror or row.url)
        part.replace(path)
    return DownloadedFile(row.id, str(path), row.licence, not there, bool(row.sha256_prefix))


def _fetch(row: OfficialWeights, part: Path, mirror: str | None, quiet: bool) -> None:
    if mirror is not None and "://" not in mirror:
        _copy(row, part, Path(mirror))
        return
    addresses = _addresses(row, mirror)
    for number, address in enumerate(addresses):
        try:
            fetch(address, part, title=row.id, quiet=quiet)
            return
        except NotThereError:
            if number == len(addresses) - 1:
                raise


def _addresses(row: OfficialWeights, mirror: str | None) -> list[str]:
    """Return where to ask for a file, in order."""
    if mirror is None:
        if not row.url:
            raise DownloadError(
                f"no address of '{row.id}' is known",
                fix=f"Get {row.file} yourself, then: ymir-tmi weights convert {row.file} --output FILE",
            )
        return [row.url]
    if urlsplit(mirror).scheme not in ("http", "https"):
        raise DownloadError("a mirror is an address that begins with http:// or https://, or a folder", where=mirror)
    return [f"{mirror.rstrip('/')}/{place}" for place in _places(row)]


def _places(row: OfficialWeights) -> list[str]:
    """Return the places of a file below a mirror: that on the original server, and its bare name."""
    return [*([urlsplit(row.url).path.lstrip("/")] if row.url else []), row.file]


def _copy(row: OfficialWeights, part: Path, mirror: Path) -> None:
    found = next((mirror / place for place in _places(row) if (mirror / place).is_file()), None)
    if found is None:
        raise NotThereError(f"{row.file} is not in this folder", where=mirror)
    shutil.copyfile(found, part)


def _require_right(row: OfficialWeights, part: Path, origin: str) -> None:
    """Remove a file that is not the one that the list means."""
    if check_file(row, part) == "wrong":
        forget(part)
        raise DownloadError(
            f"what arrived for '{row.id}' has another checksum or size than the list says, and was removed",
            where=origin,
            fix="Try again, or another --mirror.",
        )
