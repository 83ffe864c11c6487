"""Backends that die, hang, break off and stop listening, under live sessions of both relays."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trio
from trio_websocket import WebSocketConnection

from tests.daemon.harness import PATIENCE, backend, backends, echo
from tests.daemon.waiting import eventually
from tests.faults.servers import accept_session, reset, server
from tests.faults.stage import RELAYS, World, balancers, world
from tests.opening import opening

pytestmark = pytest.mark.daemon

EACH = 6
"""Sessions under each relay at what fails and its neighbour."""


async def sessions(found: World) -> list[WebSocketConnection]:
    return [await found.connect(f"/chat-{relay}") for relay in RELAYS for _ in range(EACH)]


async def test_a_backend_is_killed(tmp_path: Path) -> None:
    async with (
        backends(2) as (victim, other),
        world(tmp_path, balancers("chat", [victim.url, other.url])) as found,
    ):
        opened = await sessions(found)
        places = await found.whereabouts(opened)
        doomed = [opened[index] for index, name in places.items() if name == "backend-1"]
        kept = [opened[index] for index, name in places.items() if name == "backend-2"]
        assert len(doomed) == len(kept) == EACH
        victim.running.signal(signal.SIGKILL)
        for connection in doomed:
            await found.lost(connection)
        for connection in kept:
            await echo(connection, "still here")
        # Whoever comes back is served, and by the one that lives.
        again = await sessions(found)
        assert set((await found.whereabouts(again)).values()) == {"backend-2"}
        # It is seen in a line, and in what status says.
        await found.daemon.running.line(
            lambda line: victim.url in line and ("backend drops sessions" in line or "backend failed" in line)
        )
        await eventually(lambda: ended(found, EACH), what="its sessions ended")
        lines = found.logged("session ended", backend=victim.url)
        assert [line["cause"] for line in lines] == ["backend_lost"] * EACH
        view = await found.backend(victim.url)
        assert (view["live"], view["state"]) == (0, "cooling_down")
        await eventually_one_line(found, "backend lost sessions", victim.url)


async def eventually_one_line(found: World, msg: str, url: str) -> None:
    """See that there is a line of `msg` for each of the two services, and no more."""

    async def there() -> bool:
        return len(found.logged(msg, backend=url)) >= 1

    await eventually(there, what=f"a line {msg}")
    assert len(found.logged(msg, backend=url)) <= len(RELAYS)


async def test_a_backend_is_stopped_and_goes_on(tmp_path: Path) -> None:
    """A pause is no death: nothing that was sent meanwhile is lost, and no session either."""
    async with backend() as paused, world(tmp_path, balancers("chat", [paused.url])) as found:
        opened = await sessions(found)
        paused.running.signal(signal.SIGSTOP)
        for number, connection in enumerate(opened):
            for message in range(20):
                await connection.send_message(f"{number} {message}")
        await found.bystanders.go_on()
        assert (await found.backend(paused.url))["live"] == len(opened)
        paused.running.signal(signal.SIGCONT)
        with trio.fail_after(PATIENCE):
            for number, connection in enumerate(opened):
                got = [await connection.get_message() for _ in range(20)]
                assert got == [f"{number} {message}" for message in range(20)]
        assert found.logged("session ended") == []


async def test_a_backend_is_stopped_for_good(tmp_path: Path) -> None:
    """Its kernel still accepts: handshakes time out, pings and what is sent find out about its sessions."""
    limits = {"pingInterval": "1s", "pongTimeout": "1s"}
    transports = {"quick": {"forwardingTimeouts": {"responseHeaderTimeout": "500ms"}}}
    services = {
        **balancers("chat", ["SERVER"], session=limits, serversTransport="quick"),
        **balancers("bulk", ["SERVER"], session={"writeTimeout": "1s"}, serversTransport="quick"),
    }
    async with backend() as stopped:
        for service in services.values():
            service["loadBalancer"]["servers"] = [{"url": stopped.url}]
        async with world(tmp_path, services, transports=transports) as found:
            opened = await sessions(found)
            bulky = [await found.connect(f"/bulk-{relay}") for relay in RELAYS]
            stopped.running.signal(signal.SIGSTOP)
            async with trio.open_nursery() as nursery:
                for connection in bulky:
                    nursery.start_soon(flood, connection)
                for connection in opened:
                    await found.lost(connection)
                await eventually(
                    lambda: ended(found, len(opened) + len(bulky)), what="the flooded ones ended too"
                )
                nursery.cancel_scope.cancel()
            causes = [line["cause"] for line in found.logged("session ended")]
            assert sorted(causes) == ["backend_ping_timeout"] * len(opened) + ["backend_write_timeout"] * len(
                bulky
            )
            assert {connection.closed.code for connection in opened if connection.closed} == {1011}
            answer = await found.handshake("/chat-stream")
            assert answer.startswith(b"HTTP/1.1 504 ")
            reason = "the backend did not answer the handshake in time"
            assert await found.daemon.logged("backend failed", backend=stopped.url, reason=reason)
            await found.reaches(stopped.url, live=0, handshakes=0)
            stopped.running.signal(signal.SIGCONT)


async def flood(connection: WebSocketConnection) -> None:
    """Send until nobody takes it."""
    try:
        while True:
            await connection.send_message("x" * 262144)
    except Exception:
        pass  # the session ends while it sends; how is what the caller looks at


@pytest.mark.parametrize("part", [b"\x82\x7e\x10", b"\x82\x7e\x10\x00half of it", b"\x02\x05Hello\x00\x05fr"])
async def test_a_backend_resets_in_the_middle_of_a_frame(tmp_path: Path, part: bytes) -> None:
    """What is whole has arrived, what is not is never completed by anything of ours, and the session has one cause."""
    broken = trio.Event()

    async def break_off(stream: trio.SocketStream) -> None:
        if await accept_session(stream):
            await stream.send_all(b"\x81\x05whole" + part)
            await broken.wait()
            reset(stream)

    async with server(break_off) as bad, world(tmp_path, balancers("chat", [bad.url])) as found:
        streams = []
        for relay in RELAYS:
            stream = await trio.open_tcp_stream("127.0.0.1", found.daemon.port)
            streams.append(stream)
            await stream.send_all(opening(f"/chat-{relay}"))
            data = b""
            with trio.fail_after(PATIENCE):
                while not data.endswith(part):
                    data += await stream.receive_some()
            assert data.partition(b"\r\n\r\n")[2] == b"\x81\x05whole" + part
        broken.set()
        for stream in streams:
            with trio.fail_after(PATIENCE):
                assert await rest(stream) == b""
            await stream.aclose()
        await eventually(lambda: ended(found, len(RELAYS)), what="both sessions ended")
        assert {line["cause"] for line in found.logged("session ended")} == {"backend_lost"}


async def rest(stream: trio.SocketStream) -> bytes:
    data = b""
    try:
        while more := await stream.receive_some():
            data += more
    except trio.BrokenResourceError:
        pass
    return data


async def ended(found: World, count: int) -> bool:
    return len(found.logged("session ended")) == count


async def test_a_backend_closes_its_listener(tmp_path: Path) -> None:
    """Its sessions go on, and new ones go elsewhere without their clients noticing."""

    async def echoes(stream: trio.SocketStream) -> None:
        if await accept_session(stream):
            while data := await stream.receive_some():
                # What comes is a short masked text frame; what goes is the same without its mask.
                key, payload = data[2:6], data[6:]
                text = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
                if data[0] == 0x88:
                    return
                await stream.send_all(bytes([data[0], len(text)]) + text)

    async with (
        server(echoes) as closing,
        backend(name="other") as other,
        world(tmp_path, balancers("chat", [closing.url, other.url])) as found,
    ):
        opened = await sessions(found)
        assert closing.connections == EACH
        await closing.close_listener()
        for connection in opened:
            await echo(connection, "still here")
        again = await sessions(found)
        assert set((await found.whereabouts(again)).values()) == {"other"}
        for connection in opened:
            await echo(connection, "and still")
        view = await found.backend(closing.url)
        assert (view["live"], view["state"]) == (EACH, "cooling_down")
        assert found.logged("session ended") == []
        # The first tells the operator, once for each cool-down.
        warned = found.logged("backend failed", backend=closing.url, level="warning")
        assert 1 <= len(warned) <= 3
