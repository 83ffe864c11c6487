"""The demo client: many WebSocket sessions to one URL, each echo checked, each loss counted.

A session is *lost* when anybody but this client ended it; losses are counted by close code (1006 is a
connection that broke off without a Close frame). Nothing here prints: `trio_wsb.cli.demo` does.
"""

from __future__ import annotations

import os
import ssl
from collections import Counter
from contextlib import ExitStack

import trio
import trio_websocket
from attrs import frozen

from trio_wsb.demo.connect import open_session, parse_target
from trio_wsb.demo.latency import Latencies
from trio_wsb.demo.totals import Totals

ECHO_TIMEOUT = 30.0
"""Time for an echo, in seconds; a session without one is lost."""

RECONNECT_DELAY = 0.5


@frozen
class ClientOptions:
    """What the client does. Times are seconds."""

    url: str
    clients: int = 1
    rate: float = 0.0
    """Sessions opened per second; 0 opens all at once."""
    message_interval: float = 1.0
    """Time between a session's messages; 0 sends the next as soon as the echo is there."""
    message_bytes: int = 64
    duration: float = 0.0
    """Time until everything is closed, from the first connect; 0 goes on until `Client.stop`."""
    reconnect: bool = False
    """Open a new session for each that failed or was lost."""
    insecure: bool = False
    """Do not verify the certificate of a ``wss://`` URL."""


class Client:
    """One run of the client; `run` it once."""

    def __init__(self, options: ClientOptions) -> None:
        self.options = options
        self._target = parse_target(options.url)
        self._ssl = _ssl_context(options) if self._target.tls else None
        # Echoes that reach another client process must not pass for its own.
        self._tag = f"{os.getpid():x}"
        self._started = 0.0
        self._stopping = trio.Event()
        # The scopes of those waits that `stop` may cut short. Sends are never among them: a frame that
        # was sent by half would break the session that is about to be closed properly.
        self._waits: set[trio.CancelScope] = set()
        self._opened_by = [0] * options.clients
        self._open = self._opened = self._failed = self._messages = self._wrong = 0
        self._lost: Counter[str] = Counter()
        self._latencies = Latencies()
        self._last_failure = ""

    def stop(self) -> None:
        """Make `run` close every session and return. May be called from anywhere in the Trio thread."""
        self._stopping.set()
        for scope in self._waits:
            scope.cancel()

    def totals(self) -> Totals:
        """Return what happened so far."""
        return Totals(
            elapsed=trio.current_time() - self._started,
            clients=self.options.clients,
            open=self._open,
            opened=self._opened,
            failed=self._failed,
            messages=self._messages,
            wrong=self._wrong,
            lost=dict(self._lost),
            never_opened=self._opened_by.count(0),
            p50=self._latencies.quantile(0.50),
            p99=self._latencies.quantile(0.99),
            last_failure=self._last_failure,
        )

    async def run(self) -> Totals:
        """Open the sessions, use them until the time is over or `stop`, close them, return the totals."""
        self._started = trio.current_time()
        async with trio.open_nursery() as timers:
            if self.options.duration:
                timers.start_soon(self._stop_after, self.options.duration)
            async with trio.open_nursery() as clients:
                for number in range(self.options.clients):
                    await self._wait_until(
                        self._started + (number / self.options.rate if self.options.rate else 0.0)
                    )
                    if self._stopping.is_set():
                        break
                    clients.start_soon(self._client, number)
            timers.cancel_scope.cancel()
        return self.totals()

    async def _stop_after(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self.stop()

    async def _wait_until(self, due: float) -> None:
        if due > trio.current_time() and not self._stopping.is_set():
            with trio.CancelScope() as scope, self._interruptible(scope):
                await trio.sleep_until(due)

    def _interruptible(self, scope: trio.CancelScope) -> ExitStack:
        """Return a context in which `stop` cancels `scope`."""
        self._waits.add(scope)
        stack = ExitStack()
        stack.callback(self._waits.discard, scope)
        return stack

    async def _client(self, number: int) -> None:
        while not self._stopping.is_set():
            await self._session(number)
            if not self.options.reconnect:
                return
            await self._wait_until(trio.current_time() + RECONNECT_DELAY)

    async def _session(self, number: int) -> None:
        opening = trio.CancelScope()
        self._waits.add(opening)
        try:
            with opening:
                async with open_session(self._target, ssl_context=self._ssl) as websocket:
                    self._waits.discard(opening)
                    self._opened += 1
                    self._opened_by[number] += 1
                    self._open += 1
                    try:
                        await self._talk(websocket, number)
                    finally:
                        self._open -= 1
        except trio_websocket.ConnectionClosed as error:
            self._lost[str(error.reason.code if error.reason else 1006)] += 1
        except trio_websocket.DisconnectionTimeout:
            self._lost["no close answer"] += 1
        except trio.TooSlowError:
            self._lost["no echo"] += 1
        except (trio_websocket.HandshakeError, OSError) as error:
            self._failed += 1
            self._last_failure = _explain(error)
        finally:
            self._waits.discard(opening)

    async def _talk(self, websocket: trio_websocket.WebSocketConnection, number: int) -> None:
        """Send and check until `stop`; raises ConnectionClosed when somebody else ends the session."""
        interval = self.options.message_interval
        sequence = 0
        # The first messages of clients that connect together are spread over the interval.
        due = trio.current_time() + interval * (number * 0.618034 % 1.0)
        while not self._stopping.is_set():
            if interval:
                unasked = await self._receive(websocket, due, give_up=False)
                if unasked is not None:
                    self._wrong += 1
                if self._stopping.is_set() or trio.current_time() < due:
                    continue
                due = max(due + interval, trio.current_time())
            sequence += 1
            text = f"{self._tag}:{number}:{sequence}:".ljust(self.options.message_bytes, ".")
            message: str | bytes = text if sequence % 2 else text.encode()
            sent = trio.current_time()
            await websocket.send_message(message)
            echo = await self._receive(websocket, trio.current_time() + ECHO_TIMEOUT, give_up=True)
            if echo is None:
                continue
            self._latencies.record(trio.current_time() - sent)
            self._messages += 1
            if echo != message:
                self._wrong += 1

    async def _receive(
        self, websocket: trio_websocket.WebSocketConnection, deadline: float, *, give_up: bool
    ) -> str | bytes | None:
        """Return a message, or None at `stop` or at `deadline`, where with `give_up` it raises TooSlowError."""
        if self._stopping.is_set():
            return None
        with trio.CancelScope(deadline=deadline) as scope, self._interruptible(scope):
            return await websocket.get_message()
        if give_up and not self._stopping.is_set():
            raise trio.TooSlowError
        return None


def _ssl_context(options: ClientOptions) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _explain(error: Exception) -> str:
    """Return why a session could not be opened, in a few words."""
    if isinstance(error, trio_websocket.ConnectionRejected):
        return f"status {error.status_code} instead of 101"
    if isinstance(error, trio_websocket.ConnectionTimeout):
        return "no answer to the handshake"
    cause: BaseException = error
    # trio-websocket, then Trio, wrap what the system said.
    while isinstance(cause.__cause__, OSError | ExceptionGroup) or isinstance(cause, ExceptionGroup):
        cause = cause.exceptions[0] if isinstance(cause, ExceptionGroup) else cause.__cause__ or cause
    if isinstance(cause, OSError) and cause.errno and cause.errno > 0:
        return os.strerror(cause.errno)
    return str(cause) or type(cause).__name__
