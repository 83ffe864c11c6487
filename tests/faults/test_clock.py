"""The wall clock jumps: by years, there and back. Only what is shown changes, no deadline and no pause does."""

from __future__ import annotations

import re
import shutil
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from tests.daemon.harness import backend, echo
from tests.faults.stage import RELAYS, balancers, world

pytestmark = pytest.mark.daemon

needs_faketime = pytest.mark.skipif(
    shutil.which("faketime") is None, reason="libfaketime is not installed (Debian package faketime)"
)

LIMITS = {"idleTimeout": "10m", "maxLifetime": "1h", "pingInterval": "5m", "writeTimeout": "10s"}
CHECK = {"path": "/api/health", "interval": "500ms", "timeout": "5s", "fall": 1}
COUNT = {"path": "/metric", "interval": "500ms", "timeout": "5s", "staleAfter": "1m"}

JUMPS = ("+3y", "-8y", "+0")


@needs_faketime
async def test_the_wall_clock_jumps(tmp_path: Path) -> None:
    """Sessions with every limit, checks and reports live through three years forward and eight back."""
    library = preload()
    offset = tmp_path / "offset"
    offset.write_text("+0\n")
    fake = (
        "env", f"LD_PRELOAD={library}", f"FAKETIME_TIMESTAMP_FILE={offset}", "FAKETIME_NO_CACHE=1",
        "DONT_FAKE_MONOTONIC=1",
    )  # fmt: skip
    services = balancers("chat", ["SERVER"], session=LIMITS, healthCheck=CHECK, connectionCount=COUNT)
    async with backend() as other:
        for service in services.values():
            service["loadBalancer"]["servers"] = [{"url": other.url}]
        async with world(tmp_path, services, under=fake) as found:
            opened = [await found.connect(f"/chat-{relay}") for relay in RELAYS]
            years = set()
            for jump in JUMPS:
                offset.write_text(f"{jump}\n")
                before = len(found.daemon.running.lines)
                late = await found.connect("/chat-stream")
                await echo(late, "hello")
                years.add(year := str((datetime.now(UTC) + timedelta(days=365 * int(jump.rstrip("y")))).year))
                # Lines of the time before may still be on their way.
                await found.daemon.running.line(partial(told_in, year), after=before)
                for connection in opened:
                    await echo(connection, f"still here after {jump}")
                await found.bystanders.go_on()
                view = await found.backend(other.url)
                assert (view["state"], view["reportStale"], view["health"]["up"]) == ("ready", False, True)
                assert 0 <= view["reportAge"] < 30
                assert 0 <= view["health"]["checkedAgo"] < 30
                status = await found.status()
                assert 0 <= status["uptime"] < 600
            assert len(years) == len(JUMPS), "it really was another time"
            assert found.logged("session ended") == []
            assert found.logged("backend down") == []


def told_in(year: str, line: str) -> bool:
    return "session opened" in line and f'"time": "{year}' in line


def preload() -> str:
    """Return the library that makes the time up, where this machine has it."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("libfaketime.so.1 is not where Debian puts it")
    return str(found[0])


WALL_CLOCK = re.compile(r"\btime\.time(_ns)?\(|datetime\.now\(|utcnow\(|time\.(local|gm)time\(")

SHOWN = {
    "cli/check.py", "daemon/api/feed.py", "daemon/api/tally.py", "daemon/build.py", "daemon/internal.py",
    "daemon/operations.py", "daemon/reload.py", "daemon/supervisor.py", "daemon/tls.py",
}  # fmt: skip
"""Modules that may ask what time it is: for moments that are shown, and for the validity of certificates."""


def test_only_what_is_shown_asks_what_time_it_is() -> None:
    """Deadlines, intervals and ages are of the event loop's clock, which never jumps (CLOCK_MONOTONIC)."""
    package = Path(sys.modules["tests"].__file__ or "").parent.parent / "trio_wsb"
    asking = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if WALL_CLOCK.search(path.read_text())
    }
    assert {name for name in asking if not name.startswith("demo/")} <= SHOWN
