"""Who may ask for the pages of the API, and how: nothing changes, nothing leaks, nobody rebinds a name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from tests.daemon import pages
from tests.daemon.api.ask import CONFIGURATION, Answer, ask, get
from tests.daemon.state import World, make_world

EVERY = sorted(
    {"/api/overview", "/api/version", "/api/rawdata", "/api/entrypoints", "/api/http/routers", "/api/http/services",
     "/api/http/middlewares", "/api/sessions", "/api/backends", "/api/events", "/api/websocket-metrics"}
)  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path, CONFIGURATION)


def with_api(**api: Any) -> dict[str, Any]:
    return {**CONFIGURATION, "api": api}


def test_every_page_is_tested(world: World) -> None:
    assert world.api.paths == set(EVERY)


async def test_every_page_answers_get_and_head(world: World) -> None:
    for path in EVERY:
        await get(world, path)
        bare = await ask(world, path, method="HEAD")
        assert bare is not None
        assert (bare.status, bare.body) == (200, b""), path


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get"])
async def test_nothing_can_be_changed(world: World, method: str) -> None:
    for path in [*EVERY, "/", "/dashboard/", "/api/sessions/1", "/api/nothing"]:
        answer = await ask(world, path, method=method)
        assert answer is not None
        assert answer.status == 405, path
        assert answer.fields["allow"] == "GET, HEAD"


async def test_no_other_site_may_read(world: World) -> None:
    for path in [*EVERY, "/dashboard/"]:
        answer = await ask(world, path, "Origin: https://evil.example")
        assert answer is not None
        assert not any(name.startswith("access-control") for name in answer.fields)
        assert answer.fields["x-content-type-options"] == "nosniff"


async def test_traffic_entry_points_have_none_of_it(world: World) -> None:
    for path in [*EVERY, "/", "/dashboard", "/dashboard/", "/api/sessions/1", "/api", "/api/x"]:
        assert await ask(world, path, name="web") is None, path


@pytest.mark.parametrize(
    "path",
    ["/api", "/api/", "/api/nothing", "/api/http", "/api/http/", "/api/http/routers/", "/api/overview/", "/api/../etc/passwd",
     "/api/http/routers/../../../etc/passwd", "/api/%2e%2e/secret", "/dashboard/../../x", "/dashboard/script.js", "/dashboard/%2e%2e/style.css",
     "/api/sessions/0", "/api/sessions/x", "/api/sessions/-1", "/api/sessions/99999999999999999999", "/api/http/routers/nope@file",
     "/api/http/routers/%00", "/api/http/services/%f0%9f%92%a9", "/apiary"],
)  # fmt: skip
async def test_what_is_not_there(world: World, path: str) -> None:
    answer = await ask(world, path)
    assert answer is not None
    assert answer.status == 404
    assert set(answer.json) == {"message"}


@pytest.mark.parametrize("path", ["/", "/dashboard"])
async def test_ways_to_the_dashboard(world: World, path: str) -> None:
    answer = await ask(world, path)
    assert answer is not None
    assert (answer.status, answer.fields["location"]) == (302, "/dashboard/")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:9001", "[::1]:9001", "192.0.2.7:9001", "localhost", "LOCALHOST:9001", "a.localhost", "balancer.lan:9001",
     "Balancer.LAN.", None, "named.internal", "a.b.wild.example"],
)  # fmt: skip
async def test_our_own_names(tmp_path: Path, host: str | None) -> None:
    world = make_world(tmp_path, with_api(allowedHosts=["named.internal", "*.wild.example"]))
    assert (await get(world, "/api/version", host=host))["Codename"] == "trio-wsb"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "wild.example", "notwild.example", "0x7f000001"]
)  # fmt: skip
@pytest.mark.parametrize("path", ["/api/version", "/dashboard/", "/", "/api/events"])
async def test_a_name_that_somebody_pointed_here(tmp_path: Path, host: str, path: str) -> None:
    world = make_world(tmp_path, with_api(allowedHosts=["named.internal", "*.wild.example"]))
    with structlog.testing.capture_logs() as logs:
        answer = await ask(world, path, host=host)
    assert answer is not None
    assert answer.status == 421
    assert [line["host"] for line in logs] == [host]


async def test_behind_a_router_the_rule_decides_the_name(world: World) -> None:
    request = pages.head("/api/version", host="dashboard.example")
    data = await pages.answer_of(world, world.api.serve_api, request, router="dash")
    assert Answer(data).status == 200


async def test_the_dashboard_service_has_no_api(world: World) -> None:
    for path, status in (("/dashboard/", 200), ("/", 302), ("/api/version", 404)):
        data = await pages.answer_of(world, world.api.serve_dashboard, pages.head(path), router="dash")
        assert Answer(data).status == status


async def test_switched_off(tmp_path: Path) -> None:
    world = make_world(tmp_path, {**CONFIGURATION, "api": False})
    assert await ask(world, "/api/version") is None
    assert await ask(world, "/dashboard/") is None


async def test_the_dashboard_alone_switched_off(tmp_path: Path) -> None:
    world = make_world(tmp_path, with_api(dashboard=False))
    assert (await get(world, "/api/version"))["Version"]
    for path in ("/", "/dashboard", "/dashboard/"):
        answer = await ask(world, path)
        assert answer is not None
        assert answer.status == 404


async def test_a_base_path(tmp_path: Path) -> None:
    world = make_world(tmp_path, with_api(basePath="/balancer/"))
    assert await ask(world, "/api/version") is None
    assert await ask(world, "/dashboard/") is None
    assert await ask(world, "/balancerx/api/version") is None
    assert (await get(world, "/balancer/api/version"))["Version"]
    for path in ("/balancer", "/balancer/", "/balancer/dashboard"):
        answer = await ask(world, path)
        assert answer is not None
        assert answer.fields["location"] == "/balancer/dashboard/"


@pytest.mark.parametrize(("insecure", "answers"), [(True, True), (False, False)])
async def test_traefiks_entry_point_answers_with_insecure(
    tmp_path: Path, insecure: bool, answers: bool
) -> None:
    document = with_api(insecure=insecure)
    document["entryPoints"] = {**document["entryPoints"], "traefik": {"address": "127.0.0.1:8080"}}
    world = make_world(tmp_path, document)
    assert (await ask(world, "/api/version", name="traefik") is not None) is answers
    assert await ask(world, "/api/version", name="web") is None


def guarded(**router: Any) -> dict[str, Any]:
    http = CONFIGURATION["http"]
    guard = {"rule": "PathPrefix(`/`)", "entryPoints": ["admin"], **router}
    return {**CONFIGURATION, "http": {**http, "routers": {**http["routers"], "guard": guard}}}


@pytest.mark.parametrize("service", ["api@internal", "dashboard@internal"])
@pytest.mark.parametrize("middlewares", [["auth"], ["missing"]], ids=["runs", "disabled"])
async def test_a_router_on_admin_guards_it_even_disabled(
    tmp_path: Path, service: str, middlewares: list[str]
) -> None:
    world = make_world(tmp_path, guarded(service=service, middlewares=middlewares))
    assert await ask(world, "/api/sessions") is None
    assert await ask(world, "/dashboard/") is None


async def test_other_routers_on_admin_guard_nothing(tmp_path: Path) -> None:
    world = make_world(tmp_path, guarded(service="chat"))
    assert (await get(world, "/api/sessions"))["total"] == 0


async def test_a_router_that_cannot_be_read_may_be_the_guard(tmp_path: Path) -> None:
    world = make_world(tmp_path, guarded(rule="PathPrefix(`/`", service="api@internal", middlewares=["auth"]))
    answer = await ask(world, "/api/sessions")
    assert answer is not None
    assert answer.status == 503


async def test_a_router_that_cannot_be_read_and_leads_elsewhere_is_no_guard(tmp_path: Path) -> None:
    world = make_world(tmp_path, guarded(rule="PathPrefix(`/`", service="chat", middlewares=["auth"]))
    assert (await get(world, "/api/http/routers/guard@file"))["status"] == "disabled"


@pytest.mark.parametrize(
    "query",
    ["limit=x", "limit=1001", "limit=-1", "offset=1e3", "order=random", "nonsense=1", "limit=1&limit=2", "search=" + "x" * 201, "%zz=%ff",
     "&".join(f"a{n}=1" for n in range(30)), "backend=%ff", "limit=99999999999"],
)  # fmt: skip
async def test_bad_parameters_are_refused(world: World, query: str) -> None:
    answer = await ask(world, f"/api/sessions?{query}")
    assert answer is not None
    assert answer.status == 400
    assert set(answer.json) == {"message"}


async def test_log_lines_about_names_are_bounded(world: World) -> None:
    with structlog.testing.capture_logs() as logs:
        for _ in range(150):
            await ask(world, "/api/version", host="evil.example")
    assert len(logs) == 100


async def test_secrets_are_nowhere(world: World) -> None:
    for path in (
        "/api/rawdata",
        "/api/http/middlewares",
        "/api/http/services",
        "/api/http/middlewares/auth@file",
    ):
        answer = await ask(world, path)
        assert answer is not None
        assert b"$2y$" not in answer.body
        assert b"hunter2" not in answer.body
        assert b"REDACTED" in answer.body
