"""The addresses of backends' names, known before they are needed.

The first connection to a name waits for its answer, together with all others that want it meanwhile. From then on a task in
the background asks again whenever the answer is about to be too old, and connections take what is there: a resolver
that is slow, or down, keeps no client waiting. A name that nobody has asked for in a while is forgotten.

When a backend moves, its addresses are wrong before they are too old. Whoever can connect to none of them says so, and the
task asks at once, so that the next connection finds what the name servers know by then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from math import inf
from typing import Final, TypeAlias

import structlog
import trio
from attrs import define, frozen

from trio_wsb.errors import DialError
from trio_wsb.net.sockets import Found, SocketAddress, ask_system

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("trio_wsb.resolver")

SYSTEM_TTL: Final = 30.0
"""Seconds for which an answer of the system's resolver is taken to hold, since it does not say."""

SHORTEST_TTL: Final = 1.0
"""Seconds for which an answer holds at least, whatever it says, and between two questions that doubts lead to."""

LOOK_INTERVAL: Final = 1.0
"""Seconds between two looks at what is about to be too old; an answer is renewed that long before."""

FORGET_AFTER: Final = 300.0
"""Seconds after which a name that nobody asked for is not asked about any more."""

FAILURE_TTL: Final = 1.0
"""Seconds for which a failure holds where nothing better is known: a storm of clients must not become one of questions."""

LONGEST_PAUSE: Final = SYSTEM_TTL
"""Seconds between two questions about a name that keeps failing while an older answer serves. They begin with `FAILURE_TTL`
and double: name servers that are down, or overloaded, get no more questions than while they answer."""

LOOKUP_TIMEOUT: Final = 10.0
"""Seconds that a question in the background may take."""


@frozen
class Resolved:
    """An answer: the addresses, at least one, and the seconds for which they hold."""

    addresses: Sequence[SocketAddress]
    ttl: float = SYSTEM_TTL


Source: TypeAlias = Callable[[str, int], Awaitable[Resolved]]
"""Asks once for the addresses of a name, with a port; raises DialError with the stage "resolve"."""


async def system_source(name: str, port: int) -> Resolved:
    """Ask the system's resolver: /etc/hosts, name servers, whatever nsswitch.conf says."""
    return Resolved(await ask_system(name, port))


@define(eq=False)
class _Entry:
    """What is known of one name. Times are Trio's."""

    used: float
    answer: Found | None = None
    failure: str = ""
    """Why the last question failed; "" if it did not."""
    expires: float = 0.0
    """When the answer, or the failure where there is none, holds no longer."""
    due: float = inf
    """When the task in the background asks next, if there is an answer to renew."""
    pause: float = 0.0
    """Seconds between the last failure and the next question; 0 after an answer."""
    unanswered: bool = False
    """Whether the last question had no answer, be it that nobody could wait for it any longer."""
    asked: float = -inf
    """When the last question began."""
    asking: trio.Event | None = None
    """Set when the question that is under way is over."""
    told: str = ""

    def begin(self) -> None:
        """Note that a question is under way from now on."""
        self.asked, self.asking = trio.current_time(), trio.Event()


class Resolver:
    """Knows names; `addresses` is a `trio_wsb.net.sockets.FindAddresses`.

    Without `run` it works too, but an answer that is too old is then renewed while a connection waits.
    """

    def __init__(self, source: Source = system_source) -> None:
        self._source = source
        self._entries: dict[tuple[str, int], _Entry] = {}
        self._background: trio.Nursery | None = None
        """Where answers are renewed; None without `run`."""
        self.answered_total = 0
        self.failed_total = 0
        """Questions that had no answer, those that were given up because whoever asked could not wait longer included."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def failing(self) -> Mapping[str, bool]:
        """Whether the last question about a name had no answer, by name."""
        found: dict[str, bool] = {}
        for (name, _), entry in self._entries.items():
            found[name] = found.get(name, False) or entry.unanswered
        return found

    async def addresses(self, name: str, port: int) -> Found:
        """Return what is known of a name, or ask; the caller sets the deadline.

        Raises:
          DialError: the name does not resolve, and there is no older answer.

        """
        key, now = (name, port), trio.current_time()
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(now)
        entry.used = now
        while entry.answer is None or (self._background is None and trio.current_time() >= entry.expires):
            if entry.failure and trio.current_time() < entry.expires:
                raise DialError("resolve", entry.failure)
            if entry.asking is None:
                entry.begin()
                await self._ask(key, entry)
            else:
                await entry.asking.wait()
        return entry.answer

    async def run(self) -> None:
        """Renew answers before they are too old, or when they are doubted, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._background = nursery
            try:
                while True:
                    await trio.sleep(LOOK_INTERVAL)
                    self._look(nursery)
            finally:
                # Inside, since no task can be started any more once the nursery is being left.
                self._background = None

    def _look(self, nursery: trio.Nursery) -> None:
        now = trio.current_time()
        for key, entry in tuple(self._entries.items()):
            if entry.asking is not None:
                continue
            if now - entry.used > FORGET_AFTER:
                del self._entries[key]
            elif entry.answer is not None and now >= entry.due:
                self._start(nursery, key, entry)

    def _doubt(self, key: tuple[str, int], tried: Sequence[SocketAddress]) -> None:
        """Let the next question be asked at once, or as soon as the last one is `SHORTEST_TTL` ago.

        An answer with an address that was not tried has come meanwhile, and is not what is doubted.
        """
        entry = self._entries.get(key)
        if entry is None or entry.answer is None or not set(entry.answer.addresses) <= set(tried):
            return
        # A name that fails is asked about too, whatever its pause: otherwise clients would wait for the pause to end
        # after the name servers have come back.
        due = entry.asked + SHORTEST_TTL
        entry.expires, entry.due = min(entry.expires, due), min(entry.due, due)
        if self._background is not None and entry.asking is None and trio.current_time() >= due:
            self._start(self._background, key, entry)

    def _start(self, nursery: trio.Nursery, key: tuple[str, int], entry: _Entry) -> None:
        # Before the task runs, since all that were refused in one turn of the loop doubt in that turn.
        entry.begin()
        nursery.start_soon(self._renew, key, entry)

    async def _renew(self, key: tuple[str, int], entry: _Entry) -> None:
        with trio.move_on_after(LOOKUP_TIMEOUT) as slow:
            await self._ask(key, entry)
        if slow.cancelled_caught:
            self._failed(entry, f"no answer within {LOOKUP_TIMEOUT:g} s")
        if entry.failure != entry.told:
            entry.told = entry.failure
            if entry.failure:
                log.warning("name not resolved, last addresses kept", name=key[0], reason=entry.failure)
            else:
                log.info("name resolved again", name=key[0])

    async def _ask(self, key: tuple[str, int], entry: _Entry) -> None:
        """Ask, after `begin`, and let those who wait for the answer know; raises nothing but Cancelled."""
        assert entry.asking is not None, "the question has begun"
        answered = False
        try:
            resolved = await self._source(*key)
        except DialError as error:
            self._failed(entry, error.reason)
        else:
            answered = True
            addresses = tuple(resolved.addresses)
            entry.answer = Found(addresses, partial(self._doubt, key, addresses))
            entry.failure, entry.pause = "", 0.0
            entry.expires = trio.current_time() + max(SHORTEST_TTL, resolved.ttl)
            entry.due = entry.expires - LOOK_INTERVAL
        finally:
            self.answered_total += answered
            self.failed_total += not answered
            entry.unanswered = not answered
            # Cancelled: one of those who wait asks in our place.
            entry.asking.set()
            entry.asking = None

    def _failed(self, entry: _Entry, reason: str) -> None:
        entry.failure = reason
        again = entry.answer is not None and entry.pause > 0
        entry.pause = min(LONGEST_PAUSE, 2 * entry.pause) if again else FAILURE_TTL
        entry.expires = entry.due = trio.current_time() + entry.pause
