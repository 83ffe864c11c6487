"""Where a body ends, without keeping any of it (RFC 9112 sections 6 and 7)."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final, Literal

from trio_wsb.errors import BadRequest, BadResponse, HTTPError
from trio_wsb.http.framing import (
    NO_BODY,
    UNTIL_CLOSE,
    Framing,
    FramingError,
    FramingKind,
    declared_framing,
    has_no_body,
)
from trio_wsb.http.head import RequestHead, ResponseHead
from trio_wsb.http.names import is_unsafe_trailer

Data = bytes | bytearray | memoryview

MAX_EXTENSION: Final = 256
"""Bytes of extensions that one chunk may have."""
MAX_EXTENSIONS: Final = 16 * 1024
"""Bytes of extensions that all chunks of a body may have together: nobody needs them, and they cost parsing."""
MAX_TRAILERS: Final = 8 * 1024
"""Bytes of trailer fields, with their line ends."""

_SIZE_DIGITS: Final = 16
_MAX_CHUNK: Final = 2**63 - 1  # a peer's signed 64-bit integer must hold it

_NAME: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED: Final = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
# RFC 9112 section 7.1.1, where whitespace stands only around ";" and "=".
_CHUNK_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,16}+)"
    rb"((?:[ \t]*+;[ \t]*+" + _NAME + rb"(?:[ \t]*+=[ \t]*+(?:" + _NAME + rb"|" + _QUOTED + rb"))?)*)\r\n"
)
# What nearly all of them are: without the general way a stranger's tiny chunks would cost many times more.
_PLAIN_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8}+)\r\n")
_CHUNK_LINE_START = re.compile(rb"[0-9A-Fa-f]{1,16}+(?:[ \t;\r]|\Z)")
_TRAILER_LINE = re.compile(rb"(" + _NAME + rb"):[\t -~\x80-\xff]*+\r\n")
# A line so far: no control but HTAB, and CR only before LF.
_PLAUSIBLE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*+(?:\r\n?)?")


class _State(Enum):
    CHUNK_LINE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILERS = auto()
    DONE = auto()


def response_framing(head: ResponseHead, request_method: str) -> Framing:
    """Return how the body of a response is delimited (RFC 9112 section 6.3).

    What follows a 101 is no body but the tunnel; here it counts as none.

    Raises:
      BadResponse: the framing fields are wrong or ambiguous, also where the response can have no body: a cache
        between us and the client could see it otherwise.

    """
    try:
        declared = declared_framing(head.version, head.headers)
    except FramingError as error:
        raise BadResponse(error.reason) from error
    if has_no_body(head.status, request_method):
        return NO_BODY
    return UNTIL_CLOSE if declared.kind is FramingKind.NONE else declared


def request_body(head: RequestHead) -> BodyScanner:
    """Return the scanner for the body that follows `head`."""
    return BodyScanner(head.framing, "request")


def response_body(head: ResponseHead, request_method: str) -> BodyScanner:
    """Return the scanner for the body that follows `head`.

    Raises:
      BadResponse: as `response_framing` does.

    """
    return BodyScanner(response_framing(head, request_method), "response")


class BodyScanner:
    """Follows one body through a stream of bytes, however it is cut up, and tells where it ends.

    Constant memory: nothing is kept but an unfinished line of chunk framing. Chunked bodies are checked to the
    letter, so that they can be passed on as they are: whatever `feed` lets through, any other parser reads as we do.
    After an error the connection is of no more use. `framing` is what it was made for, `content` how many bytes of payload
    there were so far.
    """

    __slots__ = ("_extensions", "_kind", "_left", "_line", "_state", "_trailers", "content", "framing")

    def __init__(self, framing: Framing, kind: Literal["request", "response"]) -> None:
        self.framing = framing
        self.content = 0
        self._kind = kind
        self._left = framing.length
        self._line = bytearray()
        self._extensions = 0
        self._trailers = 0
        if framing.kind is FramingKind.CHUNKED:
            self._state = _State.CHUNK_LINE
        elif framing.has_body:
            self._state = _State.DATA
        else:
            self._state = _State.DONE

    @property
    def done(self) -> bool:
        """Whether the body is complete."""
        return self._state is _State.DONE

    def feed(self, data: Data) -> int:
        """Scan `data` and return how many of its bytes belong to the body, chunk framing included.

        Fewer than all only when the body ends in it; what follows is the next message.

        Raises:
          BadRequest, BadResponse: the chunked framing is malformed; pass on nothing of `data`.

        """
        return self._scan(memoryview(data), None)

    def feed_data(self, data: Data) -> tuple[int, list[memoryview]]:
        """Do as `feed`, and return the slices of `data` that are payload too, for a peer without chunks.

        Resource handling: the slices borrow `data`; use them before its buffer is filled again.
        """
        slices: list[memoryview] = []
        return self._scan(memoryview(data), slices), slices

    def finish(self) -> None:
        """Take note that the stream has ended.

        Raises:
          BadRequest, BadResponse: the body is not complete. Make this visible to whoever is reading it: a
            truncated body must not look like a whole one.

        """
        if self.framing.kind is FramingKind.UNTIL_CLOSE:
            self._state = _State.DONE
        if self._state is not _State.DONE:
            raise self._error("the body is not complete")

    def _scan(self, data: memoryview, slices: list[memoryview] | None) -> int:
        if self.framing.kind is FramingKind.UNTIL_CLOSE:
            if slices is not None and data:
                slices.append(data)
            self.content += len(data)
            return len(data)
        position, size = 0, len(data)
        while position < size and self._state is not _State.DONE:
            if self._state is _State.DATA:
                taken = min(self._left, size - position)
                if slices is not None:
                    slices.append(data[position : position + taken])
                position += taken
                self.content += taken
                self._left -= taken
                if self._left == 0:
                    chunked = self.framing.kind is FramingKind.CHUNKED
                    self._state = _State.DATA_END if chunked else _State.DONE
            elif self._line:
                position += self._scan_line(data[position:])
            elif self._state is _State.CHUNK_LINE and (line := _PLAIN_CHUNK_LINE.match(data, position)):
                position = line.end()
                self._left = int(line[1], 16)
                self._state = _State.DATA if self._left else _State.TRAILERS
            elif self._state is _State.DATA_END and bytes(data[position : position + 2]) == b"\r\n":
                position += 2
                self._state = _State.CHUNK_LINE
            else:
                position += self._scan_line(data[position:])
        return position

    def _scan_line(self, data: memoryview) -> int:
        """Take the next line of chunk framing, or what is there of it, and return how many bytes that was."""
        if self._state is _State.CHUNK_LINE:
            limit = _SIZE_DIGITS + MAX_EXTENSION + 2
        elif self._state is _State.DATA_END:
            limit = 2
        else:
            limit = MAX_TRAILERS - self._trailers
        line = self._line
        window = bytes(data[: limit - len(line)])
        newline = window.find(b"\n")
        if newline >= 0:
            window = window[: newline + 1]
        after_cr = line.endswith(b"\r")
        if (after_cr and window != b"\n") or not (after_cr or _PLAUSIBLE.fullmatch(window)):
            raise self._error("a bare CR, bare LF or control character in chunked framing")
        line += window
        if newline < 0:
            self._check_unfinished(line, limit)
        else:
            self._line = bytearray()
            self._end_line(line)
        return len(window)

    def _check_unfinished(self, line: bytearray, limit: int) -> None:
        """Refuse what no further byte can mend: it must not have reached the other side by then."""
        if self._state is _State.DATA_END and line != b"\r":
            raise self._error("a chunk is longer than its size")
        if self._state is _State.CHUNK_LINE and not _CHUNK_LINE_START.match(line):
            raise self._error("malformed chunk size")
        if len(line) >= limit:
            raise self._error("a line of chunked framing is too long")

    def _end_line(self, line: bytearray) -> None:
        if self._state is _State.CHUNK_LINE:
            self._begin_chunk(line)
        elif self._state is _State.DATA_END:
            # Two bytes at most, the last one LF, and no bare LF gets here: it is CRLF.
            self._state = _State.CHUNK_LINE
        elif line == b"\r\n":
            self._state = _State.DONE
        else:
            self._trailers += len(line)
            match = _TRAILER_LINE.fullmatch(line)
            if match is None:
                raise self._error("malformed trailer field")
            if is_unsafe_trailer(match[1].decode("ascii").lower()):
                raise self._error("a trailer field that must not be one")

    def _begin_chunk(self, line: bytearray) -> None:
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise self._error("malformed chunk size or extension")
        self._extensions += len(match[2])
        if len(match[2]) > MAX_EXTENSION or self._extensions > MAX_EXTENSIONS:
            raise self._error("too many chunk extensions")
        self._left = int(match[1], 16)
        if self._left > _MAX_CHUNK:
            raise self._error("a chunk is too large")
        self._state = _State.DATA if self._left else _State.TRAILERS

    def _error(self, reason: str) -> HTTPError:
        return BadRequest(400, reason) if self._kind == "request" else BadResponse(reason)
