"""The access log in the configuration: what Traefik calls `accessLog`, with its names and meanings.

The names of the fields of a line are here too, since `fields.names` may name each of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, Literal

from attrs import Factory, frozen

from trio_wsb.config.checks import FILE_PATH
from trio_wsb.config.options import option
from trio_wsb.config.problems import Finding, nearest
from trio_wsb.config.scalars import show
from trio_wsb.middleware.options import between
from trio_wsb.units import Duration

FieldMode = Literal["keep", "drop"]

ValueMode = Literal["keep", "drop", "redact"]

AccessLogFormat = Literal["common", "json", "genericCLF"]

MAX_BUFFERED: Final = 10_000

CLIENT_FIELDS: Final = ("ClientAddr", "ClientHost", "ClientPort", "ClientUsername")
REQUEST_FIELDS: Final = (
    "RequestAddr", "RequestContentSize", "RequestCount", "RequestHost", "RequestMethod", "RequestPath",
    "RequestPort", "RequestProtocol", "RequestScheme",
)  # fmt: skip
ANSWER_FIELDS: Final = (
    "DownstreamContentSize", "DownstreamStatus", "Duration", "GzipRatio", "OriginContentSize", "OriginDuration",
    "OriginStatus", "Overhead", "RetryAttempts", "RouterName", "ServiceAddr", "ServiceName", "ServiceURL",
    "StartLocal", "StartUTC", "TLSCipher", "TLSVersion", "entryPointName",
)  # fmt: skip
OWN_FIELDS: Final = (
    "bytesIn", "bytesOut", "cause", "closeCode", "closedBy", "event", "messagesIn", "messagesOut", "reason",
    "session", "stage", "tries",
)  # fmt: skip
FIELDS: Final = frozenset((*CLIENT_FIELDS, *REQUEST_FIELDS, *ANSWER_FIELDS, *OWN_FIELDS))
"""Every field of a line that can be kept or dropped; `level`, `msg` and `time` always stand there."""

SECRET_HEADERS: Final = frozenset(
    {
        "authorization", "proxy-authorization", "cookie", "set-cookie", "sec-websocket-protocol", "x-access-token",
        "x-api-key", "x-auth-token", "x-csrf-token", "x-xsrf-token",
    }
)  # fmt: skip
"""Header fields, in lower case, whose values are redacted unless they are named: browsers send tokens in
Sec-WebSocket-Protocol, because they can send no other field with a handshake."""

_STATUS_RANGE = re.compile(r"([1-9][0-9]{2})(?:-([1-9][0-9]{2}))?")


@frozen
class StatusRange:
    """HTTP status codes from `first` to `last`, both included."""

    first: int
    last: int

    def __contains__(self, status: object) -> bool:
        return isinstance(status, int) and self.first <= status <= self.last

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def parse_status_range(text: str | int) -> StatusRange:
    """Return the range that `text` means: ``404`` or ``200-299``.

    Raises:
      ValueError: it is none; the message says what would be right after a semicolon.

    """
    match = _STATUS_RANGE.fullmatch(str(text))
    if match is None:
        raise ValueError('is not a range of status codes; write a range such as "200-299", or one code')
    found = StatusRange(int(match[1]), int(match[2] or match[1]))
    if not 100 <= found.first <= found.last <= 599:
        raise ValueError("has no status code in it; write the lower one first, from 100 to 599")
    return found


@frozen
class AccessLogFilters:
    """Which lines are written: those that one of the filters lets pass, every line without any."""

    status_codes: tuple[StatusRange, ...] = option(
        "Lines with these statuses, such as `200-299` or `404`. The 101 of a session counts as 200 too: it is the "
        "success of its request.",
        (),
    )
    retry_attempts: bool = option(
        "Lines of requests for which more than one backend was tried.", default=False
    )
    min_duration: Duration = option(
        "Lines of what took longer: of a request to its answer, of a session to its end. 0 is no filter.",
        Duration(0.0),
    )


@frozen
class AccessLogHeaders:
    """What is done with the header fields of requests and answers."""

    default_mode: ValueMode = option("For fields that are not named: `keep`, `drop` or `redact`.", "drop")
    names: Mapping[str, ValueMode] = option(
        "The same by field name. Fields that carry credentials are redacted even where the default is `keep`, unless "
        "they are named here.",
        Factory(dict),
    )


@frozen
class AccessLogQuery:
    """What is done with the values in the query of a request's path."""

    default_mode: ValueMode = option(
        "For parameters that are not named: `redact` keeps the name alone, `drop` leaves the parameter out.",
        "redact",
    )
    names: Mapping[str, ValueMode] = option("The same by parameter name.", Factory(dict))


@frozen
class AccessLogFields:
    """What stands in a line."""

    default_mode: FieldMode = option("For fields that are not named: `keep` or `drop`.", "keep")
    names: Mapping[str, FieldMode] = option("The same by field name.", Factory(dict))
    headers: AccessLogHeaders = option("Header fields, in JSON alone.", AccessLogHeaders())
    query_parameters: AccessLogQuery = option(
        "The query in `RequestPath`, and in header fields that are URLs.", AccessLogQuery()
    )


@frozen
class AccessLog:
    """A line for each request, and two for each session: when it opens and when it has ended."""

    file_path: str | None = option(
        "File to append to instead of standard output; its directory is created when there is none. SIGUSR1 opens it anew.",
        None,
        check=FILE_PATH,
    )
    format: AccessLogFormat = option(
        "`common` is Traefik's extension of the Common Log Format, `genericCLF` the format without it, `json` one object a line.",
        "common",
    )
    buffering_size: int = option(
        "Lines that are collected before they are written; after a second they are written anyway. 0 writes them at once.",
        0,
        check=between(0, MAX_BUFFERED),
    )
    add_internals: bool = option(
        "Also log requests for the balancer itself, such as /ping and the API.", default=False
    )
    filters: AccessLogFilters = option("Which lines are written.", AccessLogFilters())
    fields: AccessLogFields = option("What stands in a line.", AccessLogFields())


def access_log_findings(access_log: AccessLog | None) -> Iterator[Finding]:
    """Yield what is odd about `access_log`."""
    if access_log is None:
        return
    for name in access_log.fields.names:
        if name not in FIELDS:
            near = nearest(name, FIELDS)
            hint = (
                "docs/reference/access-log.md lists the fields" if near is None else f'did you mean "{near}"?'
            )
            path = ("accessLog", "fields", "names", name)
            yield Finding(path, f"no line has a field {show(name)}", hint, "warning", at="key")
