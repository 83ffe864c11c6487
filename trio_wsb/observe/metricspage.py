"""The count table as a page for people: one self-contained document, without scripts and without anything from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from typing import Any, Final

REFRESH: Final = 5
"""Seconds after which a browser asks again."""

_STYLE: Final = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; margin: 0; }
p { color: GrayText; margin: .3rem 0 1.5rem; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { border-bottom: 1px solid color-mix(in srgb, CanvasText 20%, Canvas); padding: .35rem .6rem; text-align: left; }
td, th { overflow-wrap: anywhere; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tfoot td { font-weight: 600; }
meter { width: 100%; min-width: 6rem; }
"""

_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

METRICS_PAGE_HEADERS: Final = (
    ("Vary", "Accept"),
    ("Cache-Control", "no-store"),
    (
        "Content-Security-Policy",
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
)
"""What belongs to the answer beside its type: whatever gets into the page, nothing of it is run or loaded."""


def metrics_page(document: Mapping[str, Any]) -> str:
    """Return the page for `document`, the count table as the JSON answer has it."""
    services: list[Mapping[str, Any]] = document["services"]
    pods: Mapping[str, list[Mapping[str, Any]]] = document["podMetrics"]
    highest = max((service["connections"] for service in services), default=0)
    rows = "".join(
        _row(service["url"], service["connections"], highest, pods.get(service["url"], [{}])[0])
        for service in services
    )
    total = document["totalConnections"]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{REFRESH}">
<title>{total} connections - trio-wsb</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>WebSocket connections by backend</h1>
<p>As of <time>{escape(document["timestamp"])}</time>; the page renews itself every {REFRESH} seconds.</p>
<table>
<thead>
<tr><th scope="col">backend</th><th scope="col" class="n">connections</th><th scope="col"></th>
<th scope="col" class="n">reported</th><th scope="col">pod</th><th scope="col">pod IP</th><th scope="col">node</th></tr>
</thead>
<tbody>
{rows or '<tr><td colspan="7">There are no backends.</td></tr>'}
</tbody>
<tfoot>
<tr><td>total</td><td class="n">{total}</td><td colspan="5"></td></tr>
</tfoot>
</table>
</body>
</html>
"""


def _row(url: str, connections: int, highest: int, pod: Mapping[str, Any]) -> str:
    reported = pod.get("agentsConnections", "never")
    names = "".join(f"<td>{escape(str(pod.get(key, '')))}</td>" for key in ("podName", "podIP", "nodeName"))
    bar = f'<meter min="0" max="{max(1, highest)}" value="{connections}">{connections} of {highest}</meter>'
    return (
        f'<tr><th scope="row">{escape(url)}</th><td class="n">{connections}</td><td>{bar}</td>'
        f'<td class="n">{escape(str(reported))}</td>{names}</tr>\n'
    )
