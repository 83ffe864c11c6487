"""What names in server URLs stand for: answers of name servers, and the endpoints that follow from them.

A *name* is what a server with ``resolve`` is called; a *query* is one question about it; an *endpoint* is where a backend is.
Who asks, and how, is not known here: answers and failures are handed in with their time. The rules:

- A TTL is kept within the bounds of the policy, so that 0 does not mean without a pause, nor a day that nothing is noticed.
- A query that fails changes nothing: what the last answer said goes on for as long as nobody says otherwise.
- An answer without records is an answer, but a name server that has just lost its zone gives it too. So what was known goes on
  for `NEGATIVE_HOLD` seconds of such answers.
- Nothing that an answer says is without a bound, and no address is taken to which no connection can lead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv6Address
from math import inf
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeAlias

from attrs import frozen

from trio_wsb.addresses import IPAddress, parse_ip

Resolve: TypeAlias = Literal["all", "srv"]
"""Every address of a name, or everything that its SRV records name."""

QueryType: TypeAlias = Literal["A", "AAAA", "SRV"]

NEGATIVE_HOLD: Final = 30.0
"""Seconds for which a name that had records keeps them while answers say that it has none."""

MAX_ENDPOINTS: Final = 1000
"""Endpoints of one name; those beyond are left out, the same ones each time."""

MAX_TARGETS: Final = 128
"""Hosts that the SRV records of one name may lead to; each is two more queries."""

_MAX_REASONS: Final = 16


class Name(NamedTuple):
    """A name to resolve, and how."""

    host: str
    resolve: Resolve


class Query(NamedTuple):
    """One question to name servers."""

    host: str
    type: QueryType


class ServiceRecord(NamedTuple):
    """An SRV record (RFC 2782)."""

    priority: int
    weight: int
    port: int
    target: str


@frozen
class Answer:
    """What name servers say to a query: addresses as texts, or service records. Without any, `reason` says what they said.

    `ttl` is seconds, that of a negative answer the one of RFC 2308.
    """

    records: tuple[str, ...] | tuple[ServiceRecord, ...]
    ttl: float
    reason: str = ""


class Endpoint(NamedTuple):
    """Where a backend is. `port` is None where the URL says it; `priority` counts from 0, higher ones stand by."""

    priority: int
    address: str
    port: int | None
    weight: int


@frozen
class DiscoveryPolicy:
    """Which addresses count, and how times are bounded, in seconds."""

    families: Literal["all", "ipv4", "ipv6"] = "all"
    min_ttl: float = 5.0
    max_ttl: float = 30.0
    remove_after: float = 0.0

    @property
    def address_types(self) -> tuple[QueryType, ...]:
        """The queries that give the addresses of a host."""
        match self.families:
            case "ipv4":
                return ("A",)
            case "ipv6":
                return ("AAAA",)
        return ("A", "AAAA")


class _Known:
    """What is known of one query: records with the time at which an answer last had them."""

    __slots__ = ("due", "failures", "negative_since", "reason", "seen")

    def __init__(self) -> None:
        self.seen: dict[object, tuple[object, float]] = {}
        self.due = -inf
        self.failures = 0
        self.reason: str | None = None
        """Why there is no answer, or none with records."""
        self.negative_since: float | None = None

    @property
    def records(self) -> Iterator[object]:
        return (record for record, _ in self.seen.values())


class NameEntry:
    """What is known of one name. Owned by its `NameTable`; whoever resolves it hands in what he learns."""

    def __init__(self, name: Name, policy: DiscoveryPolicy) -> None:
        self.name = name
        self.policy = policy
        self.endpoints: tuple[Endpoint, ...] = ()
        """What it stands for, as `settle` last found it."""
        self.resolved_at = -inf
        """When an answer last came."""
        self._known: dict[Query, _Known] = {}
        self._told: set[str] = set()
        self._left_out = 0

    @property
    def asked(self) -> bool:
        """Whether anything has come of any query, be it a failure."""
        return any(known.due > -inf for known in self._known.values())

    @property
    def failing(self) -> bool:
        """Whether the last try of a query had no answer."""
        return any(known.failures for known in self._known.values())

    def due(self, now: float) -> list[Query]:
        """Return the queries that are to be asked now."""
        return [query for query in self._queries() if self._of(query).due <= now]

    def next_due(self) -> float:
        """Return when the next query is due."""
        return min(self._of(query).due for query in self._queries())

    def answered(self, query: Query, answer: Answer, now: float) -> None:
        """Take an answer."""
        known, policy = self._of(query), self.policy
        known.failures, self.resolved_at = 0, now
        known.reason = None if answer.records else answer.reason
        known.due = now + min(max(answer.ttl, policy.min_ttl), policy.max_ttl)
        if answer.records:
            known.negative_since = None
            known.seen = {
                key: each for key, each in known.seen.items() if now - each[1] < policy.remove_after
            }
            known.seen |= {_key(record): (record, now) for record in answer.records}
            return
        if known.negative_since is None:
            known.negative_since = now
        if now - known.negative_since >= max(NEGATIVE_HOLD, policy.remove_after):
            known.seen.clear()

    def failed(self, query: Query, reason: str, now: float) -> None:
        """Note that there was no answer: the records stay, and the pause doubles up to the longest."""
        known, policy = self._of(query), self.policy
        known.due = now + min(policy.min_ttl * 2 ** min(known.failures, 10), policy.max_ttl)
        known.failures += 1
        known.reason = reason

    def settle(self) -> tuple[tuple[Endpoint, ...], tuple[Endpoint, ...]]:
        """Work the endpoints out anew; return those that have come and those that have gone."""
        before = self.endpoints
        self.endpoints = self._work_out()
        wanted = set(self._queries())
        self._known = {query: known for query, known in self._known.items() if query in wanted}
        if before == self.endpoints:
            return (), ()
        old, new = set(before), set(self.endpoints)
        return (
            tuple(each for each in self.endpoints if each not in old),
            tuple(each for each in before if each not in new),
        )

    @property
    def problem(self) -> str | None:
        """What is wrong with it, None when all is well. The same words for the same thing."""
        queries = self._queries()
        for query in queries:
            known = self._of(query)
            if known.failures and known.reason is not None:
                return f"{query.type} of {query.host}: {known.reason}"
        if self._left_out:
            return f"has more than {MAX_ENDPOINTS} endpoints; the others are left out"
        base = [self._of(query) for query in queries if query.host == self.name.host]
        if not any(known.negative_since is None for known in base):
            reasons = dict.fromkeys(known.reason or "" for known in base)
            return ", ".join(filter(None, reasons)) or "no records"
        if not self.endpoints and all(self._of(query).due > -inf for query in queries):
            return "its records lead to no address that can be used"
        return None

    def news(self) -> str | None:
        """Return the problem if it was not told since all was well; None otherwise."""
        problem = self.problem
        # A set, not the last one: name servers that fail in two ways by turns are not news each time.
        if problem is None or problem in self._told or len(self._told) >= _MAX_REASONS:
            return None
        self._told.add(problem)
        return problem

    def recovered(self) -> bool:
        """Whether all is well after a problem that was told; once."""
        if not self._told or self.problem is not None:
            return False
        self._told.clear()
        return True

    @property
    def missing(self) -> str:
        """Why it stands for nothing, for somebody who looked for a backend."""
        if not self.asked:
            return f"{self.name.host} is not resolved yet"
        return f"{self.name.host} is not resolved ({self.problem or 'no records'})"

    def _of(self, query: Query) -> _Known:
        known = self._known.get(query)
        if known is None:
            known = self._known[query] = _Known()
        return known

    def _queries(self) -> list[Query]:
        """Return every query that matters, those of SRV targets included."""
        types = self.policy.address_types
        if self.name.resolve == "all":
            return [Query(self.name.host, each) for each in types]
        base = Query(self.name.host, "SRV")
        return [base, *(Query(target, each) for target in self._targets() for each in types)]

    def _targets(self) -> list[str]:
        return list(dict.fromkeys(record.target for record in self._service_records()))[:MAX_TARGETS]

    def _service_records(self) -> list[ServiceRecord]:
        records = [
            each for each in self._of(Query(self.name.host, "SRV")).records if isinstance(each, ServiceRecord)
        ]
        return sorted(each for each in records if each.port and each.target)

    def _addresses(self, host: str) -> list[IPAddress]:
        texts = [
            text
            for each in self.policy.address_types
            for text in self._of(Query(host, each)).records
            if isinstance(text, str)
        ]
        found = {address for text in texts if (address := _usable(text)) is not None}
        return sorted(found, key=lambda address: (address.version, address))

    def _work_out(self) -> tuple[Endpoint, ...]:
        if self.name.resolve == "all":
            found = [Endpoint(0, str(address), None, 1) for address in self._addresses(self.name.host)]
        else:
            found = list(self._of_service())
        self._left_out = max(0, len(found) - MAX_ENDPOINTS)
        return tuple(found[:MAX_ENDPOINTS])

    def _of_service(self) -> Iterator[Endpoint]:
        records = self._service_records()
        targets = set(self._targets())
        ranks = {priority: rank for rank, priority in enumerate(sorted({each.priority for each in records}))}
        weighted = {each.priority for each in records if each.weight}
        taken: set[tuple[IPAddress, int]] = set()
        for record in records:
            # Among weights a 0 is "a very small chance" (RFC 2782); without any, nobody is preferred.
            weight = max(1, record.weight) if record.priority in weighted else 1
            for address in self._addresses(record.target) if record.target in targets else ():
                if (address, record.port) not in taken:
                    taken.add((address, record.port))
                    yield Endpoint(ranks[record.priority], str(address), record.port, weight)


class NameTable:
    """Every name of the configuration. Entries outlive reloads as long as the configuration has their names."""

    def __init__(self) -> None:
        self._entries: dict[Name, NameEntry] = {}
        self.policy = DiscoveryPolicy()
        self.answered_total = 0
        """Queries that had an answer, be it that there are no records; counted by whoever asks, as the next."""
        self.failed_total = 0

    @property
    def entries(self) -> Mapping[Name, NameEntry]:
        """What is known, by name."""
        return MappingProxyType(self._entries)

    def entry(self, name: Name) -> NameEntry:
        """Return the entry of `name`, a new one if there is none."""
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = NameEntry(name, self.policy)
        return entry

    def endpoints(self, name: Name) -> tuple[Endpoint, ...]:
        """Return what `name` stands for as far as is known."""
        entry = self._entries.get(name)
        return () if entry is None else entry.endpoints

    def missing(self, name: Name) -> str:
        """Return why `name` stands for nothing."""
        entry = self._entries.get(name)
        return f"{name.host} is not resolved yet" if entry is None else entry.missing

    def configure(self, policy: DiscoveryPolicy) -> None:
        """Judge by another policy from now on."""
        self.policy = policy
        for entry in self._entries.values():
            entry.policy = policy

    def retain(self, names: Iterable[Name]) -> None:
        """Drop every entry whose name is not among `names`."""
        wanted = set(names)
        self._entries = {name: entry for name, entry in self._entries.items() if name in wanted}


def _key(record: object) -> object:
    """Return what makes a record the same one when its weight or priority has changed."""
    return (record.target, record.port) if isinstance(record, ServiceRecord) else record


def _usable(text: str) -> IPAddress | None:
    """Return the address that `text` is, None for one that no connection of ours can lead to."""
    address = parse_ip(text)
    if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255":
        return None
    if isinstance(address, IPv6Address) and address.is_link_local:
        return None  # it needs an interface, which no record can name
    return address
