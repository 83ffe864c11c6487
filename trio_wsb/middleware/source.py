"""Where a request comes from: the key by which limits tell clients apart.

X-Forwarded-For is read as it stands in the request, without the peer, which is appended on the way to the backend;
`exchange.received` has removed it if the peer is not trusted.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from attrs import frozen

from trio_wsb.addresses import IPAddress, IPNetwork, Networks, ip_text, parse_ip
from trio_wsb.middleware.exchange import Request
from trio_wsb.middleware.options import FIELD_NAME, OptionProblem, between, option

MAX_KEY: Final = 64
"""Characters of a key; a longer one is replaced by its digest, for strangers choose keys and limits remember them."""

MAX_HOPS: Final = 32
"""Entries of X-Forwarded-For that are looked at, from the right; no honest chain is longer."""


@frozen
class IPStrategyOptions:
    """Which address counts as the client's."""

    depth: int = option(
        "Position in X-Forwarded-For, counted from the right; 0 takes the peer's address.",
        0,
        check=between(0, MAX_HOPS),
    )
    excluded_ips: tuple[IPNetwork, ...] = option(
        "Take the rightmost address of X-Forwarded-For that is in none of these networks. Not used with `depth`.",
        (),
        key="excludedIPs",
    )
    ipv6_subnet: int | None = option(
        "Take IPv6 addresses with the same first bits, this many, for one client; 64 is what one customer usually has.",
        None,
        key="ipv6Subnet",
        check=between(0, 128),
    )

    def problems(self) -> Iterator[OptionProblem]:
        """Yield what is wrong between the options."""
        if self.depth and self.excluded_ips:
            yield OptionProblem(
                ("excluded_ips",), "is not used because depth is set", "leave one of them out", "warning"
            )


@frozen
class SourceCriterionOptions:
    """What makes two requests come from the same source; at most one of the three."""

    ip_strategy: IPStrategyOptions | None = option("The client's address.", None)
    request_header_name: str | None = option(
        "The value of this field of the request; requests without it count as one source.",
        None,
        check=FIELD_NAME,
    )
    request_host: bool = option("The host that is asked for.", default=False)

    def problems(self) -> Iterator[OptionProblem]:
        """Yield what is wrong between the options."""
        chosen = [
            name
            for name, value in (
                ("ip_strategy", self.ip_strategy is not None),
                ("request_header_name", self.request_header_name is not None),
                ("request_host", self.request_host),
            )
            if value
        ]
        for name in chosen[1:]:
            yield OptionProblem((name,), "is a second criterion", "write one of them")
        if self.ip_strategy is not None:
            for each in self.ip_strategy.problems():
                yield OptionProblem(("ip_strategy", *each.path), each.message, each.hint, each.severity)


PEER_ADDRESS: Final = SourceCriterionOptions(ip_strategy=IPStrategyOptions())
"""The default of rateLimit."""

REQUEST_HOST: Final = SourceCriterionOptions(request_host=True)
"""The default of inFlightReq."""


class ClientAddress:
    """Finds the client's address as `IPStrategyOptions` say."""

    def __init__(self, options: IPStrategyOptions) -> None:
        self._depth = options.depth
        self._excluded = None if options.depth or not options.excluded_ips else Networks(options.excluded_ips)
        self._subnet = options.ipv6_subnet

    def text(self, request: Request) -> str:
        """Return what stands where the address should, in normal form if it is one; "" when nothing does."""
        if self._excluded is not None:
            return self._outside(request, self._excluded)
        if not self._depth:
            return "" if request.peer is None else ip_text(self._network(request.peer))
        entries = _entries(request)
        if len(entries) < self._depth:
            return ""
        entry = entries[-self._depth]
        address = _address(entry)
        return entry if address is None else str(self._network(address))

    def find(self, request: Request) -> IPAddress | None:
        """Return the address, None when there is none where it should be."""
        return _address(self.text(request))

    def _outside(self, request: Request, excluded: Networks) -> str:
        for entry in reversed(_entries(request)):
            address = _address(entry)
            if address is None:
                return entry
            if address not in excluded:
                return str(address)
        return ""

    def _network(self, address: IPAddress) -> IPAddress:
        if self._subnet is None or not isinstance(address, IPv6Address):
            return address
        return IPv6Network((address, self._subnet), strict=False).network_address


class Source:
    """Tells where requests come from."""

    def __init__(self, options: SourceCriterionOptions) -> None:
        self._host = options.request_host
        self._header = (options.request_header_name or "").lower()
        self._address = ClientAddress(options.ip_strategy or IPStrategyOptions())

    def key(self, request: Request) -> str:
        """Return the key of the source, at most `MAX_KEY` characters."""
        if self._host:
            key = request.head.host
        elif self._header:
            key = request.headers.get(self._header) or ""
        else:
            key = self._address.text(request)
        if len(key) <= MAX_KEY:
            return key
        return "#" + blake2b(key.encode("utf-8"), digest_size=16).hexdigest()


def _entries(request: Request) -> list[str]:
    """Return the last entries of X-Forwarded-For, in order."""
    values = request.headers.get_all("x-forwarded-for")
    if not values:
        return []
    entries = ",".join(values).rsplit(",", MAX_HOPS)
    # What is left of them is one text, which is no entry.
    return [entry.strip(" \t") for entry in entries[-MAX_HOPS:]]


def _address(text: str) -> IPAddress | None:
    try:
        return parse_ip(text)
    except ValueError:
        return None
