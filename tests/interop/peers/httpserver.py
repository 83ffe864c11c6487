"""The standard library's HTTP server in a thread, as a backend for plain requests."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE = bytes(range(256)) * 256
"""64 KiB; large answers repeat it."""

CUT_OFF_AFTER = 100_000


def large(size: int) -> Iterator[bytes]:
    """Return `size` bytes in pieces."""
    for start in range(0, size, len(PIECE)):
        yield PIECE[: size - start]


def digest_of(size: int) -> str:
    """Return the digest of what `large` returns."""
    digest = hashlib.sha256()
    for piece in large(size):
        digest.update(piece)
    return digest.hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Paths say what is answered: see the methods.

    `/digest` (POST, PUT) what came: its size, digest, framing; `/large/SIZE` and `/chunked/SIZE` that many bytes with
    a length or in chunks, `/unframed/SIZE` until the connection closes; `/status/CODE` a status;
    `/cut-off` and `/cut-off-chunked` less than was promised; `/hello` a short text with a tag, and 304 to who has it.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        _, kind, *rest = self.path.partition("?")[0].split("/")
        size = int(rest[0]) if rest else 0
        if kind == "hello":
            self._hello()
        elif kind == "status":
            self._status(size)
        elif kind == "large":
            self._head(200, ("Content-Length", str(size)))
            self._pieces(size, chunked=False)
        elif kind == "chunked":
            self._head(200, ("Transfer-Encoding", "chunked"))
            self._pieces(size, chunked=True)
        elif kind == "unframed":
            self._head(200, ("Connection", "close"))
            self._pieces(size, chunked=False)
        elif kind == "cut-off":
            self._head(200, ("Content-Length", str(2 * CUT_OFF_AFTER)))
            self.wfile.write(b"x" * CUT_OFF_AFTER)
            self.close_connection = True
        elif kind == "cut-off-chunked":
            self._head(200, ("Transfer-Encoding", "chunked"))
            self.wfile.write(b"%x\r\n%b\r\n" % (CUT_OFF_AFTER, b"x" * CUT_OFF_AFTER))
            self.close_connection = True
        else:
            self._status(404)

    do_HEAD = do_GET  # noqa: N815 - the base class calls it so

    def do_POST(self) -> None:
        chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        digest, size = hashlib.sha256(), 0
        for piece in self._chunks() if chunked else self._counted():
            digest.update(piece)
            size += len(piece)
        body = {
            "size": size,
            "digest": digest.hexdigest(),
            "chunked": chunked,
            "method": self.command,
            "expect": self.headers.get("Expect"),
            "version": self.request_version,
        }
        self._answer(200, json.dumps(body).encode())

    do_PUT = do_POST  # noqa: N815 - the base class calls it so

    def _hello(self) -> None:
        if self.headers.get("If-None-Match") == '"1"':
            self._head(304, ("ETag", '"1"'))
        else:
            self._answer(200, b"hello\n", ("ETag", '"1"'), ("X-Host", self.headers.get("Host", "")))

    def _status(self, status: int) -> None:
        if status == HTTPStatus.NO_CONTENT:
            self._head(status)
        else:
            self._answer(status, f"this is {status}\n".encode(), ("X-Reason", "asked for"))

    def _answer(self, status: int, body: bytes, *fields: tuple[str, str]) -> None:
        self._head(status, ("Content-Length", str(len(body))), *fields)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, *fields: tuple[str, str]) -> None:
        self.send_response(status)
        for field in fields:
            self.send_header(*field)
        self.end_headers()

    def _pieces(self, size: int, *, chunked: bool) -> None:
        if self.command == "HEAD":
            return
        for piece in large(size):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _counted(self) -> Iterator[bytes]:
        left = int(self.headers.get("Content-Length", "0"))
        while left and (piece := self.rfile.read(min(left, len(PIECE)))):
            left -= len(piece)
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Say nothing: what a client does is checked by the test."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that leaves in the middle is a part of some tests."""


@contextmanager
def http_server() -> Iterator[str]:
    """Serve on a free port of loopback; gives the URL."""
    with _Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="http")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
