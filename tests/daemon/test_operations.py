"""The handlers behind the control socket, on real tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve

from tests.daemon.state import PODS, World, make_world
from trio_wsb.daemon.control import ControlRequest
from trio_wsb.daemon.operations import BATCH, MAX_LIMIT, Operations
from trio_wsb.errors import HTTPError
from trio_wsb.proxy.session import Session, SessionTable


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


async def ask(world: World, method: str, path: str, **query: str) -> tuple[int, dict[str, Any]]:
    answer = await Operations(world.state).routes[method, path](ControlRequest(query, {}))
    assert isinstance(answer.document, dict)
    return answer.status, answer.document


async def test_status(world: World) -> None:
    status, document = await ask(world, "GET", "/status")
    assert status == 200
    assert document["uptime"] >= 0
    with pytest.raises(HTTPError, match="400 there is no parameter of that name"):
        await ask(world, "GET", "/status", verbose="1")


async def test_pages_of_sessions(world: World) -> None:
    count = BATCH + 5
    async with trio.open_nursery() as nursery:
        for index in range(count):
            await world.open(nursery, PODS[index % 2])
        status, document = await ask(world, "GET", "/sessions")
        assert (status, document["total"], document["offset"], document["limit"]) == (200, count, 0, 100)
        assert [each["session"] for each in document["sessions"]] == list(range(1, 101))
        _, document = await ask(world, "GET", "/sessions", offset=str(count - 3), limit="10")
        assert [each["session"] for each in document["sessions"]] == [count - 2, count - 1, count]
        _, document = await ask(world, "GET", "/sessions", backend=PODS[1], limit="2", offset="1")
        assert document["total"] == count // 2
        assert [each["session"] for each in document["sessions"]] == [4, 6]
        _, document = await ask(world, "GET", "/sessions", limit="0")
        assert (document["total"], document["sessions"]) == (count, [])
        nursery.cancel_scope.cancel()


class Fleeting(SessionTable):
    """Sessions of which the last has ended since the iteration began."""

    def __iter__(self) -> Iterator[Session]:
        *live, last = super().__iter__()
        return iter([*live, evolve(last)])


async def test_a_session_that_ends_while_others_are_looked_at_is_not_listed(world: World) -> None:
    world.proxy.sessions = Fleeting()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            await world.open(nursery, PODS[0])
        _, document = await ask(world, "GET", "/sessions")
        assert document["total"] == len(document["sessions"]) == 2
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"limit": str(MAX_LIMIT + 1)}, "limit must be a number from 0 to 1000"),
        ({"limit": "-1"}, "limit must be"),
        ({"limit": "٣"}, "limit must be"),
        ({"offset": "1e3"}, "offset must be a number"),
        ({"offset": "9" * 40}, "offset must be a number"),
        (
            {"backends": "x"},
            "there is no parameter of that name; there are backend, client, limit, offset, service",
        ),
    ],
)
async def test_wrong_parameters(world: World, query: dict[str, str], reason: str) -> None:
    with pytest.raises(HTTPError) as caught:
        await ask(world, "GET", "/sessions", **query)
    assert caught.value.status == 400
    assert caught.value.reason.startswith(reason)


async def test_reload(world: World) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.reloader.run)
        status, document = await ask(world, "POST", "/reload")
        assert (status, document["succeeded"], document["problems"]) == (200, True, [])
        world.path.write_text("nonsense: 1")
        status, document = await ask(world, "POST", "/reload")
        assert (status, document["succeeded"]) == (422, False)
        assert document["problems"][0].startswith(f"{world.path}:1:1 nonsense: unknown key")
        nursery.cancel_scope.cancel()


async def test_a_daemon_that_stops_does_not_reload(world: World) -> None:
    world.proxy.stop()
    with pytest.raises(HTTPError, match="503 the daemon is stopping"):
        await ask(world, "POST", "/reload")
