"""stripPrefix, stripPrefixRegex, addPrefix, replacePath, replacePathRegex: another path for the backend.

Prefixes are compared with the decoded path, as rules compare paths, and taken off the path as it was sent: what remains
keeps its escapes. ``/foo%2Fbar`` stripped of ``/foo`` is ``/bar``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

from attrs import frozen

from trio_wsb.middleware.exchange import Answer, Request, edited
from trio_wsb.middleware.options import NOT_EMPTY, Bound, OptionProblem, option
from trio_wsb.middleware.redirect import group_problems
from trio_wsb.middleware.rewrite import Rewrite, first_match
from trio_wsb.routing.regex import Regex

_UNIT: Final = re.compile(r"%([0-9A-Fa-f]{2})|.", re.DOTALL)
_PATH_CHARACTERS: Final = "/!$&'()*+,;=:@%-._~"  # RFC 3986 section 3.3, beside letters and digits

PATH: Final = Bound(
    'begins with "/"',
    lambda value: value.startswith("/"),
    'does not begin with "/"',
    'write a path such as "/api"',
)


@frozen
class StripPrefixOptions:
    """Take a prefix off the path; the backend finds it in X-Forwarded-Prefix."""

    prefixes: tuple[str, ...] = option("Prefixes; the first that fits is taken off.", check=NOT_EMPTY)
    force_slash: bool = option("The path begins with exactly one slash afterwards.", default=True)

    def problems(self) -> Iterator[OptionProblem]:
        """Yield what is wrong with the prefixes."""
        for index, prefix in enumerate(self.prefixes):
            if not prefix.startswith("/"):
                yield OptionProblem(("prefixes", index), PATH.wrong, PATH.hint)


@frozen
class StripPrefixRegexOptions:
    """Take off the prefix that a pattern finds; the backend finds it in X-Forwarded-Prefix."""

    regex: tuple[Regex, ...] = option(
        "Patterns (RE2); the first whose match is a prefix of the path counts.", check=NOT_EMPTY
    )


@frozen
class AddPrefixOptions:
    """Put a prefix before the path."""

    prefix: str = option("The prefix, such as `/api`.", check=PATH)


@frozen
class ReplacePathOptions:
    """Replace the whole path; the backend finds the client's in X-Replaced-Path."""

    path: str = option("The new path; the query stays the client's.", check=PATH)


@frozen
class ReplacePathRegexOptions:
    """Replace what a pattern finds in the path; the backend finds the client's in X-Replaced-Path."""

    regex: Regex = option("Pattern (RE2) for the path as it was sent, escapes and all.")
    replacement: str = option("What matches become; `${1}` is the first group.", check=NOT_EMPTY)

    def problems(self) -> Iterator[OptionProblem]:
        """Yield what is wrong between the options."""
        yield from group_problems(self.regex, self.replacement)


class StripPrefix:
    """Takes the first prefix off that fits."""

    def __init__(self, options: StripPrefixOptions) -> None:
        self._prefixes = options.prefixes
        self._force_slash = options.force_slash

    def on_request(self, request: Request) -> Request:
        """Return the request without its prefix."""
        for prefix in self._prefixes:
            rest = _rest_after(request.head.path, prefix)
            if rest is not None:
                if self._force_slash:
                    rest = "/" + rest.lstrip("/")
                return _stripped(request, prefix.strip(), rest)
        return request


class StripPrefixRegex:
    """Takes a prefix off that a pattern finds."""

    def __init__(self, options: StripPrefixRegexOptions) -> None:
        self._patterns = options.regex

    def on_request(self, request: Request) -> Request:
        """Return the request without its prefix."""
        path = request.head.path
        octets = "".join(text for _, text in _units(path)).encode("latin-1")
        decoded = octets.decode("utf-8", "replace")
        for pattern in self._patterns:
            prefix = first_match(pattern, decoded)
            if prefix and decoded.startswith(prefix):
                rest = _rest_after(path, prefix)
                if rest is not None:
                    return _stripped(request, prefix, rest)
        return request


class AddPrefix:
    """Puts a prefix before the path."""

    def __init__(self, options: AddPrefixOptions) -> None:
        self._prefix = _escaped(options.prefix)

    def on_request(self, request: Request) -> Request:
        """Return the request with its prefix."""
        path = request.head.path
        if not path.startswith("/"):
            return request  # OPTIONS *
        return request.with_path(self._prefix + path)


class ReplacePath:
    """Replaces the path."""

    def __init__(self, options: ReplacePathOptions) -> None:
        self._path = _escaped(options.path)

    def on_request(self, request: Request) -> Request:
        """Return the request with the new path."""
        return _replaced(request, self._path)


class ReplacePathRegex:
    """Replaces what a pattern finds in the path."""

    def __init__(self, options: ReplacePathRegexOptions) -> None:
        self._rewrite = Rewrite(options.regex, options.replacement)

    def on_request(self, request: Request) -> Request | Answer:
        """Return the request with the new path, or the answer when there is none that could be sent."""
        path = request.head.path
        if not self._rewrite.matches(path):
            return request
        try:
            new = self._rewrite.apply(path)
        except ValueError:
            return Answer(500, "the replaced path is too long")
        return _replaced(request, _with_slash(_escaped(new)))


def _stripped(request: Request, prefix: str, rest: str) -> Request:
    request = request.with_headers(edited(request.headers, (), [("X-Forwarded-Prefix", _escaped(prefix))]))
    return request.with_path(_with_slash(rest))


def _replaced(request: Request, path: str) -> Request:
    added = [("X-Replaced-Path", request.head.path)]
    return request.with_headers(edited(request.headers, {"x-replaced-path"}, added)).with_path(path)


def _rest_after(path: str, prefix: str) -> str | None:
    """Return what follows in `path`, as sent, after what decodes to `prefix`; None if it begins with something else."""
    if path.startswith(prefix):
        rest = path[len(prefix) :]
    else:
        at = 0
        left = prefix.encode("utf-8").decode("latin-1")
        for raw, text in _units(path):
            if not left:
                break
            if not left.startswith(text):
                return None
            left = left[len(text) :]
            at += len(raw)
        if left:
            return None
        rest = path[at:]
    # What the prefix ended at was a slash to whoever compares decoded paths.
    return "/" + rest[3:] if rest[:3].upper() == "%2F" else rest


def _units(path: str) -> Iterator[tuple[str, str]]:
    """Yield the characters and escapes of `path`, each as sent and decoded, a byte a time."""
    for match in _UNIT.finditer(path):
        yield match[0], chr(int(match[1], 16)) if match[1] else match[0]


def _escaped(path: str) -> str:
    """Return `path` with every character escaped that a path cannot have; escapes that are there stay."""
    return quote(path, safe=_PATH_CHARACTERS)


def _with_slash(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"
