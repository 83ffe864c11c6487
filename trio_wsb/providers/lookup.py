"""One question to name servers, with dnspython as the one that speaks DNS.

It does what a resolver must: UDP with random ports and identifiers, TCP for answers that are truncated, the next name
server when one does not answer or makes no sense, the search list, chains of aliases up to a bound.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from trio_wsb.addresses import NameServer
from trio_wsb.balancing.discovery import Answer, Query, ServiceRecord
from trio_wsb.errors import Error

if TYPE_CHECKING:
    import dns.asyncresolver
    import dns.resolver

PAYLOAD: Final = 1232
"""Bytes of an answer by UDP that no path fragments (DNS Flag Day 2020); longer ones come by TCP."""

_ONE_SERVER: Final = 2.0
"""Seconds after which the next name server is asked."""


class LookupFailed(Error):
    """There is no answer; `reason` says why in a few words, the same for the same cause."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


Lookup: TypeAlias = Callable[[Query], Awaitable[Answer]]
"""Asks once; raises LookupFailed."""


class DNSLookup:
    """Asks name servers.

    Args:
      nameservers: whom to ask; none for those of /etc/resolv.conf, which is read anew for each question.
      timeout: seconds for an answer, all name servers together.
      resolv_conf: the file that names the system's name servers.

    """

    def __init__(
        self,
        nameservers: tuple[NameServer, ...] = (),
        timeout: float = 5.0,
        *,
        resolv_conf: str = "/etc/resolv.conf",
    ) -> None:
        self._resolv_conf = resolv_conf
        self._nameservers = nameservers
        self._timeout = timeout

    async def __call__(self, query: Query) -> Answer:
        """Ask.

        Raises:
          LookupFailed: no name server has an answer.

        """
        # Not at the top: whoever has no names to resolve does without it.
        import dns.exception
        import dns.resolver

        try:
            with trio.fail_after(self._timeout):
                return await self._ask(query)
        except dns.resolver.NXDOMAIN as error:
            responses = error.kwargs.get("responses") or {}
            ttl = min(map(_negative_ttl, responses.values()), default=0.0)
            return Answer((), ttl, "the name does not exist")
        except dns.resolver.NoNameservers as error:
            raise LookupFailed(_why(error)) from error
        except dns.resolver.NoResolverConfiguration as error:
            raise LookupFailed(f"{self._resolv_conf} names no name server") from error
        except (trio.TooSlowError, dns.exception.Timeout) as error:
            raise LookupFailed(f"no answer within {self._timeout:g} s") from error
        except dns.exception.DNSException as error:
            raise LookupFailed(f"no usable answer ({type(error).__name__})") from error
        except OSError as error:
            raise LookupFailed(_system(error)) from error

    async def _ask(self, query: Query) -> Answer:
        import dns.asyncbackend
        import dns.flags

        resolver = self._resolver()
        found = await resolver.resolve(
            query.host,
            query.type,
            raise_on_no_answer=False,
            search=not self._nameservers,
            lifetime=self._timeout,
            backend=dns.asyncbackend.get_backend("trio"),
        )
        if found.response.flags & dns.flags.TC:
            raise LookupFailed("the answer is cut off, by TCP too")
        return _answer(query, found)

    def _resolver(self) -> dns.asyncresolver.Resolver:
        import dns.asyncresolver
        import dns.nameserver

        resolver = dns.asyncresolver.Resolver(self._resolv_conf, configure=not self._nameservers)
        if self._nameservers:
            resolver.nameservers = [
                dns.nameserver.Do53Nameserver(each.host, each.port) for each in self._nameservers
            ]
            resolver.timeout = _ONE_SERVER
        resolver.use_edns(0, 0, PAYLOAD)
        return resolver


def _answer(query: Query, found: dns.resolver.Answer) -> Answer:
    chain = found.chaining_result
    if found.rrset is None:
        return Answer((), _negative_ttl(found.response), f"the name has no {query.type} records")
    ttl = float(chain.minimum_ttl)
    if query.type != "SRV":
        return Answer(tuple(record.address for record in found.rrset), ttl)
    records = tuple(
        ServiceRecord(each.priority, each.weight, each.port, each.target.to_text(omit_final_dot=False))
        for each in found.rrset
        if each.target.to_text() != "."
    )
    if not records:  # one record with "." says so in so many words (RFC 2782)
        return Answer((), ttl, "the service is not offered")
    return Answer(records, ttl)


def _negative_ttl(response: object) -> float:
    """Return the seconds for which a negative answer holds, by its SOA record (RFC 2308 section 5)."""
    import dns.rdatatype

    for rrset in getattr(response, "authority", ()):
        if rrset.rdtype == dns.rdatatype.SOA:
            return float(min(rrset.ttl, rrset[0].minimum))
    return 0.0


def _why(error: dns.resolver.NoNameservers) -> str:
    """Return what the last name server did that was asked."""
    errors = error.kwargs.get("errors") or []
    if not errors:
        return "no name server to ask"
    server, _, port, what, _ = errors[-1]
    shown = server.removeprefix("Do53:").partition("@")[0]
    who = shown if port == 53 else f"{shown} port {port}"
    if isinstance(what, str):
        return f"{who} answered {what}"
    if isinstance(what, OSError):
        return f"{who}: {_system(what)}"
    return f"{who} gave no usable answer ({type(what).__name__})"


def _system(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else "the network failed"
