"""Names across providers: ``chat@file`` is the ``chat`` of the files, ``chat@docker`` that of another provider.

A name without a provider means one of the same provider, as in Traefik. The main file and the files of `providers.file` share
one provider, `FILE`, and within this program its names stand as they were written, without ``@file``; those of any other
provider stand with it. Which fields of the model are such names is said by `refers` in their metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from types import NoneType
from typing import Any, Final, TypeVar, get_args, get_origin

import attrs
from attrs import frozen

FILE: Final = "file"
"""The provider of the main file and of all dynamic files."""

INTERNAL: Final = "internal"
"""The provider of what the balancer has by itself, such as ``ping@internal``."""

_EVERYWHERE: Final = frozenset({("tls.options", "default"), ("tls.stores", "default")})
"""Names that mean the same in each provider."""

_Model = TypeVar("_Model")


def qualified(name: str, provider: str, section: str = "") -> str:
    """Return the name within this program of what `provider` calls `name`.

    Args:
      name: as it is written, with or without a provider.
      provider: whose file or labels it stands in.
      section: key path of where it is defined, such as "http.services".

    """
    own, at, whose = name.rpartition("@")
    if at:
        return own if whose == FILE and own else name
    return name if provider == FILE or (section, name) in _EVERYWHERE else f"{name}@{provider}"


def resolved(config: _Model, provider: str = FILE) -> _Model:
    """Return an object of the model with its references as this program has them; `provider` is whose it is."""
    rewritten: _Model = _rewritten(config, lambda name, section: qualified(name, provider, section))
    return rewritten


@frozen
class _Field:
    """A field that is, or leads to, a reference: `section` is what it refers to, `below` the class that it holds."""

    name: str
    section: str | None = None
    below: Any = None


def _rewritten(value: Any, rewrite: Callable[[str, str], str]) -> Any:
    cls: Any = type(value)
    changes: dict[str, Any] = {}
    for each in _fields(cls):
        old = getattr(value, each.name)
        section = each.section
        if section is not None:
            new = _each(old, partial(_renamed, rewrite, section))
        else:
            new = _each(old, lambda part: _rewritten(part, rewrite))
        if new is not old:
            changes[each.name] = new
    return attrs.evolve(value, **changes) if changes else value


def _renamed(rewrite: Callable[[str, str], str], section: str, name: str) -> str:
    return rewrite(name, section)


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return `value`, or what is in it, changed; the same object when nothing is different."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        changed = {key: change(part) for key, part in value.items()}
        return value if all(changed[key] is value[key] for key in changed) else changed
    if isinstance(value, tuple):
        parts = tuple(map(change, value))
        return value if all(new is old for new, old in zip(parts, value, strict=True)) else parts
    return change(value)


@cache
def _fields(cls: Any) -> tuple[_Field, ...]:
    return tuple(_find(cls))


def _find(cls: Any) -> Iterator[_Field]:
    for attribute in attrs.fields(attrs.resolve_types(cls)):
        if (section := attribute.metadata.get("refers")) is not None:
            yield _Field(attribute.name, section)
        elif (below := _section(attribute.type)) and _fields(below):
            yield _Field(attribute.name, below=below)


def _section(wanted: Any) -> Any:
    """Return the class of the model that a field of the type `wanted` holds, once or several times, or None."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is tuple:
        return _section(arguments[0])
    if origin is Mapping:
        return _section(arguments[1])
    if NoneType in arguments:
        return _section(next(each for each in arguments if each is not NoneType))
    if isinstance(wanted, type) and attrs.has(wanted):
        described = all("doc" in each.metadata for each in attrs.fields(wanted))
        return wanted if described else None
    return None
