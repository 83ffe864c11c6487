"""The access log beside the real Traefik's: the same requests, the same settings, the same lines."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import yaml

from tests.daemon.harness import PATIENCE, Running, backend, daemon, free_port, http_client
from tests.traefik.harness import traefik_program
from trio_wsb.config.accesslog import OWN_FIELDS

pytestmark = [
    pytest.mark.daemon,
    pytest.mark.skipif(traefik_program() is None, reason="the Traefik program is not installed"),
]

USERS = ["bob:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/"]
FIELDS = {
    "headers": {"defaultMode": "drop", "names": {"User-Agent": "keep", "Referer": "keep", "X-Many": "keep"}},
    "queryParameters": {"defaultMode": "keep"},
}

REQUESTS: list[tuple[str, str, dict[str, str]]] = [
    ("GET", "/api/health", {}),
    ("GET", "/api/health?a=1&b=%22x", {"Referer": "http://a.example/x", "X-Many": "1"}),
    ("POST", "/api/a%20b", {"User-Agent": 'odd "agent"'}),
    ("HEAD", "/api/health", {}),
    ("GET", "/closed", {"Authorization": "Basic Ym9iOm5v"}),
    ("GET", "/elsewhere", {}),
]

VARYING = {
    "ClientAddr", "ClientPort", "Duration", "OriginDuration", "Overhead", "RequestCount", "StartLocal", "StartUTC", "time",
}  # fmt: skip
ADDRESSES = {"RequestAddr", "RequestPort", "RequestHost"}


def http(url: str) -> dict[str, Any]:
    return {
        "routers": {
            "open": {"rule": "PathPrefix(`/api`)", "service": "chat"},
            "closed": {"rule": "Path(`/closed`)", "service": "chat", "middlewares": ["users"]},
        },
        "middlewares": {"users": {"basicAuth": {"users": USERS}}},
        "services": {"chat": {"loadBalancer": {"servers": [{"url": url}]}}},
    }


@asynccontextmanager
async def traefik(tmp_path: Path, url: str, access_log: dict[str, Any]) -> AsyncIterator[str]:
    """Run Traefik with an access log; its URL."""
    program = traefik_program()
    assert program is not None
    port = free_port()
    dynamic, static = tmp_path / "dynamic.yml", tmp_path / "static.yml"
    dynamic.write_text(yaml.safe_dump({"http": http(url)}))
    static.write_text(
        yaml.safe_dump(
            {
                "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
                "entryPoints": {"web": {"address": f"127.0.0.1:{port}"}},
                "providers": {"file": {"filename": str(dynamic)}},
                "accessLog": access_log,
            }
        )
    )
    async with Running.program(program, "--configFile", str(static)) as process:
        async with http_client() as client:
            with trio.fail_after(PATIENCE):
                while True:
                    try:
                        if (await client.get(f"http://127.0.0.1:{port}/api/health")).status_code == 200:
                            break
                    except httpx.HTTPError:
                        pass
                    await trio.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
        # Its stop waits for clients as long as it may; the lines are written by now.
        process.process.kill()


async def lines(url: str, log: Path) -> list[str]:
    """Send the requests, each on a connection of its own, and return what was logged of them."""
    before = len(log.read_text().splitlines()) if log.exists() else 0
    for method, path, headers in REQUESTS:
        async with http_client() as client:
            sent = {"User-Agent": "test", "Accept": "*/*", **headers}
            await client.request(
                method, url + path, headers=sent, content=b"abc" if method == "POST" else None
            )
    found: list[str] = []
    with trio.fail_after(PATIENCE):
        while len(found) < len(REQUESTS):
            await trio.sleep(0.02)
            found = log.read_text().splitlines()[before:] if log.exists() else []
    return found


async def both(tmp_path: Path, form: str) -> tuple[list[str], list[str]]:
    """Return Traefik's lines and ours."""
    theirs, ours = tmp_path / "theirs.log", tmp_path / "ours.log"
    access = {"format": form, "fields": FIELDS}
    async with backend() as only:
        async with traefik(tmp_path, only.url, {**access, "filePath": str(theirs)}) as url:
            expected = await lines(url, theirs)
        async with daemon(
            tmp_path, [], http=http(only.url), accessLog={**access, "filePath": str(ours)}
        ) as running:
            return expected, await lines(running.url, ours)


def comparable(line: str) -> tuple[dict[str, Any], set[str]]:
    """Return what must be the same, and the names of the rest."""
    found = json.loads(line)
    for key in ADDRESSES:
        found[key] = re.sub(r"\d{4,5}", "PORT", found[key])
    rest = {key: found.pop(key) for key in VARYING}
    assert rest["Duration"] >= rest["OriginDuration"] >= 0
    return found, set(rest)


async def test_json(tmp_path: Path) -> None:
    expected, found = await both(tmp_path, "json")
    for theirs, ours in zip(expected, found, strict=True):
        wanted, varying = comparable(theirs)
        line, also_varying = comparable(ours)
        assert varying == also_varying
        line = {key: value for key, value in line.items() if key not in OWN_FIELDS}
        # Traefik writes it where there is nothing to compress, and not where there is.
        wanted.pop("GzipRatio", None)
        assert line == wanted


async def test_common(tmp_path: Path) -> None:
    def comparable(line: str) -> str:
        line = re.sub(r"\[[^\]]*\]", "[TIME]", line)
        line = line.replace(r"\x22", r"\"")  # quotes are escaped in another way
        return re.sub(r' \d+ ("[^"]*" "[^"]*") \d+ms$', r" COUNT \1 MSms", line)

    expected, found = await both(tmp_path, "common")
    assert [comparable(line) for line in found] == [comparable(line) for line in expected]
