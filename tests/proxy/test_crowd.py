"""What one client address may take of an entry point."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from attrs import evolve

from tests.proxy.stage import READ_TIMEOUT, End, Stage, answering, echo, field_of, get, handshake, ok, staged
from trio_wsb.addresses import Networks, parse_ip, parse_network
from trio_wsb.http.forward import ForwardPolicy
from trio_wsb.net.memory import MemoryChannel, memory_channel_pair
from trio_wsb.proxy.connection import Connection
from trio_wsb.proxy.crowd import Crowd, Visit
from trio_wsb.proxy.peer import Peer
from trio_wsb.proxy.runtime import EntryPointRuntime


async def entry_with(pending: int = 0, connections: int = 0, *trusted: str) -> EntryPointRuntime:
    async with staged(echo, trusted=trusted) as stage:
        entry = stage.proxy.runtime.entry_points["web"]
    return evolve(entry, pending_per_address=pending, connections_per_address=connections)


def let_in(crowd: Crowd, entry: EntryPointRuntime, address: str | None) -> Visit | None:
    return crowd.visit(entry, None if address is None else parse_ip(address))


async def test_those_that_wait_are_bounded_and_those_that_asked_are_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    crowd, entry = Crowd(), await entry_with(2)
    first, second = (let_in(crowd, entry, "192.0.2.7") for _ in range(2))
    assert first is not None
    assert second is not None
    assert let_in(crowd, entry, "192.0.2.7") is None
    assert let_in(crowd, entry, "192.0.2.8") is not None
    first.asked()
    third = let_in(crowd, entry, "192.0.2.7")
    assert third is not None
    # The first has had its answer and would wait again.
    assert not first.wait()
    third.end()
    assert first.wait()
    assert first.wait()  # it does already
    for visit in (first, second, third, third):
        visit.end()
    assert len(crowd) == 1


async def test_all_connections_of_an_address(autojump_clock: trio.testing.MockClock) -> None:
    crowd, entry = Crowd(), await entry_with(0, 2)
    visits = [let_in(crowd, entry, "192.0.2.7") for _ in range(2)]
    for visit in visits:
        assert visit is not None
        visit.asked()
    assert let_in(crowd, entry, "192.0.2.7") is None
    assert visits[0] is not None
    visits[0].end()
    assert let_in(crowd, entry, "192.0.2.7") is not None


async def test_a_refusal_over_one_limit_takes_nothing_of_the_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    crowd, entry = Crowd(), await entry_with(1, 2)
    visit = let_in(crowd, entry, "192.0.2.7")
    assert visit is not None
    for _ in range(5):
        assert let_in(crowd, entry, "192.0.2.7") is None
    visit.asked()
    assert let_in(crowd, entry, "192.0.2.7") is not None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("192.0.2.7", "::ffff:192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        # Not the IPv4 address with the number of this network.
        ("::c000:207:0:0:0:1", "192.0.2.7", False),
    ],
)
async def test_what_counts_as_one_address(
    one: str, other: str, same: bool, autojump_clock: trio.testing.MockClock
) -> None:
    crowd, entry = Crowd(), await entry_with(1)
    assert let_in(crowd, entry, one) is not None
    assert (let_in(crowd, entry, other) is None) is same


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.1.2.3", "10.200.0.1", None])
async def test_who_speaks_for_many_is_exempt(
    address: str | None, autojump_clock: trio.testing.MockClock
) -> None:
    crowd, entry = Crowd(), await entry_with(1, 1, "10.1.0.0/16")
    entry = evolve(entry, proxy_protocol=ForwardPolicy(Networks((parse_network("10.200.0.1"),))))
    for _ in range(3):
        visit = let_in(crowd, entry, address)
        assert visit is not None
        assert visit.wait()
    assert len(crowd) == 0


async def connect(stage: Stage, crowd: Crowd, nursery: trio.Nursery) -> MemoryChannel | None:
    """Connect a client whose address has a share, as the arrival does it."""
    entry = evolve(stage.proxy.runtime.entry_points["web"], pending_per_address=1)
    address = parse_ip("192.0.2.7")
    visit = crowd.visit(entry, address)
    if visit is None:
        return None
    far, near = memory_channel_pair(65536)

    async def serve() -> None:
        try:
            await Connection(stage.proxy, "web", near, Peer(address, "192.0.2.7:1"), visit=visit).run()
        finally:
            visit.end()

    nursery.start_soon(serve)
    return far


async def read(channel: MemoryChannel) -> bytes:
    buffer = bytearray(4096)
    while True:
        try:
            return bytes(buffer[: channel.recv_into(buffer)])
        except BlockingIOError:
            await channel.wait_readable()


async def test_a_session_does_not_wait(autojump_clock: trio.testing.MockClock) -> None:
    crowd = Crowd()
    async with staged(echo) as stage, trio.open_nursery() as nursery:
        first = await connect(stage, crowd, nursery)
        assert first is not None
        assert await connect(stage, crowd, nursery) is None
        first.send(handshake())
        assert (await read(first)).startswith(b"HTTP/1.1 101 ")
        second = await connect(stage, crowd, nursery)
        assert second is not None
        assert await connect(stage, crowd, nursery) is None
        first.close()
        second.close()
    assert len(crowd) == 0


async def test_a_head_that_drips_in_waits_until_its_time_is_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    crowd = Crowd()
    async with staged(echo) as stage, trio.open_nursery() as nursery:
        slow = await connect(stage, crowd, nursery)
        assert slow is not None
        began = trio.current_time()
        for byte in b"GET / HTTP/1.1\r\nHost: a\r\n":
            slow.send(bytes((byte,)))
            await trio.sleep(0.1)
            assert await connect(stage, crowd, nursery) is None
        assert (await read(slow)).startswith(b"HTTP/1.1 408 ")
        assert trio.current_time() - began == pytest.approx(READ_TIMEOUT)
        slow.close()
    assert len(crowd) == 0


async def test_a_connection_is_kept_alive_while_its_address_has_room(
    autojump_clock: trio.testing.MockClock,
) -> None:
    crowd = Crowd()
    script = answering(ok(b"hello"))
    async with staged(script, script, script) as stage, trio.open_nursery() as nursery:
        first = await connect(stage, crowd, nursery)
        assert first is not None
        first.send(get())
        answer = await read(first)
        assert field_of(answer, "Connection") == []
        await trio.testing.wait_all_tasks_blocked()  # it waits for its next request again
        assert await connect(stage, crowd, nursery) is None
        first.send(get())
        head = await read(first)
        assert head.startswith(b"HTTP/1.1 200 ")
        first.close()
    assert len(crowd) == 0


async def test_one_too_many_is_not_kept_alive(autojump_clock: trio.testing.MockClock) -> None:
    crowd = Crowd()
    asked, release = trio.Event(), trio.Event()

    async def backend(end: End) -> None:
        await end.head()
        asked.set()
        await release.wait()
        await end.send(ok(b"hello"))

    async with staged(backend) as stage, trio.open_nursery() as nursery:
        first = await connect(stage, crowd, nursery)
        assert first is not None
        first.send(get())
        await asked.wait()
        second = await connect(stage, crowd, nursery)  # takes the place while the first is being answered
        assert second is not None
        release.set()
        answer = b""
        while data := await read(first):  # answered, and then closed rather than kept
            answer += data
        assert answer.startswith(b"HTTP/1.1 200 ")
        first.close()
        second.close()
    assert len(crowd) == 0
