"""Bursts that reports cross, in virtual time: what is chosen while backends are slow to accept and slow to report."""

from __future__ import annotations

from random import Random

import httpx
import pytest
import trio
import trio.testing

from tests.background.world import FakeBackend, World, report, target
from trio_wsb.balancing.pool import Member, Pool

DIRECT = (0, 100, 200)
"""Connections of each backend that did not come through us, and stay."""

CLIENTS = 900


class Fleet(World):
    """Three backends that count a session when they accept it, and are `slow`, up to so many seconds, with all they do."""

    def __init__(self, seed: int, slow: float) -> None:
        super().__init__()
        self.rng = Random(seed)
        self.slow = slow
        targets = [target(number, interval=2.0) for number in range(3)]
        self.has = {each.url: direct for each, direct in zip(targets, DIRECT, strict=True)}
        self.configure(*targets)
        members = [Member(self.backends.get(url)) for url in self.has]
        count = targets[0].path, targets[0].field
        self.pool = Pool(members, "leastconn", counts=self.table, count=count, rng=Random(seed))
        self.answers = dict.fromkeys(self.has, self.counted)

    async def pause(self) -> None:
        await trio.sleep(self.rng.uniform(0.0, self.slow))

    async def counted(self, backend: FakeBackend) -> httpx.Response:
        await self.pause()
        connections = self.has[backend.target.url]
        await self.pause()
        return report(connections)

    async def client(self, arrives: float) -> None:
        await trio.sleep_until(arrives)
        backend = self.pool.choose(None, trio.current_time())
        assert backend is not None
        backend.begin_handshake()
        await self.pause()
        self.has[backend.url] += 1
        await self.pause()
        backend.session_opened(trio.current_time())

    def foreign(self) -> list[int | None]:
        return [self.table.foreign(each.key) for each in (target(number) for number in range(3))]


@pytest.mark.parametrize("slow", [0.001, 0.05, 0.5], ids=["quick", "busy", "stopped"])
@pytest.mark.parametrize("lasts", [0.5, 1.5, 10.0])
@pytest.mark.parametrize("seed", range(5))
async def test_a_burst_fills_what_direct_clients_leave_whenever_reports_come(
    seed: int, lasts: float, slow: float, autojump_clock: trio.testing.MockClock
) -> None:
    fleet = Fleet(seed, slow)
    async with trio.open_nursery() as nursery:
        await nursery.start(fleet.refresher.run)
        await trio.sleep(5)
        assert fleet.foreign() == list(DIRECT)
        begins = trio.current_time()
        async with trio.open_nursery() as clients:
            for _ in range(CLIENTS):
                clients.start_soon(fleet.client, begins + fleet.rng.uniform(0.0, lasts))
        assert fleet.foreign() == list(DIRECT)
        totals = sorted(fleet.has.values())
        nursery.cancel_scope.cancel()
    assert sum(totals) == CLIENTS + sum(DIRECT)
    assert totals[-1] - totals[0] <= 1, totals
