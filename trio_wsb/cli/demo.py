"""`trio-wsb demo`, `demo-backend` and `demo-client`: command lines and output; `trio_wsb.demo` does the work."""

from __future__ import annotations

import signal
import ssl
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import click
import trio

from trio_wsb.addresses import ListenAddress
from trio_wsb.cli.parameters import DURATION, LISTEN, SIZE, WEBSOCKET_URL
from trio_wsb.daemon.limits import raise_descriptor_limit
from trio_wsb.demo.backend import METRIC_FAULTS, Behaviour, DemoBackend, MetricFault
from trio_wsb.demo.client import Client, ClientOptions

_STATUS = click.IntRange(300, 599)
_BACKEND_EPILOG = """\b
Besides the echo:
  GET /metric       the report that a balancer asks for
  GET /api/health   {"status": "ok"}
  GET /api/stats    what the backend counts
  GET /request      the request as it arrived here
  POST /echo        the body, sent back
\b
A text message of one of these forms is a command, not echoed:
  {"trio-wsb": "whoami"}                  name and handshake as it arrived
  {"trio-wsb": "close", "code": 4000}     close the session
  {"trio-wsb": "drop"}                    reset the connection
  {"trio-wsb": "ping"}                    send a ping, report its pong
\b
SIGTERM and SIGINT close every session with 1001; the exit status is 0."""


@click.command("demo-backend", epilog=_BACKEND_EPILOG)
@click.option(
    "--listen",
    type=LISTEN,
    default="127.0.0.1:8080",
    show_default=True,
    help="Where to listen; port 0 takes a free one.",
)
@click.option("--name", default="backend", show_default=True, help="Reported as podName.")
@click.option(
    "--foreign", type=click.IntRange(0), default=0, help="Report this many connections more than there are."
)
@click.option("--metric-delay", type=DURATION, default="0", help="Let /metric wait this long.")
@click.option("--metric-fail", type=click.Choice(METRIC_FAULTS), help="Let /metric fail in this way.")
@click.option(
    "--accept-delay", type=DURATION, default="0", help="Let each handshake wait this long for its 101."
)
@click.option("--refuse-status", type=_STATUS, metavar="STATUS", help="Refuse handshakes with this status.")
@click.option("--drop-after", type=DURATION, help="Reset each connection this long after its 101.")
@click.option("--slow-echo", type=DURATION, default="0", help="Let each message wait this long for its echo.")
@click.option(
    "--max-message",
    type=SIZE,
    default="64MiB",
    show_default=True,
    help="Close sessions with 1009 above this.",
)
@click.option(
    "--certificate", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="PEM file; serve TLS."
)
@click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM file of its key, unless in the same file.",
)
def demo_backend(
    listen: ListenAddress,
    name: str,
    foreign: int,
    metric_delay: float,
    metric_fail: str | None,
    accept_delay: float,
    refuse_status: int | None,
    drop_after: float | None,
    slow_echo: float,
    max_message: int,
    certificate: Path | None,
    key: Path | None,
) -> None:
    """Run a WebSocket echo server that reports its connection count.

    The first line on standard output says where it listens: "listening on http://127.0.0.1:43210".
    """
    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
    raise_descriptor_limit()
    behaviour = Behaviour(
        name=name,
        foreign=foreign,
        metric_delay=metric_delay,
        metric_fault=cast("MetricFault | None", metric_fail),
        accept_delay=accept_delay,
        refuse_status=refuse_status,
        drop_after=drop_after,
        slow_echo=slow_echo,
        max_message_size=max_message,
    )
    trio.run(_serve, DemoBackend(behaviour), listen, context)


async def _serve(backend: DemoBackend, address: ListenAddress, context: ssl.SSLContext | None) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            serve: Any = partial(backend.serve, address, ssl_context=context)
            click.echo(f"listening on {await nursery.start(serve)}")
            sys.stdout.flush()
            async for _ in signals:
                break
            backend.stop()


@click.command("demo-client")
@click.option(
    "--url", type=WEBSOCKET_URL, default="ws://127.0.0.1:9000/", show_default=True, help="Where to connect."
)
@click.option("--clients", type=click.IntRange(1), default=100, show_default=True, help="Sessions to hold.")
@click.option(
    "--rate", type=click.FloatRange(0), default=0, help="Sessions opened per second; 0 opens all at once."
)
@click.option(
    "--message-interval",
    type=DURATION,
    default="1s",
    show_default=True,
    help="Time between a session's messages; 0 sends as fast as echoes come.",
)
@click.option("--message-size", type=SIZE, default="64", show_default=True, help="Bytes of a message.")
@click.option(
    "--duration",
    type=DURATION,
    default="0",
    help="Time until all is closed; 0 goes on until SIGINT or SIGTERM.",
)
@click.option("--reconnect", is_flag=True, help="Open a new session for each that failed or was lost.")
@click.option("--insecure", is_flag=True, help="Do not verify the certificate of a wss URL.")
@click.option("--json", "as_json", is_flag=True, help="Print each line as a JSON object.")
def demo_client(
    url: str,
    clients: int,
    rate: float,
    message_interval: float,
    message_size: int,
    duration: float,
    reconnect: bool,
    insecure: bool,
    as_json: bool,
) -> None:
    """Open many WebSocket sessions and check every echo.

    Prints a line a second and a summary at the end. SIGINT and SIGTERM end the run early. The exit status is 1
    if a session was lost (ended by anybody but this client), an echo was wrong, or a client never got a session.
    """
    raise_descriptor_limit()
    options = ClientOptions(
        url=url,
        clients=clients,
        rate=rate,
        message_interval=message_interval,
        message_bytes=message_size,
        duration=duration,
        reconnect=reconnect,
        insecure=insecure,
    )
    if not trio.run(_talk, Client(options), as_json):
        raise click.exceptions.Exit(1)


async def _talk(client: Client, as_json: bool) -> bool:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_report, client, as_json)
            nursery.start_soon(_stop_at_signal, client, signals)
            totals = await client.run()
            nursery.cancel_scope.cancel()
    click.echo(totals.json_line("summary") if as_json else f"\n{totals.summary()}")
    return totals.good


async def _stop_at_signal(client: Client, signals: AsyncIterator[int]) -> None:
    async for _ in signals:
        client.stop()


async def _report(client: Client, as_json: bool) -> None:
    due = trio.current_time()
    while True:
        due += 1.0
        await trio.sleep_until(due)
        totals = client.totals()
        click.echo(totals.json_line("progress") if as_json else totals.line())


@click.command("demo")
@click.option(
    "--clients",
    type=click.IntRange(8, 10_000),
    default=300,
    show_default=True,
    help="Client sessions in all.",
)
@click.option("--duration", type=DURATION, default="20s", show_default=True, help="How long to show it.")
@click.option(
    "--plain", is_flag=True, help="Print lines instead of a live table, as when output is no terminal."
)
def demo(clients: int, duration: float, plain: bool) -> None:
    """Watch clients being balanced over demo backends, live.

    Starts three demo backends that differ in how busy they are, the balancer and clients, each a process of
    its own on loopback; adds a fourth backend by editing the configuration and sending SIGHUP while all
    sessions stay up; and says at the end how far the backends' connection counts were apart.

    Ctrl-C ends it early and leaves nothing running. The exit status is 1 if a session was lost, an echo was
    wrong or the counts were too far apart.
    """
    # It draws, reads YAML and asks over HTTP; the demo's own children do nothing of that.
    from trio_wsb.demo.orchestra import run_demo
    from trio_wsb.demo.stage import DemoOptions

    raise_descriptor_limit()
    if not run_demo(DemoOptions(clients=clients, duration=duration), plain=plain):
        raise click.exceptions.Exit(1)
