"""The field section of a message: ordered, with the case in which it came (RFC 9110 section 5).

Text is latin-1 throughout, which maps every byte to one character and back, so that a field passes
through unchanged whatever its encoding was.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from typing import Final

Field = tuple[str, str]
"""Name and value of one field line."""

_SHORT: Final = 64
"""Characters of a list whose members are remembered: that of Connection and Upgrade is nearly always one of a few."""


class Headers:
    """The fields of one message, in order.

    Look-ups take the name in lower case. The fields handed in are taken as they are: the parser has checked
    them, and `serialise` refuses what could split a message.
    """

    __slots__ = ("_fields", "_first", "_repeated")

    def __init__(self, fields: list[Field] | None = None) -> None:
        self._fields: list[Field] = [] if fields is None else fields
        self._repeated: dict[str, list[str]] | None = None
        """All values of the names that come more than once; None in nearly every message."""
        self._first = {name.lower(): value for name, value in self._fields}
        if len(self._first) != len(self._fields):
            self._find_repeated()

    def _find_repeated(self) -> None:
        values: dict[str, list[str]] = {}
        for name, value in self._fields:
            values.setdefault(name.lower(), []).append(value)
        self._first = {lower: found[0] for lower, found in values.items()}
        self._repeated = {lower: found for lower, found in values.items() if len(found) > 1}

    def get(self, lower: str) -> str | None:
        """Return the value of the first field of that name, or None."""
        return self._first.get(lower)

    def get_all(self, lower: str) -> list[str]:
        """Return the values of every field of that name, in order."""
        if self._repeated is not None and lower in self._repeated:
            return list(self._repeated[lower])
        value = self._first.get(lower)
        return [] if value is None else [value]

    def tokens(self, lower: str) -> list[str]:
        """Return the members of a list-based field, in lower case, over all its lines (RFC 9110 section 5.6.1).

        Empty members are dropped, as the RFC asks. Quoted strings are not understood: this is for lists of tokens such
        as Connection and Upgrade.
        """
        text = self._first.get(lower)
        if text is None:
            return []
        if self._repeated is not None and lower in self._repeated:
            text = ",".join(self._repeated[lower])
        return list(_remembered_members(text)) if len(text) <= _SHORT else _members(text)

    def add(self, name: str, value: str) -> None:
        """Append a field."""
        self._fields.append((name, value))
        if name.lower() in self._first:
            self._find_repeated()
        else:
            self._first[name.lower()] = value

    def without(self, names: Collection[str]) -> Headers:
        """Return a copy without the fields of these names (in lower case)."""
        return Headers([field for field in self._fields if field[0].lower() not in names])

    def serialise(self) -> bytes:
        r"""Return ``name: value\r\n`` for every field, without the empty line that ends the section.

        Raises:
          ValueError: a name or value has CR, LF or NUL, or is no latin-1 text.

        """
        return serialise_fields(self._fields)

    def __contains__(self, lower: object) -> bool:
        return lower in self._first

    def __iter__(self) -> Iterator[Field]:
        return iter(self._fields)

    def named(self) -> Iterable[tuple[str, Field]]:
        """Return each field behind its name in lower case, in order."""
        if self._repeated is None:
            return zip(self._first, self._fields, strict=True)
        return [(field[0].lower(), field) for field in self._fields]

    def __len__(self) -> int:
        return len(self._fields)

    def __eq__(self, other: object) -> bool:
        return self._fields == other._fields if isinstance(other, Headers) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it is mutable, and object's own would be by identity

    def __repr__(self) -> str:
        # Names alone: values may be secrets, and a repr ends up in logs.
        return f"<Headers {', '.join(name for name, _ in self._fields)}>"


def _members(text: str) -> list[str]:
    return [token for member in text.lower().split(",") if (token := member.strip(" \t"))]


@lru_cache(maxsize=256)
def _remembered_members(text: str) -> tuple[str, ...]:
    return tuple(_members(text))


def serialise_fields(fields: Iterable[Field], start_line: str | None = None) -> bytes:
    """Return `start_line`, if given, and a line for every field, each ended by CRLF.

    The last line of defence against response and request splitting: whatever the fields went through on their
    way, they leave as exactly as many lines as they are.

    Raises:
      ValueError: a line has CR, LF or NUL, or is no latin-1 text (`UnicodeEncodeError` is a `ValueError`).

    """
    lines = [*map(": ".join, fields)]
    if start_line is not None:
        lines.insert(0, start_line)
    lines.append("")
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1 or "\0" in text:
        raise ValueError("a header field or start line has CR, LF or NUL in it")
    return text.encode("latin-1")
