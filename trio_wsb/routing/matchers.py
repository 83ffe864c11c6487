"""The matchers of rules: what each one asks of a request, and which values it takes.

Each is made once, when a rule is parsed, and is then a closure: whatever can be worked out beforehand has been.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from attrs import frozen

from trio_wsb.addresses import Networks, is_host, parse_network
from trio_wsb.routing.regex import Regex, RegexError
from trio_wsb.routing.request import RequestView, normal_escapes, normal_host, normal_path

Predicate: TypeAlias = Callable[[RequestView], bool]

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
_SPECIAL: Final = re.compile(r"[.+*?^$()\[\]{}|\\]")
# Traefik v2 had these in hosts and paths, with or without an expression.
_V2_VARIABLE: Final = re.compile(r"\{[ ]*[A-Za-z_][\w-]*[ ]*(?::((?:[^{}]|\{[^{}]*\})*))?\}")


class BadValueError(ValueError):
    """A matcher cannot use one of its values.

    `argument` is the index of the value; `offset` the place in it, None for all of it.
    """

    def __init__(self, message: str, hint: str, *, argument: int = 0, offset: int | None = None) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint
        self.argument = argument
        self.offset = offset


@frozen
class Matcher:
    """A matcher of the language: its name, what its values are called, and what makes a predicate of them.

    `make` raises BadValueError. The last `optional` of the values may be left out.
    """

    name: str
    values: tuple[str, ...]
    make: Callable[..., Predicate]
    optional: int = 0

    @property
    def usage(self) -> str:
        """How it is written."""
        return f"{self.name}({', '.join(f'`{value}`' for value in self.values)})"


def _host(value: str) -> Predicate:
    """Host: a name in any case, ``*.`` and a name for exactly one label more, or ``*`` for any; the port is ignored."""
    hint = "write a host name without port, such as `example.com` or `*.example.com`"
    _refuse_variables("HostRegexp", value, "[^.]+")
    if value == "*":
        return lambda _: True
    host = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    wildcard = host.startswith("*.")
    name = host[2:] if wildcard else host
    if not is_host(name) or (wildcard and (":" in name or name.replace(".", "").isdigit())):
        raise BadValueError(f"has {value!r}, which is no host", hint)
    name = normal_host(name)
    if not wildcard:
        return lambda request: request.host == name
    suffix = "." + name
    length = len(suffix)
    return lambda request: (
        request.host.endswith(suffix) and len(request.host) > length and "." not in request.host[:-length]
    )


def _host_regexp(pattern: str) -> Predicate:
    """HostRegexp: a host, in lower case and without port, that has a match of this pattern."""
    if not pattern.isascii():
        raise BadValueError("has a character that no host has", "write a name in its xn-- form")
    if re.search(r"\{[A-Za-z_]\w*:", pattern):
        _refuse_variables("HostRegexp", pattern, "[^.]+")
    search = _regex(pattern)
    return lambda request: search(request.host)


def _path(value: str) -> Predicate:
    """Path: exactly this path."""
    path = _as_requested(value, "^{}$")
    return lambda request: request.path == path


def _path_prefix(value: str) -> Predicate:
    """PathPrefix: paths that begin with this text; ``/ws`` also takes ``/ws-foo``."""
    path = _as_requested(value, "^{}")
    return lambda request: request.path.startswith(path)


def _path_regexp(pattern: str) -> Predicate:
    """PathRegexp: paths that have a match of this pattern anywhere, unless it says ``^`` and ``$``."""
    search = _regex(pattern)
    return lambda request: search(request.path)


def _header(name: str, value: str) -> Predicate:
    """Header: a field of this name, in any case, has exactly this value."""
    lower = _field_name(name)
    # The bytes of UTF-8, one character each, as fields are held.
    wanted = value.encode("utf-8", "replace").decode("latin-1")
    return lambda request: wanted in request.field_values(lower)


def _header_regexp(name: str, pattern: str) -> Predicate:
    """HeaderRegexp: a field of this name, in any case, has a match of this pattern in its value."""
    lower = _field_name(name)
    search = _regex(pattern, 1)

    def matches(request: RequestView) -> bool:
        for value in request.field_values(lower):
            text = value if value.isascii() else value.encode("latin-1").decode("utf-8", "replace")
            if search(text):
                return True
        return False

    return matches


def _query(name: str, value: str = "") -> Predicate:
    """Query: a parameter of this name has exactly this value, or without one an empty value."""
    if "=" in name and not value:
        key, _, former = name.partition("=")
        if key and former:
            raise BadValueError(
                f"has {name!r}, which is the form of Traefik v2", f"in v3 it is Query(`{key}`, `{former}`)"
            )
    return lambda request: value in request.parameter(name)


def _query_regexp(name: str, pattern: str = "") -> Predicate:
    """QueryRegexp: a parameter of this name has a match of this pattern in its value; without one as Query."""
    if not pattern:
        return _query(name)
    search = _regex(pattern, 1)

    def matches(request: RequestView) -> bool:
        for value in request.parameter(name):  # noqa: SIM110 - any() with a generator takes three times as long
            if search(value):
                return True
        return False

    return matches


def _method(value: str) -> Predicate:
    """Take requests with this method. A rule may write it in any case; a request's case counts (RFC 9110 section 9.1)."""
    if _TOKEN.fullmatch(value) is None:
        raise BadValueError(f"has {value!r}, which is no method", "write a method such as GET")
    method = value.upper()
    return lambda request: request.method == method


def _client_ip(value: str) -> Predicate:
    """ClientIP: the peer's address is this one, or in this network; never that of a peer without address."""
    try:
        networks = Networks((parse_network(value),))
    except ValueError as error:
        message, _, hint = str(error).partition("; ")
        raise BadValueError(f"has {value!r}, which {message}", hint) from None
    return lambda request: request.client is not None and request.client in networks


MATCHERS: Final[Mapping[str, Matcher]] = {
    matcher.name: matcher
    for matcher in (
        Matcher("Host", ("...",), _host),
        Matcher("HostRegexp", ("...",), _host_regexp),
        Matcher("Path", ("...",), _path),
        Matcher("PathPrefix", ("...",), _path_prefix),
        Matcher("PathRegexp", ("...",), _path_regexp),
        Matcher("Header", ("NAME", "VALUE"), _header),
        Matcher("HeaderRegexp", ("NAME", "PATTERN"), _header_regexp),
        Matcher("Query", ("NAME", "VALUE"), _query, optional=1),
        Matcher("QueryRegexp", ("NAME", "PATTERN"), _query_regexp, optional=1),
        Matcher("Method", ("...",), _method),
        Matcher("ClientIP", ("...",), _client_ip),
    )
}
"""All matchers, by name."""


def _regex(pattern: str, argument: int = 0) -> Callable[[str], bool]:
    try:
        return Regex(pattern).search
    except RegexError as error:
        raise BadValueError(
            f"has a bad regular expression: {error.message}",
            error.hint,
            argument=argument,
            offset=error.position,
        ) from None


def _field_name(name: str) -> str:
    if _TOKEN.fullmatch(name) is None:
        raise BadValueError(
            f"has {name!r}, which is no name of a header field", "write a name such as Origin"
        )
    lower = name.lower()
    if lower == "host":
        raise BadValueError("does not see the Host field", "write Host(`...`) or HostRegexp(`...`)")
    return lower


def _as_requested(value: str, anchored: str) -> str:
    """Return the path of a rule in the form in which requests are compared."""
    if not value.startswith("/"):
        raise BadValueError(f"has {value!r}, which is no path", "a path begins with /")
    if "?" in value or "#" in value:
        raise BadValueError(f"has {value!r}, which is more than a path", "leave the query out")
    _refuse_variables("PathRegexp", value, "[^/]+", anchored, "; the braces themselves are %7B and %7D")
    path = normal_escapes(value.encode("utf-8", "replace").decode("utf-8"))
    # The last segment may be the beginning of a longer one, and then dots are what they are.
    settled = path[: path.rfind("/") + 1] if anchored == "^{}" else path
    if normal_path(settled) != settled:
        raise BadValueError(
            f"has {value!r}, which no request matches",
            f"repeated slashes and dot segments are taken out of requests first; write {normal_path(path)}",
        )
    return path


def _refuse_variables(regexp: str, value: str, default: str, anchored: str = "^{}$", more: str = "") -> None:
    """Raise BadValueError if there is a ``{name:regex}`` or ``{name}`` of Traefik v2 in `value`."""
    pieces: list[str] = []
    at = 0
    variables = list(_V2_VARIABLE.finditer(value))
    if not variables:
        return
    for variable in variables:
        pieces += (_SPECIAL.sub(r"\\\g<0>", value[at : variable.start()]), variable[1] or default)
        at = variable.end()
    pieces.append(_SPECIAL.sub(r"\\\g<0>", value[at:]))
    pattern = anchored.replace("{}", "".join(pieces))
    raise BadValueError(
        "has a variable in braces, as in Traefik v2",
        f"in v3 it is {regexp}(`{pattern}`){more}",
        offset=variables[0].start(),
    )
