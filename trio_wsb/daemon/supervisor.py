"""The supervisor: the nursery tree of the daemon, on one page.

    background                      signals, reloads, count requests, checks, the sweeper, drains; cancelled last
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
from functools import partial
from pathlib import Path

import httpx
import structlog
import trio

from trio_wsb.addresses import ListenAddress
from trio_wsb.background.counts import CountRefresher, system_context
from trio_wsb.background.health import HealthChecker
from trio_wsb.balancing.backend import BackendTable
from trio_wsb.balancing.counts import CountTable
from trio_wsb.balancing.discovery import NameTable
from trio_wsb.balancing.drain import DrainTable
from trio_wsb.balancing.health import HealthTable
from trio_wsb.config.load import watched_place
from trio_wsb.config.model import Log
from trio_wsb.daemon.accesslog import AccessLogging
from trio_wsb.daemon.activation import InheritedSocket
from trio_wsb.daemon.announce import log_start, record_reload, record_start, status_line
from trio_wsb.daemon.api.pages import APIPages
from trio_wsb.daemon.arrival import arrive, peer_of
from trio_wsb.daemon.build import Builder, Built, Prepared, prepare_again
from trio_wsb.daemon.control import ControlServer
from trio_wsb.daemon.controlsocket import open_control_socket
from trio_wsb.daemon.dockerviews import docker_line
from trio_wsb.daemon.following import NameFollower
from trio_wsb.daemon.garbage import collect_garbage
from trio_wsb.daemon.internal import InternalPages
from trio_wsb.daemon.kernelrelay import start_kernel_relay, stop_kernel_relay
from trio_wsb.daemon.listeners import ListenerSet, Opened
from trio_wsb.daemon.metrics.page import Metrics
from trio_wsb.daemon.mover import Mover
from trio_wsb.daemon.notify import Notifier
from trio_wsb.daemon.operations import Operations
from trio_wsb.daemon.reload import Reloader
from trio_wsb.daemon.stop import close_sessions
from trio_wsb.daemon.tlsviews import log_certificates
from trio_wsb.daemon.views import DaemonState, Moment
from trio_wsb.errors import ConfigurationError
from trio_wsb.net.hostnames import OwnThreads
from trio_wsb.net.resolver import Resolver
from trio_wsb.net.sockets import SocketChannel
from trio_wsb.observe.events import EventLog
from trio_wsb.observe.log import LogOutput
from trio_wsb.providers.docker import DockerProviderTask
from trio_wsb.providers.watch import FileWatcher
from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.peer import Peer
from trio_wsb.proxy.runtime import EntryPointRuntime, Proxy, Runtime
from trio_wsb.proxy.turnaway import drop_connection, refuse_connection
from trio_wsb.proxy.upstream import dial

log = structlog.stdlib.get_logger("trio_wsb.daemon")

_CONNECTION = "connection"
"""The name of a task; Trio would make one up for each connection."""

MAX_REFUSALS = 256
"""Connections over an entry point's limit that are answered 503 at a time; more are closed without a word."""

FIRST_LOOK = 2.0
"""Seconds that a start waits at most for the Docker Engine to tell which containers there are."""

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
        self._events = EventLog()
        self._access_log = AccessLogging()
        self._backends = BackendTable()
        self._counts = CountTable()
        self._refresher = CountRefresher(self._counts, self._backends, rng=rng)
        # httpx loads the half of itself with its first transport: 30 ms, that would be in the way of the first sessions.
        httpx.AsyncHTTPTransport(verify=system_context(), trust_env=False)
        self._health = HealthTable()
        self._checker = HealthChecker(self._health, rng=rng)
        drains = DrainTable()
        self._names = NameTable()
        self._follower = NameFollower(self._names, rng, self._rebuild)
        self._builder = Builder(self._backends, self._counts, self._health, rng, drains, self._names)
        self._resolver = Resolver()
        self._proxy = Proxy(
            Runtime({}),
            dial=partial(dial, addresses=self._resolver.addresses),
            server_name=socket.gethostname(),
            wall_clock=time.time,
        )
        self._mover = Mover(self._proxy, self._backends, drains, rng, self._events)
        self._notifier = notifier or Notifier()
        self._listeners = ListenerSet(self._accepted, inherited)
        self._reloader = Reloader(
            path,
            self._apply,
            begins=self._reload_begins,
            ends=self._reload_ended,
            followed=lambda outcome: record_reload(self._events, outcome),
            learn=self._follower.learn,
            found=lambda: self._docker.found,
        )
        self._docker = DockerProviderTask(self._reloader.files_changed, rng=rng)
        self._watcher = FileWatcher(self._reloader.files_changed)
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
        trio.socket.set_custom_hostname_resolver(OwnThreads())
        self._configure_log(first.config.log)  # before anything is said, which else went to standard output
        state = self._make_state()
        fresh = self._listeners.bind_new(first.addresses, first.shared, first.unix)
        async with trio.open_nursery() as background:
            await background.start(self._receive_signals)
            # Before there are threads, since each has capabilities of its own.
            kernel = self._proxy.kernel = await start_kernel_relay(
                first.config.kernel_relay, first.config.http, background
            )
            await background.start(self._access_log.run)
            background.start_soon(self._proxy.sweeper.run)
            background.start_soon(self._resolver.run)
            background.start_soon(self._follower.run)
            background.start_soon(self._refresher.run)
            background.start_soon(self._checker.run)
            background.start_soon(self._proxy.mirrors.run)
            background.start_soon(self._metrics.run)
            background.start_soon(self._api.feed.run)
            background.start_soon(self._mover.run)
            background.start_soon(self._watcher.run)
            background.start_soon(self._docker.run)
            first = await self._with_containers(first)
            await self._follower.learn(first)
            with self._cut:
                async with trio.open_nursery() as self._connections:
                    async with trio.open_nursery() as self._accepting:
                        self._install(first, fresh)
                        self._open_to_questions(first, state, background)
                        log_start(first)
                        record_start(self._events, first)
                        self._listeners.drop_unclaimed()
                        background.start_soon(self._reloader.run)
                        self._notifier.ready(self._status())
                        background.start_soon(self._notifier.run, self._status)
                        background.start_soon(collect_garbage, lambda: len(self._proxy.sessions))
                        task_status.started()
                        await self._stop.wait()
                        await self._stop_accepting()
                    self._end_connections()
            await stop_kernel_relay(kernel)
            background.cancel_scope.cancel()
        self._listeners.close()
        log.info("stopped", sessionsEnded=sum(self._proxy.sessions.ended_total.values()))

    # Configuration.

    def _apply(self, prepared: Prepared) -> None:
        """Put a new configuration to work, all of it or, when this raises ConfigurationError, nothing."""
        if self._stop.is_set():  # it came while the file was read; the listeners may be gone by now
            raise ConfigurationError(["the daemon is stopping"])
        self._install(prepared, self._listeners.bind_new(prepared.addresses, prepared.shared, prepared.unix))
        before = self._reloader.current
        log_certificates(prepared.server_tls, None if before is None else before.server_tls)

    def _configure_log(self, settings: Log) -> None:
        try:
            self._output.configure(level=settings.level, form=settings.format, path=settings.file_path)
        except OSError as error:
            reason = (error.strerror or "failed").lower()
            raise ConfigurationError([f"log.filePath: cannot open {settings.file_path}: {reason}"]) from error
        self._proxy.sessions.lines = settings.level in {"DEBUG", "INFO"}

    def _install(self, prepared: Prepared, fresh: dict[ListenAddress, Opened]) -> None:
        config = prepared.config
        assert self._accepting is not None
        try:
            self._configure_log(config.log)
        except ConfigurationError:
            for opened in fresh.values():
                opened.close()
            raise
        built = self._builder.build(prepared)
        self._access_log.configure(config.access_log)
        self._proxy.observers = (*self._observers, *self._access_log.observers)
        self._put_in_force(built, prepared)
        self._listeners.apply(prepared.addresses, fresh, self._accepting)
        self._watcher.configure(watched_place(config, self._reloader.path))
        self._docker.configure(config.providers.docker)
        self._follower.configure(prepared)
        for name in set(self._full) - set(built.runtime.entry_points):
            self._full.discard(name)

    def _put_in_force(self, built: Built, prepared: Prepared) -> None:
        before = self._proxy.runtime.services
        self._proxy.swap(built.runtime)  # the swap: connections see all of the old one or all of this one
        self._refresher.configure(built.count_targets)
        self._checker.configure(built.health_targets)
        self._builder.install(built)
        self._metrics.configure(prepared.config, built.steps)
        self._api.configure(built.steps)
        self._mover.configuration_changed(before, built.runtime.services)

    def _rebuild(self) -> None:
        """Build what is in force anew, since the names of servers stand for something else."""
        current = self._reloader.current
        if current is not None and not self._stop.is_set():
            self._put_in_force(self._builder.build(current), current)

    async def _with_containers(self, first: Prepared) -> Prepared:
        """Return the first configuration with the containers, if they are known in time; else they are added later."""
        self._docker.configure(first.config.providers.docker)
        await self._docker.known(FIRST_LOOK)
        if self._docker.found is None:
            return first
        return await trio.to_thread.run_sync(prepare_again, first, self._docker.found) or first

    def _reload_begins(self) -> None:
        self._docker.look_again()
        self._notifier.reloading()

    def _reload_ended(self) -> None:
        record_reload(self._events, self._reloader.last)
        self._notifier.ready(self._status())

    def _make_state(self) -> DaemonState:
        """Return what the control socket and the pages look at, and put the pages where connections find them."""
        state = DaemonState(
            self._proxy,
            self._backends,
            self._reloader,
            self._listeners.bound,
            Moment(trio.current_time(), time.time()),
            self._events,
            waiting=self._listeners.waiting,
            access_log=self._access_log,
            mover=self._mover,
            names=self._names,
            docker=self._docker,
            resolver=self._resolver,
        )
        self._metrics = Metrics(state)
        self._api = APIPages(state)
        self._observers = (self._metrics.figures, self._api.tally)
        pages = InternalPages(state, self._metrics, self._api)
        self._proxy.internal = pages.find
        self._builder.serve_internal(pages.services)
        return state

    def _open_to_questions(self, first: Prepared, state: DaemonState, background: trio.Nursery) -> None:
        self._reloader.begin(first)
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
            self._refuse(entry, SocketChannel(sock), peer_of(address), nursery)
            return
        if entry_point in self._full:
            self._full.discard(entry_point)
            log.info("entry point accepts connections again", entryPoint=entry_point)
        proxy.connections[entry_point] += 1
        nursery.start_soon(self._serve, entry_point, sock, address, name=_CONNECTION)

    async def _serve(self, entry_point: str, sock: socket.socket, address: object) -> None:
        try:
            session = await arrive(self._proxy, entry_point, sock, address)
            del sock, address  # a session lives long, and needs neither
            if session is not None:
                await self._proxy.sessions.run(session)
        except* Exception as group:
            # One connection's fault must not end the others; a group, since Cancelled may come along.
            log.error("internal error", entryPoint=entry_point, exc_info=group)
        finally:
            self._proxy.connections[entry_point] -= 1

    def _refuse(
        self, entry: EntryPointRuntime, channel: SocketChannel, peer: Peer, nursery: trio.Nursery
    ) -> None:
        self._proxy.over_limit[entry.name] += 1
        if entry.name not in self._full:
            self._full.add(entry.name)
            log.warning(
                "entry point full, refusing connections",
                entryPoint=entry.name,
                maxConnections=entry.max_connections,
            )
        if self._refusing >= MAX_REFUSALS or entry.tls is not None:
            # To a client that waits for a ServerHello our words would be noise.
            drop_connection(self._proxy, entry.name, channel, peer)
            return
        self._refusing += 1
        nursery.start_soon(self._serve_refusal, entry.name, channel, peer)

    async def _serve_refusal(self, entry_point: str, channel: SocketChannel, peer: Peer) -> None:
        try:
            await refuse_connection(self._proxy, entry_point, channel, peer)
        finally:
            self._refusing -= 1

    # Signals and the stop.

    async def _receive_signals(self, task_status: trio.TaskStatus[None]) -> None:
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
        with trio.open_signal_receiver(*numbers) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    if self._stop.is_set():
                        log.warning("stopping, reload ignored")
                    else:
                        self._reloader.request()
                elif number == signal.SIGUSR1:
                    self._reopen_logs()
                elif self._stop.is_set():
                    log.warning("stopping at once", signal=signal.Signals(number).name)
                    self._cut_all()
                else:
                    log.info(
                        "stopping", signal=signal.Signals(number).name, sessions=len(self._proxy.sessions)
                    )
                    self._stop.set()
                    self._notifier.stopping(self._status())

    def _reopen_logs(self) -> None:
        """Let go of log files that were moved away: logrotate asks for it."""
        self._access_log.reopen()
        try:
            self._output.reopen()
        except OSError as error:
            log.error("log file not opened anew", reason=(error.strerror or "failed").lower())
        else:
            log.info("log files opened anew")

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
        current = self._reloader.current
        files = () if current is None else current.files
        last, stopping = self._reloader.last, self._stop.is_set()
        more = docker_line(self._docker, None if current is None else current.discovered)
        return status_line(len(self._proxy.sessions), last, files, more, stopping=stopping)

    def _cut_all(self) -> None:
        for session in self._proxy.sessions:
            session.relay.cut(Cause.SHUTDOWN)
        self._cut.cancel()
