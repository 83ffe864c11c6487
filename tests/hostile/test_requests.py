"""The table of hostile requests against the proxy in memory, each alone; and all of them against the running daemon."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.hostile.backend import Seen, record
from tests.hostile.case import SMUGGLED, Case
from tests.hostile.requests import PIPELINED, REQUESTS
from tests.hostile.world import attacked
from tests.proxy.stage import End, staged
from trio_wsb.net.channel import receive_some

EVERY = [*REQUESTS, *PIPELINED]


def test_the_table_is_what_it_says() -> None:
    assert len(EVERY) > 200
    assert len({case.name for case in EVERY}) == len(EVERY)
    assert all(case.source for case in EVERY)


def check(case: Case, answer: bytes, seen: list[Seen]) -> str:
    """Return what is wrong with what became of `case`, "" if nothing is."""
    if not answer.startswith(f"HTTP/1.1 {case.status} ".encode()):
        return f"answered {answer[:60]!r}, not {case.status}"
    if len(re.findall(rb"HTTP/1\.1 [0-9]{3} ", answer)) > 1:
        return "answered what was smuggled"
    if not case.reaches and seen:
        return "reached a backend"
    for each in seen:
        if each.fault:
            return f"a backend could not read it: {each.fault}"
        if b"smuggled" in each.raw and not each.body.startswith(SMUGGLED):
            return "smuggled a request to a backend"
        if len(each.requests) > 1:
            return "became two requests at a backend"
        if case.status >= 400 and each.complete:
            return "was refused, and reached a backend whole"
    return ""


@pytest.mark.parametrize("case", EVERY, ids=str)
async def test_in_memory(case: Case, autojump_clock: trio.testing.MockClock) -> None:
    seen: list[Seen] = []

    async def backend(end: End) -> None:
        seen.append(Seen())
        buffer = bytearray(65536)

        async def receive() -> bytes:
            return bytes(buffer[: await receive_some(end.channel, buffer)])

        await record(seen[-1], receive, end.send)

    async with staged(backend, backend, backend) as stage:
        client = stage.connect()
        sent = case.sent + (b"" if case.status == 200 else SMUGGLED)

        async def send() -> None:
            try:
                await client.send(sent)
                await trio.sleep(1)
                await client.send(b"" if case.status == 200 else SMUGGLED)
                if case.status == 200:
                    client.channel.shutdown()
            except OSError:
                pass  # it has been refused meanwhile

        answer = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            try:
                answer = await client.rest()
            except ConnectionResetError:
                answer = client._take(len(client._read))
            nursery.cancel_scope.cancel()
        client.close()
        await client.done.wait()
    assert check(case, answer, seen) == ""


@pytest.mark.daemon
async def test_in_the_running_daemon(tmp_path: Path) -> None:
    wrong: dict[str, str] = {}
    async with attacked(tmp_path) as world:
        for case in EVERY:
            world.seen.clear()
            # The last request of its connection where it is a good one, so that its end is seen.
            good = case.status == 200
            closing = case.sent.replace(b"Host:", b"Connection: close\r\nHost:", 1)
            fault = check(case, await world.ask(closing if good else case.sent + SMUGGLED), world.seen)
            if fault:
                wrong[case.name] = fault
    assert wrong == {}
