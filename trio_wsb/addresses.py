"""Addresses: where to listen, where a backend is, and which networks are trusted.

All of them are values; nothing here resolves a name or opens a socket. IPv4-mapped IPv6 addresses
(``::ffff:10.0.0.1``, RFC 4291 section 2.5.5.2) are normalised before any comparison, so that a list of
IPv4 networks means the same on a dual-stack listener.
"""

from __future__ import annotations

import ipaddress
import os.path
import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import SplitResult, urlsplit

from attrs import field, frozen

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_HOST_NAME = re.compile(
    r"(?=.{1,253}\.?$)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)(?:\.(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?))*\.?"
)
MAX_SOCKET_PATH = 99
"""Bytes of the path of a Unix socket: 107 by unix(7), of which 8 are for the name under which it is made."""

DEFAULT_CONTROL_SOCKET = "/run/trio-wsb/control.sock"
"""Where the daemon answers its operator unless the configuration says something else."""

_SCHEMES = {
    "http": ("http", False, 80),
    "ws": ("http", False, 80),
    "https": ("https", True, 443),
    "wss": ("https", True, 443),
}


@lru_cache(maxsize=4096)
def parse_ip(text: str) -> IPAddress:
    """Return the address that `text` writes, an IPv4-mapped IPv6 address as its IPv4 address.

    A zone identifier (``fe80::1%eth0``) is dropped: it names an interface of this host, not the peer.

    Raises:
      ValueError: `text` is no IP address.

    """
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@lru_cache(maxsize=4096)
def _text_of(number: int, version: int) -> str:
    return str(IPv4Address(number) if version == 4 else IPv6Address(number))


def ip_text(address: IPAddress) -> str:
    """Return `address` as text, as `str` does in ten times the time."""
    if getattr(address, "scope_id", None):
        return str(address)
    return _text_of(int(address), address.version)


def format_host(host: str) -> str:
    """Return `host` as it stands in a URL or a Host field: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def is_host(text: str) -> bool:
    """Whether `text` can be a host: an IP address without brackets, or a host name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        # A name of digits and dots only would be a mistyped IPv4 address.
        return _HOST_NAME.fullmatch(text) is not None and not re.fullmatch(r"[\d.]+", text)
    return True


@frozen
class ListenAddress:
    """Where an entry point listens: ``host`` is "" for every address, of both families.

    With a ``path`` it is a Unix socket, which has neither host nor port.
    """

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{format_host(self.host)}:{self.port}"


def parse_listen(text: str) -> ListenAddress:
    """Return the address that `text` means: ``:80``, ``127.0.0.1:9000``, ``[::1]:9000``.

    Port 0 asks the system for a free port. Traefik's ``/tcp`` suffix is accepted.

    Raises:
      ValueError: `text` is no such address; the message says what would be right.

    """
    hint = 'write "HOST:PORT" or ":PORT", an IPv6 address in brackets'
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%a-z]*)\]|([^:\[\]]*)):(\d{1,9})(?:/tcp)?", text)
    if match is None:
        raise ValueError(f"is not an address to listen on; {hint}")
    bracketed, plain, digits = match.groups()
    host = plain if bracketed is None else bracketed
    if (host and not is_host(host)) or (bracketed is not None and ":" not in bracketed):
        raise ValueError(f"has a bad host; {hint}")
    if int(digits) > 65535:
        raise ValueError("has a port out of range; ports are 0 to 65535")
    return ListenAddress(host, int(digits))


def parse_entry_address(text: str) -> ListenAddress:
    """Return the address that `text` means: one as `parse_listen` reads it, or ``unix:/run/web.sock``.

    Raises:
      ValueError: `text` is no such address; the message says what would be right.

    """
    if not text.startswith("unix:"):
        return parse_listen(text)
    path = text.removeprefix("unix:").removeprefix("//")  # unix:///run/web.sock is how a URL has it
    if not path.startswith("/") or path.endswith("/") or not path.isprintable():
        raise ValueError('has no absolute path; write "unix:/run/trio-wsb/web.sock"')
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise ValueError(f"has a path that is too long; a Unix socket has at most {MAX_SOCKET_PATH} bytes")
    return ListenAddress("", 0, os.path.normpath(path))


@frozen
class BackendURL:
    """The URL of one server: scheme ``http`` or ``https`` (``ws`` and ``wss`` mean the same), host and port.

    `written` is the text that it was read from, "" if it was not; two URLs are equal whatever it is.
    """

    scheme: str
    host: str
    port: int
    written: str = field(default="", eq=False, repr=False)

    @property
    def tls(self) -> bool:
        """Whether connections to it use TLS."""
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """Host and port as a Host field has them: the scheme's default port is left out."""
        default = 443 if self.tls else 80
        return format_host(self.host) if self.port == default else f"{format_host(self.host)}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def parse_backend_url(text: str) -> BackendURL:
    """Return the server that `text` names: ``http://10.0.0.1:8080``, ``wss://backend.example``.

    Raises:
      ValueError: the scheme, host or port is wrong, or there is a path, a query, a fragment or user
        information, none of which a server URL may have; the message says what would be right.

    """
    hint = 'write "http://HOST:PORT" or "https://HOST:PORT"'
    if not text.isascii() or re.search(r"[\x00-\x20\x7f\\]", text):
        raise ValueError(f"has a character that no URL may have; {hint}")
    try:
        parts: SplitResult = urlsplit(text)
        port = parts.port
    except ValueError as error:
        wrong = (
            "has a port out of range; ports are 1 to 65535"
            if "ort" in str(error)
            else f"is not a URL; {hint}"
        )
        raise ValueError(wrong) from error
    if parts.scheme not in _SCHEMES or not text.partition(":")[2].startswith("//"):
        raise ValueError(f"has no scheme that is known here; {hint} (ws and wss are understood too)")
    if "@" in parts.netloc:
        raise ValueError(f"has a user name or password, which is not supported; {hint}")
    if parts.query or parts.fragment or parts.path not in {"", "/"}:
        raise ValueError(f"has a path, query or fragment, which a server URL may not have; {hint}")
    host = parts.hostname or ""
    if not is_host(host):
        raise ValueError(f"has a bad or no host; {hint}")
    if port == 0:
        raise ValueError("has a port out of range; ports are 1 to 65535")
    scheme, _, default_port = _SCHEMES[parts.scheme]
    return BackendURL(scheme, host, default_port if port is None else port, text)


def parse_network(text: str) -> IPNetwork:
    """Return the network that `text` names: an address or a CIDR range, host bits allowed.

    Raises:
      ValueError: `text` is neither; the message says what would be right.

    """
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError('is not an address or network; write "10.0.0.1" or "10.0.0.0/8"') from None
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        return IPv4Network((mapped, network.prefixlen - 96), strict=False)
    return network


@frozen
class NameServer:
    """A name server: an address and a port."""

    host: str
    port: int = 53

    def __str__(self) -> str:
        return self.host if self.port == 53 else f"{format_host(self.host)}:{self.port}"


def parse_name_server(text: str) -> NameServer:
    """Return the name server that `text` means: ``10.0.0.10``, ``10.0.0.10:5353``, ``::1``, ``[::1]:5353``.

    Raises:
      ValueError: `text` is no such address; the message says what would be right.

    """
    hint = 'write "10.0.0.10" or "10.0.0.10:53", an IPv6 address with a port in brackets'
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::(\d{1,9}))?", text)
    plain = re.fullmatch(r"([^:]*)(?::(\d{1,9}))?", text)
    match = bracketed or plain
    host, digits = (text, None) if match is None else match.groups()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"is not the address of a name server; {hint}") from None
    if digits is not None and not 1 <= int(digits) <= 65535:
        raise ValueError("has a port out of range; ports are 1 to 65535")
    return NameServer(str(address), 53 if digits is None else int(digits))


@frozen
class Networks:
    """A set of networks; `address in networks` asks whether one of them has the address."""

    networks: tuple[IPNetwork, ...] = ()

    def __contains__(self, address: IPAddress) -> bool:
        return any(address in network for network in self.networks if network.version == address.version)
