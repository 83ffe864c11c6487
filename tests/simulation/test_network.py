"""The simulated TCP does what a proxy has to cope with, and nothing that TCP does not do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.simulation.ledger import Lane, Violation, encode
from tests.simulation.network import GIVE_UP, Conditions, Network, SimChannel
from trio_wsb.net.channel import receive_some, send_all

LATENCY = 0.01


@asynccontextmanager
async def connected(
    conditions: Conditions | None = None, seed: int = 1
) -> AsyncIterator[tuple[SimChannel, SimChannel]]:
    network = Network(Random(seed))
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run)
        yield network.connect(conditions or Conditions(latency=LATENCY))
        nursery.cancel_scope.cancel()


async def everything(channel: SimChannel) -> bytes:
    received, buffer = b"", bytearray(1000)
    while count := await receive_some(channel, buffer):
        received += buffer[:count]
    return received


@pytest.mark.parametrize("seed", range(10))
async def test_every_byte_arrives_in_order_however_it_is_cut(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    conditions = Conditions(jitter=0.1, capacity=500, segment=70, choppy=0.5)
    data = Random(seed).randbytes(5000)
    async with connected(conditions, seed) as (here, there), trio.open_nursery() as nursery:

        async def send() -> None:
            await send_all(here, data)
            here.shutdown()

        nursery.start_soon(send)
        assert await everything(there) == data
        await send_all(there, b"and back")  # which a shutdown does not prevent
        assert await receive_some(here, bytearray(10)) > 0


async def test_it_takes_its_time_and_no_more_than_its_capacity(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with connected(Conditions(latency=LATENCY, capacity=10)) as (here, there):
        begun = trio.current_time()
        assert here.send(bytes(20)) == 10
        with pytest.raises(BlockingIOError):
            here.send(b"x")
        assert await receive_some(there, bytearray(20)) == 10
        assert trio.current_time() - begun == pytest.approx(LATENCY)
        await here.wait_writable()
        assert here.send(b"x") == 1


async def test_an_end_with_unread_bytes_is_a_reset(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as (here, there):
        here.send(b"unread")
        await trio.sleep(1)
        there.close()
        with pytest.raises(ConnectionResetError):
            await everything(here)


async def test_what_comes_after_the_end_is_answered_by_a_reset(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with connected() as (here, there):
        there.close()
        assert await everything(here) == b""  # it has ended in good order
        here.send(b"late")
        await trio.sleep(1)
        with pytest.raises(BrokenPipeError):
            here.send(b"later")


async def test_a_host_that_vanished_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as (here, there):
        begun = trio.current_time()
        here.send(b"into the void")
        there.vanish()
        with pytest.raises(TimeoutError):
            await everything(here)
        assert trio.current_time() - begun == pytest.approx(GIVE_UP)


async def test_what_is_held_up_arrives_later(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as (here, there):
        begun = trio.current_time()
        here.hold(5)
        here.send(b"late")
        here.shutdown()
        assert await everything(there) == b"late"
        assert trio.current_time() - begun == pytest.approx(5)


async def test_a_reset_breaks_both_directions(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as (here, there):
        here.abort()
        with pytest.raises(ConnectionResetError):
            await everything(there)
        with pytest.raises(ConnectionResetError):
            there.send(b"x")
        with pytest.raises(OSError, match="closed"):
            here.send(b"x")


async def test_tls_does_not_half_close(autojump_clock: trio.testing.MockClock) -> None:
    async with connected(Conditions(half_close=False)) as (here, there):
        here.shutdown()
        assert await everything(there) == b""
        with pytest.raises(BrokenPipeError):
            there.send(b"x")


async def test_waits_end_with_the_channel(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as (here, _), trio.open_nursery() as nursery:
        nursery.start_soon(trio.testing.wait_all_tasks_blocked)

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await here.wait_readable()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        here.close()


# The ledger that is kept of it.

FRAMES = [
    encode(b"one", 1, mask=False),  # type: ignore[arg-type]
    encode(bytes(300), 2, mask=False),  # type: ignore[arg-type]
    encode(b"", 10, mask=False),  # type: ignore[arg-type]
    encode(b"\x03\xe8", 8, mask=False),  # type: ignore[arg-type]
]
OWN_PING = encode(bytes(12), 9, mask=False)  # type: ignore[arg-type]


def lane(*frames: bytes) -> Lane:
    made = Lane("1 down", masked=False)
    for frame in frames:
        made.send(frame)
    return made


@given(st.lists(st.integers(0, 320), max_size=8))
def test_the_ledger_sees_the_same_however_it_is_cut(cuts: list[int]) -> None:
    data, ledger = OWN_PING.join(FRAMES), lane(*FRAMES)
    found = []
    at = 0
    for cut in sorted(cuts):
        found += ledger.receive(data[at:cut])
        at = max(at, min(cut, len(data)))
    found += ledger.receive(data[at:])
    assert [frame.ours for frame in found] == [False, True, False, True, False, True, False]
    ledger.finish(whole=True)


@pytest.mark.parametrize(
    ("received", "words"),
    [
        (FRAMES[1], "was due"),
        (FRAMES[0] * 2, "was due"),
        (FRAMES[0] + FRAMES[3] + FRAMES[1], "after the Close"),
        (encode(b"one", 1, mask=True), "wrong mask"),  # type: ignore[arg-type]
        (b"\x81\x7f" + bytes([0x7F] * 8), "that long"),
    ],
    ids=["missing", "twice", "after", "mask", "long"],
)
def test_the_ledger_tells_what_is_wrong(received: bytes, words: str) -> None:
    with pytest.raises(Violation, match=words):
        lane(*FRAMES).receive(received)


def test_the_ledger_misses_what_is_missing() -> None:
    ledger = lane(*FRAMES)
    ledger.receive(FRAMES[0] + FRAMES[1][:20])
    ledger.finish(whole=False)
    with pytest.raises(Violation, match="3 frames never arrived"):
        ledger.finish(whole=True)
    ledger.receive(b"not what was sent")
    with pytest.raises(Violation, match="which nobody sent"):
        ledger.finish(whole=False)
