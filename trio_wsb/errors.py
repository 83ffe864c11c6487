"""The errors of trio-wsb, one tree.

    Error
    ├── ConfigurationError      the configuration cannot be used; carries every problem found
    ├── HTTPError               what a peer sent cannot be processed; carries the status to answer with
    │   ├── BadRequest          the client's request (400, 414, 426, 431, ...)
    │   └── BadResponse         the backend's answer (502)
    ├── ChannelError            a byte channel cannot go on
    │   ├── ChannelClosed       our own code closed it
    │   └── ChannelBroken       the peer or the network ended it
    └── DialError               no connection to a backend; carries the stage that failed

Closed means that this program did it, Broken that the peer or the network did; the cause is kept
in `__cause__`.
"""

from __future__ import annotations


class Error(Exception):
    """Base class of every error that trio-wsb raises on purpose."""


class ConfigurationError(Error):
    """The configuration cannot be used.

    `problems` has one line for each thing wrong, already formatted as
    ``FILE:LINE:COLUMN key.path: what is wrong (what would be right)``.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class HTTPError(Error):
    """A message that cannot be processed.

    `status` is what to answer the client with (RFC 9110 section 15), `reason` a short text for the log
    and the response body, never containing what the peer sent, and `headers` extra response fields.
    """

    def __init__(self, status: int, reason: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.headers = headers


class BadRequest(HTTPError):
    """The client's request is malformed, ambiguous, too large or not for us."""


class BadResponse(HTTPError):
    """The backend's answer is malformed, ambiguous or not what was asked for."""

    def __init__(self, reason: str) -> None:
        super().__init__(502, reason)


class ChannelError(Error):
    """A byte channel cannot go on."""


class ChannelClosed(ChannelError):
    """Our own code closed the channel."""


class ChannelBroken(ChannelError):
    """The peer or the network ended the channel."""


class DialError(Error):
    """A backend could not be reached.

    `stage` is where it failed: "resolve", "connect", "tls" or "timeout"; "own" where this host had no descriptor or
    memory left for a connection, which says nothing of the backend.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason
