"""What must hold between middlewares, and between them and the routers that name them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import attrs

from trio_wsb.config.middlewares import Middleware
from trio_wsb.config.model import Config
from trio_wsb.config.options import key_of
from trio_wsb.config.problems import Finding, KeyPath, alternatives, nearest
from trio_wsb.config.scalars import show

_FEW = 20


def middleware_findings(config: Config, known: Collection[str]) -> Iterator[Finding]:
    """Yield what is wrong with the middlewares of `config`; references may lead to any of `known`."""
    defined = config.http.middlewares
    for name, middleware in defined.items():
        path: KeyPath = ("http", "middlewares", name)
        yield from _one_kind(middleware, path)
        for kind, options in middleware.kinds():
            yield from _options(options, (*path, kind))
        if middleware.chain is not None:
            chain = (*path, "chain", "middlewares")
            yield from _references(middleware.chain.middlewares, known, chain)
            circle = _circle(name, defined)
            if circle:
                message = f"leads back to itself: {' -> '.join(circle)}"
                yield Finding(chain, message, "take one of them out of its chain", code="cycle")
    for name, router in config.http.routers.items():
        yield from _references(router.middlewares, known, ("http", "routers", name, "middlewares"))
    for name, entry in config.entry_points.items():
        path = ("entryPoints", name, "http", "middlewares")
        yield from _references(entry.http.middlewares, known, path)


def _one_kind(middleware: Middleware, path: KeyPath) -> Iterator[Finding]:
    kinds = [kind for kind, _ in middleware.kinds()]
    if not kinds:
        known = [key_of(attribute) for attribute in attrs.fields(Middleware)]
        yield Finding(path, "has no kind", f"write one of {alternatives(known)}", at="key", code="empty")
    elif len(kinds) > 1:
        message = f"has {len(kinds)} kinds: {', '.join(kinds)}"
        hint = "give each a name of its own, and a chain if they belong together"
        yield Finding(path, message, hint, code="value", at="key")


def _options(options: Any, path: KeyPath) -> Iterator[Finding]:
    """Yield what the options themselves say is wrong between them, at the keys that the user wrote."""
    problems = getattr(options, "problems", None)
    if problems is None:
        return
    for problem in problems():
        here, value = path, options
        for step in problem.path:
            field = None if isinstance(step, int) or not attrs.has(type(value)) else step
            if field is not None:
                here = (*here, key_of(getattr(attrs.fields(type(value)), field)))
                value = getattr(value, field)
            else:
                here = (*here, step)
                value = value[step] if isinstance(value, (Mapping, tuple)) else None
        code = "value" if problem.severity == "error" else "effect"
        yield Finding(here, problem.message, problem.hint, problem.severity, code)


def _references(names: Collection[str], known: Collection[str], path: KeyPath) -> Iterator[Finding]:
    for index, name in enumerate(names):
        if name in known:
            continue
        near = nearest(name, known) if len(known) <= _FEW else None
        hint = "define it under http.middlewares" if near is None else f'did you mean "{near}"?'
        yield Finding((*path, index), f"no middleware {show(name)} is defined", hint, "warning", "reference")


def _circle(start: str, defined: Mapping[str, Middleware]) -> list[str]:
    """Return the way from the chain `start` back to it, or nothing. Visits each middleware once."""
    ways = [[start]]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        middleware = defined.get(way[-1])
        for name in () if middleware is None or middleware.chain is None else middleware.chain.middlewares:
            if name == start:
                return [*way, start]
            if name not in seen:
                seen.add(name)
                ways.append([*way, name])
    return []
