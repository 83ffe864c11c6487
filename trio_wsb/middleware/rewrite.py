"""Replacement by a regular expression, in the syntax that Go's regexp, and so Traefik, has for it.

In a replacement, ``$1`` and ``${1}`` stand for a group by its number, ``$name`` and ``${name}`` by its name, ``$$``
for a dollar sign. A name without braces is as long as it can be: ``$1x`` is the group ``1x``, which is hardly ever
there and then empty. A dollar sign that begins none of these stands for itself.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any, Final

import re2  # type: ignore[import-untyped]  # it brings no types; only groups and their places are taken from it

from trio_wsb.routing.regex import Regex

MAX_RESULT: Final = 8192
"""Characters of a result: a replacement with many groups could make a long text enormous."""

_REFERENCE: Final = re.compile(r"\$(?:(\$)|([0-9A-Za-z_]+)|\{([0-9A-Za-z_]+)\})")

_OPTIONS: Final = re2.Options()
_OPTIONS.log_errors = False


class Rewrite:
    """A pattern and what its matches become; immutable.

    `pattern` was checked and is bounded as every `Regex` is.
    """

    def __init__(self, pattern: Regex, replacement: str) -> None:
        self._pattern = pattern
        self._parts = _parse(replacement)

    @cached_property
    def _regex(self) -> Any:
        # A program of its own, since the one of `Regex` captures nothing, which is why it is quicker.
        return re2.compile(self._pattern.pattern, _OPTIONS)

    def matches(self, text: str) -> bool:
        """Whether `text` has a match anywhere."""
        return self._pattern.search(text)

    def apply(self, text: str) -> str:
        """Return `text` with every match replaced.

        Raises:
          ValueError: the result would be longer than `MAX_RESULT`.

        """
        result: list[str] = []
        length = at = 0
        for number, match in enumerate(self._regex.finditer(text)):
            if number and match.start() == match.end() == at:
                continue  # as in Go, nothing is no match right after something that was one
            pieces = (text[at : match.start()], self._expand(match))
            at = match.end()
            result += pieces
            length += sum(map(len, pieces))
            if length > MAX_RESULT:
                break
        result.append(text[at:])
        if length + len(result[-1]) > MAX_RESULT:
            raise ValueError(f"a replacement longer than {MAX_RESULT} characters")
        return "".join(result)

    @property
    def unknown(self) -> tuple[str, ...]:
        """The groups that the replacement names and the pattern does not have."""
        regex = self._regex
        return tuple(name for name, is_group in self._parts if is_group and _index(regex, name) is None)

    def _expand(self, match: Any) -> str:
        return "".join(self._group(match, text) if is_group else text for text, is_group in self._parts)

    def _group(self, match: Any, name: str) -> str:
        index = _index(self._regex, name)
        return "" if index is None else match.group(index) or ""


def first_match(pattern: Regex, text: str) -> str | None:
    """Return the first match of `pattern` in `text`."""
    match = re2.search(pattern.pattern, text, _OPTIONS)
    found: str | None = None if match is None else match.group(0)
    return found


def _index(regex: Any, name: str) -> int | None:
    if name.isdigit():
        index = int(name)
        return index if index <= regex.groups else None
    found: int | None = regex.groupindex.get(name)
    return found


def _parse(replacement: str) -> list[tuple[str, bool]]:
    """Return the parts of a replacement: text, or the name of a group and True."""
    parts: list[tuple[str, bool]] = []
    at = 0
    for match in _REFERENCE.finditer(replacement):
        parts.append((replacement[at : match.start()], False))
        dollar, plain, braced = match.groups()
        parts.append(("$", False) if dollar else (plain or braced, True))
        at = match.end()
    parts.append((replacement[at:], False))
    return [part for part in parts if part[0]]
