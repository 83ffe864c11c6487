"""A router that cannot run is named in the log and in the status, and the others run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from tests.daemon.harness import backends, daemon, http_client
from tests.daemon.state import PODS, STARTED, World, make_world
from trio_wsb.daemon.reload import log_disabled
from trio_wsb.daemon.views import Moment, reload_outcome, status

SERVICES = {"chat": {"loadBalancer": {"servers": [{"url": PODS[0]}]}}}
GOOD = {"rule": "PathPrefix(`/`)", "service": "chat"}
BAD = {"rule": "Path(`/admin`)", "service": "chat", "middlewares": ["auth"]}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path, {"http": {"services": SERVICES, "routers": {"good": GOOD, "bad": BAD}}})


def look(world: World) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(status(world.state, Moment(0.0, STARTED))))
    return document


def test_the_status_has_every_router(world: World) -> None:
    reason = (
        f'{world.path}:5:9 http.routers.bad.middlewares[0]: no middleware "auth" is defined '
        "(define it under http.middlewares)"
    )
    assert look(world)["routers"] == [
        {
            "name": "bad",
            "status": "disabled",
            "error": [reason],
            "rule": "Path(`/admin`)",
            "service": "chat",
            "entryPoints": [],
            "middlewares": ["auth"],
            "priority": 14,
        },
        {
            "name": "good",
            "status": "enabled",
            "error": [],
            "rule": "PathPrefix(`/`)",
            "service": "chat",
            "entryPoints": [],
            "middlewares": [],
            "priority": 15,
        },
    ]
    # Told once.
    assert look(world)["configuration"]["warnings"] == []
    assert world.proxy.runtime.entry_points["web"].routers.names == ("good",)


async def test_a_reload_disables_and_enables(world: World, nursery: trio.Nursery) -> None:
    nursery.start_soon(world.reloader.run)
    world.write({"http": {"services": SERVICES, "routers": {"good": GOOD | {"rule": "Pth(`/`)"}}}})
    with capture_logs() as logged:
        outcome = await world.reloader.reload()
    assert outcome.succeeded
    (line,) = [each for each in logged if each["event"] == "router disabled"]
    assert (line["log_level"], line["router"]) == ("warning", "good")
    assert "http.routers.good.rule: unknown matcher 'Pth'" in line["reason"]
    assert next(each for each in logged if each["event"] == "configuration reloaded")["routersDisabled"] == 1
    assert reload_outcome(outcome)["warnings"] == [f'router "good" is disabled: {line["reason"]}']
    # Nothing is known of a rule that is none.
    (view,) = look(world)["routers"]
    assert set(view) == {"name", "status", "error"}
    assert world.proxy.runtime.entry_points["web"].routers.names == ()
    world.write({"http": {"services": SERVICES, "routers": {"good": GOOD}}})
    assert (await world.reloader.reload()).disabled == ()
    assert [each["status"] for each in look(world)["routers"]] == ["enabled"]


async def test_a_reload_that_fails_disables_nothing(world: World, nursery: trio.Nursery) -> None:
    nursery.start_soon(world.reloader.run)
    world.write({"http": {"services": SERVICES, "routers": {"good": GOOD | {"service": "gone", "prio": 1}}}})
    outcome = await world.reloader.reload()
    assert not outcome.succeeded
    assert outcome.disabled == ()
    assert world.proxy.runtime.entry_points["web"].routers.names == ("good",)


def test_each_has_one_line(world: World) -> None:
    assert world.reloader.current is not None
    with capture_logs() as logged:
        log_disabled(world.reloader.current.disabled)
    assert [(each["event"], each["router"]) for each in logged] == [("router disabled", "bad")]


def test_a_default_transport_is_that_of_who_names_none(tmp_path: Path) -> None:
    services = {
        "own": {"loadBalancer": {"servers": [{"url": PODS[2]}], "serversTransport": "mine"}},
        "other": {"loadBalancer": {"servers": [{"url": PODS[2]}]}},
    }
    world = make_world(
        tmp_path,
        {
            "serversTransport": {"insecureSkipVerify": True, "serverName": "all.example"},
            "http": {"services": services, "serversTransports": {"mine": {"serverName": "mine.example"}}},
        },
    )
    found = world.proxy.runtime.services
    assert found["own"].transport.server_name == "mine.example"
    assert found["other"].transport.server_name == "all.example"
    tls = {name: service.transport.tls for name, service in found.items()}
    assert tls["own"] is not None
    assert tls["other"] is not None
    assert [tls["own"].check_hostname, tls["other"].check_hostname] == [True, False]


@pytest.mark.daemon
async def test_the_others_run(tmp_path: Path) -> None:
    async with (
        backends(1) as started,
        daemon(
            tmp_path,
            [],
            ping={"manualRouting": True},
            http={
                "services": {"chat": {"loadBalancer": {"servers": [{"url": started[0].url}]}}},
                "routers": {
                    "chat": {"rule": "PathPrefix(`/api`)", "service": "chat"},
                    "health": {"rule": "Path(`/health`)", "service": "ping@internal"},
                    "admin": {"rule": "Path(`/admin`)", "service": "chat", "middlewares": ["auth"]},
                    "typo": {"rule": "Pth(`/`)", "service": "chat"},
                    "dashboard": {"rule": "Path(`/dashboard`)", "service": "rest@internal"},
                },
            },
        ) as running,
        http_client(base_url=running.url) as client,
    ):
        assert [line["router"] for line in running.log("router disabled")] == ["admin", "dashboard", "typo"]
        paths = ("/api/health", "/health", "/admin", "/", "/dashboard", "/ping")
        found = {path: (await client.get(path)).status_code for path in paths}
        assert found == {
            "/api/health": 200,
            "/health": 200,
            "/admin": 404,
            "/": 404,
            "/dashboard": 404,
            "/ping": 404,
        }
