"""Reading frames at the far ends of a relay, with somebody else's parser."""

from __future__ import annotations

from collections.abc import Generator

from websockets.frames import Frame

from tests.proxy.world import Bench, FarEnd


async def next_frame(bench: Bench, channel: FarEnd) -> Frame:
    """Receive exactly one frame; its mask must be what that side is due."""
    needed = 0

    def read_exact(size: int) -> Generator[None, None, bytes]:
        nonlocal needed
        needed = size
        data: bytes = yield  # type: ignore[assignment]
        return data

    parser = Frame.parse(read_exact, mask=channel is bench.backend)
    next(parser)
    while True:
        data = await bench.exactly(channel, needed) if needed else b""
        try:
            parser.send(data)  # type: ignore[arg-type]
        except StopIteration as stop:
            found: Frame = stop.value
            return found
