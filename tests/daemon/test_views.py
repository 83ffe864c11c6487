"""Views read what is true at the moment, under the names of configuration and log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.daemon.state import PODS, STARTED, World, make_world
from trio_wsb import __version__
from trio_wsb.daemon.sessionviews import SessionFilter, session_filter, session_view
from trio_wsb.daemon.views import Moment, balancer_metrics, moment, status
from trio_wsb.proxy.causes import Cause


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def look(world: World, now: float = 0.0) -> dict[str, Any]:
    """Return the status as a program gets it."""
    document: dict[str, Any] = json.loads(
        json.dumps(status(world.state, Moment(now, STARTED + now)), allow_nan=False)
    )
    return document


def backend_of(document: dict[str, Any], url: str) -> dict[str, Any]:
    (found,) = [each for each in document["backends"] if each["url"] == url]
    assert isinstance(found, dict)
    return found


def test_a_moment_is_in_utc() -> None:
    assert moment(STARTED + 0.25) == "2023-11-14T22:13:20.250Z"


def test_a_daemon_that_has_just_begun(world: World) -> None:
    document = look(world, 12.3456)
    assert document["version"] == __version__
    assert document["startedAt"] == "2023-11-14T22:13:20.000Z"
    assert document["uptime"] == 12.346
    assert document["stopping"] is False
    assert document["configuration"]["file"] == str(world.path)
    assert document["configuration"]["lastReload"] is None
    assert document["entryPoints"] == [
        {
            "name": "admin",
            "addresses": [],
            "connections": 0,
            "maxConnections": 20000,
            "waiting": False,
            "tlsHandshakes": None,
            "redirection": None,
        },
        {
            "name": "web",
            "addresses": ["127.0.0.1:9000"],
            "connections": 0,
            "maxConnections": 20000,
            "waiting": False,
            "tlsHandshakes": None,
            "redirection": None,
        },
    ]
    quiet = {"enabled": False, "running": False, "quietFor": 0.0, "plan": None}
    assert document["services"] == [{"name": "wsbalancer", "strategy": "leastconn", "rebalance": quiet}]
    assert document["sessions"] == {"open": 0, "opened": 0, "ended": {cause.value: 0 for cause in Cause}}
    assert [each["url"] for each in document["backends"]] == PODS
    assert backend_of(document, PODS[0]) == {
        "service": "wsbalancer",
        "url": PODS[0],
        "dnsName": None,
        "standby": False,
        "state": "ready",
        "weight": 1,
        "maxConnections": 0,
        "live": 0,
        "handshakes": 0,
        "opened": 0,
        "failures": 0,
        "drops": 0,
        "coolDownLeft": 0.0,
        "podName": None,
        "podIP": None,
        "nodeName": None,
        "foreign": 0,
        "load": 0,
        "reported": None,
        "reportAge": None,
        "reportStale": True,
        "reportProblem": None,
        "health": None,
        "drain": None,
    }


def test_redirections(tmp_path: Path) -> None:
    def sent_to(to: str, **options: Any) -> dict[str, Any]:
        return {"http": {"redirections": {"entryPoint": {"to": to, **options}}}}

    missing = {"redirections": {"entryPoint": {"to": "secure"}}, "middlewares": ["nowhere"]}
    entry_points = {
        "web": {"address": ":8000", **sent_to("secure")},
        "old": {"address": ":8001", **sent_to(":444", scheme="http", permanent=False, priority=7)},
        "bad": {"address": ":8002", "http": missing},
        "secure": {"address": ":8443"},
    }
    document = look(make_world(tmp_path, {"entryPoints": entry_points}), 1.0)
    assert {each["name"]: each["redirection"] for each in document["entryPoints"]} == {
        "web": {
            "router": "web-to-secure@internal", "to": "secure", "scheme": "https", "port": 8443, "permanent": True,
            "priority": 2**63 - 2,
        },
        "old": {
            "router": "old-to-444@internal", "to": ":444", "scheme": "http", "port": 444, "permanent": False, "priority": 7,
        },
        "bad": None,  # what guards it is not there, so it is among the disabled routers
        "secure": None,
    }  # fmt: skip
    (disabled,) = [each for each in document["routers"] if each["status"] == "disabled"]
    assert disabled["name"] == "bad-to-secure@internal"


def test_reports_and_their_age(world: World) -> None:
    world.report(PODS[0], 12, at=100.0)
    found = backend_of(look(world, 103.5), PODS[0])
    assert (found["reported"], found["foreign"], found["load"]) == (12, 12, 12)
    assert (found["reportAge"], found["reportStale"]) == (3.5, False)
    # Three times cacheTTL, unless staleAfter says otherwise.
    assert backend_of(look(world, 190.0), PODS[0])["reportStale"] is False
    assert backend_of(look(world, 190.1), PODS[0])["reportStale"] is True
    # One that has never reported is taken to be like its peers.
    assert backend_of(look(world, 103.5), PODS[1])["foreign"] == 12


def test_stale_after_is_the_configurations(tmp_path: Path) -> None:
    count = {"path": "/metric", "interval": "10s", "staleAfter": "12s"}
    balancer = {"servers": [{"url": PODS[0]}], "connectionCount": count}
    world = make_world(tmp_path, {"http": {"services": {"chat": {"loadBalancer": balancer}}}})
    world.report(PODS[0], 1, at=0.0)
    assert backend_of(look(world, 12.0), PODS[0])["reportStale"] is False
    assert backend_of(look(world, 12.1), PODS[0])["reportStale"] is True


def test_a_service_that_asks_for_no_reports(tmp_path: Path) -> None:
    balancer = {"servers": [{"url": PODS[0]}]}
    world = make_world(tmp_path, {"http": {"services": {"chat": {"loadBalancer": balancer}}}})
    found = backend_of(look(world), PODS[0])
    assert (found["reported"], found["reportStale"], found["foreign"]) == (None, False, 0)
    assert balancer_metrics(world.state, STARTED)["podMetrics"] == {}


def test_states(tmp_path: Path) -> None:
    servers = [
        {"url": PODS[0], "maxConnections": 10},
        {"url": PODS[1]},
        {"url": PODS[2], "weight": 0},
    ]
    balancer = {"servers": servers, "connectionCount": {"path": "/metric"}}
    world = make_world(tmp_path, {"http": {"services": {"chat": {"loadBalancer": balancer}}}})
    world.report(PODS[0], 10, at=50.0)
    failing = world.backend(PODS[1])
    failing.begin_handshake()
    failing.handshake_failed(50.0)
    document = look(world, 50.25)
    assert [each["state"] for each in document["backends"]] == ["full", "cooling_down", "off"]
    assert backend_of(document, PODS[1])["coolDownLeft"] == 0.75
    assert backend_of(document, PODS[1])["failures"] == 1
    assert [each["state"] for each in look(world, 51.0)["backends"]] == ["full", "ready", "off"]


async def test_a_reload_that_failed_is_there_with_every_line(world: World) -> None:
    world.path.write_text("wsbalancer:\n  pods: []\n  dialTimeout: soon\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.reloader.run)
        await world.reloader.reload()
        nursery.cancel_scope.cancel()
    found = look(world)["configuration"]
    assert (found["reloads"], found["reloadsFailed"]) == (0, 1)
    assert found["lastReload"]["succeeded"] is False
    assert len(found["lastReload"]["problems"]) == 2
    assert found["lastReload"]["problems"][1].startswith(f"{world.path}:3:16 wsbalancer.dialTimeout: ")


async def test_sessions_live_and_ended(world: World, autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.proxy.sweeper.run)
        first = await world.open(nursery, PODS[0])
        await world.open(nursery, PODS[0], client="192.0.2.9:1")
        other = await world.open(nursery, PODS[1])
        document = look(world)
        assert (document["sessions"]["open"], document["sessions"]["opened"]) == (3, 3)
        assert [each["live"] for each in document["backends"]] == [2, 1, 0]
        first.close()
        other.abort()
        await trio.sleep(60)
        document = look(world)
        assert (document["sessions"]["open"], document["sessions"]["opened"]) == (1, 3)
        assert document["sessions"]["ended"]["client_lost"] == 2
        assert [each["live"] for each in document["backends"]] == [1, 0, 0]
        nursery.cancel_scope.cancel()


async def test_a_removed_backend_is_there_as_long_as_it_has_sessions(world: World) -> None:
    async with trio.open_nursery() as nursery:
        await world.open(nursery, PODS[2])
        world.write({"wsbalancer": {"pods": PODS[:2]}})
        nursery.start_soon(world.reloader.run)
        assert (await world.reloader.reload()).succeeded
        document = look(world)
        assert [each["url"] for each in document["backends"]] == PODS
        found = backend_of(document, PODS[2])
        assert (found["service"], found["state"], found["live"]) == (None, "removed", 1)
        metrics: dict[str, Any] = balancer_metrics(world.state, STARTED)
        assert {"url": PODS[2], "connections": 1} in metrics["services"]
        nursery.cancel_scope.cancel()
    assert [each["url"] for each in look(world)["backends"]] == PODS[:2]


async def test_a_session_has_the_names_of_its_log_lines(world: World) -> None:
    async with trio.open_nursery() as nursery:
        client = await world.open(nursery, PODS[0])
        client.send(bytes.fromhex("8182000000006869"))  # "hi", masked with zeros
        await trio.testing.wait_all_tasks_blocked()
        (session,) = world.proxy.sessions
        assert session_view(session, session.opened_at + 2.0) == {
            "session": 1,
            "client": "192.0.2.1:40000",
            "entryPoint": "web",
            "router": "wsbalancer",
            "service": "wsbalancer",
            "backend": PODS[0],
            "podName": None,
            "nodeName": None,
            "host": "chat.example",
            "path": "/chat",
            "tries": 1,
            "relay": "stream",
            "relayReason": "",
            "duration": 2.0,
            "messagesIn": 1,
            "messagesOut": 0,
            "bytesIn": 8,
            "bytesOut": 0,
            "draining": False,
            "cause": None,
        }
        session.relay.end(Cause.SHUTDOWN, 1001, 5.0)
        assert session_view(session, 0.0)["cause"] == "shutdown"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, [1, 2, 3]),
        ({"backend": "http://10.0.0.1:8080"}, [1]),
        ({"backend": "10.0.0.1:8080"}, [1]),
        ({"backend": "10.0.0.1"}, [1]),
        ({"backend": "https://10.0.0.3"}, [3]),
        ({"backend": "10.0.0.3:443"}, [3]),
        ({"backend": "wss://10.0.0.3:443"}, [3]),
        ({"backend": "http://10.0.0.3"}, []),
        ({"backend": "pod-2"}, [2]),
        ({"backend": "10.0.0"}, []),
        ({"backend": ""}, []),
        ({"service": "wsbalancer"}, [1, 2]),
        ({"service": "other", "backend": "10.0.0.3"}, [3]),
        ({"service": "other", "backend": "10.0.0.1"}, []),
        ({"client": "192.0.2.7"}, [1]),
        ({"client": "192.0.2.7:40000"}, [1]),
        ({"client": "192.0.2.7:40001"}, []),
        ({"client": "192.0.2.0/24"}, [1, 2]),
        ({"client": "2001:db8::1"}, [3]),
        ({"client": "2001:db8::/32"}, [3]),
        ({"client": "[2001:db8::1]:40000"}, [3]),
        ({"client": "0.0.0.0/0"}, [1, 2]),
        ({"client": "unix"}, []),
    ],
)
async def test_filters(world: World, wanted: dict[str, str], found: list[int]) -> None:
    async with trio.open_nursery() as nursery:
        await world.open(nursery, PODS[0], client="192.0.2.7:40000")
        await world.open(nursery, PODS[1], client="192.0.2.8")  # what a trusted proxy has said
        await world.open(nursery, PODS[2], client="[2001:db8::1]:40000", service="other")
        world.backend(PODS[1]).pod_name = "pod-2"
        fits = session_filter(world.backends, **({"backend": None, "service": None, "client": None} | wanted))
        assert [session.id for session in world.proxy.sessions if fits(session)] == found
        nursery.cancel_scope.cancel()


async def test_a_client_without_a_port_or_an_address(world: World) -> None:
    async with trio.open_nursery() as nursery:
        await world.open(nursery, PODS[0], client="2001:db8::2")
        await world.open(nursery, PODS[0], client="unix")
        fits = session_filter(world.backends, backend=None, service=None, client="2001:db8::2")
        assert [fits(session) for session in world.proxy.sessions] == [True, False]
        assert [SessionFilter(client="unix")(session) for session in world.proxy.sessions] == [False, True]
        nursery.cancel_scope.cancel()


async def test_the_balancers_own_metrics(world: World) -> None:
    async with trio.open_nursery() as nursery:
        await world.open(nursery, PODS[0])
        await world.open(nursery, PODS[1])
        world.report(PODS[0], 11, at=5.0)
        world.backend(PODS[0]).pod_name = "pod-1"
        metrics = balancer_metrics(world.state, STARTED + 6.0)
        nursery.cancel_scope.cancel()
    # What nobody has reported is not made up, as it is for the choice of a backend.
    assert metrics == {
        "timestamp": "2023-11-14T22:13:26.000Z",
        "services": [
            {"url": PODS[0], "connections": 11},
            {"url": PODS[1], "connections": 1},
            {"url": PODS[2], "connections": 0},
        ],
        "podMetrics": {PODS[0]: [{"agentsConnections": 11, "podName": "pod-1", "podIP": "", "nodeName": ""}]},
        "totalConnections": 12,
        "agentsConnections": 12,
    }


def test_a_backend_of_two_services_counts_once(tmp_path: Path) -> None:
    servers = {"servers": [{"url": PODS[0]}], "connectionCount": {"path": "/metric"}}
    more = {"servers": [{"url": PODS[0]}], "connectionCount": {"path": "/other"}}
    services = {"one": {"loadBalancer": servers}, "two": {"loadBalancer": more}}
    world = make_world(tmp_path, {"http": {"services": services}})
    world.report(PODS[0], 7, at=0.0)
    world.report(PODS[0], 9, at=0.0, path="/other")
    metrics = balancer_metrics(world.state, STARTED)
    assert metrics["services"] == [{"url": PODS[0], "connections": 9}]
    assert metrics["totalConnections"] == 9
    assert [each["service"] for each in look(world)["backends"]] == ["one", "two"]
