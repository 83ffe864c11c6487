"""The configuration reference in Markdown, made from the model: ``python -m trio_wsb.config.reference``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import attrs
from attrs import Attribute

from trio_wsb.config.foreign import FOREIGN
from trio_wsb.config.model import Config, Duration, key_of
from trio_wsb.config.shortform import NAME, File, WSBalancer
from trio_wsb.config.structure import KINDS
from trio_wsb.units import Percent, Rate, format_duration, format_percent, format_rate

_HEADER = "| key | type | default | reload | meaning |\n| --- | --- | --- | --- | --- |\n"

_INTRODUCTION = """\
<!-- Made from the model by `python -m trio_wsb.config.reference`; do not edit. -->
# Configuration reference

One YAML file, read at the start and again at each SIGHUP; `providers.file` adds dynamic files, which have `http` and `tls`. `trio-wsb check FILE` says everything that is wrong with it;
`trio-wsb check --resolve FILE` shows it with every default filled in. The annotated files in `etc/` show all of this in use.

**Types.** A *duration* is written `30s`, `100ms`, `1m30s` or as a number of seconds; units are ns, us, ms, s, m, h and d.
A *rate* is written `10/s`, `600/m` or as a number per second, a *percentage* `20%`.
An *address to listen on* is `HOST:PORT` or `:PORT`, an IPv6 address in brackets. A *server URL* is `http://HOST:PORT` or
`https://HOST:PORT`; `ws` and `wss` mean the same. Nothing is converted: `"8080"` is no number and `on` is no boolean.
Anchors, aliases and merge keys (`<<`) may be used; a key may not stand twice.

**Reload** says from when a changed value counts: *yes* at once, *new sessions* for sessions that open from then on,
*restart* after a restart. A file with an error changes nothing.

`NAME` stands for a name that you choose and `[]` for each item of a list.
"""

_SHORT = f"""
## The short form

`{NAME}` means one entry point `web`, one router for everything and one service. `listen` may stand in it or at the top of
the file, and is the address of the entry point `web`; `127.0.0.1:9000` without it. Other sections may stand beside
`{NAME}`: an `entryPoints.web` is then taken as it is written.

"""

_SHORT_MEANING = """
| short form | long form |
| --- | --- |
| `pods`, `services` | `http.services.NAME.loadBalancer.servers` |
| `metricPath` | `http.services.NAME.loadBalancer.connectionCount.path` |
| `cacheTTL` | `http.services.NAME.loadBalancer.connectionCount.interval` |
| `writeTimeout` | `http.services.NAME.loadBalancer.session.writeTimeout` |
| `tlsVerify: false` | `http.serversTransports.NAME.insecureSkipVerify: true` |
| `dialTimeout` | `http.serversTransports.NAME.forwardingTimeouts.dialTimeout` |
| `readTimeout` | `entryPoints.NAME.transport.respondingTimeouts.readTimeout` and `http.serversTransports.NAME.forwardingTimeouts.responseHeaderTimeout` |
| `listen` | `entryPoints.web.address` |

None of these ends an idle session.
"""

_FOREIGN = """
## Keys of Traefik without a meaning here

*Ignored* keys are accepted with a warning, and so are *ineffective* ones, which ask for what is not there yet.
*Unsupported* ones are errors: to pass over a middleware that was meant to keep strangers out, in silence, would let them in.

| section | key | verdict | because |
| --- | --- | --- | --- |
"""


def reference() -> str:
    """Return the whole reference."""
    parts = [_INTRODUCTION, "\n## Top of the file\n\n", _HEADER, *_rows(File, "")]
    for attribute in _top():
        below, suffix = _section(attribute.type)
        if below not in {None, WSBalancer}:
            for path, doc, rows in _sections(below, key_of(attribute) + suffix):
                parts += [f"\n## `{path}`\n\n{doc}\n\n", _HEADER, *rows]
    parts += [_SHORT, _HEADER, *_rows(WSBalancer, NAME), _SHORT_MEANING, _FOREIGN, *_foreign_rows()]
    return "".join(parts)


def _top() -> list[Attribute[Any]]:
    """Return the fields of a file; those that `File` redefines for its own purposes as `Config` has them."""
    model = {attribute.name: attribute for attribute in _fields(Config)}
    file = {attribute.name: attribute for attribute in _fields(File)}
    names = [*model, *(name for name in file if name not in model)]
    return [model[name] if name == "balancer_metric_path" else file[name] for name in names]


def key_paths(cls: type = File, path: str = "") -> Iterator[str]:
    """Yield the path of every key that `cls` may hold, sections included."""
    for attribute in _fields(cls):
        here = _join(path, key_of(attribute))
        yield here
        below, suffix = _section(attribute.type)
        if below is not None:
            yield from key_paths(below, here + suffix)


def _fields(cls: Any) -> tuple[Attribute[Any], ...]:
    fields: tuple[Attribute[Any], ...] = attrs.fields(attrs.resolve_types(cls))
    return fields


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _sections(cls: Any, path: str) -> Iterator[tuple[str, str, list[str]]]:
    """Yield path, meaning and rows of each section below `cls`, from the top down."""
    rows = list(_rows(cls, path))
    if rows:
        yield path, cls.__doc__.splitlines()[0], rows
    for attribute in _fields(cls):
        below, suffix = _section(attribute.type)
        if below is not None:
            yield from _sections(below, _join(path, key_of(attribute)) + suffix)


def _section(wanted: Any) -> tuple[Any, str]:
    """Return the class of the model that a field holds, and what its own keys' paths have after the field's."""
    wanted = _bare(wanted)
    if get_origin(wanted) is Mapping:
        below = get_args(wanted)[1]
        return (None, "") if _is_value(below) else (below, ".NAME")
    suffix = ""
    if get_origin(wanted) is tuple:
        wanted, suffix = get_args(wanted)[0], "[]"
    return (None, "") if wanted in KINDS or not attrs.has(wanted) else (wanted, suffix)


def _is_value(wanted: Any) -> bool:
    return wanted in KINDS or get_origin(wanted) is Literal


def _bare(wanted: Any) -> Any:
    """Return the type of a field without `| None`."""
    if get_origin(wanted) in {Union, UnionType} and wanted not in KINDS:
        return next(each for each in get_args(wanted) if each is not NoneType)
    return wanted


def _rows(cls: Any, path: str) -> Iterator[str]:
    for attribute in _top() if cls is File else _fields(cls):
        if (
            isinstance(attribute.type, type)
            and isinstance(attribute.default, attribute.type)
            and attrs.has(attribute.type)
            and attribute.type not in KINDS
        ):
            continue  # a section that is always there has nothing to say but its keys
        check = attribute.metadata["check"]
        cells = (
            f"`{_join(path, key_of(attribute))}`",
            ("`true` or " if attribute.metadata.get("switch") else "")
            + _kind(attribute.type)
            + (f", {check.text}" if check is not None else ""),
            _default(attribute),
            attribute.metadata["reload"],
            attribute.metadata["doc"].replace("|", "\\|"),
        )
        yield f"| {' | '.join(cells)} |\n"


def _kind(wanted: Any) -> str:
    wanted = _bare(wanted)
    if get_origin(wanted) is Literal:
        return "one of " + ", ".join(f"`{each}`" for each in get_args(wanted))
    if get_origin(wanted) is tuple:
        return f"list, each {_kind(get_args(wanted)[0])}"
    if get_origin(wanted) is Mapping:
        below = get_args(wanted)[1]
        return f"mapping, each {_kind(below)}" if _is_value(below) else "mapping by name"
    if wanted in KINDS:
        return KINDS[wanted].noun.removeprefix("a ").removeprefix("an ")
    return "mapping"


def _default(attribute: Attribute[Any]) -> str:
    default = attribute.default
    if default is attrs.NOTHING:
        return "required"
    if default is None or isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class, in truth
        return "none"
    if _bare(attribute.type) is Duration:
        return f"`{format_duration(default)}`"
    if _bare(attribute.type) is Rate:
        return f"`{format_rate(default)}`"
    if _bare(attribute.type) is Percent:
        return f"`{format_percent(default)}`"
    if attribute.metadata.get("switch"):
        return "`true`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple):
        durations = get_args(_bare(attribute.type))[:1] == (Duration,)
        return f"`[{', '.join(format_duration(each) if durations else str(each) for each in default)}]`"
    text = str(default)
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _foreign_rows() -> Iterator[str]:
    places = {cls: path for path, cls in _places(Config, "")}
    for cls, keys in FOREIGN.items():
        place = f"`{places[cls]}`" if places[cls] else "top of the file"
        for key, foreign in keys.items():
            yield f"| {place} | `{key}` | {foreign.verdict} | {foreign.reason} |\n"


def _places(cls: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, cls
    for attribute in _fields(cls):
        below, suffix = _section(attribute.type)
        if below is not None:
            yield from _places(below, _join(path, key_of(attribute)) + suffix)


if __name__ == "__main__":
    sys.stdout.write(reference())
