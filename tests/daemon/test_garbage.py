"""Full collections happen when there are few sessions, and sessions leave nothing for them."""

from __future__ import annotations

import gc

import trio
import trio.testing
from trio.testing import MockClock

from trio_wsb.daemon.garbage import FEW_SESSIONS, INTERVAL, LONGEST, collect_garbage
from trio_wsb.net.memory import memory_channel_pair
from trio_wsb.proxy.relay import SCRATCH_SIZE, Relay
from trio_wsb.websocket.frames import FrameScanner


async def test_a_full_collection_waits_for_a_quiet_moment(autojump_clock: MockClock) -> None:
    sessions, times = 0, list[float]()
    before, begun = gc.get_threshold(), trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            collect_garbage, lambda: sessions, lambda: times.append(round(trio.current_time() - begun))
        )
        await trio.sleep(2.5 * INTERVAL)
        assert times == [INTERVAL, 2 * INTERVAL]
        sessions = FEW_SESSIONS
        await trio.sleep(10 * INTERVAL)
        assert len(times) == 2
        await trio.sleep(LONGEST * INTERVAL)
        assert len(times) == 3
        assert gc.get_threshold() != before
        nursery.cancel_scope.cancel()
    assert gc.get_threshold() == before


async def test_a_session_leaves_no_cycles() -> None:
    def scanners() -> int:
        return sum(isinstance(each, FrameScanner) for each in gc.get_objects())

    async def session() -> None:
        (client, ours), (theirs, backend) = memory_channel_pair(), memory_channel_pair()
        relay = Relay(
            ours,
            theirs,
            scratch=memoryview(bytearray(SCRATCH_SIZE)),
            write_timeout=0,
            watch=lambda _: None,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.run)
            await trio.testing.wait_all_tasks_blocked()
            client.close()
            backend.close()

    await session()
    gc.collect()
    gc.disable()
    try:
        before = scanners()
        for _ in range(5):
            await session()
        assert scanners() == before
    finally:
        gc.enable()
