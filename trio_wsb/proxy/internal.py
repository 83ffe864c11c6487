"""Requests that the balancer answers itself: what a page of its own gets, and how it answers.

A page is a `Handler`: an async function of an `InternalRequest` that says whether the connection can serve another
request. It is found by its path (`Proxy.internal`) or by a router that leads to an `InternalService`; either way the
middlewares in front of it have been passed, and what they say to the answer's head is applied to it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Iterable
from typing import Final

import trio
from attrs import frozen

from trio_wsb.addresses import IPAddress
from trio_wsb.http.answers import content_response, dated
from trio_wsb.http.head import RequestHead, serialise_response
from trio_wsb.http.headers import Field, Headers
from trio_wsb.http.reader import RequestReader
from trio_wsb.net.channel import ByteChannel, send_all
from trio_wsb.proxy.chain import Passage
from trio_wsb.proxy.client import ClientLeft
from trio_wsb.proxy.peer import Peer
from trio_wsb.proxy.record import Stage
from trio_wsb.proxy.runtime import EntryPointRuntime, Proxy
from trio_wsb.websocket.handshake import is_upgrade

STALL_TIMEOUT: Final = 10.0
"""Seconds that a client may take nothing of an answer."""

ANSWER_TIMEOUT: Final = 60.0
"""Seconds that a client may take for a whole answer, which holds memory until then."""

NO_STORE: Final = ("Cache-Control", "no-store")

READING: Final = frozenset({"GET", "HEAD"})
"""The methods that read; those of every page of ours."""


@frozen
class InternalRequest:
    """A request for the balancer itself.

    The channel stays the connection's: a handler that takes it over, as for a WebSocket, must be done with it when it
    returns, and then return False. `reader` holds what the client sent after the head.
    """

    proxy: Proxy
    entry: EntryPointRuntime
    router: str
    """The router that led here, "" without one."""
    peer: Peer
    client: IPAddress | None
    """The client's address: the peer's, or what a trusted peer says that it is."""
    head: RequestHead
    """As the middlewares left it."""
    passage: Passage
    channel: ByteChannel
    reader: RequestReader
    keep_alive: bool
    """Whether the connection could serve another request after a whole answer to this one."""

    @property
    def head_only(self) -> bool:
        """Whether only the head of the answer is wanted."""
        return self.head.method == "HEAD"

    @property
    def upgrade(self) -> bool:
        """Whether it is an opening handshake, which has been checked then."""
        return is_upgrade(self.head)

    async def answer(
        self, status: int, content_type: str, body: bytes, headers: Iterable[Field] = ()
    ) -> bool:
        """Send a whole answer; whether the connection can serve another request.

        Raises:
          ClientLeft: the client went away or takes nothing more.

        """
        data = content_response(
            status,
            content_type,
            body,
            self._edited(status, headers),
            close=not self.keep_alive,
            head_only=self.head_only,
            date=self.proxy.date(),
        )
        self.passage.record.bytes_out = 0 if self.head_only else len(body)
        with trio.move_on_after(ANSWER_TIMEOUT):
            await self.send(data)
            return self.keep_alive
        raise ClientLeft

    async def answer_json(self, status: int, document: object, headers: Iterable[Field] = ()) -> bool:
        """Send `document` as JSON, which no cache may keep; as `answer` does.

        Raises:
          ClientLeft: as `answer` does.
          ValueError: `document` has a number that JSON cannot express.

        """
        body = json.dumps(document, allow_nan=False, ensure_ascii=True).encode() + b"\n"
        return await self.answer(status, "application/json", body, [NO_STORE, *headers])

    async def answer_pieces(
        self, status: int, content_type: str, pieces: AsyncIterable[bytes], headers: Iterable[Field] = ()
    ) -> bool:
        """Send an answer whose length is not known before, as it is made; as `answer` does.

        Other tasks run between the pieces, so each should be made in about a millisecond. A fault in making one
        resets the connection, so that what was sent does not look like all of it.

        Args:
          status: of the answer; one that has a body.
          content_type: of the body.
          pieces: the body; not asked for anything for HEAD.
          headers: fields to add.

        Raises:
          ClientLeft: as `answer` does.

        """
        chunked = self.head.version >= (1, 1)
        keep_alive = self.keep_alive and chunked
        fields: list[Field] = [
            ("Content-Type", content_type),
            ("X-Content-Type-Options", "nosniff"),
            *self._edited(status, headers),
        ]
        fields += dated(fields, self.proxy.date())
        # Without it an HTTP/1.0 client reads to the end of the connection (RFC 9112 section 6.3).
        fields += [("Transfer-Encoding", "chunked")] if chunked else []
        fields += [] if keep_alive else [("Connection", "close")]
        with trio.move_on_after(ANSWER_TIMEOUT):
            await self.send(serialise_response(status, fields))
            if self.head_only:
                return keep_alive
            try:
                async for piece in pieces:
                    if piece:
                        self.passage.record.bytes_out += len(piece)
                        await self.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                    await trio.lowlevel.checkpoint()
            except Exception:
                self.channel.abort()
                raise
            if chunked:
                await self.send(b"0\r\n\r\n")
            return keep_alive
        raise ClientLeft

    async def send(self, data: bytes) -> None:
        """Write `data` to the client.

        Raises:
          ClientLeft: the client went away or took nothing for `STALL_TIMEOUT`.

        """
        try:
            await send_all(self.channel, data, stall_timeout=STALL_TIMEOUT)
        except OSError as error:
            raise ClientLeft from error

    def _edited(self, status: int, headers: Iterable[Field]) -> list[Field]:
        """Return the fields as the middlewares want them; whoever judges attempts learns of the answer."""
        self.passage.conclude(status)
        self.passage.record.status = status
        self.passage.record.stage = Stage.ANSWER
        return list(self.passage.edited(Headers(list(headers))))


async def ping(request: InternalRequest) -> bool:
    """Answer as /ping does: 200 "OK", or the entry point's status for it while the daemon stops."""
    stopping = request.proxy.stopping
    status = request.entry.ping_status_stopping if stopping else 200
    return await request.answer(status, "text/plain; charset=utf-8", b"stopping\n" if stopping else b"OK\n")
