"""A byte channel as a Trio stream."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_wsb.net.channel import receive_some
from trio_wsb.net.memory import MemoryChannel, memory_channel_pair
from trio_wsb.net.stream import ChannelStream


async def pair() -> tuple[ChannelStream, ChannelStream]:
    near, far = memory_channel_pair(capacity=4096)
    return ChannelStream(near), ChannelStream(far)


async def read(channel: MemoryChannel) -> bytes:
    buffer = bytearray(100)
    return bytes(buffer[: await receive_some(channel, buffer)])


async def test_both_directions_and_the_end() -> None:
    near, far = await pair()
    await near.send_all(b"there")
    assert await far.receive_some() == b"there"
    await far.send_all(b"and back")
    assert await near.receive_some(3) == b"and"
    assert await near.receive_some(100) == b" back"
    await near.send_eof()
    assert await far.receive_some() == b""
    await far.send_all(b"late")
    assert await near.receive_some() == b"late"
    await near.aclose()
    await far.aclose()


async def test_what_came_early_is_read_first() -> None:
    near, far = memory_channel_pair()
    stream = ChannelStream(near, b"early")
    await ChannelStream(far).send_all(b"late")
    assert [await stream.receive_some(2) for _ in range(4)] == [b"ea", b"rl", b"y", b"la"]


async def test_sending_waits_for_a_reader(autojump_clock: trio.testing.MockClock) -> None:
    near, far = memory_channel_pair(capacity=4)
    received = bytearray()

    async def drain() -> None:
        await trio.sleep(10)
        while len(received) < 10:
            received.extend(await read(far))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        await ChannelStream(near).send_all(b"0123456789")
        assert trio.current_time() >= 10
    assert received == b"0123456789"


async def test_a_broken_and_a_closed_channel() -> None:
    near, far = memory_channel_pair()
    stream = ChannelStream(near)
    far.abort()
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")
    await stream.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"x")
