"""What a backend says about itself: the number of its connections, and who it is.

The body comes from the network and is trusted with nothing: not its size (the caller caps it), its depth,
its types or its strings.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen

from trio_wsb.errors import Error

MAX_CONNECTIONS = 10**9
"""The largest count believed. More is a broken counter, and would also drown the real figures."""

MAX_NAME = 253
"""The longest name kept, in characters: that of a DNS name, which pod and node names are parts of."""


class ReportError(Error):
    """A body is no report; `reason` says why in a few words and never repeats what the backend sent."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@frozen
class Report:
    """A backend's report; the names are None where it gave none that can be shown."""

    connections: int
    pod_name: str | None = None
    pod_ip: str | None = None
    node_name: str | None = None


def parse_report(body: bytes, field: str) -> Report:
    """Return the report in `body`, a JSON object with the number of connections under the key `field`.

    ``podName``, ``podIP`` and ``nodeName`` are optional, and ignored when they are no printable strings of at
    most `MAX_NAME` characters; every other key is ignored.

    Raises:
      ReportError: `body` is no JSON object, or the number is absent, no integer, negative or over
        `MAX_CONNECTIONS`.

    """
    try:
        # RFC 8259 section 8.1: UTF-8, and a byte order mark may be ignored.
        document = json.loads(body.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        # ValueError stands for bad UTF-8, bad JSON and an integer of thousands of digits alike.
        html = body.lstrip()[:1] == b"<"
        raise ReportError(
            "the report is HTML or XML, not JSON" if html else "the report is not JSON"
        ) from None
    if not isinstance(document, dict):
        raise ReportError("the report is not a JSON object")
    if field not in document:
        raise ReportError(f"the report has no {field}")
    return Report(
        _count(document[field], field),
        _name(document.get("podName")),
        _name(document.get("podIP")),
        _name(document.get("nodeName")),
    )


def _refuse_constant(_text: str) -> Any:
    raise ValueError("NaN and Infinity are no JSON (RFC 8259 section 6)")


def _count(value: object, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ReportError(f"{field} is not an integer")
    if value < 0:
        raise ReportError(f"{field} is negative")
    if value > MAX_CONNECTIONS:
        raise ReportError(f"{field} is over {MAX_CONNECTIONS}")
    return value


def _name(value: object) -> str | None:
    # Not printable are control characters, but also line separators, bidirectional overrides and lone
    # surrogates: all that could make a log line or a table show something else.
    if isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable():
        return value
    return None
