"""A server of files on this machine that can misbehave, and a list of weights to ask it for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from ymir_tmi.weights.table import OfficialWeights

CONTENT = bytes(range(256)) * 20_000  # 5 MB
OTHER_CONTENT = CONTENT[::-1]


def some_weights(url: str, content: bytes = CONTENT, **changes: Any) -> OfficialWeights:
    row = OfficialWeights(
        id="some",
        model="yolox_tiny",
        source="mmdet",
        ap=1.0,
        dataset="COCO 2017",
        licence="MIT",
        sha256_prefix=hashlib.sha256(content).hexdigest()[:8],
        bytes=None,
        file="some-file.pth",
        url=url,
        note="",
    )
    return replace(row, **changes)


@dataclass
class Behaviour:
    """What the server does; tests change it between requests.

    Attributes:
        files: what is at which path.
        status: an error to answer with.
        ranges: whether parts of files can be asked for.
        versions: whether answers have an ETag.
        shift: bytes by which it misses the part that was asked for.
        cut: bytes after which the connection is closed.
        headers: more headers.
        asked: (path, Range) of each request so far.
    """

    files: dict[str, bytes]
    status: int = 200
    ranges: bool = True
    versions: bool = True
    shift: int = 0
    cut: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that leave early."""


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[tuple[str, Behaviour]]:
    """Run a server; yield its address and what it does."""
    behaviour = Behaviour(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, behaviour)

        def log_message(self, *_: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", behaviour
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answer(request: BaseHTTPRequestHandler, behaviour: Behaviour) -> None:
    asked = request.headers.get("Range")
    behaviour.asked.append((request.path, asked))
    content = behaviour.files.get(request.path)
    if content is None or behaviour.status != 200:
        request.send_error(404 if content is None else behaviour.status)
        return
    version = f'"{hashlib.md5(content).hexdigest()}"'
    start = 0
    if asked and behaviour.ranges and request.headers.get("If-Range", version) == version:
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) + behaviour.shift  # type: ignore[index]
        if start >= len(content):
            request.send_error(416)
            return
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    else:
        request.send_response(200)
    if behaviour.versions:
        request.send_header("ETag", version)
    for name, value in behaviour.headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(content) - start))
    request.end_headers()
    end = len(content) if behaviour.cut is None else min(len(content), start + behaviour.cut)
    request.wfile.write(content[start:end])
