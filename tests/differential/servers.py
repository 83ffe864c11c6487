"""The scripted servers behind both: they record what they get, and answer as the request says."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self

from attrs import frozen

ACCEPT: Final = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

PAGE: Final = b"<p>the same words again and again</p>\n" * 60
"""More than the 1024 bytes from which on answers are compressed."""


HEALTH: Final = "/health"
"""Path of health checks, which are not recorded: when they come is chance."""


@frozen
class Seen:
    """A request as a server got it."""

    server: str
    method: str
    target: str
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def value(self, lower: str) -> str | None:
        """Return the value of a field."""
        return next((value for name, value in self.fields if name.lower() == lower), None)


def answer(status: str, *lines: str, body: bytes | None = b"") -> bytes:
    """Return an answer; `body` None leaves out its length too."""
    length = [] if body is None else [f"Content-Length: {len(body)}"]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, *length, "", ""]).encode("latin-1") + (body or b"")


def switching(*lines: str, accept: str = ACCEPT) -> bytes:
    """Return a 101."""
    fixed = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}")
    return answer("101 Switching Protocols", *fixed, *lines, body=None)


TEXT: Final = "Content-Type: text/plain"

ANSWERS: Final[dict[str, bytes]] = {
    "": answer("200 OK", TEXT, "X-App: yes", body=b"hello\n"),
    "switch": switching("X-App: yes"),
    "switch-cookie": switching("Set-Cookie: a=1; Path=/", "Set-Cookie: b=2"),
    "switch-protocol": switching("Sec-WebSocket-Protocol: chat.v2"),
    "switch-deflate": switching("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12"),
    "switch-wrong": switching(accept="AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    "cookies": answer("200 OK", TEXT, "Set-Cookie: a=1; Path=/; HttpOnly", "Set-Cookie: b=2", body=b"ok\n"),
    "no-content": answer("204 No Content", "X-App: yes", body=None),
    "not-modified": answer("304 Not Modified", 'ETag: "1"', body=None),
    "moved": answer("302 Found", "Location: /elsewhere", body=b""),
    "unauthorized": answer("401 Unauthorized", 'WWW-Authenticate: Bearer realm="app"', TEXT, body=b"who?\n"),
    "forbidden": answer("403 Forbidden", TEXT, "X-Why: no", body=b"no\n"),
    "missing": answer("404 Not Found", TEXT, body=b"nothing here\n"),
    "teapot": answer("418 I'm a teapot", TEXT, body=b"short and stout\n"),
    "broken": answer("500 Internal Server Error", TEXT, body=b"oops\n"),
    "unavailable": answer("503 Service Unavailable", "Retry-After: 7", TEXT, body=b"later\n"),
    "chunked": answer("200 OK", TEXT, "Transfer-Encoding: chunked", body=None)
    + b"6\r\nhello \r\n6\r\nworld\n\r\n0\r\n\r\n",
    "until-close": answer("200 OK", TEXT, "Connection: close", body=None) + b"until the end\n",
    "hops": answer(
        "200 OK", TEXT, "Connection: X-Hop, keep-alive", "X-Hop: 1", "Keep-Alive: timeout=5", body=b"ok\n"
    ),
    "server": answer("200 OK", TEXT, "Server: app/1.0", "Date: Tue, 15 Nov 1994 08:12:31 GMT", body=b"ok\n"),
    "framed": answer("200 OK", TEXT, "X-Frame-Options: SAMEORIGIN", "Vary: Cookie", "X-Powered-By: x", body=b"ok\n"),
    "early": b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + answer("200 OK", TEXT, body=b"ok\n"),
    "page": answer("200 OK", "Content-Type: text/html", 'ETag: "page"', body=PAGE),
    "page-chunked": answer("200 OK", "Content-Type: text/html", "Transfer-Encoding: chunked", body=None)
    + b"%x\r\n%b\r\n0\r\n\r\n" % (len(PAGE), PAGE),
    "page-png": answer("200 OK", "Content-Type: image/png", body=PAGE),
    "page-gzip": answer("200 OK", "Content-Type: text/html", "Content-Encoding: gzip", body=gzip.compress(PAGE, mtime=0)),
    "page-vary": answer("200 OK", "Content-Type: text/html", "Vary: Origin", body=PAGE),
    "page-kept": answer("200 OK", "Content-Type: text/html", "Cache-Control: no-transform", body=PAGE),
    "page-part": answer("206 Partial Content", "Content-Type: text/html", "Content-Range: bytes 0-2279/9999", body=PAGE),
    "die": b"",
    "late": b"",
    "garbage": b"this is no HTTP\r\n\r\n",
    "auth-user": answer("200 OK", "X-Auth-User: ada", "X-Auth-Group: staff", "X-Other: o", "Set-Cookie: sid=9; Path=/", "Set-Cookie: other=8"),
    "auth-login": answer("302 Found", "Location: /login", "Set-Cookie: back=1", TEXT, body=b"go and log in\n"),
    "auth-denied": answer("401 Unauthorized", "WWW-Authenticate: Basic", "X-Auth-User: nobody", TEXT, body=b"denied\n"),
}  # fmt: skip


class Servers:
    """Several servers in threads of their own, and what they have seen so far."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._seen: list[Seen] = []
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._listeners: list[socket.socket] = []
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._stopping = False
        self.urls: dict[str, str] = {}
        for name in names:
            listener = socket.create_server(("127.0.0.1", 0))
            self._listeners.append(listener)
            self.urls[name] = f"http://127.0.0.1:{listener.getsockname()[1]}"
            self._start(self._accept, name, listener)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        for sock in self._listeners:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        with self._lock:
            still_open = list(self._open)
        for sock in still_open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(10)

    def take(self, count: int = 0) -> list[Seen]:
        """Return what was seen since the last call, in order; with a `count`, once it is so much, by server."""
        with self._news:
            self._news.wait_for(lambda: len(self._seen) >= count, 10)
            seen, self._seen = self._seen, []
            return sorted(seen, key=lambda each: each.server) if count else seen

    def _start(self, work: Callable[[str, socket.socket], None], name: str, sock: socket.socket) -> None:
        thread = threading.Thread(target=work, args=(name, sock), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, name: str, listener: socket.socket) -> None:
        while not self._stopping:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(sock)
            self._start(self._serve, name, sock)

    def _serve(self, name: str, sock: socket.socket) -> None:
        try:
            with sock, sock.makefile("rb") as stream, suppress(OSError, ValueError):
                while self._answer(name, sock, stream.readline, stream.read):
                    pass
        finally:
            with self._lock:
                self._open.discard(sock)

    def _answer(
        self, name: str, sock: socket.socket, line: Callable[[], bytes], read: Callable[[int], bytes]
    ) -> bool:
        """Answer one request; whether another one may follow."""
        start = line()
        if not start:
            return False
        method, target, _ = start.decode("latin-1").split(" ")
        fields: list[tuple[str, str]] = []
        while (row := line().decode("latin-1").rstrip("\r\n")) != "":
            label, _, value = row.partition(":")
            fields.append((label, value.strip()))
        lower = {label.lower(): value for label, value in fields}
        body = b""
        if lower.get("transfer-encoding") == "chunked":
            while size := int(line(), 16):
                body += read(size)
                line()
            line()
        elif "content-length" in lower:
            body = read(int(lower["content-length"]))
        if target != HEALTH:
            with self._news:
                self._news.notify_all()
                self._seen.append(Seen(name, method, target, tuple(fields), body))
        which = lower.get("x-auth-answer" if name == "auth" else "x-answer", "")
        reply = ANSWERS[which or ("switch" if "upgrade" in lower else "")]
        if which == "late":
            # Nothing, for as long as the proxy waits: it ends the connection.
            return bool(read(1))
        if method == "HEAD":
            reply = reply.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        sock.sendall(reply)
        if reply.startswith(b"HTTP/1.1 101"):
            while frame := read(1):
                if frame == b"\x88":
                    # The client's Close: masked, with a code.
                    read(7)
                    sock.sendall(b"\x88\x02\x03\xe8")
                    return False
            return False
        return which not in {"die", "garbage", "until-close"} and lower.get("connection") != "close"
