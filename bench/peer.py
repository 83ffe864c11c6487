"""What the bench needs of a peer, whoever it is, and the peer that is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from attrs import frozen

from bench.processes import Process


@frozen
class Running:
    """A peer that accepts connections on `ports` of 127.0.0.1; `process` is None where there is no proxy."""

    ports: tuple[int, ...]
    process: Process | None = None
    reload: Callable[[], None] | None = None
    """Makes it read its configuration again while it serves; None for one that starts anew for that."""


class Peer(Protocol):
    """Something to measure."""

    @property
    def name(self) -> str:
        """As in ``--peers`` and in the tables."""

    def version(self) -> str:
        """Name and version, for the report.

        Raises:
          MissingToolError: it is not installed.

        """

    def running(self, backends: Sequence[int], sessions: int) -> AbstractContextManager[Running]:
        """Start a fresh one over the backends' ports, with room for `sessions`; stopped when the block ends.

        Raises:
          MissingToolError: it is not installed.
          BenchError: it does not come up.

        """


@frozen
class Direct:
    """No proxy: the clients talk to the backends. What this reaches is the limit of the bench itself."""

    name: str = "direct"

    def version(self) -> str:
        """Return the name."""
        return self.name

    def running(self, backends: Sequence[int], sessions: int) -> AbstractContextManager[Running]:  # noqa: ARG002 - Peer
        """Nothing to start."""
        return nullcontext(Running(tuple(backends)))
