"""The tree of services before a whole proxy: which backend gets a request, which cookies a client gets, and copies."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.proxy.stage import (
    SWITCH,
    WRITE_TIMEOUT,
    End,
    Script,
    Stage,
    answering,
    die,
    echo,
    field_of,
    get,
    greet,
    handshake,
    ok,
    post,
    refuse_dial,
    staged,
    status_of,
)
from trio_wsb.balancing.counts import CountTable
from trio_wsb.balancing.health import HealthKey, HealthTable, Question
from trio_wsb.balancing.pool import Member, Pool
from trio_wsb.balancing.sticky import sticky_value
from trio_wsb.http.cookies import StickyCookie
from trio_wsb.net.channel import receive_some
from trio_wsb.proxy.mirrors import FEED_LIMIT
from trio_wsb.proxy.runtime import Route, TransportRuntime
from trio_wsb.proxy.services import (
    FailoverRuntime,
    MirroringRuntime,
    MirrorRuntime,
    ServiceNode,
    ServiceRuntime,
    WeightedRuntime,
    kind_of,
    parts_of,
)
from trio_wsb.routing.rules import parse_rule
from trio_wsb.routing.table import RouterTable

COOKIE = StickyCookie("ws", http_only=True)
QUESTION = Question("/health")


class Services:
    """Load balancers over the backends of a stage."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.health = HealthTable()

    def leaf(
        self,
        name: str,
        *numbers: int,
        sticky: StickyCookie | None = None,
        weights: Sequence[int] = (),
        max_connections: int = 0,
        max_pending: int = 0,
        pending_timeout: float = 1.0,
    ) -> ServiceRuntime:
        backends = [self.stage.backends[number - 1] for number in numbers]
        members = [
            Member(backend, weight, max_connections, sticky_value(str(backend.url)), max_pending)
            for backend, weight in zip(backends, weights or [1] * len(backends), strict=True)
        ]
        health = (self.health, QUESTION)
        pool = Pool(members, "wrr", counts=CountTable(), rng=random.Random(1), health=health)
        transport = TransportRuntime(5.0, 30.0, None, None)
        return ServiceRuntime(
            name, pool, transport, True, WRITE_TIMEOUT, sticky=sticky, pending_timeout=pending_timeout
        )

    def serve(self, node: ServiceNode) -> None:
        route = ("all", parse_rule("PathPrefix(`/`)"), 0, Route(node))
        self.stage.reload(routers=RouterTable([route]))

    def down(self, number: int) -> None:
        key = HealthKey(self.stage.backends[number - 1].url, QUESTION)
        self.health.failed(key, "x", trio.current_time(), fall=1)

    def up(self, number: int) -> None:
        key = HealthKey(self.stage.backends[number - 1].url, QUESTION)
        self.health.passed(key, trio.current_time(), rise=1)


@asynccontextmanager
async def serving(*scripts: Script, **kwargs: Any) -> AsyncIterator[tuple[Stage, Services]]:
    async with staged(*scripts, **kwargs) as stage:
        yield stage, Services(stage)


def named(name: str) -> Script:
    return answering(ok(name.encode(), "Set-Cookie: mine=1"), until_closed=True)


def cookies(answer: bytes) -> list[str]:
    return field_of(answer.partition(b"\r\n\r\n")[0], "Set-Cookie")


def body(answer: bytes) -> str:
    return answer.partition(b"\r\n\r\n")[2].decode()


async def ask(stage: Stage, *fields: str) -> bytes:
    return await stage.ask(get("/", "Connection: close", *fields))


async def test_a_sticky_client_stays(autojump_clock: MockClock) -> None:
    async with serving(named("b1"), named("b2")) as (stage, services):
        services.serve(services.leaf("chat", 1, 2, sticky=COOKIE))
        first = await ask(stage)
        value = sticky_value("http://b1:8080")
        assert cookies(first) == ["mine=1", f"ws={value}; Path=/; HttpOnly"]
        for _ in range(4):
            answer = await ask(stage, f'Cookie: other=1; ws="{value}"; ws=2')
            assert body(answer) == "b1"
            assert cookies(answer) == ["mine=1"]


async def test_the_cookie_is_set_on_the_101(autojump_clock: MockClock) -> None:
    async with serving(echo) as (stage, services):
        services.serve(services.leaf("chat", 1, sticky=COOKIE))
        client = stage.connect()
        await client.send(handshake())
        head = await client.head()
        value = sticky_value("http://b1:8080")
        assert field_of(head, "Set-Cookie") == [f"ws={value}; Path=/; HttpOnly"]
        client.close()
        await client.done.wait()


async def test_new_server_and_new_cookie(autojump_clock: MockClock) -> None:
    async with serving(named("b1"), named("b2")) as (stage, services):
        leaf = services.leaf("chat", 1, 2, sticky=COOKIE)
        services.serve(leaf)
        mine = f"Cookie: ws={sticky_value('http://b1:8080')}"
        other = f"ws={sticky_value('http://b2:8080')}; Path=/; HttpOnly"
        assert cookies(await ask(stage, "Cookie: ws=unknown"))[1:] != []
        services.down(1)
        answer = await ask(stage, mine)
        assert (body(answer), cookies(answer)[1:]) == ("b2", [other])
        services.up(1)
        assert body(await ask(stage, mine)) == "b1"
        stage.backends[0].passive.failed(trio.current_time())
        assert cookies(await ask(stage, mine))[1:] == [other]
        await trio.sleep(5)
        services.serve(services.leaf("chat", 1, 2, sticky=COOKIE, weights=[0, 1]))
        assert cookies(await ask(stage, mine))[1:] == [other]


async def test_one_that_refuses_the_dial_loses_its_client(autojump_clock: MockClock) -> None:
    async with serving(refuse_dial, named("b2")) as (stage, services):
        services.serve(services.leaf("chat", 1, 2, sticky=COOKIE))
        answer = await ask(stage, f"Cookie: ws={sticky_value('http://b1:8080')}")
        assert body(answer) == "b2"
        assert cookies(answer)[1:] == [f"ws={sticky_value('http://b2:8080')}; Path=/; HttpOnly"]


async def test_a_full_server_keeps_its_cookie(autojump_clock: MockClock) -> None:
    async with serving(named("b1"), named("b2")) as (stage, services):
        services.serve(services.leaf("chat", 1, 2, sticky=COOKIE, max_connections=1))
        stage.backends[0].begin_handshake()
        answer = await ask(stage, f"Cookie: ws={sticky_value('http://b1:8080')}")
        assert (body(answer), cookies(answer)) == ("b2", ["mine=1"])
        stage.backends[0].handshake_ended()


async def test_weighted(autojump_clock: MockClock) -> None:
    async with serving(named("b1"), named("b2")) as (stage, services):
        stable, canary = services.leaf("stable", 1), services.leaf("canary", 2)
        node = WeightedRuntime("all", [(stable, 3), (canary, 1)], sticky=None, rng=random.Random(1))
        services.serve(node)
        got = [body(await ask(stage)) for _ in range(8)]
        assert got.count("b1") == 6
        assert (kind_of(node), parts_of(node)) == ("weighted", ["stable", "canary"])
        # A part of which nothing is well is passed over, and when nothing at all is, its answer is the truth.
        services.down(1)
        assert {body(await ask(stage)) for _ in range(4)} == {"b2"}
        services.down(2)
        assert status_of(await ask(stage)) == 503
        # The round goes on over a reload.
        again = WeightedRuntime(
            "all", [(stable, 3), (canary, 1)], sticky=None, rng=random.Random(1), previous=node
        )
        assert again.chooser.balance == node.chooser.balance


async def test_weighted_and_sticky_with_a_sticky_part(autojump_clock: MockClock) -> None:
    async with serving(named("b1"), named("b2")) as (stage, services):
        stable, canary = services.leaf("stable", 1, sticky=COOKIE), services.leaf("canary", 2)
        parts: list[tuple[ServiceNode, int]] = [(stable, 1), (canary, 1)]
        node = WeightedRuntime("all", parts, sticky=StickyCookie("part"), rng=random.Random(1))
        services.serve(node)
        first = await ask(stage)
        assert set(cookies(first)[1:]) == {
            f"part={sticky_value('stable')}; Path=/",
            f"ws={sticky_value('http://b1:8080')}; Path=/; HttpOnly",
        }
        for _ in range(3):
            answer = await ask(stage, f"Cookie: part={sticky_value('canary')}")
            assert (body(answer), cookies(answer)) == ("b2", ["mine=1"])
        services.down(2)
        answer = await ask(stage, f"Cookie: part={sticky_value('canary')}")
        assert body(answer) == "b1"
        assert f"part={sticky_value('stable')}; Path=/" in cookies(answer)


async def test_failover(autojump_clock: MockClock) -> None:
    async with serving(named("b1"), named("b2")) as (stage, services):
        node = FailoverRuntime("all", services.leaf("main", 1), services.leaf("spare", 2))
        services.serve(node)
        assert body(await ask(stage)) == "b1"
        services.down(1)
        assert body(await ask(stage)) == "b2"
        services.up(1)
        assert body(await ask(stage)) == "b1"
        assert (kind_of(node), parts_of(node)) == ("failover", ["main", "spare"])


async def test_failover_within_one_request(autojump_clock: MockClock) -> None:
    for refused in (refuse_dial, die):
        async with serving(refused, named("b2")) as (stage, services):
            main, spare = services.leaf("main", 1), services.leaf("spare", 2, sticky=COOKIE)
            services.serve(FailoverRuntime("all", main, spare))
            answer = await ask(stage)
            assert body(answer) == "b2"
            assert cookies(answer)[1:] == [f"ws={sticky_value('http://b2:8080')}; Path=/; HttpOnly"]
            assert stage.dialled == ["b1", "b2"]


async def test_services_that_all_fail_are_tried_once_each(autojump_clock: MockClock) -> None:
    async with serving(refuse_dial, refuse_dial) as (stage, services):
        parts: list[tuple[ServiceNode, int]] = [(services.leaf("one", 1), 1), (services.leaf("two", 2), 1)]
        services.serve(WeightedRuntime("all", parts, sticky=COOKIE, rng=random.Random(1)))
        answer = await ask(stage)
        assert status_of(answer) == 502
        assert cookies(answer) == []
        assert stage.dialled == ["b1", "b2"]


async def test_nested(autojump_clock: MockClock) -> None:
    async with serving(named("b1"), named("b2"), named("b3")) as (stage, services):
        inner = FailoverRuntime("inner", services.leaf("one", 1), services.leaf("two", 2))
        parts: list[tuple[ServiceNode, int]] = [(inner, 1), (services.leaf("three", 3), 0)]
        services.serve(WeightedRuntime("outer", parts, sticky=None, rng=random.Random(1)))
        services.down(1)
        assert {body(await ask(stage)) for _ in range(3)} == {"b2"}


class Gate:
    """A backend whose handshakes wait until the test lets them through."""

    def __init__(self) -> None:
        self.knocks = 0
        self.open = trio.Event()

    async def script(self, end: End) -> None:
        await end.head()
        self.knocks += 1
        await self.open.wait()
        await end.send(SWITCH)
        await end.rest()


async def test_a_storm_meets_a_bound_and_a_line(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with serving(gate.script) as (stage, services):
        services.serve(services.leaf("chat", 1, max_pending=2))
        clients = [stage.connect() for _ in range(6)]
        for client in clients:
            await client.send(handshake())
        await wait_all_tasks_blocked()
        assert gate.knocks == 2
        assert stage.backends[0].opening == 2
        assert stage.proxy.places.waiting("chat") == 4
        gate.open.set()
        heads = [await client.head() for client in clients]
        assert all(head.startswith(b"HTTP/1.1 101 ") for head in heads)
        assert stage.backends[0].opening == 0
        assert stage.proxy.places.waiting("chat") == 0
        for client in clients:
            client.close()
            await client.done.wait()


async def test_who_waits_too_long_is_told_to_come_back(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with serving(gate.script) as (stage, services):
        services.serve(services.leaf("chat", 1, max_pending=1, pending_timeout=2.0))
        first = stage.connect()
        await first.send(handshake())
        await wait_all_tasks_blocked()
        begun = trio.current_time()
        answer = await stage.ask(handshake())
        assert status_of(answer) == 503
        assert trio.current_time() - begun >= 2.0
        (line,) = stage.events("no backend")
        assert line["reason"] == "the only backend at maxPending"
        gate.open.set()
        await first.head()
        first.close()
        await first.done.wait()


async def test_the_line_is_first_come_first_served_and_survives_who_leaves(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with serving(gate.script) as (stage, services):
        services.serve(services.leaf("chat", 1, max_pending=1))
        clients = []
        for number in range(4):
            client = stage.connect()
            await client.send(handshake(path=f"/{number}"))
            await wait_all_tasks_blocked()
            clients.append(client)
        clients[1].scope.cancel()
        await clients[1].done.wait()
        assert stage.proxy.places.waiting("chat") == 2
        gate.open.set()
        for client in (clients[0], clients[2], clients[3]):
            assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        assert stage.backends[0].opening == 0
        for client in clients:
            client.close()
            await client.done.wait()


async def test_peers_take_the_overflow(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with serving(gate.script, greet) as (stage, services):
        services.serve(services.leaf("chat", 1, 2, max_pending=1, weights=[1, 0]))
        first = stage.connect()
        await first.send(handshake())
        await wait_all_tasks_blocked()
        services.serve(services.leaf("chat", 1, 2, max_pending=1))
        assert b" 200 " in (await stage.ask(handshake())).split(b"\r\n")[0]
        first.close()
        await first.done.wait()


class Recorder:
    """A mirror's backend: accepts and keeps everything that it gets."""

    def __init__(self, *, accept: bytes = SWITCH) -> None:
        self.heads: list[bytes] = []
        self.got = bytearray()
        self.ended = False
        self.accept = accept

    async def script(self, end: End) -> None:
        self.heads.append(await end.head())
        await end.send(self.accept)
        buffer = bytearray(65536)
        while count := await receive_some(end.channel, buffer):
            self.got += buffer[:count]
        self.ended = True


def mirroring(
    main: ServiceNode, *mirrors: ServiceNode, share: float = 1.0, **kwargs: Any
) -> MirroringRuntime:
    copies = tuple(MirrorRuntime(mirror, share) for mirror in mirrors)
    return MirroringRuntime("all", main, copies, kwargs.get("max_body", 1 << 20), random.Random(1))


async def test_a_session_is_mirrored_live(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with serving(echo, recorder.script) as (stage, services):
        services.serve(mirroring(services.leaf("main", 1), services.leaf("copy", 2)))
        client = stage.connect()
        await client.send(handshake("X-One: 1") + b"early")
        await client.head()
        assert await client.exactly(5) == b"early"
        await wait_all_tasks_blocked()
        assert b"X-One: 1\r\n" in recorder.heads[0]
        assert stage.backends[1].live == 1
        await client.send(b"and more")
        assert await client.exactly(8) == b"and more"
        await wait_all_tasks_blocked()
        assert recorder.got == b"earlyand more"
        client.close()
        await client.done.wait()
        await trio.sleep(10)
        assert recorder.ended
        assert stage.proxy.mirrors.begun_total == 1
        assert stage.proxy.mirrors.running == 0
        assert not stage.proxy.mirrors.dropped_total


async def test_a_copy_that_negotiates_otherwise_is_dropped(autojump_clock: MockClock) -> None:
    extended = SWITCH[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    recorder = Recorder(accept=extended)
    async with serving(echo, recorder.script) as (stage, services):
        services.serve(mirroring(services.leaf("main", 1), services.leaf("copy", 2)))
        client = await stage.open_session("Sec-WebSocket-Extensions: permessage-deflate")
        await client.send(b"hello")
        assert await client.exactly(5) == b"hello"
        await wait_all_tasks_blocked()
        assert stage.proxy.mirrors.dropped_total == {"negotiated otherwise": 1}
        assert recorder.got == b""
        client.close()
        await client.done.wait()


async def test_a_broken_copy_never_shows(autojump_clock: MockClock) -> None:
    for script, reason in (
        (refuse_dial, "failed"),
        (die, "failed"),
        (answering(ok(b"")), "refused"),
        (answering(SWITCH), "ended"),
    ):
        async with serving(echo, script) as (stage, services):
            services.serve(mirroring(services.leaf("main", 1), services.leaf("copy", 2)))
            client = await stage.open_session()
            for _ in range(3):
                await client.send(b"hello")
                assert await client.exactly(5) == b"hello"
                await wait_all_tasks_blocked()
            await trio.sleep(10)
            assert stage.proxy.mirrors.dropped_total == {reason: 1}
            client.close()
            await client.done.wait()


async def test_a_slow_copy_is_dropped_and_slows_nothing(autojump_clock: MockClock) -> None:
    async def deaf(end: End) -> None:
        await end.head()
        await end.send(SWITCH)
        await trio.sleep_forever()

    async with serving(echo, deaf) as (stage, services):
        services.serve(mirroring(services.leaf("main", 1), services.leaf("copy", 2)))
        client = await stage.open_session()
        begun = trio.current_time()
        piece = bytes(32768)
        for _ in range(FEED_LIMIT // len(piece) + 4):
            await client.send(piece)
            await client.exactly(len(piece))
        assert trio.current_time() == begun
        await wait_all_tasks_blocked()
        assert stage.proxy.mirrors.dropped_total == {"slow": 1}
        assert stage.backends[1].live == 0
        client.close()
        await client.done.wait()


async def test_a_share_of_the_requests(autojump_clock: MockClock) -> None:
    async with serving(named("b1"), named("b2")) as (stage, services):
        services.serve(mirroring(services.leaf("main", 1), services.leaf("copy", 2), share=0.25))
        assert {body(await ask(stage)) for _ in range(100)} == {"b1"}
        await wait_all_tasks_blocked()
        assert 15 <= stage.proxy.mirrors.begun_total <= 35
        assert stage.dialled.count("b2") == stage.proxy.mirrors.begun_total


async def test_bodies_are_copied_up_to_a_bound(autojump_clock: MockClock) -> None:
    bodies: list[bytes] = []

    async def keep(end: End) -> None:
        head = await end.head()
        lengths = field_of(head, "Content-Length")
        bodies.append(await end.exactly(int(lengths[0])) if lengths else b"none")
        await end.send(ok())

    async with serving(named("b1"), keep) as (stage, services):
        main, copy = services.leaf("main", 1), services.leaf("copy", 2)
        services.serve(mirroring(main, copy, max_body=10))
        await stage.ask(post(b"0123456789", "Connection: close"))
        await stage.ask(post(b"0123456789X", "Connection: close"))
        await wait_all_tasks_blocked()
        assert bodies == [b"0123456789"]
        assert stage.proxy.mirrors.dropped_total == {"body too long": 1}
        services.serve(evolve(mirroring(main, copy), max_body=None))
        await stage.ask(post(b"0123456789", "Connection: close"))
        await wait_all_tasks_blocked()
        assert bodies == [b"0123456789", b"none"]
