"""Bounds that a single value must keep, as the model states them beside each field.

See `Bound`; those that middlewares have too are in `trio_wsb.middleware.options`.
"""

from __future__ import annotations

import os
import re

from trio_wsb.addresses import MAX_SOCKET_PATH
from trio_wsb.middleware.options import MANY, Bound, between
from trio_wsb.units import format_duration

_PATH = re.compile(r"/[!-~]*")
_SHORTEST_PERIOD = 0.01
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_COOKIE_PATH = re.compile(r"/[!-:<-~]*")
_FIELD_VALUE = re.compile(r"[\t -~]*")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(?::[0-9]{1,5})?")


AT_LEAST_0 = Bound(
    "0 or more", lambda value: 0 <= value <= MANY, "is out of range", "write 0 or more, at most a billion"
)
"""For limits where 0 means none; the upper bound only catches a slip of the keyboard."""

STATUS = between(100, 599)
"""An HTTP status code (RFC 9110 section 15)."""

STATUS_OR_0 = Bound(
    "0 or 100 to 599",
    lambda value: value == 0 or 100 <= value <= 599,
    "is no HTTP status",
    "write 100 to 599, or leave it out",
)
"""An HTTP status code where 0 stands for the usual ones."""

TOKEN = Bound(
    "a token",
    lambda value: _TOKEN.fullmatch(value) is not None,
    "is not a name that HTTP can carry",
    "write letters, digits, _ and -",
)
"""A token of RFC 9110 section 5.6.2, such as a cookie's name."""

COOKIE_PATH = Bound(
    'begins with "/"',
    lambda value: _COOKIE_PATH.fullmatch(value) is not None,
    'is not a path that begins with "/" and has neither spaces nor ";"',
    'write a path such as "/"',
)
"""The Path attribute of a cookie (RFC 6265 section 4.1.1)."""

METHOD = Bound(
    "an HTTP method",
    lambda value: _TOKEN.fullmatch(value) is not None and value == value.upper() and value != "CONNECT",
    "is not a method that can be sent",
    "write GET or HEAD",
)
"""The method of a request of ours; methods are case-sensitive (RFC 9110 section 9.1)."""

HOST = Bound(
    "a host, perhaps with a port",
    lambda value: _HOST.fullmatch(value) is not None,
    "is not a host name",
    'write a name such as "backend.internal"',
)
"""What a Host field may have (RFC 9112 section 3.2)."""

FIELDS = Bound(
    "names and values of header fields",
    lambda fields: all(
        _TOKEN.fullmatch(name) and _FIELD_VALUE.fullmatch(value) for name, value in fields.items()
    ),
    "has a name or a value that no header field can have",
    'write NAME: "value", without line breaks',
)
"""Header fields that we send (RFC 9110 section 5)."""


PERIOD = Bound(
    f"at least {format_duration(_SHORTEST_PERIOD)}",
    lambda value: value >= _SHORTEST_PERIOD,
    f"is shorter than {format_duration(_SHORTEST_PERIOD)}",
    'it is the pause between two rounds: write a duration such as "30s"',
)
"""The time between two rounds of background work; 0 would mean without a pause."""

DEADLINE = Bound(
    "more than 0",
    lambda value: value > 0,
    "is not longer than 0",
    'write a duration such as "10s"; it ends no session',
)
"""A deadline that cannot be switched off."""

URL_PATH = Bound(
    'begins with "/"',
    lambda value: _PATH.fullmatch(value) is not None and "#" not in value,
    'is not a path that begins with "/" and has neither spaces nor "#"',
    'write a path such as "/metric"',
)
"""The path, and perhaps the query, of a URL (RFC 9110 section 4.2)."""

PAGE_PATH = Bound(
    'begins with "/", no query',
    lambda value: URL_PATH.holds(value) and "?" not in value,
    'is not a path that begins with "/" and has neither spaces nor "?" nor "#"',
    'write a path such as "/balancer-metrics"',
)
"""The path of a page of ours, which answers whatever the query is."""

NOT_EMPTY = Bound("not empty", lambda value: value.strip() != "", "is empty", "write a name")

SOCKET_MODE = Bound(
    'octal digits in quotes, such as "0660"',
    lambda value: re.fullmatch(r"0?[0-7]{3}", value) is not None,
    "is no file mode",
    'write it as chmod does, in quotes: "0660"',
)
"""The permissions of a Unix socket: chmod(1)."""

REDIRECT_TARGET = Bound(
    "an entry point or `:PORT`",
    lambda value: (
        value.strip() != ""
        and (
            not value.startswith(":")
            or (value[1:].isdigit() and value.isascii() and 1 <= int(value[1:6]) <= 65535 and len(value) <= 6)
        )
    ),
    "is neither an entry point nor a port",
    'write the name of an entry point, or a port such as ":443"',
)
"""Where a redirection leads."""

FILE_PATH = Bound(
    "a path",
    lambda value: value != "" and value.isprintable(),
    "is not a file name",
    'write a path such as "/etc/trio-wsb/ca.pem"',
)

SOCKET_PATH = Bound(
    "an absolute path of at most 99 bytes",
    lambda value: (
        value.startswith("/") and value.isprintable() and len(os.fsencode(value)) <= MAX_SOCKET_PATH
    ),
    "is not an absolute path of at most 99 bytes",
    'write a path such as "/run/trio-wsb/control.sock"',
)
"""The path of a Unix socket."""
