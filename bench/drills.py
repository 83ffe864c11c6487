"""Integrity while the balancer has something to say itself: pings of its own between the frames of others, and drains.

Both ends of a session speak WebSocket here, so that frames of the balancer's can be told from the other end's, are answered,
and everything else must come as it went: all of it under pings, and under a drain whole frames up to the Close frame.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from threading import Condition
from typing import Final

from attrs import define, field

PIECES: Final = (1, 7, 100, 1_400, 16_000, 65_536, 300_000)
PAUSE: Final = 0.3
"""Seconds for which a sender says nothing now and then, after a whole frame: a ping can only go out there."""

DRAIN_CODE: Final = 1012
_NORMAL: Final = (1000).to_bytes(2, "big")
_CLOSE: Final = 8
PING: Final = 9
_PONG: Final = 10
PING_OF_TRAFFIC: Final = 8
"""Bytes of payload of a ping in the traffic; the balancer's have more."""


def frame(opcode: int, payload: bytes, *, masked: bool) -> bytes:
    """Return a frame with up to 125 bytes of payload."""
    if not masked:
        return bytes((0x80 | opcode, len(payload))) + payload
    key = os.urandom(4)
    hidden = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
    return bytes((0x80 | opcode, 0x80 | len(payload))) + key + hidden


def frame_at(data: bytes | bytearray, start: int = 0) -> tuple[int, int, int, bytes | None] | None:
    """Return opcode, header size, payload size and key of the frame that begins at `start`; None if its header is not whole."""
    if len(data) - start < 2:
        return None
    size, at = data[start + 1] & 0x7F, start + 2
    if size > 125:
        more = 2 if size == 126 else 8
        size, at = int.from_bytes(data[at : at + more], "big"), at + more
    key = None
    if data[start + 1] & 0x80:
        key, at = bytes(data[at : at + 4]), at + 4
    return None if at > len(data) else (data[start] & 0xF, at - start, size, key)


@define(eq=False)
class End:
    """One end of a session: sends `data`, answers pings and Close frames, and compares what comes with `expected`."""

    sock: socket.socket
    data: bytes
    expected: bytes
    masks: bool
    rng: random.Random
    received: int = 0
    """Bytes of `expected` that came."""
    sent: int = 0
    """Bytes of `data` that were sent, in whole frames."""
    pings: int = 0
    """Of the balancer's."""
    code: int | None = None
    """Of the Close frame that came."""
    faults: list[str] = field(factory=list)
    _answers: deque[bytes] = field(factory=deque)
    _news: Condition = field(factory=Condition)
    _over: bool = False
    _said_close: bool = False

    def send(self) -> None:
        """Send everything, and a Close frame in the end; stop where the other end's Close frame is answered."""
        try:
            while self.sent < len(self.data) and not self._said_close:
                self._answer()
                if not self._said_close:
                    self._send_frame()
            with self._news:
                while not self._over:
                    self._answer()
                    # A server ends the conversation, when both have said everything.
                    if not self.masks and self.received == len(self.expected) and not self._said_close:
                        self._answers.append(frame(_CLOSE, _NORMAL, masked=False))
                        continue
                    if not self.masks and self.code is not None:
                        break  # and ends the connection first (RFC 6455 section 7.1.1)
                    self._news.wait()
                self._answer()
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.faults.append(f"cannot send: {error}")

    def receive(self) -> None:
        """Receive until the end."""
        buffer, kept = bytearray(1 << 18), bytearray()
        try:
            while count := self.sock.recv_into(buffer):
                kept += memoryview(buffer)[:count]
                del kept[: self._judge(kept)]
        except OSError as error:
            self.faults.append(f"cannot receive: {error}")
        if kept:
            self.faults.append(f"{len(kept)} bytes of a frame that never came whole")
        with self._news:
            self._over = True
            self._news.notify()

    def _send_frame(self) -> None:
        found = frame_at(self.data, self.sent)
        assert found is not None
        view = memoryview(self.data)[self.sent : self.sent + found[1] + found[2]]
        self.sent += len(view)
        while view:
            size = self.rng.choice(PIECES) if self.rng.random() < 0.1 else 300_000
            self.sock.sendall(view[:size])
            view = view[size:]
        if self.rng.random() < 0.1:
            with self._news:
                self._news.wait(PAUSE)

    def _answer(self) -> None:
        while self._answers:
            answer = self._answers.popleft()
            if self._said_close:
                continue
            if answer[0] & 0xF == _CLOSE:
                self._said_close = True
            self.sock.sendall(answer)

    def _judge(self, kept: bytearray) -> int:
        """Look at the whole frames in `kept`; return how many bytes they are."""
        at = 0
        while (found := frame_at(kept, at)) is not None:
            opcode, header, size, key = found
            end = at + header + size
            if end > len(kept):
                break
            payload = bytes(kept[at + header : end]) if opcode >= _CLOSE else b""
            if key is not None:
                payload = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
            self._take(opcode, payload, kept, at, end)
            at = end
        return at

    def _take(self, opcode: int, payload: bytes, kept: bytearray, start: int, end: int) -> None:
        answer = None
        if opcode == _CLOSE:
            self.code = int.from_bytes(payload[:2], "big")
            answer = frame(_CLOSE, payload[:2], masked=self.masks)
        elif opcode == PING:
            answer = frame(_PONG, payload, masked=self.masks)
        if opcode == _PONG:
            if len(payload) != PING_OF_TRAFFIC:
                self.faults.append("an answer to a ping of the balancer's came through")
        elif opcode == PING and len(payload) > PING_OF_TRAFFIC:
            self.pings += 1
        elif opcode != _CLOSE:
            if (
                memoryview(self.expected)[self.received : self.received + end - start]
                != memoryview(kept)[start:end]
            ):
                self.faults.append(f"wrong bytes after {self.received:,}")
            self.received += end - start
        with self._news:
            if answer is not None:
                self._answers.append(answer)
            self._news.notify()


def exchange(
    pairs: list[tuple[socket.socket, socket.socket]],
    up: bytes,
    down: bytes,
    seed: int,
    drain: list[str] | None = None,
) -> tuple[bool, str]:
    """Send `up` in every second session and `down` in the others, so that one end is silent and is pinged.

    Args:
      pairs: client's and backend's end of each session; closed at the end.
      up: frames of a client.
      down: frames of a backend.
      seed: of what is random.
      drain: a command that drains the backend, which is run when about a third has gone through.

    Returns:
      Whether all was right, and what there is to tell.

    """
    sessions: list[tuple[End, End]] = []
    for number, (client, backend) in enumerate(pairs):
        sent, back = (up, b"") if number % 2 else (b"", down)
        rng = random.Random(seed * 1000 + number)
        sessions.append(
            (
                End(client, sent, back, masks=True, rng=rng),
                End(backend, back, sent, masks=False, rng=random.Random(rng.random())),
            )
        )
    ends = [end for pair in sessions for end in pair]
    with ThreadPoolExecutor(2 * len(ends) + 1) as threads:
        work = [threads.submit(act) for end in ends for act in (end.send, end.receive)]
        if drain is not None:
            threshold = len(sessions) * len(up) // 3
            while sum(end.received for end in ends) < threshold:
                time.sleep(0.05)
            subprocess.run(drain, check=True, stdout=subprocess.DEVNULL, timeout=120)
        for each in work:
            each.result()
    for pair in pairs:
        for sock in pair:
            sock.close()
    for client_end, backend_end in sessions:
        _judge_end(client_end, backend_end, drained=drain is not None)
    faults = [
        f"session {number}: {fault}"
        for number, pair in enumerate(sessions)
        for end in pair
        for fault in end.faults
    ]
    pings = sum(end.pings for end in ends)
    whole = sum(end.received == len(end.expected) for end in ends if end.expected)
    told = f"{pings} pings of the balancer's, {whole} of {len(sessions)} went through whole"
    if drain is None and not pings:
        faults.append("nobody was pinged")
    if drain is not None and whole == len(sessions):
        faults.append("the drain came too late for all")
    return not faults, "\n".join([told, *faults])


def _judge_end(client: End, backend: End, *, drained: bool) -> None:
    if not drained:
        for end in (client, backend):
            if end.received != len(end.expected):
                end.faults.append(f"{end.received:,} bytes came of {len(end.expected):,}")
    if backend.data and backend.sent < len(backend.data) and client.code != DRAIN_CODE:
        client.faults.append(f"cut off with {client.code}")
    if client.code not in {1000, DRAIN_CODE}:
        client.faults.append(f"closed with {client.code}")
    # What a client says before it answers the Close frame goes through, its answer last.
    if drained and client.data and backend.received != client.sent:
        backend.faults.append(f"{backend.received:,} bytes came of {client.sent:,} that were sent")
    if backend.code != client.code:
        backend.faults.append(f"closed with {backend.code}, the client with {client.code}")


def drain_command(control: str, backend: str) -> list[str]:
    """Return the command that drains `backend`, all sessions at once, and waits for the end."""
    return [
        sys.executable, "-m", "trio_wsb", "drain", backend, "--socket", control,
        "--rate", "1000/s", "--code", str(DRAIN_CODE), "--timeout", "60s",
    ]  # fmt: skip
