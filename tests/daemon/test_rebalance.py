"""Rebalancing in the daemon, in virtual time: who is told to go, and what stops it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio
import trio.testing

from tests.daemon.herd import Herd, herd
from tests.daemon.state import PODS, World, make_world
from trio_wsb.balancing.drain import DrainKey
from trio_wsb.balancing.rebalance import Verdict
from trio_wsb.daemon.build import prepare
from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.services import ServiceRuntime


def document(pods: list[str], *, rebalance: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    options["servers"] = [{"url": pod} for pod in pods]
    options["rebalance"] = {"minAge": "30s", **(rebalance or {})}
    return {"http": {"services": {"wsbalancer": {"loadBalancer": options}}}}


def reload(world: World, file: dict[str, Any]) -> None:
    world.write(file)
    world.apply(prepare(world.path))


def service(world: World) -> ServiceRuntime:
    return world.proxy.runtime.services["wsbalancer"]


def ask(world: World) -> Verdict:
    return world.state.mover.rebalancer.start(service(world))


def moved(clients: Herd) -> int:
    return clients.codes[1012]


async def scaled_out(world: World, **options: Any) -> None:
    """Add the third backend to two that have all the sessions, when those are a minute old."""
    await trio.sleep(60)
    reload(world, document(PODS, **options))


async def test_by_itself_after_a_scale_out(tmp_path: Path, autojump_clock: object) -> None:
    on = {"enabled": True, "rate": "20/s"}
    world = make_world(tmp_path, document(PODS[:2], rebalance=on))
    async with herd(world, 300) as clients:
        await trio.sleep(300)
        assert moved(clients) == 0
        await scaled_out(world, rebalance=on)
        await trio.sleep(60)
        assert list(clients.live().values()) == [100, 100, 100]
        assert clients.codes == {1012: 100}
        assert world.proxy.sessions.ended_total[Cause.REBALANCE] == 100
        await trio.sleep(3600)
        assert moved(clients) == 100


async def test_only_on_request_unless_it_is_enabled(tmp_path: Path, autojump_clock: object) -> None:
    world = make_world(tmp_path, document(PODS[:2]))
    async with herd(world, 300) as clients:
        await scaled_out(world)
        await trio.sleep(300)
        assert moved(clients) == 0
        seen = world.state.mover.rebalancer.verdict(service(world))
        assert seen.plan is not None
        assert dict(seen.plan.sheds) == {0: 50, 1: 50}
        await trio.sleep(10)
        assert moved(clients) == 0
        assert ask(world).outcome == "planned"
        assert ask(world).outcome == "running"
        await trio.sleep(15)
        assert list(clients.live().values()) == [100, 100, 100]
        progress = world.state.mover.rebalancer.progress["wsbalancer"]
        assert (progress.shed, progress.kept, progress.asked_for) == (100, 0, True)
        assert progress.finished_at is not None
        assert ask(world).outcome == "balanced"


async def test_young_sessions_stay(tmp_path: Path, autojump_clock: object) -> None:
    world = make_world(tmp_path, document(PODS[:2]))
    async with herd(world, 20) as clients, trio.open_nursery() as nursery:
        await trio.sleep(60)
        for _ in range(280):
            nursery.start_soon(clients.client)
        await trio.sleep(10)
        old = {session.id for session in world.proxy.sessions if session.id <= 20}
        reload(world, document(PODS))
        assert ask(world).outcome == "planned"
        await trio.sleep(20)
        assert moved(clients) == len(old)
        assert {session.id for session in world.proxy.sessions}.isdisjoint(old)
        nursery.cancel_scope.cancel()


async def test_a_drain_meanwhile_ends_it_for_that_backend(tmp_path: Path, autojump_clock: object) -> None:
    world = make_world(tmp_path, document(PODS[:2]))
    async with herd(world, 300) as clients:
        await scaled_out(world)
        assert ask(world).outcome == "planned"
        await trio.sleep(2)
        drainer = world.state.mover.drainer
        one = drainer.drain(DrainKey(world.backend(PODS[2]).url, None), service(world).moving.drain)
        await trio.sleep(30)
        # The new one is gone again: nobody is above the mean of those that are left.
        assert moved(clients) < 40
        progress = world.state.mover.rebalancer.progress["wsbalancer"]
        assert progress.kept > 60
        assert one.finished_at is not None


async def test_a_reload_that_switches_it_off_or_changes_the_backends(
    tmp_path: Path, autojump_clock: object
) -> None:
    on = {"enabled": True}
    world = make_world(tmp_path, document(PODS[:2], rebalance=on))
    rebalancer = world.state.mover.rebalancer
    async with herd(world, 300) as clients:
        await scaled_out(world, rebalance=on)
        await trio.sleep(13)
        assert rebalancer.running("wsbalancer")
        before = moved(clients)
        # The same backends: it goes on, at another rate.
        reload(world, document(PODS, rebalance=on | {"rate": "1/s"}))
        await trio.sleep(10)
        assert before + 8 <= moved(clients) <= before + 13
        reload(world, document(PODS))
        await trio.sleep(10)
        assert not rebalancer.running("wsbalancer")
        assert moved(clients) <= before + 14
        assert rebalancer.quiet_for("wsbalancer") > 0
        await trio.sleep(60)
        assert ask(world).outcome == "planned"
        await trio.sleep(1)
        reload(world, document([*PODS[:2], "http://10.0.0.9"]))
        await trio.sleep(1)
        assert not rebalancer.running("wsbalancer")


async def test_what_cannot_be_rebalanced(tmp_path: Path, autojump_clock: object) -> None:
    world = make_world(tmp_path, document(PODS, strategy="hrw"))
    async with herd(world, 30):
        verdict = ask(world)
        assert (verdict.outcome, verdict.reason) == (
            "impossible",
            "with hrw a client comes back to the same server by its address",
        )
        reload(world, document(PODS, sticky={"cookie": {}}))
        assert ask(world).reason == "a client comes back to the same server by its cookie"
        reload(world, document(PODS[:1]))
        assert ask(world).outcome == "impossible"
        reload(world, document(PODS))
        world.proxy.stop()
        assert ask(world).reason == "the daemon is stopping"


async def test_a_slow_start_is_waited_for(tmp_path: Path, autojump_clock: object) -> None:
    on = {"enabled": True, "rate": "50/s"}
    world = make_world(tmp_path, document(PODS[:2], rebalance=on, slowStart="120s"))
    async with herd(world, 300) as clients:
        await scaled_out(world, rebalance=on, slowStart="120s")
        await trio.sleep(100)
        assert ask(world).reason == "a backend is in its slow start"
        assert moved(clients) == 0
        await trio.sleep(100)
        assert list(clients.live().values()) == [100, 100, 100]


async def test_stale_reports_count_for_nothing(tmp_path: Path, autojump_clock: object) -> None:
    counting = {"connectionCount": {"path": "/metric", "interval": "10s"}}
    world = make_world(tmp_path, document(PODS, **counting))
    async with herd(world, 300):
        for pod, foreign in zip(PODS, (0, 0, 300), strict=True):
            world.report(pod, world.backend(pod).live + foreign, at=trio.current_time())
        verdict = ask(world)
        # 400 are there where the share is 200, and a quarter of them is ours.
        assert verdict.plan is not None
        assert (dict(verdict.plan.sheds), verdict.plan.excess) == ({2: 50}, 200)
        await trio.sleep(100)
        assert ask(world).reason == "fewer than two backends have known figures and get new sessions"


async def test_the_stop_ends_it(tmp_path: Path, autojump_clock: object) -> None:
    world = make_world(tmp_path, document(PODS[:2]))
    async with herd(world, 300) as clients:
        await scaled_out(world)
        assert ask(world).outcome == "planned"
        await trio.sleep(1)
        world.proxy.stop()
        await trio.sleep(10)
        assert moved(clients) <= 15
        assert not world.state.mover.rebalancer.running("wsbalancer")
