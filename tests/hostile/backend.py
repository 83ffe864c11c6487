"""A backend that keeps what it is sent, and reads it with another HTTP library than ours.

What h11 cannot read, or sees a second request in, is a fault of the proxy in front of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import h11
from attrs import define, field

from trio_wsb.websocket.handshake import accept_value

Receive = Callable[[], Awaitable[bytes]]
Send = Callable[[bytes], Awaitable[None]]

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@define
class Seen:
    """One connection to the backend."""

    raw: bytearray = field(factory=bytearray)
    requests: list[h11.Request] = field(factory=list)
    body: bytearray = field(factory=bytearray)
    complete: bool = False
    fault: str = ""

    def values(self, name: str) -> list[str]:
        """Return the values of the fields called `name` in the first request."""
        return [
            value.decode("latin-1")
            for found, value in self.requests[0].headers
            if found.lower() == name.lower().encode()
        ]


async def record(seen: Seen, receive: Receive, send: Send) -> None:
    """Serve one connection: read a request, answer it, and keep whatever else comes."""
    theirs = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    while True:
        data = await receive()
        seen.raw += data
        theirs.receive_data(data)
        try:
            while True:
                event = theirs.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    break
                match event:
                    case h11.Request():
                        seen.requests.append(event)
                    case h11.Data():
                        seen.body += event.data
                    case h11.EndOfMessage():
                        seen.complete = True
                        await send(_answer(seen))
                    case h11.ConnectionClosed():
                        return
        except h11.RemoteProtocolError as error:
            # The end of the connection within a body is how a proxy gives a request up: no fault.
            if data:
                seen.fault = str(error)
            return
        if not data:
            return
        if seen.complete:
            while data := await receive():
                seen.raw += data
            return


def _answer(seen: Seen) -> bytes:
    keys = seen.values("Sec-WebSocket-Key")
    if not keys or seen.values("Upgrade") != ["websocket"]:
        return ANSWER
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_value(keys[0])}\r\n\r\n"
    ).encode()
