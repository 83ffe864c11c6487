"""A broadcast: the same messages to several listeners, each of which may be slow only for itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class TooManyListeners(Exception):
    """There is no place for another listener."""


class Listener(Generic[T]):
    """What one listener has not taken yet; for one task. Made by `Broadcast.listen`."""

    def __init__(self, queue: int) -> None:
        self._send, self._receive = trio.open_memory_channel[T](queue)
        self.dropped = False
        """Whether it did not keep up."""

    def __aiter__(self) -> Listener[T]:
        return self

    async def __anext__(self) -> T:
        """Return the next message; the iteration ends with the last one that was queued before the listener's end."""
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def offer(self, message: T) -> bool:
        """Queue `message`; False when there is no room for it, which ends the listener."""
        try:
            self._send.send_nowait(message)
        except trio.WouldBlock:
            self.dropped = True
            self._send.close()
            return False
        return True

    def end(self) -> None:
        """Let the iteration end with what is queued."""
        self._send.close()

    def close(self) -> None:
        """Forget what is queued."""
        self._send.close()
        self._receive.close()


class Broadcast(Generic[T]):
    """Sends messages to whoever listens; never waits for anybody."""

    def __init__(self, *, queue: int, listeners: int) -> None:
        """Prepare to send.

        Args:
          queue: how many messages may wait for one listener; with one more it is dropped.
          listeners: how many there may be.

        """
        self._queue = queue
        self._most = listeners
        self._listeners: set[Listener[T]] = set()
        self.dropped_total = 0
        """Listeners that did not keep up."""

    def __len__(self) -> int:
        return len(self._listeners)

    def send(self, message: T) -> None:
        """Queue `message` for everybody; who has no room for it is dropped."""
        for listener in tuple(self._listeners):
            if not listener.offer(message):
                self._listeners.discard(listener)
                self.dropped_total += 1

    def end(self) -> None:
        """Let everybody's iteration end."""
        for listener in self._listeners:
            listener.end()
        self._listeners.clear()

    @contextmanager
    def listen(self) -> Iterator[Listener[T]]:
        """Hear every message from now on, for as long as the block lasts.

        Raises:
          TooManyListeners: there is no place for another listener.

        """
        if len(self._listeners) >= self._most:
            raise TooManyListeners
        listener = Listener[T](self._queue)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            listener.close()
