"""The contract of the byte channel, the same for every implementation, and the functions over it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from tests.net.pairs import PAIRS, Pair
from trio_wsb.net.channel import ByteChannel, linger, receive_some, send_all, send_shared
from trio_wsb.net.memory import memory_channel_pair


@pytest.fixture(params=PAIRS)
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    async with PAIRS[request.param]() as ends:
        yield ends


async def receive_all(channel: ByteChannel, size: int | None = None) -> bytes:
    """Receive `size` bytes, or until the end of the stream."""
    received, buffer = bytearray(), bytearray(65536)
    while size is None or len(received) < size:
        count = await receive_some(channel, buffer)
        if not count:
            break
        received += buffer[:count]
    return bytes(received)


async def keep_full(channel: ByteChannel) -> None:
    """Send until nothing more is taken, also of what the network takes a little later."""
    while True:
        try:
            channel.send(bytes(16384))
        except BlockingIOError:
            await channel.wait_writable()


async def test_megabytes_both_ways_at_once(pair: Pair) -> None:
    one, other = pair
    size = 3_000_000
    up, down = random.Random(1).randbytes(size), random.Random(2).randbytes(size)
    results: dict[str, bytes] = {}

    async def receive(name: str, channel: ByteChannel) -> None:
        results[name] = await receive_all(channel, size)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_all, one, up)
        nursery.start_soon(send_all, other, down)
        nursery.start_soon(receive, "up", other)
        nursery.start_soon(receive, "down", one)
    assert results == {"up": up, "down": down}


async def test_nothing_there_would_block(pair: Pair) -> None:
    one, other = pair
    with pytest.raises(BlockingIOError):
        one.recv_into(bytearray(10))
    assert other.send(b"hello") == 5
    await one.wait_readable()
    buffer = bytearray(10)
    assert await receive_some(one, buffer) == 5
    assert buffer[:5] == b"hello"
    with pytest.raises(BlockingIOError):
        one.recv_into(buffer)


async def test_a_small_buffer_gets_the_bytes_one_after_another(pair: Pair) -> None:
    one, other = pair
    await send_all(other, b"hello world")
    await one.wait_readable()
    received = b""
    while len(received) < 11:
        buffer = bytearray(2)
        received += buffer[: await receive_some(one, buffer)]  # also of what a TLS record has left over
    assert received == b"hello world"


async def test_a_full_channel_takes_no_more_until_its_peer_reads(pair: Pair) -> None:
    one, other = pair
    data = random.Random(3).randbytes(20_000_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_all, one, data)
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        assert await receive_all(other, len(data)) == data


async def test_sending_nothing(pair: Pair) -> None:
    one, other = pair
    assert one.send(b"") == 0
    await send_all(one, b"")
    await send_all(one, b"x")
    assert await receive_all(other, 1) == b"x"


async def test_shutdown_ends_the_stream_for_the_peer(pair: Pair) -> None:
    one, other = pair
    await send_all(one, b"last words")
    one.shutdown()
    one.shutdown()
    assert await receive_all(other) == b"last words"
    assert await receive_all(other) == b""  # and goes on doing so
    with pytest.raises(OSError):
        one.send(b"more")


async def test_an_end_is_seen_when_it_is_all_that_there_is(pair: Pair) -> None:
    one, other = pair
    assert not one.has_ended()
    await send_all(other, b"x")
    other.shutdown()
    await one.wait_readable()
    assert not one.has_ended()
    assert await receive_all(one) == b"x"
    assert one.has_ended() or not one.can_half_close  # TLS cannot tell without reading
    one.close()
    assert not one.has_ended()


async def test_shutdown_leaves_the_other_direction_open_where_it_can(pair: Pair) -> None:
    one, other = pair
    one.shutdown()
    assert await receive_all(other) == b""
    if one.can_half_close:
        await send_all(other, b"still here")
        other.shutdown()
        assert await receive_all(one) == b"still here"


async def test_the_end_after_both_shut_down(pair: Pair) -> None:
    one, other = pair
    one.shutdown()
    assert await receive_all(other) == b""
    other.shutdown()
    assert await receive_all(one) == b""


async def test_what_was_sent_before_a_close_is_delivered(pair: Pair) -> None:
    one, other = pair
    data = bytes(50_000)
    await send_all(one, data)
    one.close()
    assert await receive_all(other) == data


async def test_after_a_close_nothing_works_any_more(pair: Pair) -> None:
    one, other = pair
    await send_all(other, b"unread")
    await one.wait_readable()
    one.close()
    one.close()
    for end in (one.shutdown, one.abort):
        end()
    with pytest.raises(OSError):
        one.recv_into(bytearray(10))
    with pytest.raises(OSError):
        one.send(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await one.wait_readable()
    with pytest.raises(trio.ClosedResourceError):
        await one.wait_writable()


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_whoever_waits_learns_of_a_close(pair: Pair, end: str) -> None:
    one, _ = pair
    learned = []

    async def read() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await one.wait_readable()
        learned.append("reader")

    async def write() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await keep_full(one)
        learned.append("writer")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        getattr(one, end)()
    assert sorted(learned) == ["reader", "writer"]


async def test_abort_resets(pair: Pair) -> None:
    one, other = pair
    await send_all(one, b"never read")
    one.abort()
    one.abort()
    with pytest.raises(OSError):
        await receive_all(other)
    with pytest.raises(OSError):
        one.send(b"x")
    with pytest.raises(OSError):
        one.recv_into(bytearray(1))


async def test_sending_to_a_peer_that_is_gone_breaks(pair: Pair) -> None:
    one, other = pair
    other.abort()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        await send_all(one, bytes(20_000_000))


async def test_waits_are_checkpoints(pair: Pair) -> None:
    one, other = pair
    await send_all(other, b"x")
    with trio.testing.assert_checkpoints():
        await one.wait_readable()
    assert one.recv_into(bytearray(10)) == 1
    other.shutdown()
    with trio.testing.assert_checkpoints():
        await one.wait_readable()
    assert one.recv_into(bytearray(10)) == 0
    with trio.testing.assert_checkpoints():
        await one.wait_writable()


# Functions over it.


async def test_a_stall_is_a_timeout_but_slowness_is_not(autojump_clock: trio.testing.MockClock) -> None:
    one, other = memory_channel_pair(100)

    async def read_slowly() -> None:
        for _ in range(5):
            await trio.sleep(9)
            await receive_some(other, bytearray(100))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_slowly)
        await send_all(one, bytes(500), stall_timeout=10)
        assert trio.current_time() == 36
    one, other = memory_channel_pair(100)
    with pytest.raises(TimeoutError):
        await send_all(one, bytes(500), stall_timeout=10)
    assert trio.current_time() == 55


async def test_what_waits_is_copied_out_of_a_shared_buffer() -> None:
    one, other = memory_channel_pair(10)
    shared = bytearray(b"abcdefghijklmnopqrstuvwxyz")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_shared, one, memoryview(shared))
        await trio.testing.wait_all_tasks_blocked()
        shared[:] = bytes(26)
        assert await receive_all(other, 26) == b"abcdefghijklmnopqrstuvwxyz"
    await send_shared(one, memoryview(b""))


async def test_linger_reads_until_the_peer_is_done(autojump_clock: trio.testing.MockClock) -> None:
    one, other = memory_channel_pair(100)
    async with trio.open_nursery() as nursery:

        async def stay() -> None:
            await linger(one, bytearray(10), seconds=5, limit=10_000)

        nursery.start_soon(stay)
        assert await receive_all(other) == b""
        await send_all(other, bytes(1000))
        await trio.sleep(3)
        other.close()
    assert trio.current_time() == 3
    with pytest.raises(OSError):
        one.send(b"x")


@pytest.mark.parametrize(("limit", "seconds"), [(1000, 0), (10**9, 5)])
async def test_linger_has_its_limits(
    limit: int, seconds: float, autojump_clock: trio.testing.MockClock
) -> None:
    one, other = memory_channel_pair(2000)
    await send_all(other, bytes(2000))
    await linger(one, bytearray(100), seconds=5, limit=limit)
    assert trio.current_time() == seconds
    with pytest.raises(BrokenPipeError):
        other.send(b"x")


async def test_linger_closes_when_cancelled() -> None:
    one, other = memory_channel_pair()
    with trio.move_on_after(0):
        await linger(one, bytearray(100), seconds=5, limit=1000)
    with pytest.raises(BrokenPipeError):
        other.send(b"x")


async def test_linger_on_a_channel_that_broke() -> None:
    one, other = memory_channel_pair()
    other.abort()
    await linger(one, bytearray(100), seconds=5, limit=1000)


async def test_a_memory_channel_in_small_segments() -> None:
    one, other = memory_channel_pair(100)
    other.set_segment(3)
    buffer = bytearray(100)
    assert one.send(b"hello") == 3
    assert one.send(b"lo") == 2
    assert other.recv_into(buffer) == 3
    assert other.recv_into(buffer) == 2
