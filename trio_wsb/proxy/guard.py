"""The limits of a session that time decides: idle, lifetime, and peers that no longer answer.

Nothing here runs by itself: the sweeper looks about once a second, and a look compares counters that the scanners keep
anyway, so that a message costs nothing more. A deadline is therefore met a second late, or two, and never early.
"""

from __future__ import annotations

import math
from secrets import token_bytes
from typing import TYPE_CHECKING, Final

from attrs import frozen

from trio_wsb.proxy.causes import Cause
from trio_wsb.websocket.allowance import Allowance
from trio_wsb.websocket.gate import PING_TOKEN_SIZE, OwnPings

if TYPE_CHECKING:
    from trio_wsb.proxy.pump import Pump
    from trio_wsb.proxy.relay import Relay

_CLIENT: Final = 0
_BACKEND: Final = 1


@frozen
class SessionLimits:
    """What the sessions of a service may do. Times in seconds; 0 is no limit everywhere."""

    idle_timeout: float = 0.0
    max_lifetime: float = 0.0
    lifetime_jitter: float = 0.0
    """By which part of `max_lifetime` a session may end before it, from 0 to 1."""
    ping_interval: float = 0.0
    pong_timeout: float = 20.0
    max_message_bytes: int = 0
    message_rate: float = 0.0
    message_burst: int = 0
    byte_rate: float = 0.0
    byte_burst: int = 0

    @property
    def any(self) -> bool:
        """Whether there is a limit at all."""
        return bool(self.timed or self.max_message_bytes or self.message_rate or self.byte_rate)

    @property
    def timed(self) -> bool:
        """Whether a sweeper has to look."""
        return bool(self.idle_timeout or self.max_lifetime or self.ping_interval)

    def allowance(self, now: float) -> Allowance | None:
        """Return what a session that opens `now` may send."""
        if not (self.message_rate or self.byte_rate):
            return None
        return Allowance(
            message_rate=self.message_rate,
            message_burst=self.message_burst,
            byte_rate=self.byte_rate,
            byte_burst=self.byte_burst,
            now=now,
        )


NO_LIMITS: Final = SessionLimits()


class Guard:
    """The timers of one session."""

    __slots__ = (
        "_backend",
        "_bytes",
        "_client",
        "_data_at",
        "_down",
        "_ends_at",
        "_limits",
        "_quiet_until",
        "_unanswered",
        "_up",
    )

    def __init__(self, relay: Relay, limits: SessionLimits, now: float, chance: float) -> None:
        """Begin at `now`; `chance`, from 0 to 1, says how much of the jitter this session gets."""
        self._limits = limits
        lifetime = limits.max_lifetime * (1 - limits.lifetime_jitter * chance)
        self._ends_at = now + lifetime if lifetime else math.inf
        self._data_at = now
        self._up = self._down = 0  # what was seen of data frames
        self._bytes = 0
        self._quiet_until = now  # before then there is nothing to do unless a byte passes
        self._client = self._backend = None
        if limits.ping_interval:
            self._client, self._backend = _Peer(now), _Peer(now)
            self._unanswered = bytearray(2)
            relay.up.scanner.unanswered = relay.down.scanner.unanswered = self._unanswered

    def look(self, relay: Relay, now: float) -> None:
        """End `relay` if it is over one of the limits at `now`, and ping a peer that is due."""
        up, down = relay.up, relay.down
        passed = up.scanner.bytes + down.scanner.bytes
        if (now < self._quiet_until and passed == self._bytes) or relay.ending:
            return
        self._bytes = passed
        if now >= self._ends_at:
            relay.end_by_limit(Cause.MAX_LIFETIME)
            return
        idle_timeout = self._limits.idle_timeout
        if idle_timeout:
            sent, received = up.scanner.data_progress, down.scanner.data_progress
            if sent > self._up or received > self._down or up.paused:
                self._up, self._down = max(sent, self._up), max(received, self._down)
                self._data_at = now
            elif now - self._data_at >= idle_timeout:
                relay.end_by_limit(Cause.IDLE_TIMEOUT)
                return
        if self._client is not None and self._backend is not None:
            if self._client.lost(up, down, now, self._limits, bool(self._unanswered[_CLIENT])):
                relay.end_both(Cause.CLIENT_PING_TIMEOUT)
            elif self._backend.lost(down, up, now, self._limits, bool(self._unanswered[_BACKEND])):
                relay.end_both(Cause.BACKEND_PING_TIMEOUT)
        self._quiet_until = self._next_deadline(now)

    def _next_deadline(self, now: float) -> float:
        limits = self._limits
        deadline = self._ends_at
        if limits.idle_timeout:
            deadline = min(deadline, self._data_at + limits.idle_timeout)
        for peer in (self._client, self._backend):
            if peer is not None:
                # An answer to a ping is no byte that the scanners see.
                due = peer.heard_at + limits.ping_interval if peer.asked_at == math.inf else now
                deadline = min(deadline, due)
        return deadline


class _Peer:
    """Whether a peer is there: bytes of any kind say so, and a ping asks where none come."""

    __slots__ = ("_answered", "_bytes", "_pings", "asked_at", "heard_at")

    def __init__(self, now: float) -> None:
        self._bytes = 0
        self._answered = 0
        self._pings: OwnPings | None = None
        self.heard_at = now
        """When the last sign of life was seen."""
        self.asked_at = math.inf
        """When the ping went out that no sign of life came after."""

    def lost(self, source: Pump, sink: Pump, now: float, limits: SessionLimits, unanswered: bool) -> bool:
        """Whether the peer, which `source` reads from and `sink` writes to, is to be given up.

        A ping of ours goes out only while the sink is at rest, and none while an end-to-end one is `unanswered`:
        a peer may answer just the latest (RFC 6455 section 5.5.3), and the one who sent the other would miss its
        answer. The peer owes an answer to that one as well, so it does for ours.
        """
        if source.scanner.closed or source.ended:
            return False  # it has said its last word and answers no pings (section 5.5.1)
        if source.scanner.bytes != self._bytes or self._was_answered() or source.held_up:
            self._bytes = source.scanner.bytes
            self.heard_at, self.asked_at = now, math.inf
        elif sink.spilling and self.asked_at < now:
            self.asked_at = now  # our ping is not out yet; who takes nothing of it has the write timeout
        elif now - self.asked_at >= limits.pong_timeout:
            return True
        elif self.asked_at == math.inf and now - self.heard_at >= limits.ping_interval and sink.can_ping():
            self.asked_at = now
            if not unanswered:
                self._ping(source, sink)
        return False

    def _was_answered(self) -> bool:
        if self._pings is None or self._pings.answered == self._answered:
            return False
        self._answered = self._pings.answered
        return True

    def _ping(self, source: Pump, sink: Pump) -> None:
        if self._pings is None:
            self._pings = OwnPings(token_bytes(PING_TOKEN_SIZE))
        source.withhold_answers(self._pings)
        sink.ping(self._pings.next())
