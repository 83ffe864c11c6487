"""Backends that get copies of sessions: what comes there is what the client has sent, from its beginning on, and nothing else."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Literal

import trio
from attrs import define, field

from tests.simulation.backend import SimBackend
from tests.simulation.ledger import Lane, Violation
from tests.simulation.network import SimChannel
from trio_wsb.net.channel import receive_some

Trouble = Literal["", "slow", "deaf", "reset", "drop"]


@define(eq=False)
class Copies:
    """What the backends of a story's mirrors have seen."""

    rng: Random
    trouble: Trouble = ""
    """What their backends do to a copy."""
    seen: Counter[str] = field(factory=Counter)
    """Copies that got everything, and those that got a part."""

    async def take(self, server: SimBackend, channel: SimChannel, path: str, lane: Lane | None) -> None:
        """Be the backend of a copy until it is over. Raises Violation and OSError."""
        received, buffer = bytearray(), bytearray(4096)
        trouble = self.trouble
        try:
            if trouble == "deaf":
                await trio.sleep(30)
            while count := await receive_some(channel, buffer):
                received += buffer[:count]
                if lane is None or not lane.written.startswith(received):
                    raise Violation(f"{path}: its copy at {server.url} got what the client has not sent")
                if trouble == "slow":
                    await trio.sleep(0.5)
                elif trouble in {"reset", "drop"} and self.rng.random() < 0.2:
                    if trouble == "reset":
                        channel.abort()
                    return
        finally:
            whole = lane is not None and bytes(lane.written) == bytes(received)
            self.seen["whole" if whole else "part"] += 1
