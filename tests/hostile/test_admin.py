"""The admin entry point attacked from a page of another site, by names that lead here, and by paths (the API of the running daemon)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.hostile.case import SMUGGLED, head, upgrade
from tests.hostile.world import World, attacked

pytestmark = pytest.mark.daemon


def ask(target: str, *lines: str, method: str = "GET", host: str | None = "127.0.0.1") -> bytes:
    return head(*lines, "Connection: close", start=f"{method} {target} HTTP/1.1", host=host)


CASES: dict[str, tuple[bytes, int, str]] = {
    # DNS rebinding: a page of evil.test, whose name leads to us by now, is of the same origin as we are.
    "rebinding": (ask("/api/overview", host="evil.test"), 421, "RFC 9110 15.5.20; rebinding"),
    "rebinding, with a port": (ask("/api/overview", host="evil.test:9001"), 421, "rebinding"),
    "rebinding, with our address in it": (ask("/api/overview", host="127.0.0.1.evil.test"), 421, "rebinding"),
    "rebinding, with localhost in it": (ask("/api/overview", host="localhost.evil.test"), 421, "rebinding"),
    "rebinding, hexadecimal": (ask("/api/overview", host="0x7f000001"), 421, "rebinding"),
    "rebinding, to the dashboard": (ask("/dashboard/", host="evil.test"), 421, "rebinding"),
    "rebinding, hidden behind a field": (ask("/api/overview", "X-Forwarded-Host: 127.0.0.1", host="evil.test"), 421, "rebinding"),
    "rebinding, in absolute form": (ask("http://evil.test/api/overview", host="evil.test"), 421, "RFC 9112 3.2.2; rebinding"),
    "two names": (ask("http://evil.test/api/overview"), 400, "RFC 9112 3.2.2"),
    "two Hosts": (ask("/api/overview", "Host: evil.test"), 400, "RFC 9112 3.2"),
    "a WebSocket of another site": (upgrade("Origin: https://evil.test", start="GET /api/events HTTP/1.1").replace(b"a.example", b"127.0.0.1"), 403, "RFC 6455 10.2"),
    "a WebSocket of a sandbox": (upgrade("Origin: null", start="GET /api/events HTTP/1.1").replace(b"a.example", b"127.0.0.1"), 403, "RFC 6455 10.2"),
    "a WebSocket by another name": (upgrade("Origin: http://evil.test", start="GET /api/events HTTP/1.1").replace(b"a.example", b"evil.test"), 421, "rebinding"),
    "a file": (ask("/api/../../../../etc/passwd"), 404, "RFC 3986 6.2.2.3"),
    "a file, in escapes": (ask("/api/%2e%2e/%2e%2e/etc/passwd"), 404, "RFC 3986 6.2.2.2"),
    "a file, in doubled escapes": (ask("/dashboard/%252e%252e/etc/passwd"), 404, "CWE-22"),
    "a file, by backslashes": (ask("/dashboard/..\\..\\etc\\passwd"), 404, "CWE-22"),
    "a file behind NUL": (ask("/dashboard/style.css%00.html"), 404, "CWE-158"),
    "a file from the top": (ask("//etc/passwd"), 404, "CWE-22"),
    "the API in capitals": (ask("/API/overview"), 404, "RFC 3986 6.2.2.1"),
    "POST": (ask("/api/sessions", "Content-Length: 0", method="POST"), 405, "RFC 9110 15.5.6"),
    "DELETE": (ask("/api/sessions/1", method="DELETE"), 405, "RFC 9110 15.5.6"),
    "PUT": (ask("/api/rawdata", "Content-Length: 0", method="PUT"), 405, "RFC 9110 15.5.6"),
    "TRACE": (ask("/api/overview", "Cookie: secret=1", method="TRACE"), 405, "RFC 9110 9.3.8"),
    "a preflight": (ask("/api/overview", "Origin: https://evil.test", "Access-Control-Request-Method: GET", method="OPTIONS"), 405, "Fetch 3.2"),
    "a method in a field": (ask("/api/sessions", "X-HTTP-Method-Override: DELETE", "X-HTTP-Method: DELETE", "X-Method-Override: DELETE"), 200, "CWE-436"),
    "a method in the query": (ask("/api/sessions?_method=DELETE"), 400, "CWE-436"),
    "the control socket's words": (ask("/drain", "Content-Length: 0", method="POST"), 404, "least authority"),
    "the control socket's words again": (ask("/reload", method="POST"), 404, "least authority"),
    "a query of one thousand things": (ask("/api/sessions?" + "&".join(f"a{n}=1" for n in range(1000))), 400, "CWE-400"),
    "a query that forges a line": (ask("/api/sessions?search=%0d%0aSet-Cookie:%20a"), 200, "CWE-93"),
    "a body that is a request": (ask("/api/overview", f"Content-Length: {len(SMUGGLED)}") + SMUGGLED, 200, "RFC 9112 6.3; desync"),
    "both framings": (ask("/api/overview", "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400, "RFC 9112 6.3; desync"),
}  # fmt: skip


async def fault_of(world: World, sent: bytes, expected: int) -> str:
    answer = await world.head(sent, "admin") if b"Upgrade" in sent else await world.ask(sent, "admin")
    if not answer.startswith(f"HTTP/1.1 {expected} ".encode()):
        return f"answered {answer[:60]!r}"
    if len(re.findall(rb"HTTP/1\.1 [0-9]{3} ", answer)) != 1:
        return "answered what was smuggled"
    fields = answer.partition(b"\r\n\r\n")[0].lower()
    if b"access-control-" in fields or b"set-cookie" in fields:
        return "lets another site read it"
    return "a file" if b"root:" in answer else ""


async def test_nobody_gets_in_by_the_admin_entry_point(tmp_path: Path) -> None:
    async with attacked(tmp_path) as world:
        faults = {name: await fault_of(world, sent, status) for name, (sent, status, _) in CASES.items()}
        assert {name: fault for name, fault in faults.items() if fault} == {}
        assert world.seen == []
        # On the entry points for traffic there is none of it: the request goes to a backend as any other.
        assert b"\r\n\r\nok" in await world.ask(ask("/api/overview"), "web")
        assert len(world.seen) == 1
