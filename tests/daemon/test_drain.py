"""Draining in virtual time, with real sessions over memory: pace, codes, stragglers, timeouts, reloads and the stop."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from tests.daemon.herd import ABNORMAL, herd
from tests.daemon.state import PODS, World, make_world
from trio_wsb.addresses import parse_backend_url
from trio_wsb.balancing.drain import Drain, DrainKey
from trio_wsb.balancing.moving import DrainPolicy
from trio_wsb.daemon.build import prepare
from trio_wsb.daemon.drain import CLOSE_TIMEOUT
from trio_wsb.daemon.stop import close_sessions
from trio_wsb.proxy.causes import Cause

ONE, TWO, THREE = (parse_backend_url(pod) for pod in PODS)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def drain(world: World, policy: DrainPolicy, url: Any = ONE, service: str | None = None) -> Drain:
    return world.state.mover.drainer.drain(DrainKey(url, service), policy)


async def until_drained(one: Drain) -> float:
    """Wait until a drain is done and return the seconds that it took."""
    begun = trio.current_time()
    with trio.fail_after(3600):
        while one.finished_at is None:
            await trio.sleep(0.05)
    return trio.current_time() - begun


async def test_2000_sessions_at_200_a_second(world: World, autojump_clock: object) -> None:
    async with herd(world, 2000) as clients:
        before = clients.live()
        assert sorted(before.values()) == [666, 667, 667]
        one = drain(world, DrainPolicy(rate=200.0))
        await until_drained(one)
        await trio.sleep(1)
        assert clients.codes == {1001: before[PODS[0]]}
        after = clients.live()
        assert after[PODS[0]] == 0
        assert abs(after[PODS[1]] - after[PODS[2]]) <= 0.02 * 1000
        assert sum(after.values()) == 2000
        assert (one.total, one.ended, one.cut, one.left) == (before[PODS[0]], before[PODS[0]], 0, 0)
        # The pace: on the whole, and in each second of it.
        times = sorted(time for time, _ in clients.ends)
        assert len(times) / (times[-1] - times[0]) == pytest.approx(200, rel=0.1)
        for second in range(3):
            within = [time for time in times if second <= time - times[0] < second + 1]
            assert len(within) == pytest.approx(200, rel=0.1)
        assert world.proxy.sessions.ended_total[Cause.DRAIN] == before[PODS[0]]


async def test_the_moments_are_jittered(world: World, autojump_clock: object) -> None:
    async with herd(world, 90) as clients:
        await until_drained(drain(world, DrainPolicy(rate=10.0)))
        times = sorted(time for time, _ in clients.ends)
        pauses = {round(after - before, 2) for before, after in pairwise(times)}
        assert len(pauses) > 10


async def test_ready_leaves_the_rest_where_it_is(world: World, autojump_clock: object) -> None:
    async with herd(world, 300) as clients:
        one = drain(world, DrainPolicy(rate=10.0))
        await trio.sleep(3)
        assert world.state.mover.drainer.ready(one.key) is one
        assert world.state.mover.drainer.ready(one.key) is None
        told = clients.codes[1001]
        assert 25 <= told <= 32
        await trio.sleep(30)
        assert clients.codes[1001] <= told + 1
        # It gets new sessions again, and being the least loaded every one of them.
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(clients.client)
            await trio.testing.wait_all_tasks_blocked()
            assert clients.live()[PODS[0]] >= 100 - told + 5
            nursery.cancel_scope.cancel()


async def test_another_rate_applies_at_once_and_the_same_command_changes_nothing(
    world: World, autojump_clock: object
) -> None:
    async with herd(world, 300) as clients:
        one = drain(world, DrainPolicy(rate=1.0, timeout=0.0))
        await trio.sleep(10)
        assert clients.codes[1001] in {9, 10, 11}
        assert drain(world, DrainPolicy(rate=1.0, timeout=0.0)) is one
        await trio.sleep(10)
        assert clients.codes[1001] in {19, 20, 21}
        drain(world, DrainPolicy(rate=40.0, close_code=4000, timeout=0.0))
        assert await until_drained(one) < 4
        assert clients.codes[4000] >= 78


async def test_clients_that_do_not_answer_are_cut(world: World, autojump_clock: object) -> None:
    async with herd(world, 30, returns=False) as clients:
        clients.deaf = True
        one = drain(world, DrainPolicy(rate=100.0))
        took = await until_drained(one)
        assert CLOSE_TIMEOUT <= took <= CLOSE_TIMEOUT + 3
        assert (one.ended, one.cut, one.left, one.timed_out) == (0, 10, 0, False)


async def test_a_rate_too_low_for_the_timeout_is_raised(world: World, autojump_clock: object) -> None:
    async with herd(world, 600) as clients:
        one = drain(world, DrainPolicy(rate=1.0, timeout=60.0))
        await trio.sleep(5)
        assert one.rate == pytest.approx(200 / 50, rel=0.1)
        assert await until_drained(one) < 56
        assert clients.codes == {1001: 200}
        assert (one.ended, one.cut, one.timed_out) == (200, 0, False)


@pytest.mark.parametrize("timeout", [4.0, 3.5])  # at a look of the sweeper, and between two
async def test_what_is_left_at_the_timeout_is_cut(
    world: World, autojump_clock: object, timeout: float
) -> None:
    async with herd(world, 30, returns=False) as clients:
        clients.deaf = True
        backend = world.backend(PODS[0])
        backend.begin_handshake()  # a request that lasts
        one = drain(world, DrainPolicy(rate=100.0, timeout=timeout))
        assert await until_drained(one) == pytest.approx(timeout, abs=0.5)
        assert (one.ended, one.cut, one.left, one.timed_out) == (0, 10, 1, True)
        # It is watched on: what becomes a session after all is ended too.
        clients.deaf = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clients.client, backend)
            await trio.sleep(3)
            assert clients.codes[1001] == 10 + 1
            assert (one.ended, one.left) == (1, 0)
            nursery.cancel_scope.cancel()


async def test_handshakes_under_way_are_waited_for_and_then_drained(
    world: World, autojump_clock: object
) -> None:
    async with herd(world, 3) as clients:
        backend = world.backend(PODS[0])
        backend.begin_handshake()
        one = drain(world, DrainPolicy(rate=100.0))
        await trio.sleep(20)
        assert (one.finished_at, one.left, clients.codes[1001]) == (None, 1, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clients.client, backend)
            await until_drained(one)
            nursery.cancel_scope.cancel()
        assert (clients.codes[1001], one.total, one.left) == (2, 2, 0)


async def test_sessions_that_end_by_themselves(world: World, autojump_clock: object) -> None:
    async with herd(world, 30) as clients:
        one = drain(world, DrainPolicy(rate=1.0, timeout=0.0))
        await trio.sleep(0.5)
        for session in list(world.proxy.sessions):
            if session.backend.url == ONE:
                session.relay.end(Cause.SHUTDOWN, 1001, 5.0)
        assert await until_drained(one) < 5
        assert one.ended == one.total == 10
        assert clients.codes[1001] == 10


async def test_sessions_that_somebody_else_has_told_to_go(world: World, autojump_clock: object) -> None:
    async with herd(world, 30, returns=False) as clients:
        clients.deaf = True
        one = drain(world, DrainPolicy(rate=1.0, timeout=0.0))
        await trio.sleep(0.01)
        for session in list(world.proxy.sessions):
            if session.backend.url == ONE and not session.relay.ending:
                session.relay.end(Cause.SHUTDOWN, 1012, 5.0)
        assert await until_drained(one) < 15
        # They do not wait for their turn, and their end is not our cut.
        assert (one.total, one.left) == (10, 0)
        assert one.cut <= 1
        assert clients.codes[1012] >= 9


async def test_when_all_are_drained_nobody_gets_in_until_one_is_ready(
    world: World, autojump_clock: object
) -> None:
    async with herd(world, 30) as clients:
        drains = [drain(world, DrainPolicy(rate=100.0), url) for url in (ONE, TWO, THREE)]
        await until_drained(drains[0])
        await trio.sleep(5)
        assert clients.refused > 30
        assert sum(clients.live().values()) == 0
        pool = world.proxy.runtime.services["wsbalancer"].pool
        assert pool.reason(trio.current_time()) == "all 3 backends draining"
        world.state.mover.drainer.ready(drains[1].key)
        await trio.sleep(2)
        assert clients.live()[PODS[1]] == 30


async def test_the_stop_has_its_own_pace(world: World, autojump_clock: object) -> None:
    async with herd(world, 300, returns=False) as clients:
        one = drain(world, DrainPolicy(rate=1.0, timeout=0.0))
        await trio.sleep(5)
        world.proxy.connections["web"] = 1
        world.proxy.stop()
        await close_sessions(world.proxy, "web", 10.0, Random(1))
        await trio.sleep(1)
        assert clients.codes == {1001: 300}
        assert one.finished_at is None
        assert world.proxy.sessions.ended_total[Cause.DRAIN] <= 6


async def test_without_sessions_it_is_done_at_once(world: World, autojump_clock: object) -> None:
    async with herd(world, 0):
        assert await until_drained(drain(world, DrainPolicy())) < 0.2


def two_services(pods: list[str], **options: Any) -> dict[str, Any]:
    servers = [{"url": pod} for pod in pods]
    return {
        "http": {
            "services": {
                "wsbalancer": {"loadBalancer": {"servers": servers, **options}},
                "site": {"loadBalancer": {"servers": [{"url": pod} for pod in PODS]}},
            }
        }
    }


def reload(world: World, document: dict[str, Any]) -> None:
    world.write(document)
    world.apply(prepare(world.path))


async def test_in_one_service_alone(tmp_path: Path, autojump_clock: object) -> None:
    world = make_world(tmp_path, two_services(PODS))
    async with herd(world, 30) as clients, herd(world, 30, service="site", moving=False) as others:
        one = drain(world, DrainPolicy(rate=100.0), ONE, "wsbalancer")
        await until_drained(one)
        await trio.sleep(3)
        assert (clients.codes, others.codes) == ({1001: 10}, {})
        assert world.backend(PODS[0]).live == 10
        assert one.left == 0


async def test_it_survives_reloads_and_the_absence_of_the_backend(
    tmp_path: Path, autojump_clock: object
) -> None:
    world = make_world(tmp_path, two_services(PODS))
    async with herd(world, 90) as clients:
        one = drain(world, DrainPolicy(rate=5.0, timeout=0.0))
        await trio.sleep(1)
        reload(world, two_services(PODS, drain={"rate": "1/s"}))
        await trio.sleep(1)
        reload(world, two_services(PODS[1:]))
        await until_drained(one)
        assert clients.codes == {1001: 30}
        reload(world, two_services(PODS))
        await trio.sleep(1)
        assert clients.live()[PODS[0]] == 0
        assert world.proxy.runtime.services["wsbalancer"].pool.drain(world.backend(PODS[0])) is one


async def test_removed_from_the_configuration(tmp_path: Path, autojump_clock: object) -> None:
    options = {"onRemove": "drain", "drain": {"rate": "10/s", "closeCode": 1012}}
    world = make_world(tmp_path, two_services(PODS, **options))
    async with herd(world, 90) as clients:
        reload(world, two_services(PODS[1:], **options))
        (one,) = world.state.mover.drains
        assert (one.removal, one.key) == (True, DrainKey(ONE, "wsbalancer"))
        await trio.sleep(1.5)
        told = clients.codes[1012]
        assert 10 <= told <= 20
        # It comes back: what was not told to go stays.
        reload(world, two_services(PODS, **options))
        assert len(world.state.mover.drains) == 0
        await trio.sleep(10)
        assert clients.codes[1012] <= told + 1
        # And goes for good: nothing is kept of the drain once it is done.
        reload(world, two_services(PODS[1:], **options))
        await trio.sleep(10)
        assert len(world.state.mover.drains) == 0
        assert clients.codes[1012] >= 30
        assert ABNORMAL not in clients.codes


async def test_removed_and_kept(tmp_path: Path, autojump_clock: object) -> None:
    world = make_world(tmp_path, two_services(PODS))
    async with herd(world, 90) as clients:
        reload(world, two_services(PODS[1:]))
        await trio.sleep(60)
        assert len(world.state.mover.drains) == 0
        assert clients.codes == {}


async def test_a_service_that_is_gone_drains_too(tmp_path: Path, autojump_clock: object) -> None:
    world = make_world(tmp_path, two_services(PODS, onRemove="drain"))
    async with herd(world, 30, returns=False) as clients:
        document = two_services(PODS)
        del document["http"]["services"]["wsbalancer"]
        reload(world, document)
        await trio.sleep(10)
        assert clients.codes == {1001: 30}
        assert len(world.state.mover.drains) == 0
