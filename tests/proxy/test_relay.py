"""The relay over in-memory channels, in virtual time."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing
from websockets.frames import Opcode

from tests.proxy.world import close_frame, frame, relaying
from trio_wsb.net.channel import receive_some, send_all
from trio_wsb.net.memory import memory_channel_pair
from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.relay import CLOSE_TIMEOUT, HALF_CLOSED_TIMEOUT, LINGER_TIMEOUT, SCRATCH_SIZE, Relay
from trio_wsb.proxy.sweeper import Sweeper

pytestmark = pytest.mark.usefixtures("relay_kind")


async def test_bytes_pass_unchanged_and_are_counted() -> None:
    async with relaying() as bench:
        await bench.pass_through(frame(b"hello", opcode=Opcode.TEXT, mask=True), up=True)
        await bench.pass_through(frame(b"x" * 300), up=False)
        up, down = bench.relay.up.scanner, bench.relay.down.scanner
        assert (up.messages, up.bytes, up.payload_bytes) == (1, 11, 5)
        assert (down.messages, down.bytes, down.payload_bytes) == (1, 304, 300)
        assert up.opcodes[Opcode.TEXT] == 1
        assert up.violation is None
        assert down.violation is None


@pytest.mark.only_relay("kernel", "that it is used at all")
async def test_the_kernel_moves_everything_but_what_comes_first() -> None:
    first, second = frame(b"first", mask=True), frame(b"second", mask=True)
    async with relaying() as bench:
        await bench.pass_through(first, up=True)
        await bench.pass_through(second * 5, up=True)
        assert bench.redirected == 5 * len(second)
        assert bench.relay.up.scanner.bytes == len(first) + 5 * len(second)


@pytest.mark.parametrize("segment", [1, 3, 1000, None])
@pytest.mark.parametrize("capacity", [7, 4096, 200_000])
async def test_a_large_stream_arrives_in_order_whatever_the_segments(
    capacity: int, segment: int | None
) -> None:
    size = 3_000 if (segment in {1, 3} or capacity == 7) else 300_000
    data = random.Random(1).randbytes(size)
    stream = b"".join(frame(data[at : at + 5000], mask=True) for at in range(0, size, 5000))
    async with relaying(capacity=capacity, segment=segment) as bench:
        await bench.pass_through(stream, up=True)
        await bench.pass_through(data, up=False)
        assert bench.relay.up.scanner.messages == -(-size // 5000)


async def test_what_both_sides_sent_early_goes_first() -> None:
    early_up, early_down = frame(b"early", mask=True), frame(b"bird")
    async with relaying(client_early=early_up, backend_early=early_down) as bench:
        assert await bench.exactly(bench.backend, len(early_up)) == early_up
        assert await bench.exactly(bench.client, len(early_down)) == early_down
        await bench.pass_through(frame(b"later", mask=True), up=True)
        assert bench.relay.up.scanner.messages == 2


async def test_a_sender_is_held_back_when_the_receiver_does_not_read() -> None:
    async with relaying(capacity=1000) as bench:
        sent = 0
        while True:
            await trio.testing.wait_all_tasks_blocked()
            try:
                sent += bench.client.send(bytes(100))
            except BlockingIOError:
                break
    # Two connections of 1,000 bytes, and what the pump holds: one scratch buffer at most.
    assert sent <= 2 * 1000 + 1000


async def test_a_clean_close_by_the_client(autojump_clock: trio.testing.MockClock) -> None:
    async with relaying() as bench:
        await bench.pass_through(close_frame(1000, mask=True), up=True)
        await bench.pass_through(close_frame(1000), up=False)
        bench.backend.close()
        assert await bench.rest(bench.client) == b""
        bench.client.close()
        await bench.done.wait()
    assert bench.relay.cause is Cause.CLIENT_CLOSED
    assert bench.relay.close_code == 1000


async def test_a_clean_close_by_the_backend(autojump_clock: trio.testing.MockClock) -> None:
    async with relaying() as bench:
        await bench.pass_through(close_frame(1012), up=False)
        await bench.pass_through(close_frame(1012, mask=True), up=True)
        bench.backend.close()
        bench.client.close()
        await bench.done.wait()
    assert (bench.relay.cause, bench.relay.close_code) == (Cause.BACKEND_CLOSED, 1012)


@pytest.mark.only_relay("stream", "the kernel holds what a slow peer has yet to take")
async def test_what_was_sent_before_the_close_reaches_a_slow_peer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    (client, near), (far, backend) = memory_channel_pair(1000), memory_channel_pair(SCRATCH_SIZE)
    sweeper = Sweeper()
    relay = Relay(
        near, far, scratch=memoryview(bytearray(SCRATCH_SIZE)), write_timeout=5, watch=sweeper.watch
    )
    sent = frame(bytes(40_000)) + close_frame(1000)
    received, buffer = bytearray(), bytearray(1000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sweeper.run)
        nursery.start_soon(relay.run)
        client.send(close_frame(1000, mask=True))
        assert backend.send(sent) == len(sent)
        while len(received) < len(sent):
            await trio.sleep(1)
            received += buffer[: client.recv_into(buffer)]
        assert trio.current_time() > 3 * CLOSE_TIMEOUT  # which is not for what is still to be delivered
        begun = trio.current_time()
        while await receive_some(client, buffer):
            pass
        assert trio.current_time() - begun <= CLOSE_TIMEOUT + 1
        nursery.cancel_scope.cancel()
    assert received == sent
    assert relay.cause is Cause.CLIENT_CLOSED


async def test_closed_by_both_but_tcp_left_open_is_cut_after_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with relaying() as bench:
        await bench.pass_through(close_frame(1000, mask=True), up=True)
        await bench.pass_through(close_frame(1000), up=False)
        begun = trio.current_time()
        await bench.done.wait()
        assert CLOSE_TIMEOUT <= trio.current_time() - begun <= CLOSE_TIMEOUT + 1
    assert bench.relay.cause is Cause.CLIENT_CLOSED


@pytest.mark.parametrize("up", [True, False])
async def test_an_end_without_a_close_frame_is_a_lost_peer(
    up: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with relaying() as bench:
        leaver, other = (bench.client, bench.backend) if up else (bench.backend, bench.client)
        leaver.close()
        assert await bench.rest(other) == b""
        other.close()
        await bench.done.wait()
    assert bench.relay.cause is (Cause.CLIENT_LOST if up else Cause.BACKEND_LOST)
    assert bench.relay.close_code is None


@pytest.mark.parametrize("up", [True, False])
async def test_a_half_closed_connection_still_carries_the_other_direction(
    up: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with relaying() as bench:
        leaver, other = (bench.client, bench.backend) if up else (bench.backend, bench.client)
        leaver.shutdown()
        assert await bench.rest(other) == b""
        for _ in range(5):
            await trio.sleep(HALF_CLOSED_TIMEOUT - 2)
            await bench.pass_through(frame(b"late", mask=not up), up=not up)
        assert not bench.done.is_set()
        begun = trio.current_time()
        await bench.done.wait()  # silence ends it
        assert HALF_CLOSED_TIMEOUT - 1 <= trio.current_time() - begun <= HALF_CLOSED_TIMEOUT + 2


async def test_a_channel_that_cannot_half_close_ends_both(autojump_clock: trio.testing.MockClock) -> None:
    async with relaying(tls_backend=True) as bench:
        bench.client.shutdown()
        await bench.done.wait()
        assert await bench.rest(bench.backend) == b""
    assert bench.relay.cause is Cause.CLIENT_LOST


@pytest.mark.only_relay("stream", "who has left already does not enter the kernel")
@pytest.mark.parametrize("answers", [True, False])
async def test_a_client_that_has_left_before_the_session_began(
    answers: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """The backend may leave at once, or say something first."""
    (client, near), (far, backend) = memory_channel_pair(), memory_channel_pair()
    sweeper, said = Sweeper(), frame(b"late") if answers else b""
    relay = Relay(
        near, far, scratch=memoryview(bytearray(SCRATCH_SIZE)), write_timeout=5, watch=sweeper.watch
    )
    client.shutdown()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sweeper.run)

        async def leave() -> None:
            assert await receive_some(backend, bytearray(1)) == 0
            if answers:
                await trio.sleep(HALF_CLOSED_TIMEOUT - 2)
                await send_all(backend, said)
            backend.close()

        nursery.start_soon(leave)
        await relay.run()
        nursery.cancel_scope.cancel()
    assert relay.cause is Cause.CLIENT_LOST
    assert relay.up.ended
    assert relay.down.ended
    heard = bytearray(100)
    assert heard[: client.recv_into(heard)] == said
    with pytest.raises(OSError, match="closed"):
        far.send(b"x")


@pytest.mark.only_relay("stream", "who has left already does not enter the kernel")
async def test_a_client_that_has_left_and_a_backend_that_is_silent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    (client, near), (far, _backend) = memory_channel_pair(), memory_channel_pair()
    sweeper = Sweeper()
    relay = Relay(
        near, far, scratch=memoryview(bytearray(SCRATCH_SIZE)), write_timeout=5, watch=sweeper.watch
    )
    client.shutdown()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sweeper.run)
        begun = trio.current_time()
        await relay.run()
        assert HALF_CLOSED_TIMEOUT - 1 <= trio.current_time() - begun <= HALF_CLOSED_TIMEOUT + 2
        nursery.cancel_scope.cancel()


@pytest.mark.only_relay("stream", "nobody enters the kernel here")
@pytest.mark.parametrize("left", [True, False])
async def test_a_session_that_is_cut_before_it_began(left: bool) -> None:
    (client, near), (far, _backend) = memory_channel_pair(), memory_channel_pair()
    relay = Relay(
        near, far, scratch=memoryview(bytearray(SCRATCH_SIZE)), write_timeout=5, watch=lambda _: None
    )
    if left:
        client.shutdown()
    relay.cut(Cause.SHUTDOWN)
    await relay.run()
    assert relay.cause is Cause.SHUTDOWN


@pytest.mark.only_relay(
    "stream", "with unread bytes TCP breaks off by a reset, which may destroy what was said"
)
async def test_what_the_backend_said_before_it_broke_off_is_delivered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    last_words = frame(b"z" * 5000) + close_frame(1011)
    async with relaying(capacity=1000) as bench:
        async with trio.open_nursery() as nursery:

            async def speak_and_die() -> None:
                await send_all(bench.backend, last_words)
                bench.backend.close()

            nursery.start_soon(speak_and_die)
            # The client goes on sending, so that the relay learns of the end by a failing write.
            nursery.start_soon(send_all, bench.client, frame(b"a" * 3000, mask=True))
            assert await bench.rest(bench.client) == last_words
        bench.client.close()
        await bench.done.wait()
    assert (bench.relay.cause, bench.relay.close_code) == (Cause.BACKEND_CLOSED, 1011)


@pytest.mark.parametrize("up", [True, False])
async def test_a_reset_tells_the_other_side_and_ends_soon(
    up: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with relaying() as bench:
        breaker, other = (bench.client, bench.backend) if up else (bench.backend, bench.client)
        await bench.pass_through(frame(b"before", mask=up), up=up)
        breaker.abort()
        assert await bench.rest(other) == b""
        begun = trio.current_time()
        await bench.done.wait()  # the other side does nothing
        assert trio.current_time() - begun <= LINGER_TIMEOUT + 1
    assert bench.relay.cause is (Cause.CLIENT_LOST if up else Cause.BACKEND_LOST)


@pytest.mark.parametrize("up", [True, False])
async def test_write_timeout(up: bool, autojump_clock: trio.testing.MockClock) -> None:
    async with relaying(capacity=1000, write_timeout=10) as bench:
        source = bench.client if up else bench.backend
        begun = trio.current_time()
        with pytest.raises(OSError):
            await send_all(source, bytes(10_000))
        await bench.done.wait()
        assert 10 <= trio.current_time() - begun <= 12
    assert bench.relay.cause is (Cause.BACKEND_WRITE_TIMEOUT if up else Cause.CLIENT_WRITE_TIMEOUT)


async def test_a_slow_reader_is_not_a_write_timeout(autojump_clock: trio.testing.MockClock) -> None:
    async with relaying(capacity=1000, write_timeout=10) as bench:
        data = frame(random.Random(2).randbytes(19_996))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, bench.backend, data)
            received = b""
            while len(received) < len(data):
                await trio.sleep(8)
                received += await bench.exactly(bench.client, 500)
        assert received == data
        assert bench.relay.cause is None


async def test_no_write_timeout_when_it_is_0(autojump_clock: trio.testing.MockClock) -> None:
    async with relaying(capacity=1000, write_timeout=0) as bench:
        with trio.move_on_after(3600):
            await send_all(bench.client, bytes(10_000))
        assert not bench.done.is_set()
        assert bench.relay.blocked


async def test_our_close_at_a_boundary_and_the_echo_reaches_the_backend(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with relaying() as bench:
        await trio.testing.wait_all_tasks_blocked()
        bench.relay.end(Cause.SHUTDOWN, 1001, timeout=5)
        expected = close_frame(1001)
        assert await bench.exactly(bench.client, len(expected)) == expected
        # What the client had under way is delivered, and its echo too.
        await bench.pass_through(frame(b"last", mask=True) + close_frame(1001, mask=True), up=True)
        # What the backend still says goes nowhere.
        await send_all(bench.backend, frame(b"too late") + close_frame(1001))
        bench.backend.close()
        assert await bench.rest(bench.client) == b""
        bench.client.close()
        await bench.done.wait()
    assert (bench.relay.cause, bench.relay.close_code) == (Cause.SHUTDOWN, 1001)


@pytest.mark.parametrize("split", range(1, 9))
async def test_our_close_waits_for_the_end_of_the_frame_under_way(
    split: int, autojump_clock: trio.testing.MockClock
) -> None:
    message, behind = frame(b"in parts"), frame(b"behind")
    async with relaying() as bench:
        await bench.pass_through(message[:split], up=False)
        await trio.testing.wait_all_tasks_blocked()
        bench.relay.end(Cause.SHUTDOWN, 1001, timeout=5)
        await trio.testing.wait_all_tasks_blocked()
        await send_all(bench.backend, message[split:] + behind)
        expected = message[split:] + close_frame(1001)
        assert await bench.exactly(bench.client, len(expected)) == expected
        bench.backend.close()
        assert await bench.rest(bench.client) == b""


async def test_our_close_waits_until_a_blocked_write_is_through(
    autojump_clock: trio.testing.MockClock,
) -> None:
    messages = b"".join(frame(bytes([n]) * 700) for n in range(20))
    async with relaying(capacity=1000) as bench:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, bench.backend, messages)
            await trio.testing.wait_all_tasks_blocked()
            bench.relay.end(Cause.SHUTDOWN, 1001, timeout=60)
            received = bytearray()
            with trio.move_on_after(5):
                while not received.endswith(close_frame(1001)):
                    received += await bench.exactly(bench.client, 1)
        assert received.endswith(close_frame(1001))
        body = received[: -len(close_frame(1001))]
        assert messages.startswith(bytes(body))
        assert len(body) % len(frame(bytes(700))) == 0


async def test_our_close_follows_a_blocked_write_that_was_the_last(
    autojump_clock: trio.testing.MockClock,
) -> None:
    message = frame(bytes(1500))
    async with relaying(capacity=1000) as bench, trio.open_nursery() as nursery:
        nursery.start_soon(send_all, bench.backend, message)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.relay.blocked
        bench.relay.end(Cause.SHUTDOWN, 1001, timeout=60)
        expected = message + close_frame(1001)
        with trio.fail_after(1):
            assert await bench.exactly(bench.client, len(expected)) == expected


async def test_our_close_when_the_client_takes_nothing_waits_for_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    message = frame(bytes(996))
    async with relaying(capacity=1000) as bench:
        await send_all(bench.backend, message)
        await trio.testing.wait_all_tasks_blocked()
        assert not bench.relay.blocked  # taken to the last byte: the pump is parked before a full buffer
        bench.relay.end(Cause.SHUTDOWN, 1001, timeout=60)
        await trio.testing.wait_all_tasks_blocked()
        expected = message + close_frame(1001)
        with trio.fail_after(1):
            assert await bench.exactly(bench.client, len(expected)) == expected


async def test_no_close_of_ours_after_the_backends_own(autojump_clock: trio.testing.MockClock) -> None:
    async with relaying() as bench:
        await bench.pass_through(close_frame(1000), up=False)
        bench.relay.end(Cause.SHUTDOWN, 1001, timeout=5)
        await bench.pass_through(close_frame(1000, mask=True), up=True)
        bench.backend.close()
        assert await bench.rest(bench.client) == b""
    assert (bench.relay.cause, bench.relay.close_code) == (Cause.BACKEND_CLOSED, 1000)


async def test_a_client_that_ignores_our_close_is_cut(autojump_clock: trio.testing.MockClock) -> None:
    async with relaying() as bench:
        begun = trio.current_time()
        bench.relay.end(Cause.SHUTDOWN, 1001, timeout=5)
        await bench.done.wait()
        assert 5 <= trio.current_time() - begun <= 6
        assert await bench.rest(bench.client) == close_frame(1001)


async def test_a_stream_without_frames_is_cut_instead_of_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    nonsense = b"\x82\x7f" + b"\xff" * 8
    async with relaying() as bench:
        await bench.pass_through(nonsense, up=False)
        bench.relay.end(Cause.SHUTDOWN, 1001, timeout=5)
        assert await bench.rest(bench.client) == b""
    assert bench.relay.cause is Cause.SHUTDOWN


async def test_cut_closes_both_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with relaying() as bench:
        await trio.testing.wait_all_tasks_blocked()
        bench.relay.cut(Cause.SHUTDOWN)
        await bench.done.wait()
        assert await bench.rest(bench.client) == b""
        assert await bench.rest(bench.backend) == b""


async def test_bulk_traffic_lets_others_run() -> None:
    """A sender that is always ready must not keep the relay from ever reaching a checkpoint."""
    async with relaying(capacity=SCRATCH_SIZE * 64) as bench:
        others = 0

        async def count() -> None:
            nonlocal others
            while True:
                others += 1
                await trio.lowlevel.checkpoint()

        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            assert bench.client.send(bytes(SCRATCH_SIZE * 60)) == SCRATCH_SIZE * 60
            nursery.start_soon(count)
            await bench.exactly(bench.backend, SCRATCH_SIZE * 60)
            nursery.cancel_scope.cancel()
        assert others >= 5
