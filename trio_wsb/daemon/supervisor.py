"""The supervisor: the nursery tree of the daemon, on one page.

    background                      signals, reloads, count requests, checks, the sweeper; cancelled last
    └── connections                 one task for each client connection
        └── listeners               one accept loop for each address; cancelled first when stopping

A stop cancels the listeners, lets the connections end within their grace period, and only then takes the
background away: sessions need the sweeper to the end.
"""

from __future__ import annotations

import random
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import structlog
import trio

from trio_wsb.addresses import ListenAddress, format_host, parse_ip
from trio_wsb.background.counts import CountRefresher
from trio_wsb.background.health import HealthChecker
from trio_wsb.balancing.backend import BackendTable
from trio_wsb.balancing.counts import CountTable
from trio_wsb.balancing.health import HealthTable
from trio_wsb.daemon.activation import InheritedSocket
from trio_wsb.daemon.announce import log_start, status_line
from trio_wsb.daemon.build import Builder, Prepared
from trio_wsb.daemon.control import ControlServer
from trio_wsb.daemon.controlsocket import open_control_socket
from trio_wsb.daemon.internal import InternalPages
from trio_wsb.daemon.listeners import ListenerSet
from trio_wsb.daemon.notify import Notifier
from trio_wsb.daemon.operations import Operations
from trio_wsb.daemon.reload import Reloader
from trio_wsb.daemon.stop import close_sessions
from trio_wsb.daemon.views import DaemonState, Moment
from trio_wsb.errors import ConfigurationError
from trio_wsb.net.sockets import SocketChannel
from trio_wsb.observe.log import LogOutput
from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.connection import Connection, refuse_connection
from trio_wsb.proxy.request import Peer
from trio_wsb.proxy.runtime import EntryPointRuntime, Proxy, Runtime
from trio_wsb.proxy.upstream import dial

log = structlog.stdlib.get_logger("trio_wsb.daemon")

MAX_REFUSALS = 256
"""Connections over an entry point's limit that are answered 503 at a time; more are closed without a word."""

DEFAULT_GRACE = 10.0
"""Seconds for the sessions of an entry point that a reload has removed meanwhile."""

CUT_SLACK = 0.5
"""Seconds between the cut of the last sessions and that of everything."""


class Supervisor:
    """The daemon: owns every table and task, and lives from `run` to its return."""

    def __init__(
        self,
        path: Path,
        *,
        output: LogOutput,
        rng: random.Random,
        notifier: Notifier | None = None,
        inherited: Sequence[InheritedSocket] = (),
    ) -> None:
        """Prepare a daemon.

        Args:
          path: the configuration file, read again by each reload.
          output: where the log goes.
          rng: for ties between backends and for everything that is jittered.
          notifier: tells the service manager; stays the caller's. None tells nobody.
          inherited: listening sockets from the service manager; closed when `run` is over.

        """
        self._rng = rng
        self._output = output
        self._backends = BackendTable()
        self._counts = CountTable()
        self._refresher = CountRefresher(self._counts, self._backends, rng=rng)
        self._health = HealthTable()
        self._checker = HealthChecker(self._health, rng=rng)
        self._builder = Builder(self._backends, self._counts, self._health, rng)
        self._proxy = Proxy(Runtime({}), dial=dial, server_name=socket.gethostname())
        self._notifier = notifier or Notifier()
        self._listeners = ListenerSet(self._accepted, inherited)
        self._reloader = Reloader(
            path,
            self._apply,
            begins=self._notifier.reloading,
            ends=lambda: self._notifier.ready(self._status()),
        )
        self._connections: trio.Nursery | None = None
        self._accepting: trio.Nursery | None = None
        self._refusing = 0
        self._full: set[str] = set()
        self._stop = trio.Event()
        self._cut = trio.CancelScope()

    async def run(
        self, first: Prepared, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until SIGTERM or SIGINT, then end the sessions and return.

        Args:
          first: the configuration to begin with.
          task_status: started when every address is listened on.

        Raises:
          ConfigurationError: the configuration cannot be put to work; nothing was served.

        """
        fresh = self._listeners.bind_new(first.addresses, first.shared)
        async with trio.open_nursery() as background:
            await background.start(self._receive_signals)
            background.start_soon(self._proxy.sweeper.run)
            background.start_soon(self._refresher.run)
            background.start_soon(self._checker.run)
            background.start_soon(self._proxy.mirrors.run)
            with self._cut:
                async with trio.open_nursery() as self._connections:
                    async with trio.open_nursery() as self._accepting:
                        self._install(first, fresh)
                        self._open_to_questions(first, background)
                        log_start(first)
                        self._listeners.drop_unclaimed()
                        background.start_soon(self._reloader.run)
                        self._notifier.ready(self._status())
                        background.start_soon(self._notifier.run, self._status)
                        task_status.started()
                        await self._stop.wait()
                        await self._stop_accepting()
                    self._end_connections()
            background.cancel_scope.cancel()
        self._listeners.close()
        log.info("stopped", sessionsEnded=sum(self._proxy.sessions.ended_total.values()))

    # Configuration.

    def _apply(self, prepared: Prepared) -> None:
        """Put a new configuration to work, all of it or, when this raises ConfigurationError, nothing."""
        if self._stop.is_set():  # it came while the file was read; the listeners may be gone by now
            raise ConfigurationError(["the daemon is stopping"])
        self._install(prepared, self._listeners.bind_new(prepared.addresses, prepared.shared))

    def _install(self, prepared: Prepared, fresh: dict[ListenAddress, socket.socket]) -> None:
        config = prepared.config
        assert self._accepting is not None
        try:
            self._output.configure(level=config.log.level, form=config.log.format, path=config.log.file_path)
        except OSError as error:
            for sock in fresh.values():
                sock.close()
            reason = (error.strerror or "failed").lower()
            raise ConfigurationError(
                [f"log.filePath: cannot open {config.log.file_path}: {reason}"]
            ) from error
        built = self._builder.build(prepared)
        self._proxy.runtime = built.runtime  # the swap: connections see all of the old one or all of this one
        self._listeners.apply(prepared.addresses, fresh, self._accepting)
        self._refresher.configure(built.count_targets)
        self._checker.configure(built.health_targets)
        self._builder.install(built)
        for name in set(self._full) - set(built.runtime.entry_points):
            self._full.discard(name)

    def _open_to_questions(self, first: Prepared, background: trio.Nursery) -> None:
        self._reloader.begin(first)
        state = DaemonState(
            self._proxy,
            self._backends,
            self._reloader,
            self._listeners.bound,
            Moment(trio.current_time(), time.time()),
        )
        self._proxy.internal = InternalPages(state).answer
        listener = open_control_socket(first.config.control)
        if listener is not None:
            log.info("control socket", path=str(listener.path))
            background.start_soon(ControlServer(Operations(state).routes).serve, listener)

    # Connections.

    def _accepted(self, entry_point: str, sock: socket.socket, address: object) -> None:
        proxy, nursery = self._proxy, self._connections
        entry = proxy.runtime.entry_points.get(entry_point)
        if entry is None or nursery is None:
            sock.close()
            return
        if entry.max_connections and proxy.connections[entry_point] >= entry.max_connections:
            self._refuse(entry, sock, nursery)
            return
        if entry_point in self._full:
            self._full.discard(entry_point)
            log.info("entry point accepts connections again", entryPoint=entry_point)
        proxy.connections[entry_point] += 1
        nursery.start_soon(self._serve, entry_point, sock, address)

    async def _serve(self, entry_point: str, sock: socket.socket, address: object) -> None:
        channel = SocketChannel(sock)
        try:
            await Connection(self._proxy, entry_point, channel, _peer(address)).run()
        except* Exception as group:
            # One connection's fault must not end the others; a group, since Cancelled may come along.
            log.error("internal error", entryPoint=entry_point, exc_info=group)
        finally:
            channel.close()
            self._proxy.connections[entry_point] -= 1

    def _refuse(self, entry: EntryPointRuntime, sock: socket.socket, nursery: trio.Nursery) -> None:
        if entry.name not in self._full:
            self._full.add(entry.name)
            log.warning(
                "entry point full, refusing connections",
                entryPoint=entry.name,
                maxConnections=entry.max_connections,
            )
        if self._refusing >= MAX_REFUSALS:
            sock.close()
            return
        self._refusing += 1
        nursery.start_soon(self._serve_refusal, sock)

    async def _serve_refusal(self, sock: socket.socket) -> None:
        try:
            await refuse_connection(SocketChannel(sock), self._proxy.scratch)
        finally:
            self._refusing -= 1

    # Signals and the stop.

    async def _receive_signals(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    if self._stop.is_set():
                        log.warning("stopping, reload ignored")
                    else:
                        self._reloader.request()
                elif self._stop.is_set():
                    log.warning("stopping at once", signal=signal.Signals(number).name)
                    self._cut_all()
                else:
                    log.info(
                        "stopping", signal=signal.Signals(number).name, sessions=len(self._proxy.sessions)
                    )
                    self._stop.set()
                    self._notifier.stopping(self._status())

    async def _stop_accepting(self) -> None:
        assert self._accepting is not None
        self._proxy.stop()
        entries = self._proxy.runtime.entry_points.values()
        await trio.sleep(max((entry.accept_grace for entry in entries), default=0.0))
        self._accepting.cancel_scope.cancel()

    def _end_connections(self) -> None:
        assert self._connections is not None
        proxy = self._proxy
        graces = {
            name: entry.grace if (entry := proxy.runtime.entry_points.get(name)) else DEFAULT_GRACE
            for name, count in proxy.connections.items()
            if count
        }
        for name, grace in graces.items():
            self._connections.start_soon(close_sessions, proxy, name, grace, self._rng)
        # Sessions are cut by then; this is for requests that are still being answered.
        self._cut.deadline = trio.current_time() + max(graces.values(), default=0.0) + CUT_SLACK

    def _status(self) -> str:
        return status_line(len(self._proxy.sessions), self._reloader.last, stopping=self._stop.is_set())

    def _cut_all(self) -> None:
        for session in self._proxy.sessions:
            session.relay.cut(Cause.SHUTDOWN)
        self._cut.cancel()


def _peer(address: object) -> Peer:
    match address:
        case (str(host), int(port), *_):
            ip = parse_ip(host)
            return Peer(ip, f"{format_host(str(ip))}:{port}")
        case _:
            return Peer(None, "unix")
