"""The limits of a session, in virtual time: when they end it, and what both sides are told."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing
from websockets.frames import Opcode

from tests.proxy.frames import next_frame
from tests.proxy.world import Bench, close_frame, frame, relaying
from trio_wsb.net.channel import send_all
from trio_wsb.proxy.causes import CLOSE_CODES, Cause
from trio_wsb.proxy.guard import SessionLimits
from trio_wsb.proxy.relay import CLOSE_TIMEOUT, LAST_WORD_TIMEOUT, SILENT_TIMEOUT

pytestmark = pytest.mark.usefixtures("relay_kind")

LATE = 2.0
"""A limit is met so many seconds late at most: it is looked at once a second, as is what it is counted from."""


async def close_of(bench: Bench, *, client: bool) -> tuple[int, str]:
    """Receive a frame, which must be a Close, and return what it says."""
    received = await next_frame(bench, bench.client if client else bench.backend)
    assert received.opcode is Opcode.CLOSE
    return int.from_bytes(received.data[:2], "big"), bytes(received.data[2:]).decode()


async def say_goodbye(bench: Bench, code: int = 1001) -> None:
    """Let the client answer our Close, which reaches the backend, and both end their connections."""
    await bench.pass_through(close_frame(code, mask=True), up=True)
    bench.backend.close()
    assert await bench.rest(bench.client) == b""
    bench.client.close()
    await bench.done.wait()


@pytest.mark.parametrize("up", [True, False])
async def test_idle_timeout(up: bool, autojump_clock: trio.testing.MockClock) -> None:
    async with relaying(limits=SessionLimits(idle_timeout=60)) as bench:
        for _ in range(5):
            await trio.sleep(58)
            await bench.pass_through(frame(b"still here", mask=up), up=up)
        begun = trio.current_time()
        assert await close_of(bench, client=True) == (1001, "idle_timeout")
        assert 60 <= trio.current_time() - begun <= 60 + LATE
        await say_goodbye(bench)
    assert (bench.relay.cause, bench.relay.close_code) == (Cause.IDLE_TIMEOUT, 1001)
    assert bench.relay.closed_by == "balancer"


async def test_pings_keep_no_session_from_being_idle(autojump_clock: trio.testing.MockClock) -> None:
    async with relaying(limits=SessionLimits(idle_timeout=60)) as bench:
        begun = trio.current_time()
        for _ in range(11):
            await trio.sleep(5)
            await bench.pass_through(frame(b"?", opcode=Opcode.PING), up=False)
            await bench.pass_through(frame(b"?", opcode=Opcode.PONG, mask=True), up=True)
        assert await close_of(bench, client=True) == (1001, "idle_timeout")
        assert 60 <= trio.current_time() - begun <= 60 + LATE


async def test_a_message_that_takes_its_time_is_not_idle(autojump_clock: trio.testing.MockClock) -> None:
    head, body = frame(b"slow" * 10)[:2], b"slow" * 10
    async with relaying(limits=SessionLimits(idle_timeout=5)) as bench:
        await bench.pass_through(head, up=False)
        for byte in body:
            await trio.sleep(4)
            await bench.pass_through(bytes((byte,)), up=False)
        assert bench.relay.cause is None


@pytest.mark.parametrize("jitter", [0.0, 0.1, 1.0])
async def test_max_lifetime(jitter: float, autojump_clock: trio.testing.MockClock) -> None:
    limits = SessionLimits(max_lifetime=100, lifetime_jitter=jitter)
    async with relaying(limits=limits) as bench, trio.open_nursery() as nursery:
        begun = trio.current_time()

        async def chat() -> None:
            while True:
                await bench.pass_through(frame(b"busy", mask=True), up=True)
                await trio.sleep(0.7)

        nursery.start_soon(chat)
        assert await close_of(bench, client=True) == (1001, "max_lifetime")
        assert 100 * (1 - jitter) <= trio.current_time() - begun <= 100 + LATE
        nursery.cancel_scope.cancel()
    assert bench.relay.cause is Cause.MAX_LIFETIME


async def test_lifetimes_differ_by_the_jitter(autojump_clock: trio.testing.MockClock) -> None:
    ends: list[float] = []

    async def one() -> None:
        async with relaying(limits=SessionLimits(max_lifetime=1000, lifetime_jitter=0.5)) as bench:
            await bench.done.wait()
            ends.append(trio.current_time() - CLOSE_TIMEOUT)

    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(one)
    ages = [end - begun for end in ends]
    assert 500 <= min(ages) < 650
    assert 850 < max(ages) <= 1000 + 2 * LATE


async def test_a_client_that_does_not_answer_our_close_leaves_the_backend_with_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with relaying(limits=SessionLimits(idle_timeout=10)) as bench:
        assert await close_of(bench, client=True) == (1001, "idle_timeout")
        begun = trio.current_time()
        # What the client sends still passes, and the backend's Close comes after it.
        await bench.pass_through(frame(b"not done", mask=True), up=True)
        assert await close_of(bench, client=False) == (1001, "idle_timeout")
        assert CLOSE_TIMEOUT <= trio.current_time() - begun <= CLOSE_TIMEOUT + 1
        assert await bench.rest(bench.backend) == b""
        await bench.done.wait()
        assert trio.current_time() - begun <= CLOSE_TIMEOUT + LAST_WORD_TIMEOUT + 1
    assert (bench.relay.code_to_client, bench.relay.code_to_backend) == (1001, 1001)


async def test_a_cut_leaves_the_backend_with_a_close_if_it_had_none(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with relaying() as bench:
        await trio.testing.wait_all_tasks_blocked()
        bench.relay.end(Cause.SHUTDOWN, 1001, timeout=100)
        await trio.testing.wait_all_tasks_blocked()
        bench.relay.cut(Cause.SHUTDOWN)
        assert await close_of(bench, client=False) == (1001, "")
        assert await bench.rest(bench.backend) == b""
        assert await close_of(bench, client=True) == (1001, "")
    assert (bench.relay.code_to_client, bench.relay.code_to_backend) == (1001, 1001)


async def test_a_cut_for_nothing_that_we_have_begun_says_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with relaying() as bench:
        await bench.pass_through(frame(b"x", mask=True), up=True)
        bench.relay.cut(Cause.SHUTDOWN)
        assert await bench.rest(bench.backend) == b""
        assert await bench.rest(bench.client) == b""
    assert bench.relay.code_to_backend is None


async def test_no_limits_no_sweeps(autojump_clock: trio.testing.MockClock) -> None:
    async with relaying() as bench:
        await trio.sleep(5_000)
        await bench.pass_through(frame(b"still there", mask=True), up=True)
        assert bench.relay.check(trio.current_time()) is False


@pytest.mark.parametrize("chunk", [1, 7, 100_000])
@pytest.mark.parametrize("up", [True, False])
async def test_max_message_bytes(up: bool, chunk: int, autojump_clock: trio.testing.MockClock) -> None:
    fits, too_much = frame(bytes(1000), mask=up), frame(bytes(1001), mask=up)
    limits = SessionLimits(max_message_bytes=1000)
    async with relaying(limits=limits, segment=chunk) as bench:
        source, sink = (bench.client, bench.backend) if up else (bench.backend, bench.client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, source, fits + too_much + frame(b"behind", mask=up))
            assert await bench.exactly(sink, len(fits)) == fits
            cause = Cause.CLIENT_MESSAGE_TOO_BIG if up else Cause.BACKEND_MESSAGE_TOO_BIG
            to_client, to_backend = CLOSE_CODES[cause]
            assert (to_client if up else to_backend) == 1009
            assert await close_of(bench, client=True) == (to_client, cause.value)
            assert await close_of(bench, client=False) == (to_backend, cause.value)
        bench.backend.close()
        bench.client.close()
        await bench.done.wait()
    relay = bench.relay
    assert (relay.cause, relay.close_code) == (cause, 1009)
    assert (relay.code_to_client, relay.code_to_backend) == (to_client, to_backend)
    pump = relay.up if up else relay.down
    assert (pump.scanner.messages, pump.scanner.payload_bytes) == (1, 1000)


async def test_fragments_pass_up_to_the_limit(autojump_clock: trio.testing.MockClock) -> None:
    first = frame(bytes(600), mask=True, fin=False)
    ping = frame(b"between", opcode=Opcode.PING, mask=True)
    async with relaying(limits=SessionLimits(max_message_bytes=1000)) as bench:
        await bench.pass_through(first + ping, up=True)
        await send_all(bench.client, frame(bytes(401), opcode=Opcode.CONT, mask=True))
        assert await close_of(bench, client=False) == (1001, "client_message_too_big")
        assert await close_of(bench, client=True) == (1009, "client_message_too_big")
    assert bench.relay.up.scanner.messages == 0


async def test_a_peer_that_goes_on_after_1009_is_cut(autojump_clock: trio.testing.MockClock) -> None:
    async with relaying(limits=SessionLimits(max_message_bytes=1000)) as bench:
        begun = trio.current_time()

        async def go_on() -> None:
            while True:
                await send_all(bench.client, frame(bytes(2000), mask=True))
                await trio.sleep(0.1)

        with pytest.raises(OSError):
            await go_on()
        assert CLOSE_TIMEOUT <= trio.current_time() - begun <= CLOSE_TIMEOUT + LATE
        await bench.done.wait()
    assert bench.relay.cause is Cause.CLIENT_MESSAGE_TOO_BIG


@pytest.mark.parametrize("burst", [1, 50])
async def test_message_rate(burst: int, autojump_clock: trio.testing.MockClock) -> None:
    limits = SessionLimits(message_rate=50, message_burst=burst)
    messages = [frame(b"%d" % number, mask=True) for number in range(1000 + burst)]
    async with relaying(limits=limits) as bench, trio.open_nursery() as nursery:
        nursery.start_soon(send_all, bench.client, b"".join(messages))
        begun, waited = trio.current_time(), 0.0
        for index, message in enumerate(messages, 1):
            assert await bench.exactly(bench.backend, len(message)) == message
            waited = trio.current_time() - begun
            assert index <= burst + 50 * waited + 1e-6
        assert waited == pytest.approx(1000 / 50, rel=0.1)


async def test_byte_rate(autojump_clock: trio.testing.MockClock) -> None:
    data = frame(random.Random(1).randbytes(200_000), mask=True)
    async with relaying(limits=SessionLimits(byte_rate=10_000)) as bench, trio.open_nursery() as nursery:
        nursery.start_soon(send_all, bench.client, data)
        begun, received = trio.current_time(), b""
        while len(received) < len(data):
            received += await bench.exactly(bench.backend, 1)
            assert len(received) <= 10_000 + 10_000 * (trio.current_time() - begun) + 1e-6
        assert received == data
        assert trio.current_time() - begun == pytest.approx(19, rel=0.1)


async def test_the_rates_hold_the_client_back_and_not_the_backend(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = SessionLimits(message_rate=1, message_burst=1)
    async with relaying(capacity=1000, limits=limits) as bench:
        with trio.move_on_after(1.5):
            await send_all(bench.client, frame(bytes(100), mask=True) * 10_000)
        begun = trio.current_time()
        await bench.pass_through(frame(b"z" * 900) * 50, up=False)
        assert trio.current_time() == begun
        assert bench.relay.up.paused


async def test_pings_of_a_client_count_as_messages(autojump_clock: trio.testing.MockClock) -> None:
    limits = SessionLimits(message_rate=10, message_burst=1)
    ping = frame(b"", opcode=Opcode.PING, mask=True)
    async with relaying(limits=limits) as bench:
        begun = trio.current_time()
        await bench.pass_through(ping * 101, up=True)
        assert trio.current_time() - begun == pytest.approx(10, rel=0.1)


async def test_what_a_client_sent_early_is_limited_too(autojump_clock: trio.testing.MockClock) -> None:
    early = frame(b"early", mask=True) * 11
    limits = SessionLimits(message_rate=10, message_burst=1, max_message_bytes=100)
    async with relaying(limits=limits, client_early=early) as bench:
        begun = trio.current_time()
        assert await bench.exactly(bench.backend, len(early)) == early
        assert trio.current_time() - begun == pytest.approx(1, rel=0.1)
    async with relaying(limits=limits, client_early=frame(bytes(200), mask=True)) as bench:
        assert await close_of(bench, client=True) == (1009, "client_message_too_big")


async def test_our_close_reaches_a_client_that_waits_for_its_allowance(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = SessionLimits(message_rate=1 / 3600, message_burst=1)
    async with relaying(limits=limits) as bench:
        await send_all(bench.client, frame(b"now", mask=True) + frame(b"in an hour", mask=True))
        await trio.testing.wait_all_tasks_blocked()
        bench.relay.end(Cause.SHUTDOWN, 1001, timeout=5)
        assert await close_of(bench, client=True) == (1001, "")
        now = await next_frame(bench, bench.backend)
        assert now.data == b"now"
        begun = trio.current_time()
        # Its messages cannot be waited for, and the backend is told after the timeout.
        assert await close_of(bench, client=False) == (1001, "")
        assert trio.current_time() - begun <= 6
        await bench.done.wait()


async def test_a_frame_that_breaks_off_is_passed_on_as_far_as_it_went(
    autojump_clock: trio.testing.MockClock,
) -> None:
    torn = frame(b"whole", mask=True) + frame(bytes(300), mask=True)[:3]
    async with relaying(limits=SessionLimits(max_message_bytes=1000)) as bench:
        await send_all(bench.client, torn)
        bench.client.close()
        assert await bench.rest(bench.backend) == torn
        bench.backend.close()
        await bench.done.wait()
    assert bench.relay.up.scanner.bytes == len(torn)
    assert bench.relay.cause is Cause.CLIENT_LOST


@pytest.mark.parametrize("up", [True, False])
async def test_a_write_timeout_tells_the_side_that_is_still_there(
    up: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """The side that reads nothing gets nothing; the other one learns why."""
    async with relaying(capacity=1000, write_timeout=10) as bench:
        source = bench.client if up else bench.backend
        async with trio.open_nursery() as nursery:

            async def flood() -> None:
                with pytest.raises(OSError):
                    await send_all(source, frame(bytes(900), mask=up) * 100)

            nursery.start_soon(flood)
            cause = Cause.BACKEND_WRITE_TIMEOUT if up else Cause.CLIENT_WRITE_TIMEOUT
            expected = CLOSE_CODES[cause][0 if up else 1]
            assert await close_of(bench, client=up) == (expected, cause.value)
            await bench.done.wait()
    assert (bench.relay.cause, bench.relay.close_code) == (cause, expected)
    assert bench.relay.closed_by == "balancer"


async def test_silence_after_a_ping_of_ours_ends_a_dead_client(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = SessionLimits(ping_interval=30, pong_timeout=20)
    async with relaying(limits=limits) as bench, trio.open_nursery() as nursery:

        async def backend() -> None:
            """Answer each ping, and Close."""
            while True:
                received = await next_frame(bench, bench.backend)
                if received.opcode is Opcode.CLOSE:
                    codes.append(int.from_bytes(received.data[:2], "big"))
                    await send_all(bench.backend, close_frame(1001))
                    bench.backend.close()
                    return
                assert received.opcode is Opcode.PING
                await send_all(bench.backend, frame(bytes(received.data), opcode=Opcode.PONG))

        codes: list[int] = []
        begun = trio.current_time()
        nursery.start_soon(backend)
        await bench.done.wait()
        assert 50 <= trio.current_time() - begun <= 50 + LATE + SILENT_TIMEOUT + 1
        assert codes == [1001]
        assert (await next_frame(bench, bench.client)).opcode is Opcode.PING
        assert await close_of(bench, client=True) == (1001, "client_ping_timeout")
    assert bench.relay.cause is Cause.CLIENT_PING_TIMEOUT


async def test_silence_after_a_ping_of_ours_ends_a_dead_backend(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = SessionLimits(ping_interval=30, pong_timeout=20)
    async with relaying(limits=limits) as bench:
        ping = await next_frame(bench, bench.client)
        await send_all(bench.client, frame(bytes(ping.data), opcode=Opcode.PONG, mask=True))
        assert await close_of(bench, client=True) == (1011, "backend_ping_timeout")
        await bench.done.wait()
    assert (bench.relay.cause, bench.relay.close_code) == (Cause.BACKEND_PING_TIMEOUT, 1011)
