"""The cookies that keep a client where it is: finding ours in a request, and setting it (RFC 6265)."""

from __future__ import annotations

import re
from typing import Literal

from attrs import frozen

from trio_wsb.http.headers import Field, Headers

SameSite = Literal["none", "lax", "strict"]

_VALUE = re.compile(r"[!#-+\--:<-\[\]-~]*")


@frozen
class StickyCookie:
    """A cookie of ours, but for its value. `max_age` is seconds: 0 is until the browser closes, -1 removes it."""

    name: str
    path: str = "/"
    domain: str | None = None
    max_age: int = 0
    http_only: bool = False
    secure: bool = False
    same_site: SameSite | None = None

    def find(self, headers: Headers) -> str | None:
        """Return the value that a client sends, "" too, or None when it sends no such cookie.

        Of several the first counts (RFC 6265 section 5.4: the one with the longest path).
        """
        for line in headers.get_all("cookie"):
            for pair in line.split(";"):
                name, equals, value = pair.strip(" \t").partition("=")
                if equals and name == self.name:
                    return value.strip('"')
        return None

    def field(self, value: str) -> Field:
        """Return the field that sets it to `value`, with the attributes in the order in which Traefik has them."""
        assert _VALUE.fullmatch(value), "no cookie can have this value"
        parts = [f"{self.name}={value}", f"Path={self.path}"]
        if self.domain is not None:
            parts.append(f"Domain={self.domain}")
        if self.max_age:
            parts.append(f"Max-Age={max(0, self.max_age)}")
        if self.http_only:
            parts.append("HttpOnly")
        if self.secure:
            parts.append("Secure")
        if self.same_site is not None:
            parts.append(f"SameSite={self.same_site.capitalize()}")
        return "Set-Cookie", "; ".join(parts)
