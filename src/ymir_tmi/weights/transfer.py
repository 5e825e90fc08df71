"""Fetching one file by HTTP, so that a broken transfer can be gone on with."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ymir_tmi import __version__
from ymir_tmi.errors import DownloadError
from ymir_tmi.files.atomic import write_json
from ymir_tmi.files.progress import ProgressReporter

_TIMEOUT_S = 30
_CHUNK = 2**20
_MIB = 2**20


class NotThereError(DownloadError):
    """The server does not have the file."""


@dataclass(frozen=True)
class _Begun:
    """What is known of a transfer that was begun: whose, which version of the file (ETag or date), and its size."""

    address: str
    version: str | None
    total: int | None


def fetch(address: str, part: Path, *, title: str, quiet: bool = False) -> None:
    """Fetch a file into `part`, or the rest of it where `part` has the beginning of the same file.

    What is known of the transfer is kept beside it, in `part`.json. When the server has another file by now, or cannot
    send the rest, it begins anew.

    Raises:
        NotThereError: the server does not have the file.
        DownloadError: the server cannot be reached, the connection breaks, or there is no room; what has arrived stays.
        OSError: `part` cannot be written.
    """
    try:
        _transfer(address, part, _read_begun(part, address), title, quiet)
    except _StartAgain:
        forget(part)
        _transfer(address, part, None, title, quiet)
    _notes(part).unlink()


def forget(part: Path) -> None:
    """Remove what has arrived of a file."""
    part.unlink(missing_ok=True)
    _notes(part).unlink(missing_ok=True)


def _notes(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_begun(part: Path, address: str) -> _Begun | None:
    """Return what is known of the transfer that `part` is of, if it is one of this address that can be gone on with."""
    try:
        begun = _Begun(**json.loads(_notes(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    usable = begun.address == address and (begun.version or begun.total) and part.is_file() and part.stat().st_size
    return begun if usable else None


class _StartAgain(Exception):  # noqa: N818 (no error of anyone)
    """What is here is not the beginning of what the server has."""


def _transfer(address: str, part: Path, begun: _Begun | None, title: str, quiet: bool) -> None:
    done = part.stat().st_size if begun else 0
    with _ask(address, begun, done) as answer:
        begun, done = _agree(answer, address, begun, done)
        write_json(_notes(part), asdict(begun))
        _require_space(part, begun, done)
        _receive(answer, part, begun, done, title, quiet)


def _ask(address: str, begun: _Begun | None, done: int) -> http.client.HTTPResponse:
    request = urllib.request.Request(address, headers={"User-Agent": f"ymir-tmi/{__version__}"})
    if begun:
        request.add_header("Range", f"bytes={done}-")
        if begun.version:
            request.add_header("If-Range", begun.version)
    host = urlsplit(address).netloc
    try:
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
        return answer
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and begun:  # there is nothing after these bytes
            raise _StartAgain from error
        kind = NotThereError if error.code in (404, 410) else DownloadError
        raise kind(f"the server answered {error.code} ({error.reason})", where=address) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise DownloadError(
            f"cannot reach {host}: {reason}",
            where=address,
            fix="Is there a network? --mirror takes the files from another address or a folder.",
        ) from error


def _agree(answer: http.client.HTTPResponse, address: str, begun: _Begun | None, done: int) -> tuple[_Begun, int]:
    """Return what is being sent, and how much of it is here already; 0 where the server sends all of it."""
    if answer.headers.get_content_type() == "text/html":
        raise DownloadError("the server sent a web page, not a file", where=address)
    strong = answer.headers.get("ETag", "")
    version = strong if strong.startswith('"') else answer.headers.get("Last-Modified")
    if answer.status == 206:
        sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
        if begun and sent and int(sent[1]) == done and begun.total in (None, int(sent[2])):
            return _Begun(address, begun.version or version, int(sent[2])), done
        if begun:
            raise _StartAgain
        raise DownloadError("the server sent a part of the file, and all of it was asked for", where=address)
    length = answer.headers.get("Content-Length", "")
    return _Begun(address, version, int(length) if length.isdigit() else None), 0


def _require_space(part: Path, begun: _Begun, done: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if begun.total is not None and begun.total - done > free:
        raise DownloadError(
            f"there is no room: {(begun.total - done) / _MIB:.0f} MiB are to come and {free / _MIB:.0f} MiB are free",
            where=part.parent,
        )


def _receive(answer: http.client.HTTPResponse, part: Path, begun: _Begun, done: int, title: str, quiet: bool) -> None:
    """Append what arrives to `part`."""
    total = begun.total
    with (
        part.open("r+b" if done else "wb") as file,
        ProgressReporter(
            f"{title} (MiB)", -(-(total or 0) // _MIB), done=done // _MIB, quiet=quiet or not total
        ) as progress,
    ):
        file.seek(done)
        while chunk := _read_chunk(answer, begun, done):
            file.write(chunk)
            done += len(chunk)
            progress.advance(-(-done // _MIB) - progress.done)
    if total is not None and done != total:
        raise _broken(begun, done)


def _read_chunk(answer: http.client.HTTPResponse, begun: _Begun, done: int) -> bytes:
    try:
        return answer.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _broken(begun, done) from error


def _broken(begun: _Begun, done: int) -> DownloadError:
    whole = f" of {begun.total / _MIB:.1f}" if begun.total else ""
    return DownloadError(
        f"the connection broke after {done / _MIB:.1f}{whole} MiB",
        where=begun.address,
        fix="Give the same command again to go on from there.",
    )
