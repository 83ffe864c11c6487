"""The relay over real sockets, which tell of bytes only once: nothing may be left over by whoever waits."""

from __future__ import annotations

import random
import socket

import pytest
import trio

from trio_wsb.net.channel import receive_some, send_all
from trio_wsb.net.sockets import SocketChannel
from trio_wsb.proxy.guard import NO_LIMITS, SessionLimits
from trio_wsb.proxy.relay import SCRATCH_SIZE, Relay
from trio_wsb.websocket.frames import encode_close

LIMITS = {
    "no limit": NO_LIMITS,
    "size": SessionLimits(max_message_bytes=SCRATCH_SIZE),
    "rates": SessionLimits(message_rate=1e6, message_burst=1000, byte_rate=1e8, byte_burst=SCRATCH_SIZE),
}


def message(payload: bytes) -> bytes:
    """Return a client's message, masked with zeroes."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else bytes((0xFE,)) + size.to_bytes(2, "big")
    return b"\x82" + length + bytes(4) + payload


def pair() -> tuple[SocketChannel, SocketChannel]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    one.setblocking(False)
    other.setblocking(False)
    return SocketChannel(one), SocketChannel(other)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("sizes", [(0, 0), (1, 300), (20_000, 65_000)], ids=["empty", "small", "large"])
async def test_everything_arrives_and_then_the_end(sizes: tuple[int, int], limit: str) -> None:
    rng = random.Random(7)
    stream = bytearray()
    while len(stream) < 10 * SCRATCH_SIZE:
        stream += message(rng.randbytes(rng.randint(*sizes)))
    stream += encode_close(1000, mask=bytes(4))
    (client, near), (far, backend) = pair(), pair()
    relay = Relay(
        near,
        far,
        scratch=memoryview(bytearray(SCRATCH_SIZE)),
        write_timeout=0,
        watch=lambda _: None,
        limits=LIMITS[limit],
    )
    received, buffer = bytearray(), bytearray(SCRATCH_SIZE)

    async def send() -> None:
        left = memoryview(stream)
        while left:
            size = rng.choice((1, 1000, SCRATCH_SIZE - 1, SCRATCH_SIZE, 2 * SCRATCH_SIZE))
            await send_all(client, left[:size])
            left = left[size:]
        client.shutdown()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.run)
            nursery.start_soon(send)
            while count := await receive_some(backend, buffer):
                received += buffer[:count]
            backend.close()
    client.close()
    assert received == stream
    assert relay.close_code == 1000
