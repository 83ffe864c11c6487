"""Limits of sessions in the real daemon, as a client and a backend that we did not write see them."""

from __future__ import annotations

import contextlib
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.daemon.harness import PATIENCE, Backend, Daemon, backends, daemon
from tests.net.kernel.stage import needs_kernel

pytestmark = pytest.mark.daemon

LIMITS: dict[str, dict[str, Any]] = {
    "idle": {"idleTimeout": "1s"},
    "old": {"maxLifetime": "1s", "lifetimeJitter": "0%"},
    "asked": {"pingInterval": "1s", "pongTimeout": "1s"},
    "hung": {"pingInterval": "1s", "pongTimeout": "1s"},
    "small": {"maxMessageBytes": "1KiB"},
    "slow": {"messageRate": "20/s", "messageBurst": 1},
    "free": {},
}


def document(good: Backend, hung: Backend, relay: str = "auto", **changed: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with a service for each kind of limit, under a path of that name."""
    return {
        "routers": {name: {"rule": f"Path(`/{name}`)", "service": name} for name in LIMITS},
        "services": {
            name: {
                "loadBalancer": {
                    "servers": [{"url": (hung if name == "hung" else good).url}],
                    "session": session,
                    "relay": relay,
                }
            }
            for name, session in (LIMITS | changed).items()
        },
    }


def client(running: Daemon, name: str) -> contextlib.AbstractContextManager[ClientConnection]:
    """Open a session with websockets, which answers pings by itself and sends none here."""
    return connect(
        f"{running.ws}/{name}",
        ping_interval=None,
        compression=None,
        max_size=None,
        proxy=None,
        open_timeout=PATIENCE,
    )


def end_of(connection: ClientConnection) -> tuple[int, str]:
    """Return the close code and reason that the client gets."""
    with contextlib.suppress(ConnectionClosed):
        for _ in iter(lambda: connection.recv(timeout=PATIENCE), None):
            pass
    assert connection.close_code is not None
    assert connection.close_reason is not None
    return connection.close_code, connection.close_reason


def echo(connection: ClientConnection, message: str | bytes) -> None:
    connection.send(message)
    assert connection.recv(timeout=PATIENCE) == message


def idle(running: Daemon) -> None:
    with client(running, "idle") as connection:
        echo(connection, "hello")
        assert end_of(connection) == (1001, "idle_timeout")


def old(running: Daemon) -> None:
    with client(running, "old") as connection:
        assert end_of(connection) == (1001, "max_lifetime")


def small(running: Daemon) -> None:
    with client(running, "small") as connection:
        echo(connection, bytes(1024))
        connection.send([bytes(600), bytes(425)])  # one message in two frames
        assert end_of(connection) == (1009, "client_message_too_big")


def slow(running: Daemon) -> None:
    with client(running, "slow") as connection:
        begun = time.monotonic()
        texts = [str(number) for number in range(21)]
        for text in texts:
            connection.send(text)
        assert [connection.recv(timeout=PATIENCE) for _ in texts] == texts
        # Twenty more than may come at once, at 20 a second. How much longer it takes is the machine's business.
        assert time.monotonic() - begun >= 0.9


def hung(running: Daemon) -> None:
    with client(running, "hung") as connection:
        echo(connection, "hello")
        signals = running.document["test"]
        signals(signal.SIGSTOP)
        assert end_of(connection) == (1011, "backend_ping_timeout")


def asked(running: Daemon) -> None:
    """One client reads what it is sent and makes nothing of it, the other one answers, and lives."""
    with client(running, "asked") as alive, client(running, "asked") as deaf:
        deaf.protocol.receive_data = ignore  # type: ignore[method-assign]
        ended = trio.from_thread.run(partial(running.logged, "session ended", service="asked"))
        assert (ended["cause"], ended["closeCode"]) == ("client_ping_timeout", 1001)
        echo(alive, "still here")
        deaf.socket.close()


def ignore(data: bytes | bytearray) -> None:
    """Make nothing of what was received."""


@pytest.mark.parametrize("relay", ["stream", pytest.param("kernel", marks=needs_kernel)])
async def test_every_limit_as_both_sides_see_it(tmp_path: Path, relay: str) -> None:
    async with (
        backends(2) as (good, stopped),
        daemon(tmp_path, [], http=document(good, stopped, relay)) as running,
    ):
        running.document["test"] = stopped.running.signal
        try:
            async with trio.open_nursery() as nursery:
                for case in (idle, old, small, slow, hung, asked):
                    nursery.start_soon(trio.to_thread.run_sync, case, running)
        finally:
            stopped.running.signal(signal.SIGCONT)
        for service, cause, code in (
            ("idle", "idle_timeout", 1001),
            ("old", "max_lifetime", 1001),
            ("small", "client_message_too_big", 1009),
            ("slow", "client_closed", 1000),
            ("hung", "backend_ping_timeout", 1011),
            ("asked", "client_ping_timeout", 1001),
            ("asked", "client_closed", 1000),
        ):
            line = await running.logged("session ended", service=service, cause=cause)
            assert line["closeCode"] == code
        used = {line["service"]: line["relay"] for line in running.log("session opened")}
        assert used == dict.fromkeys(used, relay)
        messages = {line["service"]: line["messagesIn"] for line in running.log("session ended")}
        assert (messages["idle"], messages["old"], messages["small"], messages["slow"]) == (1, 0, 1, 21)


async def test_a_session_keeps_the_limits_with_which_it_began(tmp_path: Path) -> None:
    async with backends(1) as (good,), daemon(tmp_path, [], http=document(good, good)) as running:
        token = trio.lowlevel.current_trio_token()

        def reload() -> None:
            running.document["http"] = document(good, good, free={"maxLifetime": "1s"})
            running.write()
            trio.from_thread.run(lambda: running.reload(count=1), trio_token=token)

        def see() -> None:
            with client(running, "free") as before:
                reload()
                with client(running, "free") as after:
                    assert end_of(after) == (1001, "max_lifetime")
                echo(before, "as before")

        await trio.to_thread.run_sync(see)
        await running.logged("session ended", service="free", cause="max_lifetime")
        await running.logged("session ended", service="free", cause="client_closed")
