"""A broadcast: everybody hears the same, and who does not keep up is dropped alone."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_wsb.observe.broadcast import Broadcast, TooManyListeners


async def test_everybody_hears_what_is_sent_from_then_on() -> None:
    broadcast = Broadcast[int](queue=8, listeners=2)
    broadcast.send(0)
    with broadcast.listen() as first:
        broadcast.send(1)
        with broadcast.listen() as second:
            broadcast.send(2)
            broadcast.end()
            assert [each async for each in first] == [1, 2]
            assert [each async for each in second] == [2]
    assert len(broadcast) == 0


async def test_a_slow_listener_is_dropped_after_what_was_queued() -> None:
    broadcast = Broadcast[int](queue=2, listeners=2)
    with broadcast.listen() as slow, broadcast.listen() as quick:
        heard = []
        for number in range(4):
            broadcast.send(number)
            heard.append(await anext(quick))
        assert heard == [0, 1, 2, 3]
        assert [each async for each in slow] == [0, 1]
        assert slow.dropped
        assert not quick.dropped
        assert len(broadcast) == 1
    assert broadcast.dropped_total == 1


async def test_listeners_are_bounded_and_places_come_back() -> None:
    broadcast = Broadcast[int](queue=1, listeners=1)
    with broadcast.listen():
        with pytest.raises(TooManyListeners), broadcast.listen():
            pass
        assert len(broadcast) == 1
    with broadcast.listen() as again:
        broadcast.send(5)
        assert await anext(again) == 5


async def test_a_listener_waits(autojump_clock: trio.testing.MockClock) -> None:
    broadcast = Broadcast[str](queue=1, listeners=1)
    heard: list[str] = []

    async def hear() -> None:
        with broadcast.listen() as listener:
            heard.extend([each async for each in listener])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hear)
        for text in ("a", "b"):
            await trio.sleep(1)
            broadcast.send(text)
        await trio.sleep(1)
        broadcast.end()
    assert heard == ["a", "b"]
