"""Why sessions end: the closed list of causes, with one name for configuration, log, metrics and API."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Literal, TypeAlias

from trio_wsb.websocket.closecodes import GOING_AWAY, INTERNAL_ERROR, MESSAGE_TOO_BIG, SERVICE_RESTART

Side: TypeAlias = Literal["client", "backend", "balancer"]
"""Who ended a session."""


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

    CLIENT_PING_TIMEOUT = "client_ping_timeout"
    """Nothing came from the client for pongTimeout after a ping."""

    BACKEND_PING_TIMEOUT = "backend_ping_timeout"
    """Nothing came from the backend for pongTimeout after a ping."""

    IDLE_TIMEOUT = "idle_timeout"
    """No message passed for idleTimeout, in neither direction."""

    MAX_LIFETIME = "max_lifetime"
    """The session was as old as maxLifetime allows."""

    CLIENT_MESSAGE_TOO_BIG = "client_message_too_big"
    """The client sent a message over maxMessageBytes."""

    BACKEND_MESSAGE_TOO_BIG = "backend_message_too_big"
    """The backend sent a message over maxMessageBytes."""

    DRAIN = "drain"
    """Its backend was drained."""

    REBALANCE = "rebalance"
    """Its backend had more sessions than its share."""

    SHUTDOWN = "shutdown"
    """The daemon stopped."""

    INTERNAL_ERROR = "internal_error"
    """A fault of the daemon itself; the log has it."""

    @property
    def side(self) -> Side:
        """Whose end it was: the side that closed or was lost, the balancer for whatever that decided."""
        if self in {Cause.CLIENT_CLOSED, Cause.CLIENT_LOST}:
            return "client"
        return "backend" if self in {Cause.BACKEND_CLOSED, Cause.BACKEND_LOST} else "balancer"


CLOSE_CODES: Final[Mapping[Cause, tuple[int, int]]] = {
    Cause.CLIENT_WRITE_TIMEOUT: (GOING_AWAY, GOING_AWAY),
    Cause.BACKEND_WRITE_TIMEOUT: (INTERNAL_ERROR, GOING_AWAY),
    Cause.CLIENT_PING_TIMEOUT: (GOING_AWAY, GOING_AWAY),
    Cause.BACKEND_PING_TIMEOUT: (INTERNAL_ERROR, GOING_AWAY),
    Cause.IDLE_TIMEOUT: (GOING_AWAY, GOING_AWAY),
    Cause.MAX_LIFETIME: (GOING_AWAY, GOING_AWAY),
    Cause.CLIENT_MESSAGE_TOO_BIG: (MESSAGE_TOO_BIG, GOING_AWAY),
    Cause.BACKEND_MESSAGE_TOO_BIG: (GOING_AWAY, MESSAGE_TOO_BIG),
    Cause.DRAIN: (GOING_AWAY, GOING_AWAY),
    Cause.REBALANCE: (SERVICE_RESTART, SERVICE_RESTART),
    Cause.SHUTDOWN: (GOING_AWAY, GOING_AWAY),
}
"""What the client and the backend are told when the balancer ends a session. Drain and rebalance may be configured
to use another code. Where the client answers our Close in time, its answer is what the backend gets.
"""
