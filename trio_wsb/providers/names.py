"""The background task that resolves the names of servers, again and again as their TTLs say.

Each name has a task of its own, so that one whose name servers hang keeps no other one waiting; `trio_wsb.background.rounds`
bounds how many questions are under way. What comes of them goes into the name table, and nothing of it raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Final

import structlog
import trio
from attrs import field, frozen

from trio_wsb.addresses import NameServer, format_host
from trio_wsb.background.rounds import FIRST_ROUND, JITTER, Rounds
from trio_wsb.balancing.discovery import DiscoveryPolicy, Endpoint, Name, NameEntry, NameTable, Query
from trio_wsb.providers.lookup import DNSLookup, Lookup, LookupFailed

FIRST_ANSWER: Final = 1.0
"""Seconds that a start or a reload waits at most for the first answers about new names."""

LISTED: Final = 8
"""Addresses that a line of the log may name."""

_ROUNDS: Final = 2
"""Questions that follow from answers are asked at once: SRV records, then the addresses of their targets."""

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("trio_wsb.names")


@frozen
class ResolverSettings:
    """Whom to ask, how long an answer may take in seconds, and what is made of it."""

    nameservers: tuple[NameServer, ...] = ()
    timeout: float = 5.0
    policy: DiscoveryPolicy = field(factory=DiscoveryPolicy)


@frozen
class NameTarget:
    """A name to resolve from time to time."""

    name: Name
    settings: ResolverSettings

    @property
    def key(self) -> Name:
        """What it is known by."""
        return self.name

    @property
    def interval(self) -> float:
        """The longest time between two questions about it, in seconds."""
        return self.settings.policy.max_ttl


def dns_lookup(settings: ResolverSettings) -> Lookup:
    """Return what asks the name servers of `settings`."""
    return DNSLookup(settings.nameservers, settings.timeout)


class NameResolver:
    """Keeps what names stand for in a table, from `run` on until that is cancelled.

    Args:
      table: where answers go; times in it are `trio.current_time`.
      rng: what varies the pauses, so that several instances do not ask in step.
      changed: called on the event loop when what a name stands for has changed; must not raise.
      lookup: makes what asks.

    """

    def __init__(
        self,
        table: NameTable,
        *,
        rng: Random | None = None,
        changed: Callable[[], None] = lambda: None,
        lookup: Callable[[ResolverSettings], Lookup] = dns_lookup,
    ) -> None:
        self._table = table
        self._rng = rng or Random()
        self._changed = changed
        self._make_lookup = lookup
        self._rounds = Rounds(self._keep_resolving)

    def configure(self, names: Iterable[Name], settings: ResolverSettings) -> None:
        """Resolve exactly `names` from now on, and keep no others in the table.

        What is known of a name stays. May be called at any time, also before `run`.
        """
        self._table.configure(settings.policy)
        targets = self._rounds.configure(NameTarget(name, settings) for name in names)
        self._table.retain(target.name for target in targets.values())
        self._rounds.apply()

    async def learn(self, names: Iterable[Name], settings: ResolverSettings) -> None:
        """Ask about those of `names` of which nothing is known, and wait for answers, but at most `FIRST_ANSWER` seconds.

        So whoever puts a configuration with them to work has backends at once, as a rule.
        """
        new = [name for name in names if not self._table.entry(name).asked]
        for name in new:
            self._table.entry(name).policy = settings.policy
        with trio.move_on_after(FIRST_ANSWER):
            async with trio.open_nursery() as nursery:
                for name in new:
                    target = NameTarget(name, settings)
                    nursery.start_soon(self._resolve, target, self._make_lookup(settings))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Resolve until cancelled."""
        await self._rounds.run(task_status=task_status)

    async def _keep_resolving(self, target: NameTarget, started: float, phase: float) -> None:
        entry, lookup = self._table.entry(target.name), self._make_lookup(target.settings)
        if entry.asked:
            await trio.sleep_until(max(entry.next_due(), trio.current_time()))
        else:
            await trio.sleep_until(started + phase * FIRST_ROUND)
        while True:
            await self._resolve(target, lookup)
            # Never before a record is due: asking early would give the same answer from some cache.
            pause = max(0.0, entry.next_due() - trio.current_time()) or target.settings.policy.min_ttl
            await trio.sleep(pause * (1 + self._rng.uniform(0, JITTER)))

    async def _resolve(self, target: NameTarget, lookup: Lookup) -> None:
        """Ask what is due about a name; see that the table, the log and whoever wants to know learn what came of it."""
        entry = self._table.entry(target.name)
        for _ in range(_ROUNDS):
            queries = entry.due(trio.current_time())
            if not queries:
                break
            async with trio.open_nursery() as nursery:
                for query in queries:
                    nursery.start_soon(self._ask, entry, query, lookup)
        # Not after each answer: name servers that fail do so for A and AAAA, and one line says it.
        self._tell(entry)

    async def _ask(self, entry: NameEntry, query: Query, lookup: Lookup) -> None:
        reason = ""
        async with self._rounds.place(failing=entry.failing):
            try:
                entry.answered(query, await lookup(query), trio.current_time())
            except LookupFailed as error:
                reason = error.reason
            except Exception as error:
                # Whatever an answer makes of the code that reads it, it is this name's alone.
                log.exception("internal error in a lookup", name=query.host)
                reason = f"internal error: {type(error).__name__}"
        if reason:
            entry.failed(query, reason, trio.current_time())
            self._table.failed_total += 1
        else:
            self._table.answered_total += 1
        # After each answer: the addresses of one family need not wait for those of the other.
        self._settle(entry)

    def _settle(self, entry: NameEntry) -> None:
        added, removed = entry.settle()
        if added or removed:
            log.info(
                "name resolved",
                name=entry.name.host,
                endpoints=len(entry.endpoints),
                added=_shown(added),
                removed=_shown(removed),
            )
            self._changed()

    def _tell(self, entry: NameEntry) -> None:
        problem = entry.news()
        if problem is not None:
            log.warning(
                "name not resolved", name=entry.name.host, reason=problem, endpoints=len(entry.endpoints)
            )
        elif entry.recovered():
            log.info("name resolves again", name=entry.name.host, endpoints=len(entry.endpoints))


def _shown(endpoints: tuple[Endpoint, ...]) -> list[str]:
    texts = [
        each.address if each.port is None else f"{format_host(each.address)}:{each.port}"
        for each in endpoints[:LISTED]
    ]
    return [*texts, f"and {len(endpoints) - LISTED} more"] if len(endpoints) > LISTED else texts
