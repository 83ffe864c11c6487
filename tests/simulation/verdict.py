"""The verdict program of the kernel relay, once more: what `relay.bpf.c` does with a segment, in Python.

It works on the same words, and in the same two steps in which the real one can be met by somebody who reads them: it
judges the segment, and then it commits. `tests/net/kernel/test_model.py` compares it with the program in the kernel.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Final

from attrs import define

PASSED, REDIRECTED, SEGMENTS, NOTED, GATE, CREDIT, THRESHOLD, LIMIT = range(8)
SCAN: Final = 8
DRAFT: Final = 19
LEFT, MESSAGE, PAYLOAD, MESSAGES, CONTROL, CONTINUATIONS, TEXTS, BINARIES, PINGS, PONGS, FLAGS = range(11)
"""Within a scan."""
ALLOWED, REPEATED, NEXT = 30, 31, 32

OVER: Final = (1 << 64) - 2
MAX_FRAMES: Final = 8192

Words = MutableSequence[int]


@define
class Run:
    """A run of the program that has judged its segment and has not committed yet."""

    data: bytes
    scan: list[int] | None
    """Where the stream stands behind the segment; None if it is for user space."""
    seen_shut: bool


def only_new(words: Words, at: int, data: bytes, sequence: int) -> tuple[bytes, bool]:
    """Return what of a segment has not come before, and whether that is known (`only_new` of the program)."""
    known, due = words[at + NEXT] >> 32, words[at + NEXT] & 0xFFFFFFFF
    old = (due - sequence) & 0xFFFFFFFF
    if known and 0 < old < 1 << 31:
        cut = min(old, len(data))
        words[at + REPEATED] += cut
        data = data[cut:]
        if not data:
            return data, True
        sequence += cut
    words[at + NEXT] = 1 << 32 | (sequence + len(data)) & 0xFFFFFFFF
    return data, bool(known)


def judge(words: Words, at: int, data: bytes, max_frames: int = MAX_FRAMES, *, known: bool = True) -> Run:
    """Begin a run over a segment; `known` is whether all of it is known to be new."""
    seen_shut = known and words[at + PASSED] != words[at + GATE]
    if known and not seen_shut and words[at + REDIRECTED] + len(data) <= words[at + CREDIT]:
        scan = list(words[at + SCAN : at + SCAN + FLAGS + 1])
        whole = _walk(scan, data, words[at + LIMIT], words[at + ALLOWED], max_frames)
        words[at + DRAFT : at + DRAFT + FLAGS + 1] = scan
        if whole:
            return Run(data, scan, seen_shut)
    return Run(data, None, seen_shut)


def commit(words: Words, at: int, run: Run, *, sent: bool) -> bool:
    """End a run; `sent` is whether the segment went on. Whether a note is to be written."""
    length = len(run.data)
    if sent:
        assert run.scan is not None
        words[at + SCAN : at + SCAN + FLAGS + 1] = run.scan
        words[at + REDIRECTED] += length
        words[at + SEGMENTS] += 1
        threshold = words[at + THRESHOLD]
        if words[at + REDIRECTED] >= threshold != words[at + NOTED]:
            words[at + NOTED] = threshold
            return True
        return False
    if words[at + GATE] == OVER:
        return False
    words[at + PASSED] += length
    # Whoever has seen the gate shut has no reason to look again, and neither has a compiler.
    return not run.seen_shut and words[at + PASSED] - length == words[at + GATE]


def _end_frame(scan: list[int]) -> None:
    first = scan[FLAGS] & 0xFF
    if first & 0x80 and first & 0xF <= 2:
        scan[MESSAGES] += 1
        scan[MESSAGE] = 0


def _walk(scan: list[int], data: bytes, limit: int, allowed: int, max_frames: int) -> bool:
    """Whether every frame of a segment may go on."""
    position, size = 0, len(data)
    for _ in range(max_frames):
        if position >= size:
            return True
        if scan[LEFT]:
            rest = size - position
            if scan[LEFT] > rest:
                scan[LEFT] -= rest
                scan[PAYLOAD] += rest
                return True
            position += scan[LEFT]
            scan[PAYLOAD] += scan[LEFT]
            scan[LEFT] = 0
            _end_frame(scan)
            continue
        step = _header(scan, data, position, limit, allowed)
        if not step:
            return False
        position += step
    return False


def _header(scan: list[int], data: bytes, position: int, limit: int, allowed: int) -> int:
    """Return how long the header at `position` is, 0 for one that is for user space."""
    rest = len(data) - position
    if rest < 2:
        return 0
    first, second = data[position], data[position + 1]
    flags = scan[FLAGS]
    masked, watched, fragmented = flags >> 16 & 0xFF, flags >> 24 & 0xFF, flags >> 8 & 0xFF
    opcode, length, need = first & 0xF, second & 0x7F, 2
    if second & 0x80 != masked:
        return 0
    if length > 125:
        least, wide = (126, 2) if length == 126 else (1 << 16, 8)
        need += wide
        if rest < need:
            return 0
        length = int.from_bytes(data[position + 2 : position + need], "big")
        if length < least or length >> 63:
            return 0
    need += 4 if masked else 0
    if rest < need:
        return 0
    if opcode and scan[TEXTS] + scan[BINARIES] + scan[PINGS] + scan[PONGS] >= allowed:
        return 0
    if opcode <= 2:
        if (opcode == 0) != bool(fragmented):
            return 0
        scan[MESSAGE] += length
        if scan[MESSAGE] > limit:
            return 0
        fragmented = int(not first & 0x80)
        scan[CONTINUATIONS + opcode] += 1
    elif opcode in {9, 10} and not watched and first & 0x80 and length <= 125:
        scan[CONTROL] += length
        scan[PINGS + opcode - 9] += 1
    else:
        return 0
    scan[FLAGS] = first | fragmented << 8 | masked << 16 | watched << 24
    scan[LEFT] = length
    if not length:
        _end_frame(scan)
    return need
