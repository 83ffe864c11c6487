"""The verdict program in the kernel and its model in Python, on which the simulation stands, do the same with each segment."""

from __future__ import annotations

import random
import struct

import pytest
import trio

from tests.net.kernel.stage import KernelSession, frame, kernel_table, needs_kernel, send, traffic
from tests.simulation import verdict
from trio_wsb.net.channel import FREELY, Terms
from trio_wsb.net.kernel.direction import WORDS, Direction, tcp_counts
from trio_wsb.websocket.frames import CLOSE, CONTINUATION, PING, TEXT

pytestmark = needs_kernel

SEGMENTS = 120
ODD = [
    frame(b"\x03\xe8", masked=True, opcode=CLOSE),
    frame(b"x", masked=False),
    frame(b"x", masked=True, opcode=CONTINUATION),
    frame(b"x", masked=True, opcode=3),
    frame(b"x" * 126, masked=True, opcode=PING),
    frame(b"x", masked=True, opcode=PING, final=False),
    frame(b"x", masked=True, opcode=TEXT, final=False) + frame(b"x", masked=True, opcode=TEXT),
    b"\x82\xfe\x00\x05" + bytes(9),
    b"\x82\xff\x80" + bytes(20),
    b"\x82",
]
LEFT, FLAGS = verdict.SCAN + verdict.LEFT, verdict.SCAN + verdict.FLAGS
TERMS = [FREELY, Terms(message=1000), Terms(bytes=5000), Terms(frames=5), Terms(20_000, 100_000, 30)]


def words_of(way: Direction) -> list[int]:
    return list(way.words[way.at : way.at + WORDS])


def shown(words: list[int]) -> list[int]:
    """Return what counts: neither the draft of a segment that was not committed, nor what is left to cut."""
    return words[: verdict.DRAFT] + words[verdict.ALLOWED : verdict.NEXT + 1]


def model(words: list[int], segment: bytes) -> bool:
    """Do with the words what the program does; whether the segment went on."""
    data, known = verdict.only_new(words, 0, segment, words[verdict.NEXT] & 0xFFFFFFFF)
    run = verdict.judge(words, 0, data, known=known)
    verdict.commit(words, 0, run, sent=run.scan is not None)
    return run.scan is not None


@pytest.mark.parametrize("seed", range(8))
async def test_they_agree_about_every_segment(seed: int) -> None:
    rng = random.Random(seed)
    async with kernel_table() as table:
        session = KernelSession(table)
        await session.begin()
        way, leg, scanner = session.up, session.legs[0], session.scanners[0]
        if seed % 4 == 3:
            scanner.unanswered = bytearray(2)  # somebody wants to know the order of Pings and Pongs
        stream, position, sent = traffic(rng, 500_000, masked=True), 0, 0
        scratch = bytearray(1 << 16)
        for _ in range(SEGMENTS):
            if not way.is_open:
                way.open(rng.choice(TERMS))
            elif rng.random() < 0.2:
                way.top_up()
            size = rng.choice([1, 2, 6, 50, 500, 5000, 30_000])
            before = words_of(way)
            # Between two frames, and outside a message, so that it is odd.
            odd = rng.random() < 0.3 and way.is_open and not before[LEFT] and not before[FLAGS] >> 8 & 0xFF
            segment = rng.choice(ODD) if odd else stream[position : position + size]
            if not segment:
                break
            expected = before.copy()
            due = tcp_counts(way.source)[1] + len(segment)
            went = model(expected, segment)
            await send(session.client, segment)
            with trio.fail_after(10):
                while tcp_counts(way.source)[1] < due:
                    await trio.sleep(0)
            assert shown(words_of(way)) == shown(expected), segment[:40]
            sent += went
            position += 0 if odd else len(segment)
            if not went:
                way.shut()
                await leg.wait_readable()
                count = leg.recv_into(scratch)
                assert scratch[:count] == segment
                if odd:
                    # As if it had never been: the stream goes on where it was.
                    leg.follow(scanner, -way.read - way.redirected + scanner.bytes)
                else:
                    scanner.feed(scratch[:count])
        assert sent > SEGMENTS / 4
        session.close_at_once()


def test_the_words_lie_where_the_program_has_them() -> None:
    """`struct direction` of relay.bpf.c: 8 words, two scans of 11, and the rest."""
    scan = struct.calcsize("=10Q8B") // 8
    assert (scan, scan) == (verdict.DRAFT - verdict.SCAN, verdict.ALLOWED - verdict.DRAFT)
    assert verdict.NEXT == verdict.ALLOWED + 2 < WORDS
