"""What of a request may stand in a log: credentials, query values and whatever could forge a line are taken out.

A log is read by more people than the traffic, kept for longer, and sent elsewhere. So values are redacted unless the
operator has named them: those of the fields that carry credentials, and every value in a query, for browsers that cannot
send a header field with a handshake put their tokens there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from attrs import frozen

from trio_wsb.config.accesslog import SECRET_HEADERS, AccessLogHeaders, AccessLogQuery, ValueMode
from trio_wsb.http.headers import Field
from trio_wsb.middleware.exchange import canonical

REDACTED: Final = "REDACTED"

MAX_VALUE: Final = 4096
"""Characters of one value that are logged: a stranger must not fill a disk with a few requests."""

MAX_KNOWN: Final = 512
"""Names of fields whose treatment is remembered; a stranger can think of any number."""

CUT: Final = "..."
"""What stands behind a value that was cut."""

URL_HEADERS: Final = frozenset(
    {
        "referer", "location", "content-location", "x-forwarded-uri", "x-original-uri", "x-original-url",
        "x-replaced-path", "x-rewrite-url",
    }
)  # fmt: skip
"""Header fields, in lower case, whose values are URLs: their queries are as secret as that of the request."""

# Browsers take a backslash for a slash in a URL.
_USER = re.compile(r"\A([a-z][a-z0-9+.-]*:[/\\]*|[/\\]{2,})[^/\\]*@", re.IGNORECASE)
_NOT_IN_A_PATH = re.compile(r"[^!#-;=?-\[\]_a-z~]")


def path_text(path: str, query: str | None, rules: QueryRules) -> str:
    """Return a path with its query as it may be logged.

    Args:
      path: as it was sent.
      query: as it was sent; None where there is no ``?``.
      rules: what is done with the values.

    """
    text = path if query is None else path + rules.apply(query)
    return cut(_NOT_IN_A_PATH.sub(_escaped, text))


def _escaped(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))


def cut(text: str) -> str:
    """Return `text`, or what may be logged of it where it is longer than `MAX_VALUE`."""
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + CUT


class QueryRules:
    """What is done with the values of a query."""

    def __init__(self, options: AccessLogQuery) -> None:
        self._default = options.default_mode
        self._names = dict(options.names)

    def apply(self, query: str) -> str:
        """Return `query` as it may be logged, with its ``?``; "" when nothing is left of it.

        A part without ``=``, or with nothing behind it but the padding of Base64, is a value without a name: tokens are
        sent like that too. So is what stands before a ``;``, which separates parameters for some servers.
        """
        if self._default == "keep" and not self._names:
            return f"?{query}"
        parts = []
        for part in query.split("&"):
            name, _, value = part.partition("=")
            mode = self._names.get(name, self._default)
            if mode == "keep" or not part:
                parts.append(part)
            elif mode == "redact":
                parts.append(f"{name}={REDACTED}" if value.strip("=") and ";" not in name else REDACTED)
        kept = "&".join(parts)
        return f"?{kept}" if kept else ""

    def url(self, text: str) -> str:
        """Return a URL, which a stranger may have written, as it may be logged: without user, password and fragment too."""
        before, mark, rest = text.partition("?")
        query, _, _ = rest.partition("#")
        before, _, _ = before.partition("#")
        if "@" in before:
            before = _USER.sub(r"\1", before)
        return before + (self.apply(query) if mark else "")


class HeaderRules:
    """What is done with header fields."""

    def __init__(self, options: AccessLogHeaders, query: QueryRules) -> None:
        names: Mapping[str, ValueMode] = {name.lower(): mode for name, mode in options.names.items()}
        self._names = names
        self._default = options.default_mode
        self._query = query
        self._known: dict[str, _Rule] = {}
        self.drops_all = self._default == "drop" and not any(mode != "drop" for mode in names.values())
        """Whether no field is ever logged."""

    def mode(self, lower: str) -> ValueMode:
        """Return what is done with the fields of that name, in lower case."""
        mode = self._names.get(lower)
        if mode is not None:
            return mode
        if self._default == "keep" and lower in SECRET_HEADERS:
            return "redact"
        return self._default

    def value(self, lower: str, values: Iterable[str]) -> str | None:
        """Return what is logged of the fields of one name; None for nothing."""
        mode = self.mode(lower)
        if mode == "drop":
            return None
        if mode == "redact":
            return REDACTED
        if lower in URL_HEADERS:
            values = map(self._query.url, values)
        return cut(",".join(values))

    def apply(self, prefix: str, fields: Iterable[Field]) -> dict[str, str]:
        """Return what is logged of `fields` by the name that it has in a line, `prefix` first.

        Fields of one name are joined; Host is not among them, since it has a field of its own.
        """
        found: dict[str, str] = {}
        known = self._known
        for name, value in fields:
            rule = known.get(name) or self._learn(name)
            if rule.mode == "drop":
                continue
            key = prefix + rule.shown
            if rule.mode == "redact":
                found[key] = REDACTED
                continue
            text = self._query.url(value) if rule.is_url else value
            if key in found:
                text = f"{found[key]},{text}"
            found[key] = text if len(text) <= MAX_VALUE else cut(text)
        return found

    def _learn(self, name: str) -> _Rule:
        """Return what is done with the fields of a name, and remember it: they are mostly the same ones."""
        lower = name.lower()
        mode: ValueMode = "drop" if lower == "host" else self.mode(lower)
        rule = _Rule(cut(canonical(lower)), mode, lower in URL_HEADERS)
        if len(self._known) < MAX_KNOWN:
            self._known[name] = rule
        return rule


@frozen
class _Rule:
    """What is done with the fields of one name, and the name that they have in a line."""

    shown: str
    mode: ValueMode
    is_url: bool
