"""The shapes of Traefik's API, over a configuration with some of everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from tests.daemon.api.ask import CONFIGURATION, ask, get
from tests.daemon.state import World, make_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path, CONFIGURATION)


async def test_overview(world: World) -> None:
    document = await get(world, "/api/overview")
    assert document["http"]["routers"] == {"total": 7, "warnings": 0, "errors": 1}
    assert document["http"]["middlewares"] == {"total": 3, "warnings": 0, "errors": 0}
    assert document["http"]["services"]["total"] == 7
    assert document["features"] == {
        "tracing": "",
        "metrics": "Prometheus",
        "accessLog": False,
        "kernelRelay": False,
    }
    assert document["providers"] == ["File"]
    # The guide's jq: .http.services."NAME@PROVIDER".serverStatus
    assert document["http"]["services"]["chat@file"] == {
        "serverStatus": {"http://10.0.0.1:8080": "UP", "http://10.0.0.2:8080": "DOWN"}
    }


async def test_a_router(world: World) -> None:
    router = await get(world, "/api/http/routers/chat@file")
    assert router | {"tls": None} == {
        "rule": "PathPrefix(`/chat`)",
        "service": "chat",
        "entryPoints": ["web"],
        "priority": 7,
        "middlewares": ["limit@file", "auth@file"],
        "status": "enabled",
        "using": ["web"],
        "name": "chat@file",
        "provider": "file",
        "priorityStr": "7",
        "tls": None,
    }


async def test_a_name_without_its_provider_and_an_escaped_one(world: World) -> None:
    wanted = await get(world, "/api/http/routers/chat@file")
    assert await get(world, "/api/http/routers/chat") == wanted
    assert await get(world, "/api/http/routers/chat%40file") == wanted


async def test_a_disabled_router_says_why(world: World) -> None:
    router = await get(world, "/api/http/routers/lost@file")
    assert router["status"] == "disabled"
    assert 'no service "nowhere" is defined' in router["error"][0]
    assert router["priority"] == len("Host(`lost.example`)")


async def test_services(world: World) -> None:
    chat = await get(world, "/api/http/services/chat@file")
    assert chat["type"] == "loadbalancer"
    assert chat["usedBy"] == ["chat@file"]
    assert chat["loadBalancer"]["servers"][0]["url"] == "http://10.0.0.1:8080"
    assert chat["loadBalancer"]["healthCheck"]["path"] == "/health"
    both = await get(world, "/api/http/services/both@file")
    assert (both["type"], "serverStatus" in both) == ("weighted", False)
    assert [part["weight"] for part in both["weighted"]["services"]] == [3, 1]
    assert "usedBy" not in await get(world, "/api/http/services/other@file")


async def test_the_balancers_own(world: World) -> None:
    names = {each["name"]: each for each in await get(world, "/api/http/routers")}
    assert names["api@internal"]["entryPoints"] == ["admin"]
    assert set(names["ping@internal"]["entryPoints"]) == {"web", "admin"}
    assert names["prometheus@internal"]["entryPoints"] == ["admin"]
    assert {names[name]["provider"] for name in names if name.endswith("@internal")} == {"internal"}
    services = {each["name"] for each in await get(world, "/api/http/services")}
    assert {"api@internal", "dashboard@internal", "ping@internal"} <= services


async def test_a_redirection_is_a_router_and_a_middleware_as_in_traefik(tmp_path: Path) -> None:
    target = {"to": "secure", "scheme": "https"}
    configuration = {
        "entryPoints": {
            "web": {"address": ":8000", "http": {"redirections": {"entryPoint": target}}},
            "secure": {"address": ":8443"},
            "admin": {"address": ":9001"},
        }
    }
    world = make_world(tmp_path, configuration)
    # What Traefik 3.7 answers, but for its ruleSyntax and observability, which all its routers have.
    assert await get(world, "/api/http/routers/web-to-secure@internal") == {
        "entryPoints": ["web"],
        "middlewares": ["redirect-web-to-secure@internal"],
        "service": "noop@internal",
        "rule": "HostRegexp(`^.+$`)",
        "priority": 2**63 - 2,
        "status": "enabled",
        "using": ["web"],
        "name": "web-to-secure@internal",
        "provider": "internal",
        "priorityStr": str(2**63 - 2),
    }
    assert await get(world, "/api/http/middlewares") == [
        {
            "redirectScheme": {"scheme": "https", "port": "8443", "permanent": True},
            "status": "enabled",
            "usedBy": ["web-to-secure@internal"],
            "name": "redirect-web-to-secure@internal",
            "provider": "internal",
            "type": "redirectscheme",
        }
    ]
    assert (await get(world, "/api/http/services/noop@internal"))["usedBy"] == ["web-to-secure@internal"]


async def test_a_redirection_behind_a_middleware_that_is_not_there_is_disabled(tmp_path: Path) -> None:
    http = {"redirections": {"entryPoint": {"to": "secure"}}, "middlewares": ["nowhere"]}
    entry_points = {
        "web": {"address": ":8000", "http": http},
        "secure": {"address": ":8443"},
        "admin": {"address": ":9001"},
    }
    world = make_world(tmp_path, {"entryPoints": entry_points})
    row = await get(world, "/api/http/routers/web-to-secure@internal")
    assert row["status"] == "disabled"
    assert 'no middleware "nowhere" is defined' in row["error"][0]
    # Nor is it one that the API might have been meant to be behind.
    assert await get(world, "/api/http/middlewares") == []


async def test_a_server_that_fails_its_check_or_cools_down_is_down(world: World) -> None:
    pool = world.proxy.runtime.services["chat"].pool
    first, _ = pool.members
    for _ in range(3):
        first.backend.begin_handshake()
        first.backend.handshake_failed(trio.current_time())
    chat = await get(world, "/api/http/services/chat@file")
    assert chat["serverStatus"]["http://10.0.0.1:8080"] == "DOWN"


async def test_middlewares(world: World) -> None:
    limit = await get(world, "/api/http/middlewares/limit@file")
    assert (limit["type"], limit["usedBy"], limit["rateLimit"]["average"]) == ("ratelimit", ["chat@file"], 10)


async def test_entry_points(world: World) -> None:
    assert [each["name"] for each in await get(world, "/api/entrypoints")] == ["admin", "web"]
    web = await get(world, "/api/entrypoints/web")
    assert web["address"] == "127.0.0.1:9000"
    assert web["transport"]["lifeCycle"]["graceTimeOut"] == "10s"


async def test_rawdata_has_everything_by_name(world: World) -> None:
    document = await get(world, "/api/rawdata")
    assert set(document) == {"routers", "services", "middlewares"}
    for section in document:
        listed = await get(world, f"/api/http/{section}")
        assert set(document[section]) == {each["name"] for each in listed}
    assert "name" not in document["routers"]["chat@file"]


@pytest.mark.parametrize(
    ("query", "names", "following"),
    [
        ("per_page=2", ["api@internal", "both@file"], "2"),
        ("per_page=2&page=2", ["chat@file", "dashboard@internal"], "3"),
        ("per_page=2&page=3", ["lost@file", "ping@internal"], "4"),
        ("per_page=2&page=4", ["prometheus@internal"], "1"),
        ("search=CHAT", ["chat@file"], "1"),
        ("search=lost.EXAMPLE", ["lost@file"], "1"),
        ("status=disabled", ["lost@file"], "1"),
        ("status=bogus", [], "1"),
        ("serviceName=chat@file", ["chat@file"], "1"),
        ("middlewareName=auth@file", ["chat@file"], "1"),
        ("search=file&sortBy=priority", ["chat@file", "both@file", "lost@file"], "1"),
        ("search=file&sortBy=priority&direction=desc", ["lost@file", "both@file", "chat@file"], "1"),
    ],
)
async def test_pages_and_filters(world: World, query: str, names: list[str], following: str) -> None:
    answer = await ask(world, f"/api/http/routers?{query}")
    assert answer is not None
    assert [each["name"] for each in answer.json] == names
    assert answer.fields["x-next-page"] == following


@pytest.mark.parametrize(
    "query", ["page=99", "page=0", "page=x", "per_page=0", "per_page=-1", "sortBy=colour", "page=" + "9" * 30]
)
async def test_pages_that_are_not_there(world: World, query: str) -> None:
    answer = await ask(world, f"/api/http/routers?{query}")
    assert answer is not None
    assert answer.status == 400


async def test_other_providers_keep_their_name(tmp_path: Path) -> None:
    document: dict[str, Any] = {"wsbalancer": {"pods": ["http://10.0.0.1:8080"]}}
    found = await get(make_world(tmp_path, document), "/api/http/services/wsbalancer")
    assert (found["name"], found["provider"]) == ("wsbalancer@file", "file")
