"""Following an Engine in virtual time: events, disconnects, wrong answers, and what is known meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from attrs import evolve
from structlog.testing import capture_logs

from tests.providers.engine import Engine, Fault, transport
from trio_wsb.config.containers import Found
from trio_wsb.config.docker import DockerProvider, parse_engine_url
from trio_wsb.providers.docker import LONGEST_PAUSE, RESYNC, RETRY, DockerProviderTask
from trio_wsb.providers.engine import MAX_EVENT

OPTIONS = DockerProvider()


async def host() -> str:
    return "192.0.2.1"


class World:
    """A provider over an Engine; `changes` are the names that were there after each change."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.changes: list[list[str]] = []
        self.task = DockerProviderTask(self._changed, transport=transport(engine), host=host)

    def _changed(self) -> None:
        self.changes.append(self.names)

    @property
    def standing(self) -> str:
        return self.task.standing.state

    @property
    def found(self) -> Found:
        assert self.task.found is not None
        return self.task.found

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.found.containers]


@asynccontextmanager
async def following(engine: Engine, options: DockerProvider = OPTIONS) -> AsyncIterator[World]:
    world = World(engine)
    world.task.configure(options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.task.run)
        await world.task.known(1)
        await settle()
        yield world
        nursery.cancel_scope.cancel()


async def settle() -> None:
    """Let what is due happen: events are gathered for a moment, and the Engine is tried again after one."""
    await trio.sleep(0.1)
    await trio.testing.wait_all_tasks_blocked()


async def test_what_runs_is_known_and_followed(autojump_clock: object) -> None:
    engine = Engine()
    engine.start("one", {"traefik.enable": "true"}, ip="10.0.0.1")
    async with following(engine) as world:
        (one,) = world.found.containers
        assert (one.name, one.networks, one.labels) == (
            "one",
            (("net", "10.0.0.1"),),
            (("traefik.enable", "true"),),
        )
        assert world.standing == "ok"
        two = engine.start("two", health="starting")
        await settle()
        assert world.names == ["one", "two"]
        assert world.found.containers[1].health == "starting"
        engine.turn(two, "healthy")
        await settle()
        assert world.found.containers[1].health == "healthy"
        engine.pause(two)
        await settle()
        assert world.found.containers[1].paused
        engine.connect(two, "back", "10.1.0.1")
        await settle()
        assert dict(world.found.containers[1].networks)["back"] == "10.1.0.1"
        engine.stop(two)
        await settle()
        assert world.names == ["one"]
        # One list in all; each event cost one look at its container.
        assert engine.asked["/containers/json"] == 1
        assert engine.asked["/containers/ID/json"] <= 1 + 6


async def test_a_burst_is_one_change(autojump_clock: object) -> None:
    engine = Engine()
    async with following(engine) as world:
        for number in range(100):
            engine.start(f"c{number:03}")
        await settle()
        assert world.changes == [[], [f"c{number:03}" for number in range(100)]]
        # Health checks that say nothing new change nothing.
        engine.happens(next(iter(engine.containers)), "health_status: healthy", "exec_die", "start")
        await settle()
        assert len(world.changes) == 2


async def test_an_engine_that_goes_away_is_tried_again(autojump_clock: object) -> None:
    engine = Engine()
    engine.start("one")
    with capture_logs() as logs:
        async with following(engine) as world:
            engine.down = True
            engine.hang_up()
            await settle()
            assert (world.standing, world.names) == ("away", ["one"])
            assert world.task.standing.reason == "the stream of events ended"
            await trio.sleep(300)
            assert "cannot connect" in world.task.standing.reason
            engine.start("two")
            engine.down = False
            await trio.sleep(LONGEST_PAUSE * 1.25)
            await settle()
            assert (world.standing, world.names) == ("ok", ["one", "two"])
            engine.start("three")
            await settle()
            assert world.names == ["one", "two", "three"]
    # Each reason once, however often it was tried.
    assert [line["reason"] for line in logs if line["event"] == "Docker Engine away"] == [
        "the stream of events ended",
        "GET /version: cannot connect: no connection",
    ]
    assert [line["containers"] for line in logs if line["event"] == "containers known"] == [1, 2]


async def test_a_reload_tries_at_once(autojump_clock: object) -> None:
    engine = Engine(down=True)
    async with following(engine) as world:
        await trio.sleep(200)
        assert world.task.found is None
        engine.down = False
        world.task.look_again()
        await settle()
        assert world.standing == "ok"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("/version", status=500), "GET /version: answered 500"),
        (Fault("/version", body=b"<html>"), "GET /version: the answer is no complete JSON"),
        (Fault("/version", body=b"[]"), "GET /version: the answer is not an Engine's"),
        (
            Fault("/version", body=b'{"ApiVersion": "2.0"}'),
            "GET /version: the version of the API is not understood",
        ),
        (Fault("/version", hang=True), "GET /version: no complete answer within 15 s"),
        (Fault("/containers/json", cut=20), "GET /v1.44/containers/json: the answer is no complete JSON"),
        (Fault("/containers/json", body=b"{}"), "GET /containers/json: the answer is no list"),
        (Fault("/containers/json", body=b'[{"Id": "../x"}]'), "GET /containers/json: a container has no id"),
        (
            Fault("/containers/json", body=b"[" * 100_000),
            "GET /v1.44/containers/json: the answer is no complete JSON",
        ),
        (Fault("/events", status=403), "GET /v1.44/events: answered 403"),
        (Fault("/events", hang=True), "GET /v1.44/events: no complete answer within 15 s"),
        (Fault("/json", status=500), "GET /v1.44/containers/json: answered 500"),
    ],
    ids=lambda value: f"{value.path}-{value.status or value.cut}" if isinstance(value, Fault) else "",
)
async def test_wrong_answers(fault: Fault, reason: str, autojump_clock: object) -> None:
    engine = Engine()
    engine.start("one")
    async with following(engine) as world:
        assert world.names == ["one"]
        engine.faults.append(fault)
        engine.start("two")
        engine.hang_up()
        await trio.sleep(20)
        assert (world.standing, world.task.standing.reason) == ("away", reason)
        assert world.names == ["one"]
        engine.faults.clear()
        await trio.sleep(60)
        assert (world.standing, world.names) == ("ok", ["one", "two"])


@pytest.mark.parametrize(
    "noise",
    [b"{\n", b"[]\n", b'{"Type": "container"}\n', b'"x"\n', b"x" * (MAX_EVENT + 1)],
    ids=["half", "list", "no-actor", "text", "endless"],
)
async def test_a_stream_that_is_none_is_left_and_everything_looked_at_again(
    noise: bytes, autojump_clock: object
) -> None:
    engine = Engine()
    async with following(engine) as world:
        engine.start("one")
        engine.say(noise)
        await trio.sleep(1)
        assert (world.standing, world.names) == ("ok", ["one"])
        assert engine.asked["/events"] == 2


async def test_events_about_nobody_are_passed_over(autojump_clock: object) -> None:
    engine = Engine()
    async with following(engine):
        for noise in (
            b"\n",
            b'{"Type": "image", "Actor": {"ID": "x"}}\n',
            b'{"Type": "container", "Actor": {"ID": "../../etc"}}\n',
        ):
            engine.say(noise)
        await settle()
        assert (engine.asked["/events"], engine.asked.get("/containers/ID/json")) == (1, None)


async def test_a_container_that_cannot_be_read_holds_up_no_other(autojump_clock: object) -> None:
    engine = Engine()
    one = engine.start("one")
    engine.start("two")
    engine.faults.append(Fault(one, body=b'{"State": {"Running": true}}'))
    async with following(engine) as world:
        assert world.names == ["two"]
        assert (world.standing, world.task.standing.unread) == ("ok", 1)
        engine.start("three")
        await settle()
        assert world.names == ["two", "three"]
        engine.faults.clear()
        await trio.sleep(RETRY + 1)
        assert (world.names, world.task.standing.unread) == (["one", "two", "three"], 0)


async def test_events_that_were_lost_are_made_up_for(autojump_clock: object) -> None:
    engine = Engine()
    engine.start("one")
    async with following(engine) as world:
        document = engine.containers.pop(next(iter(engine.containers)))
        assert document["Name"] == "/one"
        await settle()
        assert world.names == ["one"]
        await trio.sleep(RESYNC)
        assert world.names == []


async def test_without_watch_a_reload_looks_again(autojump_clock: object) -> None:
    engine = Engine()
    async with following(engine, DockerProvider(watch=False)) as world:
        engine.start("one")
        await trio.sleep(10_000)
        assert (world.names, engine.listening) == ([], 0)
        world.task.look_again()
        await settle()
        assert world.names == ["one"]


async def test_another_engine_takes_over_when_it_has_answered(autojump_clock: object) -> None:
    engine = Engine()
    engine.start("one")
    async with following(engine) as world:
        engine.down = True
        world.task.configure(evolve(OPTIONS, endpoint=parse_engine_url("tcp://192.0.2.7:2375")))
        await settle()
        assert (world.standing, world.names) == ("away", ["one"])
        engine.down = False
        engine.stop(next(iter(engine.containers)))
        engine.start("other", mode="host")
        await trio.sleep(5)
        assert (world.names, world.found.host) == (["other"], "192.0.2.7")
        world.task.configure(None)
        await settle()
        assert (world.standing, world.task.found, engine.listening) == ("off", None, 0)


async def test_the_host_is_looked_up_for_those_that_are_there(autojump_clock: object) -> None:
    engine = Engine()
    async with following(engine) as world:
        assert world.found.host == "127.0.0.1"
        engine.start("edge", mode="host", networks={"host": ""})
        await settle()
        assert world.found.host == "192.0.2.1"


async def test_who_asks_is_told(autojump_clock: object) -> None:
    engine = Engine(api="1.41")
    async with following(engine, DockerProvider(username="ada", password="s3")) as world:
        assert set(engine.authorization) == {"Basic YWRhOnMz"}
        assert world.task.standing.version is not None
        assert world.task.standing.version.api == "1.41"


async def test_a_fault_of_ours_is_no_end(autojump_clock: object, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    engine.start("one")
    async with following(engine) as world:
        monkeypatch.setattr(world.task, "_publish", None)
        engine.start("two")
        with capture_logs() as logs:
            await settle()
        assert logs[0]["event"] == "internal error in the Docker provider"
        monkeypatch.undo()
        await trio.sleep(5)
        assert world.names == ["one", "two"]
