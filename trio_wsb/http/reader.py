"""Heads out of a stream of bytes, however it is cut up."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Final, Generic, TypeVar

from trio_wsb.errors import BadRequest, BadResponse, HTTPError
from trio_wsb.http.head import (
    REQUEST_LIMITS,
    RESPONSE_LIMITS,
    HeadLimits,
    RequestHead,
    ResponseHead,
    parse_request_head,
    parse_response_head,
)

HeadT = TypeVar("HeadT", RequestHead, ResponseHead)

MAX_EMPTY_LINES: Final = 2
"""Empty lines skipped before a request line: RFC 9112 section 2.2 wants at least one; old clients send one."""

# Possessive quantifiers stand on single characters alone: on groups they are wrong in CPython before 3.11.5.
# What may stand in a head as far as single bytes tell: no control but HTAB, and CR and LF only together.
_PLAUSIBLE = re.compile(rb"(?:[^\x00-\x08\x0a-\x1f\x7f]++|\r\n)*")


class HeadReader(ABC, Generic[HeadT]):
    """Collects the bytes of one message head after another.

    Feed it what arrives and ask for the next head after each `feed`. What follows a head stays here until
    `take_rest`; after a body, feed what was read beyond its end and go on. After an error the connection cannot
    be understood any more: answer and close.

    Linear in the bytes however they drip in, and an impossible byte is noticed when it arrives: a client that
    ends its lines with a bare LF would else never complete a head, and learn nothing but a timeout.
    """

    __slots__ = ("_buffer", "_checked", "_limits", "_lines")

    def __init__(self, limits: HeadLimits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._checked = 0  # bytes known to be plausible; never between a CR and its LF
        self._lines = 0  # lines in them

    @property
    def started(self) -> bool:
        """Whether a part of a head is here; once `next_head` has returned None, skipped empty lines are not."""
        return bool(self._buffer)

    @property
    def buffered(self) -> int:
        """How many bytes wait here."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the bytes that arrived next."""
        self._buffer += data

    def take_rest(self) -> bytes:
        """Return the bytes after the last head and forget them: a body, the next request, early data of a tunnel."""
        return self._take(len(self._buffer)) if self._buffer else b""

    def next_head(self) -> HeadT | None:
        """Return the next head if it is complete, and leave what follows it in the buffer.

        Raises:
          BadRequest, BadResponse: it is refused, or what has arrived can never become a head.

        """
        if not self._buffer:
            return None
        if self._checked == 0:
            self._skip_empty_lines()
        end = self._buffer.find(b"\r\n\r\n", max(0, self._checked - 3))
        if end >= 0:
            return self._parse(self._take(end + 4))
        self._check_partial()
        return None

    @abstractmethod
    def _parse(self, data: bytes) -> HeadT: ...

    @abstractmethod
    def _refuse(self, status: int, reason: str) -> HTTPError: ...

    def _skip_empty_lines(self) -> None:
        """Forget empty lines before the head where the RFC allows them."""

    def _take(self, size: int) -> bytes:
        if size == len(self._buffer):
            data = bytes(self._buffer)
            self._buffer.clear()
        else:
            data = bytes(self._buffer[:size])
            del self._buffer[:size]
        self._checked = self._lines = 0
        return data

    def _check_partial(self) -> None:
        buffer, size = self._buffer, len(self._buffer)
        match = _PLAUSIBLE.match(buffer, self._checked)
        stop = match.end() if match else 0
        # A CR that came last may still get its LF.
        if stop < size - 1 or (stop < size and buffer[stop] != 0x0D):
            byte = buffer[stop]
            what = {0x0A: "bare LF", 0x0D: "bare CR"}.get(byte, "control character")
            raise self._refuse(400, f"{what} in the head")
        had_line = self._lines > 0
        self._lines += buffer.count(b"\n", self._checked, stop)
        self._checked = stop
        if not had_line and size > self._limits.line and not 0 <= buffer.find(b"\n") < self._limits.line:
            raise self._refuse(414, "start line too long")
        if size > self._limits.head:
            raise self._refuse(431, "head too large")
        if self._lines > self._limits.fields + 1:
            raise self._refuse(431, "too many header fields")


class RequestReader(HeadReader[RequestHead]):
    """Collects the heads of requests; raises `BadRequest`."""

    __slots__ = ("_empty_lines",)

    def __init__(self, limits: HeadLimits = REQUEST_LIMITS) -> None:
        super().__init__(limits)
        self._empty_lines = 0

    def _parse(self, data: bytes) -> RequestHead:
        self._empty_lines = 0
        return parse_request_head(data, self._limits)

    def _refuse(self, status: int, reason: str) -> HTTPError:
        return BadRequest(status, reason)

    def _skip_empty_lines(self) -> None:
        while self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]
            self._empty_lines += 1
            if self._empty_lines > MAX_EMPTY_LINES:
                raise BadRequest(400, "empty lines before the request line")


class ResponseReader(HeadReader[ResponseHead]):
    """Collects the heads of responses, interim ones (1xx) too; raises `BadResponse`."""

    __slots__ = ()

    def __init__(self, limits: HeadLimits = RESPONSE_LIMITS) -> None:
        super().__init__(limits)

    def _parse(self, data: bytes) -> ResponseHead:
        return parse_response_head(data, self._limits)

    def _refuse(self, status: int, reason: str) -> HTTPError:  # noqa: ARG002 - a client always gets 502
        return BadResponse(reason)
