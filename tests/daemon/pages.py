"""Asking the pages of a daemon without its network: what a client of one of its entry points gets."""

from __future__ import annotations

import trio

from tests.daemon.state import World
from trio_wsb.addresses import parse_ip
from trio_wsb.daemon.internal import InternalPages
from trio_wsb.http.head import RequestHead, parse_request_head
from trio_wsb.http.reader import RequestReader
from trio_wsb.middleware.exchange import Request
from trio_wsb.net.channel import receive_some
from trio_wsb.net.memory import MemoryChannel, memory_channel_pair
from trio_wsb.proxy.chain import Passage
from trio_wsb.proxy.internal import InternalRequest
from trio_wsb.proxy.peer import Peer
from trio_wsb.proxy.record import RequestRecord
from trio_wsb.proxy.runtime import Handler

LOCAL = "127.0.0.1"


def head(path: str, *fields: str, method: str = "GET", host: str | None = LOCAL) -> RequestHead:
    """Return the head of a request with these further header lines."""
    version = "1.1" if host is not None else "1.0"
    hosts = [] if host is None else [f"Host: {host}"]
    lines = [f"{method} {path} HTTP/{version}", *hosts, *fields, "", ""]
    return parse_request_head("\r\n".join(lines).encode("latin-1"))


def find(
    world: World, request: RequestHead, *, name: str = "admin", peer: str | None = LOCAL
) -> Handler | None:
    """Return the page that takes `request` on an entry point."""
    entry = world.proxy.runtime.entry_points[name]
    address = None if peer is None else parse_ip(peer)
    return InternalPages(world.state, api=world.api).find(entry, address, request)


def request_of(
    world: World,
    request: RequestHead,
    channel: MemoryChannel,
    *,
    name: str = "admin",
    peer: str | None = LOCAL,
    keep_alive: bool = True,
    router: str = "",
) -> InternalRequest:
    """Return what a page gets."""
    entry = world.proxy.runtime.entry_points[name]
    address = None if peer is None else parse_ip(peer)
    who = Peer(address, "unix" if peer is None else f"{peer}:40000")
    record = RequestRecord(name, who, 1, 0.0, 0.0, head=request)
    return InternalRequest(
        proxy=world.proxy,
        entry=entry,
        router=router,
        peer=who,
        client=address,
        head=request,
        passage=Passage(Request(request, address), record),
        channel=channel,
        reader=RequestReader(),
        keep_alive=keep_alive,
    )


async def answer_of(world: World, page: Handler, request: RequestHead, **known: object) -> bytes:
    """Return the whole answer of a page, head and body as they are sent."""
    near, far = memory_channel_pair()
    received = bytearray()
    async with trio.open_nursery() as nursery:

        async def collect() -> None:
            buffer = bytearray(65536)
            while count := await receive_some(far, buffer):
                received.extend(buffer[:count])

        nursery.start_soon(collect)
        await page(request_of(world, request, near, **known))  # type: ignore[arg-type] # passed on
        near.shutdown()
    return bytes(received)


async def ask(
    world: World,
    request: RequestHead,
    *,
    name: str = "admin",
    peer: str | None = LOCAL,
    keep_alive: bool = True,
) -> bytes | None:
    """Return the whole answer to `request`, None when it is to be routed."""
    page = find(world, request, name=name, peer=peer)
    if page is None:
        return None
    return await answer_of(world, page, request, name=name, peer=peer, keep_alive=keep_alive)
