"""An asyncio event loop in a thread, for libraries that need one, called from Trio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

import trio

T = TypeVar("T")


class AsyncioThread:
    """Runs coroutines of asyncio for a Trio task."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    @classmethod
    @asynccontextmanager
    async def start(cls) -> AsyncIterator[Self]:
        """Run the loop for as long as the block lasts; what still runs in it then is cancelled."""
        runner = cls()
        thread = threading.Thread(target=lambda: asyncio.run(runner._main()), name="asyncio")
        thread.start()
        runner._started.wait()
        try:
            yield runner
        finally:
            assert runner._loop is not None
            assert runner._stop is not None
            runner._loop.call_soon_threadsafe(runner._stop.set)
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(thread.join)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._started.set()
        await self._stop.wait()

    async def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and return what it returns; it is cancelled with the caller."""
        assert self._loop is not None
        token = trio.lowlevel.current_trio_token()
        done = trio.Event()
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        future.add_done_callback(lambda _: token.run_sync_soon(done.set))
        try:
            await done.wait()
        except trio.Cancelled:
            future.cancel()
            # Its end is waited for: it may still call back, and Trio must be there then.
            with trio.CancelScope(shield=True):
                await done.wait()
            raise
        return future.result()
