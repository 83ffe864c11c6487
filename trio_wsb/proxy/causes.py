"""Why sessions end: the closed list of causes, with one name for configuration, log, metrics and API."""

from __future__ import annotations

from enum import StrEnum


class Cause(StrEnum):
    """Why a session ended. One is recorded for each session, the first that is known."""

    CLIENT_CLOSED = "client_closed"
    """The client sent a Close frame first."""

    BACKEND_CLOSED = "backend_closed"
    """The backend sent a Close frame first."""

    CLIENT_LOST = "client_lost"
    """The client's connection ended or broke without a Close frame."""

    BACKEND_LOST = "backend_lost"
    """The backend's connection ended or broke without a Close frame."""

    CLIENT_WRITE_TIMEOUT = "client_write_timeout"
    """The client accepted nothing for writeTimeout while bytes waited for it."""

    BACKEND_WRITE_TIMEOUT = "backend_write_timeout"
    """The backend accepted nothing for writeTimeout while bytes waited for it."""

    SHUTDOWN = "shutdown"
    """The daemon stopped."""

    INTERNAL_ERROR = "internal_error"
    """A fault of the daemon itself; the log has it."""
