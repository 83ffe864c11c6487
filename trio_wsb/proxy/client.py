"""The client's side of a request under way: writing to it, and noticing that it has left."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from trio_wsb.errors import Error
from trio_wsb.net.channel import receive_some, send_shared
from trio_wsb.proxy.request import ProxiedRequest

EARLY_LIMIT: Final = 65536
"""Bytes of a client that are held until its request is answered; what comes after them waits in its TCP."""

T = TypeVar("T")


class ClientLeft(Error):
    """The client went away, or takes no more of its answer."""


async def to_client(request: ProxiedRequest, data: bytes | memoryview) -> None:
    """Write `data`, which may be a part of the shared buffer, to the client.

    Raises:
      ClientLeft: its connection broke, or it took nothing for the service's write timeout.

    """
    try:
        await send_shared(
            request.channel, memoryview(data), stall_timeout=request.service.write_timeout or math.inf
        )
    except OSError as error:
        raise ClientLeft from error


async def watch_client(request: ProxiedRequest) -> ClientLeft | None:
    """Wait until the client ends the connection, and return the fault to end the request with.

    What it sends meanwhile (the next request, the first frames of a session) is kept in `request.reader`. None
    when that has `EARLY_LIMIT` bytes: what comes behind them, an end too, is not seen.
    """
    channel, reader, scratch = request.channel, request.reader, request.proxy.scratch
    while (room := EARLY_LIMIT - reader.buffered) > 0:
        try:
            received = await receive_some(channel, scratch[:room])
        except OSError:
            received = 0
        if not received:
            return ClientLeft()
        reader.feed(scratch[:received])
    return None


async def beside(work: Callable[[], Awaitable[T]], companion: Callable[[], Awaitable[Error | None]]) -> T:
    """Return what `work` returns, with `companion` running until then.

    A fault that the companion returns (it must raise nothing) cancels the work and is raised in its place.

    Raises:
      Error: what the work raised, or what the companion returned.

    """
    results: list[T] = []
    fault: Error | None = None

    async def attend() -> None:
        nonlocal fault
        found = await companion()
        if found is not None:
            fault = found
            nursery.cancel_scope.cancel()

    failure: Error | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(attend)
        try:
            results.append(await work())
        except Error as error:
            failure = error  # raised outside, for a nursery would wrap it in a group
        nursery.cancel_scope.cancel()
    if results:
        return results[0]
    if failure is not None:
        raise failure
    assert fault is not None, "only a fault cancels the work"
    raise fault
