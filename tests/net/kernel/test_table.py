"""The kernel moves a session's bytes as user space would have: every byte once, in order, and every frame counted."""

from __future__ import annotations

import contextlib
import fcntl
import random
import socket
import struct
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.net.kernel.stage import (
    KernelSession,
    frame,
    kernel_table,
    needs_kernel,
    receive,
    send,
    tcp_pair,
    traffic,
)
from trio_wsb.net.channel import FREELY, Terms
from trio_wsb.net.kernel.maps import NOTE_SIZE, NOTES, ring_size
from trio_wsb.net.kernel.selftest import self_test
from trio_wsb.websocket.frames import CLOSE, CONTINUATION, PING, TEXT, FrameScanner

pytestmark = needs_kernel

MESSAGE = frame(b"hello", masked=True)
ANSWER = frame(b"world", masked=False)

SIOCOUTQNSD = 0x894B
"""What a socket has not sent yet, of linux/sockios.h."""


async def pump(session: KernelSession, index: int, terms: Terms = FREELY) -> None:
    """Do a pump's work for one direction, until it ends."""
    leg, sink = session.legs[index], session.legs[1 - index]
    scanner, scratch = session.scanners[index], bytearray(65536)
    while True:
        try:
            count = leg.recv_into(scratch)
        except BlockingIOError:
            await leg.carry(terms)
            continue
        if count == 0:
            sink.shutdown()
            return
        scanner.feed(scratch[:count])
        data = memoryview(bytes(scratch[:count]))
        while data:
            try:
                data = data[sink.send(data) :]
            except BlockingIOError:
                await sink.wait_writable()


async def test_bytes_go_through_the_kernel_alone() -> None:
    async with kernel_table() as table:
        session = KernelSession(table)
        await session.begin()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, session, 0)
            nursery.start_soon(pump, session, 1)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(5):
                await send(session.client, MESSAGE)
                assert await receive(session.backend, len(MESSAGE)) == MESSAGE
                await send(session.backend, ANSWER)
                assert await receive(session.client, len(ANSWER)) == ANSWER
            assert session.scanners[0].bytes == 0  # nobody has looked yet
            for leg in session.legs:
                leg.merge()
            assert [scanner.messages for scanner in session.scanners] == [5, 5]
            assert session.scanners[0].bytes == 5 * len(MESSAGE)
            nursery.cancel_scope.cancel()
        session.close()


async def test_what_was_there_before_is_read_first() -> None:
    async with kernel_table() as table:
        client, ours = tcp_pair()
        theirs, backend = tcp_pair()
        await send(client, MESSAGE)
        await trio.lowlevel.wait_readable(ours)
        entered = table.enter(ours, theirs)
        assert entered is not None
        leg = entered[0]
        scanner = FrameScanner(masked=True)
        leg.follow(scanner, 0)
        assert not leg.direction.open()
        scratch = bytearray(100)
        count = leg.recv_into(scratch)
        assert scratch[:count] == MESSAGE
        scanner.feed(scratch[:count])
        entered[1].send(scratch[:count])
        assert leg.direction.open()
        await send(client, MESSAGE)
        assert await receive(backend, 2 * len(MESSAGE)) == 2 * MESSAGE
        for each in entered:
            each.close()
        client.close()
        backend.close()


@pytest.mark.parametrize(
    "unusual",
    [
        frame(b"\x03\xe8", masked=True, opcode=CLOSE),
        frame(b"x", masked=False),
        frame(b"x", masked=True, opcode=CONTINUATION),
        frame(b"x", masked=True, opcode=3),
        frame(b"x" * 126, masked=True, opcode=PING),
        b"\x82\xfe\x00\x05" + bytes(9),  # a length not in its shortest form
        b"\x82\xff\x80" + bytes(20),  # and one that cannot be
        b"\x82",
    ],
    ids=["close", "unmasked", "continuation", "reserved", "ping", "long form", "impossible", "cut"],
)
async def test_what_needs_a_decision_is_for_user_space(unusual: bytes) -> None:
    async with kernel_table() as table:
        session = KernelSession(table)
        await session.begin()
        way = session.up
        assert way.open()
        await send(session.client, MESSAGE)
        assert await receive(session.backend, len(MESSAGE)) == MESSAGE
        # One segment, which is given away whole: its first message too.
        await send(session.client, MESSAGE + unusual)
        await trio.lowlevel.wait_readable(session.legs[0].direction.source)
        way.shut()
        scratch = bytearray(1000)
        assert session.legs[0].recv_into(scratch) == len(MESSAGE + unusual)
        assert session.scanners[0].messages == 1
        assert session.scanners[0].at_boundary
        session.close()


async def test_messages_over_the_limit_are_for_user_space() -> None:
    async with kernel_table() as table:
        session = KernelSession(table)
        await session.begin()
        half = frame(b"x" * 50, masked=True, opcode=TEXT, final=False)
        rest = frame(b"x" * 51, masked=True, opcode=CONTINUATION)
        assert session.up.open(Terms(message=100))
        await send(session.client, frame(b"x" * 100, masked=True))
        await receive(session.backend, 106)
        await send(session.client, half)
        await receive(session.backend, len(half))
        await send(session.client, rest)
        await trio.lowlevel.wait_readable(session.up.source)
        session.up.shut()
        assert session.scanners[0].state().fragmented
        session.close()


@pytest.mark.parametrize("seed", range(12))
async def test_scanners_agree_whatever_is_in_the_stream(seed: int) -> None:
    """Random frames in random pieces, with the way taken back at random moments."""
    rng = random.Random(seed)
    data = [traffic(rng, 150_000, masked=True), traffic(rng, 150_000, masked=False)]
    async with kernel_table() as table:
        session = KernelSession(table)
        await session.begin()
        ends = (session.client, session.backend)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, session, 0)
            nursery.start_soon(pump, session, 1)

            async def talk(index: int) -> None:
                choice = random.Random(seed * 2 + index)
                position = 0
                while position < len(data[index]):
                    size = choice.choice([1, 2, 7, 100, 3000, 20_000])
                    piece = data[index][position : position + size]
                    position += size
                    await send(ends[index], piece)
                    if choice.random() < 0.9:
                        assert await receive(ends[1 - index], len(piece)) == piece
                    else:
                        await trio.lowlevel.checkpoint()
                        if choice.random() < 0.5:
                            session.legs[index].reclaim()
                        assert await receive(ends[1 - index], len(piece)) == piece
                    if choice.random() < 0.05:
                        session.legs[index].reclaim()

            async with trio.open_nursery() as talks:
                talks.start_soon(talk, 0)
                talks.start_soon(talk, 1)
            for index, leg in enumerate(session.legs):
                leg.reclaim()
                reference = FrameScanner(masked=index == 0)
                reference.feed(data[index])
                assert session.scanners[index].state() == reference.state()
            assert session.up.redirected + session.down.redirected > 100_000
            nursery.cancel_scope.cancel()
        session.close()


async def test_a_receiver_that_never_reads_bounds_the_memory() -> None:
    credit = 1 << 18
    async with kernel_table(credit=credit) as table:
        session = KernelSession(table)
        await session.begin()
        session.backend.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        session.up.source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        message = frame(b"x" * 60_000, masked=True)
        sent = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, session, 0)
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(2):
                while True:
                    try:
                        sent += session.client.send(message)
                    except BlockingIOError:
                        with trio.move_on_after(0.3) as waiting:
                            await trio.lowlevel.wait_writable(session.client)
                        if waiting.cancelled_caught:
                            break
            assert session.up.redirected <= credit
            assert sent < 16 << 20
            nursery.cancel_scope.cancel()
        session.close_at_once()


async def test_what_the_daemon_writes_itself_is_bounded_too() -> None:
    credit = 1 << 17
    async with kernel_table(credit=credit) as table:
        session = KernelSession(table)
        await session.begin()
        sent, piece = 0, b"x" * 50_000
        with contextlib.suppress(BlockingIOError):
            while sent < 32 << 20:
                sent += session.legs[1].send(piece)
        # Not sent yet are so many, and a segment that was begun.
        (waiting,) = struct.unpack("=i", fcntl.ioctl(session.up.sink.fileno(), SIOCOUTQNSD, bytes(4)))
        assert 0 < waiting <= credit + 65_536
        assert len(await receive(session.backend, sent)) == sent
        session.close()


@pytest.mark.parametrize("sessions", [1, 16, 1000, 20_000, 1_000_000])
def test_no_note_is_ever_lost(sessions: int) -> None:
    slots = 2 * sessions
    size = ring_size(slots)
    assert size >= slots * NOTES * NOTE_SIZE
    assert size & size - 1 == 0
    assert size % 4096 == 0


async def test_an_end_comes_after_everything_before_it() -> None:
    async with kernel_table() as table:
        session = KernelSession(table)
        await session.begin()
        message = frame(b"x" * 30_000, masked=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, session, 0)
            await trio.testing.wait_all_tasks_blocked()
            # Less than the credit, so that all of it goes through the kernel, and then the end at once.
            nursery.start_soon(send, session.client, 20 * message)
            received = await receive(session.backend, len(message))
            await trio.testing.wait_all_tasks_blocked(0.01)
            session.client.shutdown(socket.SHUT_WR)
            received += await receive(session.backend, 19 * len(message))
            assert received == 20 * message
            await trio.lowlevel.wait_readable(session.backend)
            assert session.backend.recv(1) == b""
        session.close()


async def test_a_session_that_is_over_is_flushed() -> None:
    async with kernel_table() as table:
        session = KernelSession(table)
        await session.begin()
        message = frame(b"x" * 30_000, masked=True)
        assert session.up.open()
        await send(session.client, 20 * message)
        # What has not come when a session is closed is nobody's: packets may take their time, even here.
        with trio.fail_after(10):
            while session.up.redirected < 20 * len(message):
                await trio.sleep(0.001)
        for leg in session.legs:
            leg.close()
        assert await receive(session.backend, 20 * len(message)) == 20 * message
        session.client.close()
        session.backend.close()


@pytest.mark.parametrize("side", [0, 1])
async def test_a_reset_ends_the_wait(side: int) -> None:
    async with kernel_table() as table:
        session = KernelSession(table)
        await session.begin()
        end = (session.client, session.backend)[side]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.legs[side].carry)
            await trio.testing.wait_all_tasks_blocked()
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            end.close()
        with pytest.raises(OSError, match="reset"):
            session.legs[side].recv_into(bytearray(1))
        session.close()


async def test_cancelled_waits_leave_nothing_open() -> None:
    async with kernel_table() as table:
        session = KernelSession(table)
        await session.begin()
        with trio.move_on_after(0):
            await session.legs[0].carry()
        assert not session.up.is_open
        await send(session.client, MESSAGE)
        await trio.lowlevel.wait_readable(session.up.source)
        session.close()


async def test_the_table_is_full() -> None:
    async with kernel_table(sessions=1) as table:
        session = KernelSession(table)
        await session.begin()
        client, ours = tcp_pair()
        assert table.enter(ours, client) is None
        session.close()
        for sock in (client, ours):
            sock.close()


async def test_a_closed_socket_does_not_enter() -> None:
    async with kernel_table(sessions=1) as table:
        client, ours = tcp_pair()
        client.close()
        with pytest.raises(OSError, match=r"."):
            table.enter(ours, client)
        ours.close()
        session = KernelSession(table)  # the place is free again
        session.close()


async def test_openings_that_are_of_no_use_become_rare() -> None:
    async with kernel_table() as table:
        session = KernelSession(table)
        await session.begin()
        opened = 0
        for _ in range(200):
            opened += session.up.open()
            session.up.shut()
        assert 0 < opened < 20
        session.close()


async def test_descriptors_come_back() -> None:
    before = len(descriptors())
    async with kernel_table() as table:
        for _ in range(20):
            sessions = [KernelSession(table) for _ in range(10)]
            for session in sessions:
                session.close()
    assert len(descriptors()) == before


def descriptors() -> list[Path]:
    return list(Path("/proc/self/fd").iterdir())


async def test_the_self_test_passes_here() -> None:
    async with kernel_table() as table:
        await self_test(table)
        assert len(table) == 0


async def test_a_bare_end_does_not_break_the_other_side() -> None:
    """A FIN alone is a segment without bytes: sent on, it would make the kernel report a broken pipe."""
    async with kernel_table() as table:
        session = KernelSession(table)
        await session.begin()
        assert session.up.open()
        session.client.shutdown(socket.SHUT_WR)
        await trio.lowlevel.wait_readable(session.up.source)
        session.up.shut()
        assert session.legs[0].recv_into(bytearray(1)) == 0
        session.legs[1].send(ANSWER)
        assert await receive(session.backend, len(ANSWER)) == ANSWER
        await send(session.backend, ANSWER)
        await trio.lowlevel.wait_readable(session.down.source)
        assert session.legs[1].recv_into(bytearray(100)) == len(ANSWER)
        session.close()


async def test_what_comes_while_the_way_is_opened_is_not_forgotten() -> None:
    """Bytes that came after the look at the counters and before the way was open would wait for ever."""
    async with kernel_table() as table:
        session = KernelSession(table)
        await session.begin()
        message, rounds = frame(b"x", masked=True), 2000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, session, 0)

            def flood() -> None:
                for _ in range(rounds):
                    session.client.send(message)

            await trio.to_thread.run_sync(flood)
            assert await receive(session.backend, rounds * len(message)) == rounds * message
            nursery.cancel_scope.cancel()
        session.close()


async def test_a_way_that_is_stuck_is_taken_back(autojump_clock: trio.testing.MockClock) -> None:
    """Here the test is to blame: it tells the direction of bytes that never came."""
    async with kernel_table() as table:
        session = KernelSession(table)
        await session.begin()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.legs[0].carry)
            await trio.testing.wait_all_tasks_blocked()
            way = session.up
            assert way.is_open
            session.scanners[0].bytes -= 1
            await trio.sleep(6)
            assert table.stalls == 1
            nursery.cancel_scope.cancel()
        assert session.up.ended
        assert not session.up.open()
        session.close()


@pytest.mark.parametrize("terms", [Terms(bytes=3 * len(MESSAGE) + 1), Terms(frames=3)])
async def test_what_the_terms_do_not_allow_waits(terms: Terms) -> None:
    async with kernel_table() as table:
        session = KernelSession(table)
        await session.begin()
        for _ in range(2):
            assert session.up.open(terms)
            for _ in range(3):
                await send(session.client, MESSAGE)
                assert await receive(session.backend, len(MESSAGE)) == MESSAGE
            await send(session.client, MESSAGE)
            await trio.lowlevel.wait_readable(session.up.source)
            session.up.shut()
            assert (session.up.carried.bytes, session.up.carried.frames) == (3 * len(MESSAGE), 3)
            scratch = bytearray(100)
            assert session.legs[0].recv_into(scratch) == len(MESSAGE)
            session.scanners[0].feed(scratch[: len(MESSAGE)])
            assert session.legs[1].send(scratch[: len(MESSAGE)]) == len(MESSAGE)
            await receive(session.backend, len(MESSAGE))
        assert session.up.open()
        for _ in range(100):
            await send(session.client, MESSAGE)
        await receive(session.backend, 100 * len(MESSAGE))
        session.close()


async def test_the_backend_ends_its_sending_while_much_waits_for_it() -> None:
    """Its bare FIN comes behind bytes that wait to be sent to it, and must not be taken for their end."""
    data = frame(random.Random(3).randbytes(900_000), masked=True)
    async with kernel_table() as table:
        session = KernelSession(table)
        session.down.source.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        session.backend.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        await session.begin()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, session, 0)
            nursery.start_soon(pump, session, 1)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(send, session.client, data)
            with trio.fail_after(10):
                while session.up.redirected < 800_000:
                    await trio.sleep(0.001)
                session.backend.shutdown(socket.SHUT_WR)
                await trio.lowlevel.wait_readable(session.client)
            assert session.client.recv(1) == b""
            assert await receive(session.backend, len(data)) == data
            for _ in range(3):
                await send(session.client, MESSAGE)
                assert await receive(session.backend, len(MESSAGE)) == MESSAGE
            nursery.cancel_scope.cancel()
        session.close()


async def test_what_comes_at_the_very_end_is_dropped() -> None:
    async with kernel_table() as table:
        session = KernelSession(table)
        await session.begin()
        await send(session.client, MESSAGE * 20_000)
        session.up.drop_rest()
        await send(session.client, MESSAGE)
        with pytest.raises(BlockingIOError):
            session.up.source.recv(1)
        assert not session.up.redirected
        session.close()
