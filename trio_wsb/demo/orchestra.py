"""The demo: backends, the daemon and clients as processes of their own, and a live picture of them.

    Orchestra.run             signals, the picture, the backends' figures, one watcher for each process
    └── Orchestra._play       who starts when; ends by itself, at a signal, or when a process dies

Whatever the end, `Children` leaves no process behind.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import reduce
from pathlib import Path

import httpx
import trio
from rich.console import Console
from rich.live import Live

from trio_wsb.addresses import MAX_SOCKET_PATH
from trio_wsb.demo.children import Child, ChildDiedError, Children
from trio_wsb.demo.stage import CACHE_TTL, DemoOptions, Reading, configuration, free_port, make_plan
from trio_wsb.demo.totals import Totals, add, parse_totals
from trio_wsb.demo.view import (
    MAX_WIDTH,
    Event,
    Scene,
    bars,
    event_line,
    figures,
    judge,
    picture,
    verdict_table,
)
from trio_wsb.errors import Error

FRAME = 0.25
"""Time between two pictures and between two questions to each backend, in seconds."""

PLAIN_INTERVAL = 4.0
"""Time between two tables when output is no terminal, in seconds."""

START_TIMEOUT = 20.0
"""Time for one process to be ready, in seconds; generous, the machine may be small and busy."""

REPORT_TIMEOUT = START_TIMEOUT + 2 * CACHE_TTL
PROGRAM = (sys.executable, "-m", "trio_wsb")

COUNTS = "/balancer-metrics"
"""Where the balancer shows the counts that it knows, unless its configuration says otherwise."""

CONTROL = "control.sock"
"""The balancer's control socket, in the demo's directory."""

_PREFIX = "trio-wsb-demo-"
_RANDOM = "x" * 8
"""As long as what makes the directory's name its own."""

CLIENTS_GRACE = 10.0
GRACE = 5.0


class DemoError(Error):
    """The demo cannot go on; the message says why."""


def run_demo(options: DemoOptions, *, plain: bool = False, console: Console | None = None) -> bool:
    """Run the demo in the main thread and return whether nothing was found wrong.

    Raises:
      Error: a process did not start or died; the message has the end of its log.

    """
    console = console or Console()
    console.width = min(console.width, MAX_WIDTH)
    with (
        tempfile.TemporaryDirectory(prefix=_PREFIX, dir=directory_for_a_socket()) as directory,
        Children(Path(directory)) as children,
    ):
        orchestra = Orchestra(options, children, console, plain=plain or not console.is_terminal)
        return trio.run(orchestra.run)


def directory_for_a_socket() -> str:
    """Return the user's directory for temporary files, or the system's if the path of a Unix socket would not fit there."""
    wanted = tempfile.gettempdir()
    longest = os.fsencode(f"{wanted}/{_PREFIX}{_RANDOM}/{CONTROL}")
    return wanted if len(longest) <= MAX_SOCKET_PATH else "/tmp"  # noqa: S108 - what is made in it is ours alone


class Backend:
    """A demo backend's process and what it said last."""

    def __init__(self, name: str, foreign: int, url: str) -> None:
        self.url = url
        self.reading = Reading(name, foreign, None)


class Orchestra:
    """One run of the demo; `run` it once."""

    def __init__(self, options: DemoOptions, children: Children, console: Console, *, plain: bool) -> None:
        self._plan = make_plan(options)
        self._options = options
        self._children = children
        self._console = console
        self._plain = plain
        self._scene = Scene(clients=options.clients)
        self._started = 0.0
        self._backends: list[Backend] = []
        self._backend_processes: list[Child] = []
        self._clients: list[Child] = []
        self._client_readers = 0
        self._client_totals: dict[str, Totals] = {}
        self._news = trio.Event()
        """Set, and replaced, whenever a client process has said something."""
        self._daemon: Child | None = None
        self._config = children.directory / "trio-wsb.yaml"
        self._port = free_port()
        self._admin_port = free_port([self._port])
        self._asking = trio.CancelScope()
        """Around the task that asks the backends for their figures, which end with the play."""
        self._complete = False

    async def run(self) -> bool:
        """Play from start to end, show the verdicts, and return whether nothing was found wrong.

        Raises:
          Error: as `run_demo` says.

        """
        self._started = trio.current_time()
        try:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
                async with (
                    trio.open_nursery() as nursery,
                    httpx.AsyncClient(trust_env=False, timeout=2.0) as http,
                ):
                    play = trio.CancelScope()
                    nursery.start_soon(self._obey, signals, play, nursery.cancel_scope)
                    nursery.start_soon(self._draw)
                    with play:
                        await self._play(nursery, http)
                    await self._finish(http)
                    nursery.cancel_scope.cancel()
        except* (ChildDiedError, DemoError) as group:
            # A death often causes others; the first one is the news.
            raise DemoError(str(_first(group))) from None
        return self._conclude()

    async def _obey(
        self, signals: AsyncIterator[int], play: trio.CancelScope, everything: trio.CancelScope
    ) -> None:
        async for number in signals:
            if play.cancel_called:
                everything.cancel()
            self._say(f"{signal.Signals(number).name}: ending early; once more ends at once")
            play.cancel()

    async def _play(self, nursery: trio.Nursery, http: httpx.AsyncClient) -> None:
        plan = self._plan
        self._caption(
            "Three backends start, unequally busy with foreign connections. The balancer asks each of them how "
            "many connections it has."
        )
        await self._start_backends(nursery, plan.foreign)
        nursery.start_soon(self._read_backends, http)
        await self._start_daemon(nursery, http)
        await self._known_to_daemon(http, self._backends)

        begin = trio.current_time()
        self._caption(
            f"{plan.first_wave} clients connect. The balancer sends each to the backend with the fewest connections, "
            "so the bars grow level. Next: a fourth backend."
        )
        self._start_clients(nursery, plan.first_wave)
        await self._opened(plan.first_wave)
        self._say(f"{plan.first_wave} sessions are up")
        await trio.sleep_until(begin + plan.scale_out)

        self._caption(
            "A fourth backend, empty, joins: its URL goes into the configuration and SIGHUP makes the "
            "balancer read it. Watch the sessions: none is lost, none moves."
        )
        [newcomer] = await self._start_backends(nursery, [0])
        self._write_configuration()
        assert self._daemon is not None
        self._daemon.send_signal(signal.SIGHUP)
        self._say(f"{newcomer.reading.name} added to the configuration, SIGHUP sent to the balancer")
        await self._known_to_daemon(http, [newcomer])
        self._say(f"the balancer has reloaded and knows the count of {newcomer.reading.name}")

        self._caption(
            f"{plan.second_wave} more clients connect. Nearly all of them go to {newcomer.reading.name}, until it is level "
            "with the others."
        )
        self._start_clients(nursery, plan.second_wave)
        await self._opened(self._options.clients)
        self._say(f"all {self._options.clients} sessions are up")
        self._caption(
            "Everybody is connected and sends a message a second. The bars should be level: that is the whole point."
        )
        # One more round of questions, for the final counts.
        await trio.sleep(4 * FRAME)
        self._complete = True
        await trio.sleep_until(begin + plan.end)

    async def _start_backends(self, nursery: trio.Nursery, foreign: Sequence[int]) -> list[Backend]:
        """Start a backend for each number of foreign connections, all at once."""
        children: list[Child] = []
        for number, count in enumerate(foreign, len(self._backends) + 1):
            command = [*PROGRAM, "demo-backend", "--listen", "127.0.0.1:0"]
            arguments = ["--name", f"backend-{number}", "--foreign", str(count)]
            children.append(
                self._start(nursery, f"backend-{number}", [*command, *arguments], read_output=True)
            )
        self._backend_processes += children
        started: list[Backend] = []
        for child, count in zip(children, foreign, strict=True):
            with _deadline(f"{child.name} does not start", child):
                line = await child.read_line() or ""
                prefix, _, url = line.rpartition(" ")
                if prefix != "listening on":
                    await child.wait()
                    raise child.death()
            started.append(Backend(child.name, count, url))
            self._say(f"{child.name} is up, with {count} foreign connections")
        self._backends += started
        self._scene.readings += [backend.reading for backend in started]
        return started

    def _start(
        self, nursery: trio.Nursery, name: str, command: list[str], *, read_output: bool = False
    ) -> Child:
        child = self._children.start(name, command, read_output=read_output)
        nursery.start_soon(child.watch)
        return child

    def _write_configuration(self) -> None:
        # Renamed into place: a reload must never see half a file.
        draft = self._config.with_suffix(".new")
        urls = [backend.url for backend in self._backends]
        control = str(draft.with_name(CONTROL))
        draft.write_text(configuration(self._port, self._admin_port, control, urls), encoding="utf-8")
        draft.replace(self._config)

    async def _start_daemon(self, nursery: trio.Nursery, http: httpx.AsyncClient) -> None:
        self._write_configuration()
        self._daemon = self._start(nursery, "balancer", [*PROGRAM, "run", "--config", str(self._config)])
        with _deadline("the balancer does not answer", self._daemon):
            while True:
                try:
                    await http.get(f"http://127.0.0.1:{self._port}/ping")
                    break
                except httpx.TransportError:
                    await trio.sleep(0.1)
        self._say(f"the balancer listens on 127.0.0.1:{self._port}")

    async def _known_to_daemon(self, http: httpx.AsyncClient, backends: list[Backend]) -> None:
        """Wait until the daemon has each one's count; that it has asked is not enough where the machine is busy."""
        wanted = {backend.url for backend in backends}
        with _deadline(
            "the balancer does not ask the backends for their counts", self._daemon, REPORT_TIMEOUT
        ):
            while True:
                with suppress(httpx.TransportError):
                    answer = await http.get(f"http://127.0.0.1:{self._admin_port}{COUNTS}")
                    if wanted <= answer.json()["podMetrics"].keys():
                        return
                await trio.sleep(0.1)

    def _start_clients(self, nursery: trio.Nursery, number: int) -> None:
        name = f"clients-{len(self._clients) + 1}"
        options = {
            "--url": f"ws://127.0.0.1:{self._port}/demo",
            "--clients": number,
            "--rate": self._plan.rate,
        }
        arguments = [text for option, value in options.items() for text in (option, str(value))]
        child = self._start(nursery, name, [*PROGRAM, "demo-client", "--json", *arguments], read_output=True)
        self._clients.append(child)
        self._client_readers += 1
        nursery.start_soon(self._read_client, child)
        self._say(f"{number} clients begin to connect, {self._plan.rate:.0f} a second")

    async def _read_client(self, child: Child) -> None:
        while (line := await child.read_line()) is not None:
            try:
                self._client_totals[child.name] = parse_totals(line)
            except ValueError:
                continue
            before = self._scene.totals.lost_sessions
            self._scene.totals = reduce(add, self._client_totals.values())
            if self._scene.totals.lost_sessions > before:
                self._say(f"sessions lost: {self._scene.totals.lost_sessions - before}")
            self._tell()
        self._client_readers -= 1
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def _opened(self, number: int) -> None:
        """Wait until that many sessions were opened, or each client that has none has failed."""
        while self._scene.totals.opened + self._scene.totals.failed < number:
            await self._news.wait()

    async def _read_backends(self, http: httpx.AsyncClient) -> None:
        with self._asking:
            while True:
                for index, backend in enumerate(self._backends):
                    await self._read_backend(http, index, backend)
                await trio.sleep(FRAME)

    async def _read_backend(self, http: httpx.AsyncClient, index: int, backend: Backend) -> None:
        try:
            answer = (await http.get(f"{backend.url}/metric")).json()
        except (httpx.TransportError, ValueError):
            return  # busy, or on its way out: its watcher says so
        old = backend.reading
        backend.reading = Reading(old.name, old.foreign, int(answer["agentsConnections"]))
        self._scene.readings[index] = backend.reading

    async def _finish(self, http: httpx.AsyncClient) -> None:
        """End the processes in order: clients, so that no session counts as lost, balancer, backends."""
        self._asking.cancel()
        for index, backend in enumerate(self._backends):
            await self._read_backend(http, index, backend)
        self._caption(
            "The clients close their sessions, then the balancer and the backends end. Nothing is left running."
        )
        await self._children.stop(self._clients, CLIENTS_GRACE)
        while self._client_readers:
            await self._news.wait()
        await self._children.stop([self._daemon] if self._daemon else [], GRACE)
        await self._children.stop(self._backend_processes, GRACE)
        self._scene.unclean = [
            f"{child.name} with {child.status}" for child in self._children.all if not self._ended_well(child)
        ]
        self._say("clients, balancer and backends have ended")

    def _ended_well(self, child: Child) -> bool:
        # A client's 1 says that it found something wrong, which its figures say too. A process that was
        # still starting when the demo was ended early had not yet got to handling signals.
        return (
            child.status == 0
            or (child.status == 1 and child in self._clients)
            or (child.status == -signal.SIGTERM and not self._complete)
        )

    async def _draw(self) -> None:
        if self._plain:
            while True:
                await trio.sleep(PLAIN_INTERVAL)
                self._tick()
                self._console.print(bars(self._scene.readings), figures(self._scene))
        encoding = self._console.encoding
        with Live(console=self._console, auto_refresh=False, vertical_overflow="crop") as live:
            try:
                while True:
                    self._tick()
                    live.update(picture(self._scene, encoding), refresh=True)
                    await trio.sleep(FRAME)
            finally:
                live.update(picture(self._scene, encoding), refresh=True)

    def _tick(self) -> None:
        self._scene.elapsed = trio.current_time() - self._started

    def _say(self, text: str) -> None:
        event = Event(trio.current_time() - self._started, text)
        self._scene.events.append(event)
        if self._plain:
            self._console.print(event_line(event))

    def _caption(self, text: str) -> None:
        self._scene.caption = text
        if self._plain:
            self._console.print(f"\n{text}")

    def _conclude(self) -> bool:
        verdicts = judge(self._scene, complete=self._complete)
        self._console.print("", verdict_table(verdicts), sep="\n")
        return all(verdict.good is not False for verdict in verdicts)


@contextmanager
def _deadline(complaint: str, child: Child | None = None, seconds: float = START_TIMEOUT) -> Iterator[None]:
    """Raise DemoError with `complaint` and the end of the child's log after that many seconds."""
    try:
        with trio.fail_after(seconds):
            yield
    except trio.TooSlowError:
        raise DemoError(f"{complaint} within {seconds:.0f} s{child.tail() if child else ''}") from None


def _first(group: BaseExceptionGroup[Error]) -> Error:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
