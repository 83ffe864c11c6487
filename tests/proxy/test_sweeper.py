"""The sweeper: it looks once a second, in pieces, and forgets who has no deadline left."""

from __future__ import annotations

from typing import cast

import trio
import trio.testing
from attrs import define, field

from trio_wsb.proxy.relay import Relay
from trio_wsb.proxy.sweeper import BATCH, Sweeper


@define(eq=False)
class Watched:
    """Stands for a relay: notes when it was looked at, and has a deadline until `until`."""

    until: float
    looks: list[float] = field(factory=list)

    def check(self, now: float) -> bool:
        self.looks.append(now)
        return now < self.until


def relay(each: Watched) -> Relay:
    return cast("Relay", each)


async def test_each_is_looked_at_once_a_second_until_it_has_no_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    begun = trio.current_time()
    sweeps = 0

    def swept() -> None:
        nonlocal sweeps
        sweeps += 1

    sweeper = Sweeper(swept)
    short, long = Watched(begun + 2.5), Watched(begun + 1000)
    async with trio.open_nursery() as nursery:
        sweeper.watch(relay(short))
        sweeper.watch(relay(long))
        sweeper.watch(relay(long))  # twice is once
        nursery.start_soon(sweeper.run)
        await trio.sleep(10.5)
        nursery.cancel_scope.cancel()
    assert [round(look - begun, 6) for look in short.looks] == [1, 2, 3]
    assert [round(look - begun, 6) for look in long.looks] == list(range(1, 11))
    assert sweeps == 10


async def test_ten_thousand_sessions_delay_nobody_for_long(autojump_clock: trio.testing.MockClock) -> None:
    """Others get their turn between two batches, and a session that begins meanwhile is not forgotten."""
    sweeper = Sweeper()
    everybody = [Watched(float("inf")) for _ in range(10_000)]
    late = Watched(float("inf"))
    for each in everybody:
        sweeper.watch(relay(each))
    turns: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sweeper.run)
        await trio.sleep(0.999)

        autojump_clock.jump(0.001)  # a sleep would wait until nobody has anything to do
        while not all(each.looks for each in everybody):
            turns.append(sum(len(each.looks) for each in everybody[:: BATCH // 2]))
            if len(turns) == 10:
                sweeper.watch(relay(late))
            await trio.lowlevel.checkpoint()
        assert len(set(turns)) >= 10_000 // BATCH // 2
        await trio.sleep(1.5)
        nursery.cancel_scope.cancel()
    assert late.looks
