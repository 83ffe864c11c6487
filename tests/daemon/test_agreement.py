"""Whatever ends sessions, and however many: log, access log and metrics say what the peers on both sides saw themselves.

A session is written down by its client's plan, which it tells the backend in its path. Before its end, whoever ends it has got
all that was sent, so that each side knows what there is to count; what a reset destroys on its way is nobody's knowledge.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from attrs import define
from prometheus_client.parser import text_string_to_metric_families

from tests.daemon.harness import PATIENCE, daemon, free_port, http_client
from tests.daemon.waiting import eventually
from tests.net.kernel.stage import needs_kernel
from tests.opening import opening
from trio_wsb.websocket.handshake import accept_value

pytestmark = pytest.mark.daemon

SESSIONS = int(os.environ.get("TRIO_WSB_AGREEMENT_SESSIONS", "150"))
"""How many for each relay; ten thousand take some minutes."""

AT_ONCE = 40
CODES = (None, 1000, 1001, 1008, 1011, 1012, 3000, 3999, 4000, 4444)
CLOSE, BINARY = 8, 2


@define
class Plan:
    """What happens in a session: who ends it, and how; how many messages each side sends before."""

    number: int
    by_client: bool
    cuts: bool
    code: int | None
    up: int
    down: int
    size: int

    @property
    def path(self) -> str:
        code = 0 if self.code is None else self.code
        return f"/{self.number}/{self.by_client:d}/{self.cuts:d}/{code}/{self.up}/{self.down}/{self.size}"

    @classmethod
    def of(cls, path: str) -> Plan:
        number, by_client, cuts, code, up, down, size = map(int, path.split("/")[1:])
        return cls(number, bool(by_client), bool(cuts), code or None, up, down, size)

    @property
    def cause(self) -> str:
        return f"{'client' if self.by_client else 'backend'}_{'lost' if self.cuts else 'closed'}"

    @property
    def seen_code(self) -> int | None:
        """The code of the first Close frame, as the balancer names it."""
        return None if self.cuts else 1005 if self.code is None else self.code


def plan(number: int, rng: Random) -> Plan:
    small = rng.random() < 0.8
    return Plan(
        number,
        rng.random() < 0.5,
        rng.random() < 0.3,
        rng.choice(CODES),
        rng.randrange(8),
        rng.randrange(8),
        rng.randrange(126) if small else rng.randrange(126, 70_000),
    )


class End:
    """One side of a WebSocket connection, by hand: what it sends and gets is counted here."""

    def __init__(self, stream: trio.SocketStream, rest: bytes, *, masks: bool) -> None:
        self.stream = stream
        self.sent = Counter[str]()
        self.got = Counter[str]()
        self._rest = bytearray(rest)
        self._masks = masks

    async def send(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        short = size if size < 126 else 126 if size < 65536 else 127
        head = bytes([0x80 | opcode, short | (0x80 if self._masks else 0)])
        head += b"" if size < 126 else struct.pack("!H" if short == 126 else "!Q", size)
        frame = head + (bytes(4) if self._masks else b"") + payload
        self.sent.update(bytes=len(frame), messages=int(opcode == BINARY))
        await self.stream.send_all(frame)

    async def get(self) -> tuple[int, bytes] | None:
        """Return the next frame, None at an end without one."""
        try:
            first, second = await self._take(2)
            size = second & 0x7F
            more = {126: 2, 127: 8}.get(size, 0)
            if more:
                size = int.from_bytes(await self._take(more), "big")
            key = 4 if second & 0x80 else 0
            payload = (await self._take(key + size))[key:]
        except (EOFError, trio.BrokenResourceError):
            return None
        self.got.update(bytes=2 + more + key + size, messages=int(first & 15 == BINARY))
        return first & 15, payload

    async def _take(self, count: int) -> bytes:
        while len(self._rest) < count:
            data = await self.stream.receive_some(65536)
            if not data:
                raise EOFError
            self._rest += data
        taken = bytes(self._rest[:count])
        del self._rest[:count]
        return taken

    async def expect(self, count: int) -> None:
        for _ in range(count):
            frame = await self.get()
            assert frame is not None
            assert frame[0] == BINARY

    async def finish(self, plan: Plan) -> int | None:
        """End it as planned; return the code of the answer."""
        if plan.cuts:
            self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.stream.socket.close()
            return None
        await self.send(CLOSE, b"" if plan.code is None else plan.code.to_bytes(2, "big"))
        return await self.code()

    async def answer(self) -> int | None:
        """Take the other side's end, and answer it; return its code."""
        frame = await self.get()
        if frame is None:
            return None
        await self.send(*frame)
        return int.from_bytes(frame[1], "big") or 1005

    async def code(self) -> int | None:
        frame = await self.get()
        assert frame is None or frame[0] == CLOSE
        return None if frame is None else int.from_bytes(frame[1], "big") or 1005


async def head(stream: trio.SocketStream) -> tuple[str, bytes]:
    data = bytearray()
    while b"\r\n\r\n" not in data:
        part = await stream.receive_some(65536)
        assert part
        data += part
    text, _, rest = bytes(data).partition(b"\r\n\r\n")
    return text.decode(), rest


async def converse(end: End, plan: Plan, *, client: bool) -> int | None:
    """Play one side's part; return the close code that it saw."""
    mine, theirs = (plan.up, plan.down) if client else (plan.down, plan.up)
    if client:
        await end.send(BINARY, bytes(plan.size))  # the first of all
    else:
        await end.expect(1)
    for _ in range(mine):
        await end.send(BINARY, bytes(plan.size))
    await end.expect(theirs)
    # "I have all of it", from who does not end it to who does.
    if client == plan.by_client:
        await end.expect(1)
        return await end.finish(plan)
    await end.send(BINARY, b"all")
    return await end.answer()


class Ledger:
    """What both sides saw."""

    def __init__(self) -> None:
        self.clients: dict[int, tuple[Plan, End, int | None]] = {}
        self.backends: dict[int, tuple[Plan, End, int | None]] = {}

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            text, rest = await head(stream)
            fields = {
                name.lower(): value
                for name, _, value in (line.partition(": ") for line in text.split("\r\n")[1:])
            }
            accept = accept_value(fields["sec-websocket-key"])
            lines = ("101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade")
            answer = "\r\n".join(
                (f"HTTP/1.1 {lines[0]}", *lines[1:], f"Sec-WebSocket-Accept: {accept}", "", "")
            )
            await stream.send_all(answer.encode())
            planned = Plan.of(text.split()[1])
            end = End(stream, rest, masks=False)
            code = await converse(end, planned, client=False)
            self.backends[planned.number] = planned, end, code
            if planned.by_client or not planned.cuts:
                with trio.move_on_after(PATIENCE):
                    await end.get()  # who has told its Close frame lets the other side end the connection

    async def visit(self, planned: Plan, port: int, limit: trio.CapacityLimiter) -> None:
        async with limit, await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(opening(planned.path))
            text, rest = await head(stream)
            assert text.startswith("HTTP/1.1 101")
            end = End(stream, rest, masks=True)
            code = await converse(end, planned, client=True)
            self.clients[planned.number] = planned, end, code


@asynccontextmanager
async def serving(ledger: Ledger) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, ledger.serve, 0, host="127.0.0.1")
        (listener, *_) = await nursery.start(serve)
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def metrics(port: int) -> dict[tuple[str, tuple[str, ...]], float]:
    async with http_client() as client:
        text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def label(code: int | None) -> str:
    return "none" if code is None else str(code) if code < 3000 else f"{code // 1000}xxx"


@pytest.mark.parametrize("relay", ["stream", pytest.param("kernel", marks=needs_kernel)])
async def test_codes_causes_and_counters_are_those_of_the_peers(tmp_path: Path, relay: str) -> None:
    ledger, lines, port, admin = Ledger(), tmp_path / "access.log", free_port(), free_port()
    rng = Random(5)
    plans = [plan(number, rng) for number in range(SESSIONS)]
    async with serving(ledger) as one, serving(ledger) as two:
        balancer = {"servers": [{"url": one}, {"url": two}], "relay": relay}
        changes: dict[str, Any] = {
            "entryPoints": {
                "web": {"address": f"127.0.0.1:{port}"},
                "admin": {"address": f"127.0.0.1:{admin}"},
            },
            "http": {
                "routers": {"all": {"rule": "PathPrefix(`/`)", "service": "all"}},
                "services": {"all": {"loadBalancer": balancer}},
            },
            "accessLog": {"filePath": str(lines), "format": "json", "bufferingSize": 0},
        }
        async with daemon(tmp_path, [], port=port, **changes) as running:
            limit = trio.CapacityLimiter(AT_ONCE)
            async with trio.open_nursery() as nursery:
                for each in plans:
                    nursery.start_soon(ledger.visit, each, port, limit)
            found = await eventually(
                lambda: metrics(admin), lambda seen: not seen["trio_wsb_sessions_open", ()]
            )
            otherwise = running.relayed_otherwise(relay)
            relays = {line["relay"] for line in running.log("session opened")}
        written = [json.loads(line) for line in lines.read_text().splitlines()]
    ended = {
        Plan.of(each["RequestPath"]).number: each for each in written if each["event"] == "session_ended"
    }
    assert ended.keys() == ledger.clients.keys() == ledger.backends.keys() == set(range(SESSIONS))
    assert relay in relays
    assert not otherwise
    sums = Counter[str]()
    for number, line in ended.items():
        planned, client, client_code = ledger.clients[number]
        _, backend, backend_code = ledger.backends[number]
        assert client_code == backend_code == planned.seen_code
        assert (line["cause"], line.get("closeCode")) == (planned.cause, planned.seen_code)
        assert line["closedBy"] == ("client" if planned.by_client else "backend")
        assert client.sent == backend.got
        assert client.got == backend.sent
        counted = [line[name] for name in ("messagesIn", "bytesIn", "messagesOut", "bytesOut")]
        assert counted == [part[name] for part in (client.sent, client.got) for name in ("messages", "bytes")]
        for name in ("messages", "bytes"):
            sums[f"{name} in"] += client.sent[name]
            sums[f"{name} out"] += client.got[name]
    ends = Counter((each.cause, label(each.seen_code)) for each in plans)
    told = {
        key[1]: value for key, value in found.items() if key[0] == "trio_wsb_sessions_ended_total" and value
    }
    assert told == ends
    for name in ("messages", "bytes"):
        for way in ("in", "out"):
            assert found[f"trio_wsb_{name}_total", (way,)] == sums[f"{name} {way}"]
