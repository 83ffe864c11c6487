"""Sessions, backends and events as our own documents show them, and the tally behind the WebSocketMetrics document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.daemon.api.ask import ask, get
from tests.daemon.state import PODS, World, make_world
from trio_wsb.daemon.api.tally import DURATIONS, MAX_CODES, NO_CODE, OTHER_CODES
from trio_wsb.observe.events import Kind
from trio_wsb.proxy.peer import Peer
from trio_wsb.proxy.record import RequestRecord

CLOSE = bytes([0x88, 0x82, 0, 0, 0, 0])
"""A client's Close frame, masked with zeros, without its code."""

HELLO = bytes([0x81, 0x85, 0, 0, 0, 0]) + b"hello"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


async def test_sessions_by_page_and_order(world: World, nursery: trio.Nursery) -> None:
    for _ in range(5):
        await world.open(nursery, PODS[0])
    document = await get(world, "/api/sessions?limit=2&offset=1")
    assert (document["total"], document["offset"], document["limit"]) == (5, 1, 2)
    assert [each["session"] for each in document["sessions"]] == [2, 3]
    newest = await get(world, "/api/sessions?order=newest&limit=2")
    assert [each["session"] for each in newest["sessions"]] == [5, 4]
    assert (await get(world, "/api/sessions?offset=5"))["sessions"] == []
    assert (await get(world, "/api/sessions?limit=0"))["total"] == 5


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("search=room", [2]),
        ("search=ROOM%20198.51", [2]),
        ("search=pod-b", [2]),
        ("search=chat.example", [1, 2]),
        ("search=nobody", []),
        ("search=", [1, 2]),
        ("client=198.51.100.0/24", [2]),
        ("client=192.0.2.1:40000", [1]),
        ("backend=10.0.0.2:8080", [2]),
        ("backend=pod-b", [2]),
        ("backend=http://10.0.0.1:8080&service=wsbalancer", [1]),
        ("service=other", []),
    ],
)
async def test_sessions_that_fit(world: World, nursery: trio.Nursery, query: str, found: list[int]) -> None:
    await world.open(nursery, PODS[0])
    await world.open(nursery, PODS[1], client="198.51.100.9:5", path="/chat/Room/7")
    world.backend(PODS[1]).pod_name = "pod-b"
    document = await get(world, f"/api/sessions?{query}")
    assert [each["session"] for each in document["sessions"]] == found
    assert document["total"] == len(found)


async def test_one_session(world: World, nursery: trio.Nursery) -> None:
    await world.open(nursery, PODS[0], path="/<script>alert(1)</script>")
    session = await get(world, "/api/sessions/1")
    assert (session["path"], session["backend"]) == ("/<script>alert(1)</script>", PODS[0])
    world.proxy.sessions.find(1).relay.cut()  # type: ignore[union-attr] # it lives
    await trio.testing.wait_all_tasks_blocked()
    answer = await ask(world, "/api/sessions/1")
    assert answer is not None
    assert answer.status == 404


async def test_backends(world: World, nursery: trio.Nursery) -> None:
    await world.open(nursery, PODS[0])
    world.report(PODS[0], 7, at=trio.current_time())
    document = await get(world, "/api/backends")
    first = document["backends"][0]
    assert len(document["backends"]) == 3
    assert (first["live"], first["foreign"], first["reported"], first["state"]) == (1, 6, 7, "ready")
    assert (await get(world, "/api/backends?service=nope"))["backends"] == []
    answer = await ask(world, "/api/backends?servce=x")
    assert answer is not None
    assert answer.status == 400


async def test_many_backends_come_in_pieces(tmp_path: Path) -> None:
    pods = [f"http://10.0.{n // 250}.{n % 250 + 1}:8080" for n in range(330)]
    world = make_world(tmp_path, {"wsbalancer": {"pods": pods}})
    answer = await ask(world, "/api/backends")
    assert answer is not None
    assert answer.fields["transfer-encoding"] == "chunked"
    assert [each["url"] for each in answer.json["backends"]] == pods
    old = await ask(world, "/api/backends", host=None)
    assert old is not None
    assert "transfer-encoding" not in old.fields
    assert old.json == answer.json


async def test_events(world: World) -> None:
    world.state.events.record(Kind.RELOADED, duration=0.5)
    world.state.events.record(Kind.BACKEND_DOWN, "warning", backend="http://a")
    document = await get(world, "/api/events")
    assert [(each["number"], each["kind"]) for each in document["events"]] == [
        (1, "reloaded"),
        (2, "backend_down"),
    ]
    assert document["events"][1]["details"] == {"backend": "http://a"}
    after = await get(world, "/api/events?after=1")
    assert [each["number"] for each in after["events"]] == [2]


async def test_websocket_metrics(world: World, nursery: trio.Nursery) -> None:
    fresh = await get(world, "/api/websocket-metrics")
    assert fresh == {
        "active_connections": 0,
        "total_connections": 0,
        "messages_received": 0,
        "messages_sent": 0,
        "connection_duration_seconds": [],
        "last_error": "",
        "last_error_time": "0001-01-01T00:00:00Z",
    }
    ending = await world.open(nursery, PODS[0])
    staying = await world.open(nursery, PODS[1])
    ending.send(HELLO)
    staying.send(HELLO * 2)
    await trio.testing.wait_all_tasks_blocked()
    world.proxy.sessions.find(1).relay.cut()  # type: ignore[union-attr] # it lives
    await trio.testing.wait_all_tasks_blocked()
    document = await get(world, "/api/websocket-metrics")
    assert (document["active_connections"], document["total_connections"]) == (1, 2)
    assert (document["messages_received"], document["messages_sent"]) == (3, 0)
    assert len(document["connection_duration_seconds"]) == 1
    assert document["last_error"] == f"session 1 at {PODS[0]}: internal_error"
    assert document["last_error_time"] > "2020"


class Ended:
    """As much of a session as the tally looks at when it is over."""

    def __init__(self, code: int | None, cause: Any, world: World) -> None:
        scanner = type("Scanner", (), {"messages": 1, "bytes": 10})()
        pump = type("Pump", (), {"scanner": scanner})()
        self.relay = type("Relay", (), {"up": pump, "down": pump, "merge": lambda _: None})()
        self.close_code, self.cause, self.id, self.duration = code, cause, 1, 2.5
        self.backend = world.backend(PODS[0])


async def test_close_codes_and_durations_are_bounded(world: World) -> None:
    from trio_wsb.proxy.causes import Cause

    tally = world.api.tally
    for code in [None, *range(3000, 3000 + 2 * MAX_CODES)]:
        ended: Any = Ended(code, Cause.CLIENT_CLOSED, world)
        tally.session_ended(ended)
    assert len(tally.close_codes) == MAX_CODES + 1
    assert tally.close_codes[NO_CODE] == 1
    assert tally.close_codes[OTHER_CODES] == MAX_CODES + 1
    assert len(tally.durations) == DURATIONS
    assert tally.last_error == ""


@pytest.mark.parametrize(
    ("status", "told"), [(502, True), (503, True), (404, False), (499, False), (0, False)]
)
async def test_failures_of_requests_are_errors(world: World, status: int, told: bool) -> None:
    record = RequestRecord(
        "web", Peer(None, "unix"), 1, 0.0, 0.0, status=status, reason="no available server"
    )
    world.api.tally.request_ended(record)
    assert world.api.tally.last_error == (f"{status} no available server" if told else "")
