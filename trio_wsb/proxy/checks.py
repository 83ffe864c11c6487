"""What a pump looks at while it lets no frame pass unseen: limits of size and pace, and the answers to our pings."""

from __future__ import annotations

import trio

from trio_wsb.net.channel import UNBOUNDED, Carried, Terms
from trio_wsb.websocket.allowance import Allowance
from trio_wsb.websocket.gate import FrameGate


class Checks:
    """What a pump has besides while it looks at each frame."""

    __slots__ = ("allowance", "gate", "pause", "pending", "ready")

    def __init__(self, gate: FrameGate, allowance: Allowance | None = None) -> None:
        self.gate = gate
        self.allowance = allowance
        self.pending = b""
        """What was read and has not passed: less than a header, or all that waits for the allowance."""
        self.ready = False
        """Whether `pending` can be judged without more bytes."""
        self.pause: trio.CancelScope | None = None
        """The wait for the allowance, while there is one."""

    def terms(self, now: float) -> Terms:
        """Return on which terms bytes may go on unseen."""
        message = self.gate.max_message or UNBOUNDED
        if self.allowance is None:
            return Terms(message)
        allowance = self.allowance
        return Terms(message, allowance.bytes(now, UNBOUNDED), allowance.messages(now, UNBOUNDED))

    def note(self, carried: Carried) -> None:
        """Note what went on unseen."""
        self.gate.resume(carried.message)
        if self.allowance is not None:
            self.allowance.spend_bytes(carried.bytes)
            self.allowance.spend_messages(carried.frames)

    @property
    def needed(self) -> bool:
        """Whether there is anything left to check."""
        return self.allowance is not None or bool(self.pending) or self.gate.needed
