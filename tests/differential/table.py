"""All cases, and the dynamic file that both programs get."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.daemon.harness import free_port
from tests.differential import (
    cases_auth,
    cases_edits,
    cases_entry,
    cases_limits,
    cases_requests,
    cases_services,
    cases_tls,
)
from tests.differential.record import Case, Difference, View
from tests.differential.world import TRUSTED, documents

_GROUPS: Final = (
    cases_requests,
    cases_edits,
    cases_limits,
    cases_auth,
    cases_services,
    cases_tls,
    cases_entry,
)

CASES: Final[list[Case]] = [each for group in _GROUPS for each in group.CASES]

OWN_WORDS: Final = "own-words"

EVERYWHERE: Final = (
    Difference("accept-encoding", "a*field accept-encoding", ("gzip",), None),
    Difference("one-connection", "a*field connection", None, ("close",)),
    Difference("answers-close", "field connection", None, ("close",)),
    Difference("real-ip", "app*field x-real-ip", (TRUSTED,), ...),
    *(
        Difference(OWN_WORDS, key, ..., ..., where={"body": words})
        for words in (b"Bad Gateway", b"Gateway Timeout", b"Internal Server Error")
        for key in ("body", "field content-length", "field content-type", "field x-content-type-options")
    ),
    *(
        Difference("auth-fields", f"auth field {name}", ..., None)
        for name in ("x-forwarded-port", "x-forwarded-server", "x-real-ip")
    ),
    *(
        Difference("auth-handshake", f"auth field sec-websocket-{name}", ..., None)
        for name in ("key", "version")
    ),
    Difference("auth-user-agent", "auth field user-agent", ("Go-http-client/1.1",), None),
    Difference("gzip-length", "field content-length", ..., None, where={"field content-encoding": ("gzip",)}),
    Difference(
        "gzip-length",
        "field transfer-encoding",
        None,
        ("chunked",),
        where={"field content-encoding": ("gzip",)},
    ),
    Difference(
        "gzip-etag", "field etag", ('"page"',), ('W/"page"',), where={"field content-encoding": ("gzip",)}
    ),
)
"""What differs in many cases."""


def unexplained(each: Case, traefik: View, ours: View, used: set[str]) -> list[str]:
    """Return what differs and is not intended, and what is intended and does not differ; adds names to `used`."""
    wrong: list[str] = []
    seen: list[Difference] = []
    for key in sorted(traefik.keys() | ours.keys()):
        if traefik.get(key) == ours.get(key):
            continue
        found = next((one for one in (*each.differs, *EVERYWHERE) if one.explains(key, traefik, ours)), None)
        if found is None:
            wrong.append(f"{key}: Traefik {traefik.get(key)!r}, trio-wsb {ours.get(key)!r}")
        else:
            seen.append(found)
            used.add(found.name)
    wrong += [f"no such difference: {one}" for one in each.differs if one not in seen]
    return wrong


DIFFERENCES: Final = {one.name for one in EVERYWHERE} | {one.name for each in CASES for one in each.differs}
"""The names of all."""


def dynamic(urls: Mapping[str, str], directory: Path) -> dict[str, Any]:
    """Return the dynamic file; names of servers in braces become their URLs, and ``{dead}`` one where nobody listens.

    Certificates are written below `directory`.
    """
    middlewares = {name: options for group in _GROUPS for name, options in group.MIDDLEWARES.items()}
    services = {name: options for group in _GROUPS for name, options in group.SERVICES.items()}
    transports = {"impatient": {"forwardingTimeouts": {"responseHeaderTimeout": "200ms"}}}
    text = json.dumps(documents(CASES, middlewares, services, serversTransports=transports))
    for name, url in {**urls, "dead": f"http://127.0.0.1:{free_port()}"}.items():
        text = text.replace(f"{{{name}}}", url)
    document: dict[str, Any] = json.loads(text)
    for name, router in cases_tls.ROUTERS.items():
        document["http"]["routers"][name] = {"service": "app", "entryPoints": ["web"], **router}
    document["tls"] = cases_tls.make_files(directory)
    return document
