"""All cases, and the dynamic file that both programs get."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from tests.daemon.harness import free_port
from tests.differential import cases_auth, cases_edits, cases_limits, cases_requests, cases_services
from tests.differential.record import Case
from tests.differential.world import documents

_GROUPS: Final = (cases_requests, cases_edits, cases_limits, cases_auth, cases_services)

CASES: Final[list[Case]] = [each for group in _GROUPS for each in group.CASES]
EVERYWHERE_KEYS: set = set()


def dynamic(urls: Mapping[str, str]) -> dict[str, Any]:
    """Return the dynamic file; names of servers in braces become their URLs, and ``{dead}`` one where nobody listens."""
    middlewares = {name: options for group in _GROUPS for name, options in group.MIDDLEWARES.items()}
    services = {name: options for group in _GROUPS for name, options in group.SERVICES.items()}
    transports = {"impatient": {"forwardingTimeouts": {"responseHeaderTimeout": "200ms"}}}
    text = json.dumps(documents(CASES, middlewares, services, serversTransports=transports))
    for name, url in {**urls, "dead": f"http://127.0.0.1:{free_port()}"}.items():
        text = text.replace(f"{{{name}}}", url)
    document: dict[str, Any] = json.loads(text)
    return document
