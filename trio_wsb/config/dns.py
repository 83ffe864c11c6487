"""What the configuration says of DNS: whom to ask for the addresses of servers with `resolve`, and how often."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from attrs import frozen

from trio_wsb.addresses import NameServer
from trio_wsb.config.checks import DEADLINE
from trio_wsb.config.options import option
from trio_wsb.config.problems import Finding
from trio_wsb.middleware.options import Bound
from trio_wsb.units import Duration, format_duration

_LEAST_TTL = 1.0

TTL = Bound(
    f"at least {format_duration(_LEAST_TTL)}",
    lambda value: value >= _LEAST_TTL,
    f"is shorter than {format_duration(_LEAST_TTL)}",
    'it is the pause between two questions to a name server: write a duration such as "5s"',
)
"""A bound for the time between two questions about one name."""


@frozen
class DNS:
    """How names of servers with `resolve` are looked up. Everything else goes through the system's resolver, which tells no TTL."""

    nameservers: tuple[NameServer, ...] = option(
        "Name servers to ask, in this order, instead of those of /etc/resolv.conf; its search list is left aside then too.",
        (),
    )
    families: Literal["all", "ipv4", "ipv6"] = option(
        "Which addresses count: A and AAAA records, or those of one family alone. A server with an address of each is two "
        "backends with `all`.",
        "all",
    )
    timeout: Duration = option(
        "Time for one answer, all name servers together.", Duration(5.0), check=DEADLINE
    )
    min_ttl: Duration = option(
        "Least time between two questions about a name, however short its TTL is.",
        Duration(5.0),
        key="minTTL",
        check=TTL,
    )
    max_ttl: Duration = option(
        "Longest time between two questions about a name, however long its TTL is.",
        Duration(30.0),
        key="maxTTL",
        check=TTL,
    )
    remove_after: Duration = option(
        "How long an address stays a backend that answers no longer have, for name servers that tell but some of the addresses "
        "at a time.",
        Duration(0.0),
    )


def dns_findings(dns: DNS) -> Iterator[Finding]:
    """Yield what is wrong with the section as a whole."""
    if dns.max_ttl < dns.min_ttl:
        # Of the section: either may be the one that is not written.
        longest, least = format_duration(dns.max_ttl), format_duration(dns.min_ttl)
        message = f"maxTTL, which is {longest}, is shorter than minTTL, which is {least}"
        yield Finding(("dns",), message, f"write maxTTL: {least}, or more", at="key")
    first: dict[NameServer, int] = {}
    for index, each in enumerate(dns.nameservers):
        if first.setdefault(each, index) != index:
            other = ("dns", "nameservers", first[each])
            message = f"{each} is the same name server as"
            yield Finding(("dns", "nameservers", index), message, "list each once", other=other)
