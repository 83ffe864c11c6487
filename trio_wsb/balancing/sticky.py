"""What a sticky cookie says: Traefik's names and values, so that clients stay where they are when they change proxies."""

from __future__ import annotations

from hashlib import sha1, sha256
from typing import Final

from attrs import frozen

from trio_wsb.balancing.backend import Backend

_VALUE_DIGITS: Final = 16
_NAME_DIGITS: Final = 5


def sticky_value(name: str) -> str:
    """Return the value that stands for a server, whose URL `name` is as it was configured, or for a service."""
    return sha256(name.encode()).hexdigest()[:_VALUE_DIGITS]


def default_cookie_name(service: str) -> str:
    """Return the name that Traefik gives the cookie of a service of its file provider when none is configured."""
    digest = sha1(f"_TRAEFIK_BACKEND_{service}@file".encode(), usedforsecurity=False).hexdigest()
    return f"_{digest[:_NAME_DIGITS]}"


@frozen
class Affinity:
    """Where a client's cookie leads.

    `backend` is None when the client needs another one; `lasting` says that the cookie stays as it is all the same,
    because what keeps the client away will pass: the backend is full.
    """

    backend: Backend | None
    lasting: bool
