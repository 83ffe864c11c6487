"""The live feed: what a listener is told, what changes are events, and that nothing in it ends the daemon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio
import trio.testing

from tests.daemon.state import PODS, STARTED, World, make_world
from trio_wsb.daemon.api import feed as feed_module
from trio_wsb.daemon.api.feed import KEPT, KEPT_BACKENDS, QUEUE
from trio_wsb.observe.events import Kind


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


async def greeting(world: World) -> list[dict[str, Any]]:
    return [json.loads(text) async for text in world.api.feed.greeting()]


async def look(world: World) -> dict[str, Any]:
    """Return what a listener hears of one look."""
    with world.api.feed.listeners.listen() as listener:
        await world.api.feed.look()
        told: dict[str, Any] = json.loads(await anext(listener))
        return told


async def test_a_new_listener_is_told_everything(world: World, nursery: trio.Nursery) -> None:
    await world.open(nursery, PODS[0])
    world.state.events.record(Kind.RELOADED)
    hello, *rest = await greeting(world)
    assert (hello["type"], hello["startedAt"], hello["backendsTotal"]) == ("hello", STARTED, 3)
    assert hello["sessions"]["open"] == 1
    assert [each["kind"] for each in hello["events"]] == ["reloaded"]
    assert hello["configuration"]["lastReload"] is None
    rows = [row for message in rest for row in message["backends"]]
    assert [row["live"] for row in rows] == [1, 0, 0]
    assert len({row["key"] for row in rows}) == 3


async def test_many_backends_are_told_in_pieces(tmp_path: Path) -> None:
    pods = [f"http://10.0.{n // 250}.{n % 250 + 1}:8080" for n in range(330)]
    world = make_world(tmp_path, {"wsbalancer": {"pods": pods}})
    hello, *rest = await greeting(world)
    assert hello["backendsTotal"] == 330
    assert [row["url"] for message in rest for row in message["backends"]] == pods
    assert max(len(json.dumps(message)) for message in rest) < 64 * 1024


async def test_only_what_changes_is_told(world: World, nursery: trio.Nursery) -> None:
    first = await look(world)
    assert len(first["backends"]) == 3
    assert (await look(world))["backends"] == []
    await world.open(nursery, PODS[1])
    changed = await look(world)
    assert [(row["url"], row["live"]) for row in changed["backends"]] == [(PODS[1], 1)]
    assert changed["sessions"]["open"] == 1


async def test_ages_alone_are_no_change(world: World, autojump_clock: trio.testing.MockClock) -> None:
    world.report(PODS[0], 5, at=trio.current_time())
    first = await look(world)
    reported = {row["url"]: row["reportedAt"] for row in first["backends"]}
    assert reported[PODS[0]] == round(STARTED + trio.current_time())
    assert reported[PODS[1]] is None
    await trio.sleep(7)
    assert (await look(world))["backends"] == []


async def test_backends_that_leave_are_told(world: World) -> None:
    await look(world)
    world.write({"wsbalancer": {"pods": PODS[:2]}})
    await reload(world)
    assert (await look(world))["removed"] == [f"wsbalancer {PODS[2]}"]


async def reload(world: World) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.reloader.run)
        assert (await world.reloader.reload()).succeeded
        nursery.cancel_scope.cancel()


async def test_events_are_told_once(world: World) -> None:
    await look(world)
    world.state.events.record(Kind.RELOADED)
    assert [each["kind"] for each in (await look(world))["events"]] == ["reloaded"]
    assert (await look(world))["events"] == []
    world.state.events.record(Kind.STOPPING)
    await world.api.feed.look()  # nobody listens: the greeting of the next one has it
    assert (await look(world))["events"] == []


async def test_a_backend_that_goes_and_comes_back_is_an_event(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    await world.api.feed.look()
    backend = world.backend(PODS[0])
    backend.begin_handshake()
    backend.handshake_failed(trio.current_time())
    await world.api.feed.look()
    await trio.sleep(3600)
    await world.api.feed.look()
    found = [(event.kind, event.details["backend"]) for event in world.state.events]
    assert found == [(Kind.BACKEND_COOLING, PODS[0]), (Kind.BACKEND_UP, PODS[0])]


async def test_a_dynamic_file_that_goes_bad_and_is_mended_is_an_event(tmp_path: Path) -> None:
    dynamic = tmp_path / "dynamic.yml"
    dynamic.write_text("http: {services: {a: {loadBalancer: {servers: [{url: http://a}]}}}}")
    provider = {"file": {"filename": str(dynamic)}}
    world = make_world(tmp_path, {"wsbalancer": {"pods": PODS}, "providers": provider})
    await world.api.feed.look()
    good = dynamic.read_text()
    for text in ("http: {services: 5}", "http: {services: 5}", good):
        dynamic.write_text(text)
        await reload(world)
        await world.api.feed.look()
    found = [(event.kind, event.severity) for event in world.state.events]
    assert found == [(Kind.PROVIDER_PROBLEM, "error"), (Kind.PROVIDER_RECOVERED, "info")]


async def test_what_is_remembered_is_bounded(tmp_path: Path, nursery: trio.Nursery) -> None:
    pods = [f"http://10.0.0.{n + 1}:8080" for n in range(KEPT_BACKENDS + 3)]
    world = make_world(tmp_path, {"wsbalancer": {"pods": pods}})
    for pod in pods:
        await world.open(nursery, pod)
    for _ in range(KEPT + 5):
        await world.api.feed.look()
    history = (await greeting(world))[0]["history"]
    assert {len(history[name]) for name in ("at", "open", "opened", "ended")} == {KEPT}
    assert len(history["live"]) == KEPT_BACKENDS
    assert history["open"][-1] == len(pods)


async def test_a_listener_that_does_not_keep_up_is_dropped(world: World) -> None:
    feed = world.api.feed
    with feed.listeners.listen() as slow:
        for _ in range(QUEUE + 3):
            await feed.look()
        assert len([each async for each in slow]) == QUEUE
        assert slow.dropped
    assert feed.listeners.dropped_total == 1


async def test_a_stop_ends_all_listening(world: World) -> None:
    with world.api.feed.listeners.listen() as listener:
        world.proxy.stop()
        await world.api.feed.look()
        (last,) = [json.loads(each) async for each in listener]
        assert [(each["kind"], each["details"]) for each in last["events"]] == [("stopping", {"sessions": 0})]
        assert not listener.dropped
    with world.api.feed.listeners.listen() as late:
        await world.api.feed.look()
        assert [each async for each in late] == []
    assert len(list(world.state.events)) == 1


async def test_a_reload_that_changes_who_may_listen_ends_all_listening(world: World) -> None:
    feed = world.api.feed
    await feed.look()
    with feed.listeners.listen() as listener:
        await reload(world)  # nothing is different
        await feed.look()
        assert len(feed.listeners) == 1
        world.write({"wsbalancer": {"pods": PODS}, "api": {"dashboard": False}})
        await reload(world)
        await feed.look()
        assert len([each async for each in listener]) == 1
    assert len(feed.listeners) == 0


async def test_it_looks_each_second_and_survives_a_fault(
    world: World, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    def failing(*_: object) -> Any:
        seen.append(trio.current_time())
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(feed_module, "backends", failing)
    with structlog.testing.capture_logs() as logs, trio.move_on_after(3.5):
        await world.api.feed.run()
    assert seen == [0, 1, 2, 3]
    assert {line["event"] for line in logs} == {"internal error in a look at the daemon"}
