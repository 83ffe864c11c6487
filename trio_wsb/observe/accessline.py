"""The lines of the access log: what is known of a request or session, under Traefik's names and ours, as text.

Pure: a line is a function of an entry. No line can be forged: JSON is ASCII with every control character escaped, and
in the common formats whatever is not printable ASCII is, with quotes and backslashes, so that each entry is one line and
each field ends where it should.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

from attrs import define, frozen

from trio_wsb.addresses import BackendURL
from trio_wsb.config.accesslog import AccessLogFields, AccessLogFormat, FieldMode
from trio_wsb.proxy.secure import Secured

Event = Literal["request", "session_opened", "session_ended"]

NONE: Final = "-"
"""What stands for a text that there is none of."""

_MICRO = 1_000_000
_NANO = 1_000_000_000
_PROVIDER = "@file"
_ODD = re.compile(r"[^ !#-\[\]-~]")
_ODD_BARE = re.compile(r"[^!#-\[\]-~]")


@define
class Entry:
    """What a line says. Times in seconds, sizes in bytes, texts redacted by now; None and "" for what is not known."""

    event: Event
    started_wall: float
    """When the request came, since 1970."""
    duration: float
    """From then on, to the answer or the end of the session."""
    entry_point: str
    peer: str
    """Address and port that it came from."""
    client: str
    """The address of the client, without a port."""
    number: int = 0
    secured: Secured | None = None
    """How the connection is secured; None for a plain one."""
    username: str = ""
    method: str = ""
    path: str = ""
    protocol: str = ""
    authority: str = ""
    router: str = ""
    service: str = ""
    backend: BackendURL | None = None
    status: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    origin_status: int = 0
    origin_bytes: int = 0
    origin_duration: float = 0.0
    overhead: float | None = None
    """Of the duration, what the balancer took; None is what the backend did not."""
    tries: int = 0
    referer: str = ""
    agent: str = ""
    handshake: bool = False
    """Whether the request asked for a session."""
    own: Mapping[str, Any] = {}
    """Fields of ours, by name."""
    headers: Mapping[str, str] = {}
    """Header fields of request and answer, by name."""


Formatter: TypeAlias = Callable[[Entry], "str | None"]
"""Makes the line of an entry, with its end; None where the format has no line for it."""


def formatter(form: AccessLogFormat, fields: AccessLogFields) -> Formatter:
    """Return what makes the lines of a format, with the fields that are wanted."""
    if form == "json":
        return JSONFormatter(fields)
    return CommonFormatter(fields, generic=form == "genericCLF")


@frozen
class Second:
    """A second of time as text, without its fraction."""

    utc: str
    local: str
    offset: str
    common: str


@lru_cache(maxsize=64)
def second_text(second: int) -> Second:
    """Return the texts of a second since 1970; many lines share one."""
    at = datetime.fromtimestamp(second, UTC)
    local = at.astimezone()
    offset = local.strftime("%z")
    month = _MONTHS[local.month - 1]  # English, whatever the locale
    return Second(
        at.strftime("%Y-%m-%dT%H:%M:%S"),
        local.strftime("%Y-%m-%dT%H:%M:%S"),
        "Z" if offset == "+0000" else f"{offset[:3]}:{offset[3:5]}",
        local.strftime(f"%d/{month}/%Y:%H:%M:%S %z"),
    )


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class JSONFormatter:
    """One JSON object a line, with Traefik's keys and ours."""

    def __init__(self, fields: AccessLogFields) -> None:
        self._dropped = _Dropped(fields)
        self._encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode

    def __call__(self, entry: Entry) -> str:
        """Return the line."""
        line = self._line(entry)
        dropped = self._dropped
        if dropped:
            line = {key: value for key, value in line.items() if key not in dropped}
        line.update(entry.headers)
        if entry.handshake:
            # Present whatever is done with headers: it is how people look for upgrades.
            line.setdefault("request_Upgrade", "websocket")
        line["level"] = "info"
        line["msg"] = ""
        ended = second_text(int(entry.started_wall + entry.duration))
        line["time"] = ended.local + ended.offset
        return self._encode(line) + "\n"

    def _line(self, entry: Entry) -> dict[str, Any]:
        second, fraction = divmod(round(entry.started_wall * _MICRO), _MICRO)
        start = second_text(second)
        duration = _nanoseconds(entry.duration)
        origin = _nanoseconds(entry.origin_duration)
        request_host, request_port = _split(entry.authority)
        line: dict[str, Any] = {
            "event": entry.event,
            "ClientAddr": entry.peer or NONE,
            "ClientHost": entry.client or NONE,
            "ClientPort": _split(entry.peer)[1],
            "ClientUsername": entry.username or NONE,
            "DownstreamContentSize": entry.bytes_out,
            "DownstreamStatus": entry.status,
            "Duration": duration,
            "OriginContentSize": entry.origin_bytes,
            "OriginDuration": origin,
            "OriginStatus": entry.origin_status,
            "Overhead": max(0, duration - origin) if entry.overhead is None else _nanoseconds(entry.overhead),
            "RequestAddr": entry.authority or NONE,
            "RequestContentSize": entry.bytes_in,
            "RequestCount": entry.number,
            "RequestHost": request_host,
            "RequestMethod": entry.method or NONE,
            "RequestPath": entry.path or NONE,
            "RequestPort": request_port,
            "RequestProtocol": entry.protocol or NONE,
            "RequestScheme": "http" if entry.secured is None else "https",
            "RetryAttempts": max(0, entry.tries - 1),
            "StartLocal": f"{start.local}.{fraction:06d}{start.offset}",
            "StartUTC": f"{start.utc}.{fraction:06d}Z",
            "entryPointName": entry.entry_point,
        }
        if entry.router:
            line["RouterName"] = qualified(entry.router)
        if entry.service:
            line["ServiceName"] = qualified(entry.service)
        if entry.backend is not None:
            line["ServiceAddr"] = entry.backend.authority
            line["ServiceURL"] = str(entry.backend)
        if entry.secured is not None:
            line["TLSVersion"], line["TLSCipher"] = entry.secured.version, entry.secured.cipher
        if entry.bytes_out and entry.origin_bytes > entry.bytes_out:
            line["GzipRatio"] = round(entry.origin_bytes / entry.bytes_out, 3)
        line.update(entry.own)
        return line


class CommonFormatter:
    """The Common Log Format; unless `generic`, with what Traefik adds, and what we add for handshakes and sessions."""

    def __init__(self, fields: AccessLogFields, *, generic: bool) -> None:
        self._dropped = _Dropped(fields)
        self._generic = generic

    def __call__(self, entry: Entry) -> str | None:
        """Return the line; None for the end of a session in the generic format, where it would look like another request."""
        generic = self._generic
        if generic and entry.event == "session_ended":
            return None
        dropped = self._dropped
        shown = _all if not dropped else dropped.shown
        started = shown("StartUTC") or shown("StartLocal")
        time = second_text(int(entry.started_wall)).common if started else NONE
        line = (
            f"{bare(shown('ClientHost') and entry.client)} - {bare(shown('ClientUsername') and entry.username)} "
            f"[{time}] "
            f'"{bare(shown("RequestMethod") and entry.method)} {bare(shown("RequestPath") and entry.path)} '
            f'{bare(shown("RequestProtocol") and entry.protocol)}" '
            f"{entry.status if shown('DownstreamStatus') else NONE} "
            f"{entry.bytes_out if shown('DownstreamContentSize') else NONE} "
            f"{inside(entry.referer)} {inside(entry.agent)}"
        )
        if generic:
            return line + "\n"
        router = entry.router and shown("RouterName") and qualified(entry.router)
        backend = entry.backend is not None and shown("ServiceURL") and str(entry.backend)
        line += (
            f" {entry.number if shown('RequestCount') else NONE} {inside(router)} {inside(backend)} "
            f"{round(entry.duration * _MICRO) // 1000 if shown('Duration') else 0}ms"
        )
        if entry.handshake:
            line += " Upgrade=websocket"
        if entry.event != "request" or entry.handshake:
            if shown("event"):
                line += f" event={entry.event}"
            line += "".join(
                f" {key}={inside(value) if key == 'reason' else bare(str(value))}"
                for key, value in entry.own.items()
                if shown(key)
            )
        return line + "\n"


class _Dropped:
    """The fields that are left out; empty, and false, when none is."""

    def __init__(self, fields: AccessLogFields) -> None:
        self._names: Mapping[str, FieldMode] = dict(fields.names)
        self._default = fields.default_mode
        self._any = self._default == "drop" or "drop" in self._names.values()

    def __bool__(self) -> bool:
        return self._any

    def __contains__(self, name: object) -> bool:
        return not self.shown(name)

    def shown(self, name: object) -> bool:
        """Whether the field stands in a line."""
        return self._names.get(name, self._default) == "keep"  # type: ignore[call-overload,no-any-return]


def _all(_name: str) -> bool:
    return True


def qualified(name: str) -> str:
    """Return the name of a router or service with that of its provider, as Traefik's tools look for it."""
    return name if "@" in name else name + _PROVIDER


def bare(text: str | bool) -> str:
    r"""Return `text` for a place between spaces; ``-`` for none. What could end the field is written ``\xHH``."""
    if not text:
        return NONE
    return _ODD_BARE.sub(_escaped, str(text))


def inside(text: str | bool) -> str:
    """Return `text` in quotes; ``"-"`` for none."""
    return f'"{_ODD.sub(_escaped, str(text))}"' if text else '"-"'


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _nanoseconds(seconds: float) -> int:
    return max(0, round(seconds * _NANO))


def _split(authority: str) -> tuple[str, str]:
    """Return host and port of ``HOST:PORT`` as Traefik writes them: without brackets, ``-`` for what is not there."""
    if not authority:
        return NONE, NONE
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]") or not port.isdigit():
        host, port = authority, NONE
    return host.strip("[]") or NONE, port
