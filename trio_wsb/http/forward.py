"""What a head becomes on its way through: upstream to the backend and downstream to the client.

Three rules. What is meant for one hop ends here (RFC 9110 section 7.6.1). What describes the client is believed
only from those we trust, and said by us to the backend. What decides about framing, routing and identity is never
up to the sender's Connection field: CVE-2022-31813 and CVE-2024-45410 were proxies that let a client name
X-Forwarded-For there and have it removed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final, Literal

from attrs import field, frozen

from trio_wsb.addresses import IPAddress, Networks, ip_text, parse_ip
from trio_wsb.http.answers import dated
from trio_wsb.http.framing import UNTIL_CLOSE, Framing, FramingKind, Version
from trio_wsb.http.head import RequestHead, ResponseHead, serialise_response, split_authority
from trio_wsb.http.headers import Field, Headers, serialise_fields
from trio_wsb.http.names import HOP_BY_HOP, ORDINARY, is_disguised, is_forwarding, nominated

MAX_HOPS: Final = 32
"""Entries of X-Forwarded-For that are looked at; no honest chain is longer."""

_NOT_UPSTREAM: Final = HOP_BY_HOP | {"x-forwarded-for"}
_NOT_IN_UPGRADES: Final = _NOT_UPSTREAM | {"content-length"}
_NOTHING: Final = Headers()
_UPGRADED: Final = {"http": "ws", "https": "wss"}
_UPGRADE: Final[tuple[Field, ...]] = (("Connection", "Upgrade"), ("Upgrade", "websocket"))

_LISTED_ADDRESS = re.compile(
    r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9.]{7,15}))(?::[0-9]{1,5})?|([0-9A-Fa-f:.]{2,45})"
)


@frozen
class ForwardPolicy:
    """Whose X-Forwarded-* fields are believed: those of `trusted` peers, or everybody's when `insecure`."""

    trusted: Networks = field(factory=Networks)
    insecure: bool = False

    def trusts(self, peer: IPAddress | None) -> bool:
        """Whether `peer` is believed; one without an address (a Unix socket) only when everybody is."""
        return self.insecure or (peer is not None and peer in self.trusted)


def client_address(peer: IPAddress | None, headers: Headers, policy: ForwardPolicy) -> IPAddress | None:
    """Return the address of the client behind `peer`.

    That is the peer, unless it is trusted: then the rightmost entry of X-Forwarded-For that is not trusted itself,
    because each proxy vouches for the entry that it appended and no further. An entry that is no address ends the
    walk at the last one that was. With `insecure` all are trusted, so the leftmost entry counts.
    """
    client = peer
    if "x-forwarded-for" not in headers or not policy.trusts(peer):
        return client
    entries = ",".join(headers.get_all("x-forwarded-for")).rsplit(",", MAX_HOPS)
    for entry in reversed(entries):
        address = _listed_address(entry.strip(" \t"))
        if address is None:
            break
        client = address
        if not policy.trusts(address):
            break
    return client


def believed_values(
    head: RequestHead,
    lower: str,
    *,
    upgrade: bool,
    policy: ForwardPolicy,
    peer: IPAddress | None,
    entry_scheme: Literal["http", "https"],
    entry_port: int,
) -> list[str]:
    """Return the values of the fields named `lower`, as far as a decision may rest on them.

    They are those that were sent; but what describes the client comes from a trusted peer or from us, as in
    `upstream_head` (whose arguments these are), or a stranger could choose its router with X-Forwarded-Proto.
    X-Forwarded-For is what a trusted peer sent, without the peer itself.
    """
    if is_disguised(lower):
        return []
    if not is_forwarding(lower):
        return head.headers.get_all(lower)
    trusted = policy.trusts(peer)
    sent = head.headers.get_all(lower) if trusted else []
    if sent or lower == "x-forwarded-for":
        return sent
    ours = _forwarded_fields(head, upgrade, policy, peer, entry_scheme, entry_port, trusted=trusted)
    return [value for name, value in ours if name.lower() == lower]


def upstream_head(
    head: RequestHead,
    *,
    upgrade: bool,
    policy: ForwardPolicy,
    peer: IPAddress | None,
    entry_scheme: Literal["http", "https"],
    entry_port: int,
    server_name: str,
    host: str | None = None,
    vetted: bool = False,
    withheld: Collection[str] = (),
) -> bytes:
    """Return the request head that goes to the backend.

    The client's fields keep their order and case. The connection serves this one request: ``Connection: close``, or
    the upgrade to websocket.

    Args:
      head: what the client sent.
      upgrade: make it an upgrade to websocket; any other Upgrade is dropped.
      policy: whose X-Forwarded-* fields are believed.
      peer: who sent it; None for a Unix socket.
      entry_scheme: how the client reached us.
      entry_port: the port it reached, used where no Host was sent.
      server_name: our name for X-Forwarded-Server; "" sends none.
      host: the Host to send instead of the client's.
      vetted: what a stranger may not say is gone from `head` already, and what it says was put there by us.
      withheld: names (in lower case) of fields about the client that are not to be added.

    """
    headers = head.headers
    trusted = vetted or policy.trusts(peer)
    # In an upgrade Content-Length says 0, or it would have been refused; some servers refuse any there.
    dropped, ordinary = _NOT_IN_UPGRADES if upgrade else _NOT_UPSTREAM, ORDINARY
    if ended := nominated(headers):
        dropped, ordinary = dropped.union(ended), ORDINARY.difference(ended)

    fields: list[Field] = []
    if "host" not in headers:
        # An HTTP/1.0 client need not send one; RFC 9112 section 3.2 wants one of us, empty if nothing is known.
        fields.append(("Host", head.authority if host is None else host))
    for lower, line in headers.named():
        if lower in ordinary:
            fields.append(line)
        elif lower in dropped or (server_name and lower == "x-forwarded-server"):
            continue
        elif lower == "host":
            fields.append(line if host is None else (line[0], host))
        elif lower == "content-length":
            fields.append((line[0], _canonical_length(line[1])))
        elif not (is_disguised(lower) or (not trusted and is_forwarding(lower))):
            fields.append(line)
    if head.framing.kind is FramingKind.CHUNKED:
        fields.append(("Transfer-Encoding", "chunked"))
    if upgrade:
        fields += _UPGRADE
    else:
        fields.append(("Connection", "close"))
    about = _forwarded_fields(head, upgrade, policy, peer, entry_scheme, entry_port, trusted=trusted)
    if server_name:
        about.append(("X-Forwarded-Server", server_name))
    fields += [field for field in about if field[0].lower() not in withheld] if withheld else about
    return serialise_fields(fields, f"{head.method} {head.target} HTTP/1.1") + b"\r\n"


def downstream_framing(framing: Framing, client_version: Version) -> Framing:
    """Return how a body that came in `framing` is delimited towards the client.

    HTTP/1.0 knows no chunks: their payload goes out until the connection closes.
    """
    return UNTIL_CLOSE if framing.kind is FramingKind.CHUNKED and client_version < (1, 1) else framing


def downstream_head(
    response: ResponseHead,
    *,
    upgrade: bool,
    framing: Framing,
    keep_alive: bool,
    extra: Iterable[Field] = (),
    date: float | None = None,
) -> bytes:
    """Return the response head that goes to the client.

    Args:
      response: what the backend sent.
      upgrade: it is the 101 to the client's upgrade to websocket.
      framing: how the body goes out, as `downstream_framing` says.
      keep_alive: whether the connection serves another request; never after a body that ends with it.
      extra: fields to append.
      date: the time for the Date of an answer that has none, in seconds since 1970; None leaves it out.

    """
    dropped = HOP_BY_HOP.union(nominated(response.headers))
    bodiless = response.status < 200 or response.status == 204
    # RFC 9110 section 8.6 forbids it in 1xx and 204; beside the others it would contradict them.
    kind = framing.kind
    unsized = bodiless or kind is FramingKind.CHUNKED or kind is FramingKind.UNTIL_CLOSE
    fields: list[Field] = []
    for lower, line in response.headers.named():
        if lower in dropped:
            continue
        if lower != "content-length":
            fields.append(line)
        elif not unsized:
            fields.append((line[0], _canonical_length(line[1])))
    if framing.kind is FramingKind.CHUNKED:
        fields.append(("Transfer-Encoding", "chunked"))
    if upgrade:
        fields += _UPGRADE
    elif response.status >= 200 and (not keep_alive or framing.kind is FramingKind.UNTIL_CLOSE):
        fields.append(("Connection", "close"))
    fields += extra
    if response.status >= 200:
        fields += dated(fields, date)
    return serialise_response(response.status, fields, response.reason)


def _canonical_length(value: str) -> str:
    """Return the number as we read it: ``0010`` is 10 here and 8 to a parser that takes it for octal."""
    return str(int(value))


def _forwarded_fields(
    head: RequestHead,
    upgrade: bool,
    policy: ForwardPolicy,
    peer: IPAddress | None,
    entry_scheme: Literal["http", "https"],
    entry_port: int,
    *,
    trusted: bool,
) -> list[Field]:
    """Return what we say about the client, leaving out what a trusted peer has said already."""
    # Nothing that a stranger says is believed.
    headers = head.headers if trusted else _NOTHING
    address = "" if peer is None else ip_text(peer)
    hops = headers.get_all("x-forwarded-for")
    if address:
        hops.append(address)
    fields = [("X-Forwarded-For", ", ".join(hops))] if hops else []
    scheme = _UPGRADED[entry_scheme] if upgrade else entry_scheme
    if "x-forwarded-proto" not in headers:
        fields.append(("X-Forwarded-Proto", scheme))
    else:
        scheme = headers.get("x-forwarded-proto") or scheme
    if head.authority and "x-forwarded-host" not in headers:
        fields.append(("X-Forwarded-Host", head.authority))
    if "x-forwarded-port" not in headers:
        fields.append(("X-Forwarded-Port", str(_client_port(head.authority, scheme, entry_port))))
    client = client_address(peer, head.headers, policy)
    if client is not None and "x-real-ip" not in headers:
        fields.append(("X-Real-Ip", address if client is peer else ip_text(client)))
    return fields


def _client_port(authority: str, scheme: str, entry_port: int) -> int:
    """Return the port that the client connected to, which a port mapping in front of us may have changed.

    A Host without a port says that it was the scheme's default.
    """
    if not authority:
        return entry_port
    port = split_authority(authority)[1]
    return port or (443 if scheme.lower() in {"https", "wss"} else 80)


def _listed_address(entry: str) -> IPAddress | None:
    """Return the address in an entry of X-Forwarded-For, which some proxies write with a port; None if it has none."""
    match = _LISTED_ADDRESS.fullmatch(entry)
    if match is None:
        return None
    try:
        return parse_ip(match[1] or match[2] or match[3])
    except ValueError:
        return None
