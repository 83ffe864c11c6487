"""The unit's own command lines, run with what systemd would give them, seen from the manager's side."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml

from tests.daemon.harness import PATIENCE, Running, backend, free_port, http_client
from tests.systemd import unit
from tests.systemd.manager import Manager, Message, manager

pytestmark = pytest.mark.daemon

LAUNCHER = Path(__file__).parent / "launch.py"

WATCHDOG = 1.0
"""Seconds; the unit's own twenty would make the tests wait."""

HANDSHAKE = b"""GET / HTTP/1.1\r
Host: x\r
Upgrade: websocket\r
Connection: Upgrade\r
Sec-WebSocket-Version: 13\r
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
\r
"""

NO_SANDBOX: dict[str, Any] = {}


def sandbox() -> dict[str, Any]:
    """Return what launch.py has to know of the unit's confinement, or skip the test."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze, which knows the system calls of a group, is not installed")
    (families,) = unit.service()["RestrictAddressFamilies"]
    confinement = {
        "calls": unit.system_calls(),
        "families": families.split(),
        "no_exec_memory": unit.service()["MemoryDenyWriteExecute"] == ["yes"],
    }
    attempt = [sys.executable, str(LAUNCHER), json.dumps(confinement), shutil.which("true") or "true"]
    if subprocess.run(attempt, capture_output=True).returncode:
        pytest.skip("libseccomp is not installed, or the kernel takes no filter")
    return confinement


class Service:
    """The unit, started; `document` is its configuration."""

    def __init__(self, running: Running, boss: Manager, config: Path, document: dict[str, Any]) -> None:
        self.running = running
        self.boss = boss
        self.config = config
        self.document = document

    def write(self) -> None:
        self.config.write_text(yaml.safe_dump(self.document))

    async def reload(self) -> tuple[int, str]:
        """Run the unit's ExecReload line; return its exit status and what it printed."""
        command = [*unit.command("ExecReload"), "--socket", self.document["control"]["socket"]]
        async with Running.program(*command) as running:
            status = await running.exit()
            await trio.testing.wait_all_tasks_blocked(0.01)
            return status, "\n".join(running.lines)

    async def ping(self, port: int, host: str = "127.0.0.1") -> int:
        url = f"http://[{host}]:{port}/ping" if ":" in host else f"http://{host}:{port}/ping"
        async with http_client() as client:
            return (await client.get(url)).status_code


def configuration(tmp_path: Path, port: int, pods: Sequence[str] = ("http://127.0.0.1:1",)) -> dict[str, Any]:
    life_cycle = {"graceTimeOut": "3s"}
    return {
        "entryPoints": {"web": {"address": f"127.0.0.1:{port}", "transport": {"lifeCycle": life_cycle}}},
        "control": {"socket": str(tmp_path / "control.sock")},
        "wsbalancer": {"pods": list(pods), "cacheTTL": "1s"},
    }


@asynccontextmanager
async def started(
    tmp_path: Path,
    document: dict[str, Any],
    *,
    descriptors: Sequence[tuple[str, int]] = (),
    watchdog: float | None = None,
    wait: bool = True,
    **specification: Any,
) -> AsyncIterator[Service]:
    """Run the unit's ExecStart line; `descriptors` are (name, number) pairs to hand over."""
    config = tmp_path / "trio-wsb.yaml"
    config.write_text(yaml.safe_dump(document))
    specification["names"] = [name for name, _ in descriptors]
    specification["descriptors"] = numbers = [number for _, number in descriptors]
    with manager(tmp_path / "notify") as boss:
        environment = {**unit.environment(), "NOTIFY_SOCKET": boss.address}
        if watchdog is not None:
            environment["WATCHDOG_USEC"] = str(round(watchdog * 1e6))
        command = [
            sys.executable,
            str(LAUNCHER),
            json.dumps(specification),
            *unit.command("ExecStart", config),
        ]
        async with Running.program(*command, environment=environment, pass_fds=numbers) as running:
            service = Service(running, boss, config, document)
            if wait:
                assert "READY" in await boss.next()
            yield service
    (tmp_path / "notify").unlink()


def without_signs_of_life(messages: Sequence[Message]) -> list[Message]:
    return [message for message in messages if message != {"WATCHDOG": "1"}]


@pytest.mark.parametrize("confined", [False, True], ids=["free", "confined"])
async def test_every_notification_of_a_life(tmp_path: Path, confined: bool) -> None:
    """Confined, all of it also happens within the unit's system calls and address families."""
    confinement = sandbox() if confined else NO_SANDBOX
    port = free_port()
    async with backend() as pod:
        # A name, so that one is looked up too.
        document = configuration(tmp_path, port, [f"http://localhost:{pod.port}"])
        async with started(tmp_path, document, watchdog=WATCHDOG, **confinement) as service:
            boss = service.boss
            assert boss.messages == [{"READY": "1", "STATUS": "serving 0 sessions"}]
            assert await service.ping(port) == 200, "ready means that it listens"
            await boss.until(lambda message: message == {"WATCHDOG": "1"})

            async with await trio.open_tcp_stream("127.0.0.1", port) as client:
                await client.send_all(HANDSHAKE)
                assert (await client.receive_some()).startswith(b"HTTP/1.1 101 ")
                assert await boss.until(lambda message: "STATUS" in message) == {
                    "STATUS": "serving 1 session"
                }

                document["wsbalancer"]["cacheTTL"] = "2s"
                service.write()
                status, _ = await service.reload()
                assert status == 0
                await expect_reload(boss, "serving 1 session; last reload succeeded")

                document["wsbalancer"]["cacheTTL"] = "soon"
                document["wsbalancer"]["tlsVerify"] = 5
                service.write()
                status, printed = await service.reload()
                assert status == 1
                assert "trio-wsb.yaml:" in printed
                failed = await expect_reload(boss, "serving 1 session; last reload failed, ")
                assert f"{service.config}:" in failed["STATUS"]
                assert failed["STATUS"].endswith("(and 1 more)")

                document["wsbalancer"].update(cacheTTL="1s", tlsVerify=True)
                service.write()
                service.running.signal(signal.SIGHUP)
                await expect_reload(boss, "serving 1 session; last reload succeeded")

                # The client never answers the Close frame, so the grace period lasts to its end.
                boss.read()
                begun = len(boss.messages)
                service.running.signal(signal.SIGTERM)
                assert await service.running.exit() == 0
                boss.read()
                stopping, *rest = without_signs_of_life(boss.messages[begun:])
                assert stopping["STOPPING"] == "1"
                assert stopping["STATUS"] == "stopping, 1 session left"
                assert int(stopping["EXTEND_TIMEOUT_USEC"]) > 3e6
                assert rest
                assert all("EXTEND_TIMEOUT_USEC" in message for message in rest)
                assert {"WATCHDOG": "1"} in boss.messages[begun:], "it is watched to the end"


async def expect_reload(boss: Manager, status: str) -> Message:
    reloading = await boss.state()
    assert set(reloading) == {"RELOADING", "MONOTONIC_USEC"}
    ready = await boss.state()
    assert set(ready) == {"READY", "STATUS"}
    assert ready["STATUS"].startswith(status)
    return ready


async def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    document = configuration(tmp_path, free_port())
    document["wsbalancer"]["pods"] = []
    async with started(tmp_path, document, wait=False, journal=True) as service:
        assert await service.running.exit() == 1
        (message,) = service.boss.read()
        assert message["STATUS"].startswith(f"cannot start: {service.config}:")
        line = await service.running.line("pods")
        assert line.startswith("<3>")


async def test_sockets_from_the_manager_in_a_mix_with_addresses(tmp_path: Path) -> None:
    configured = free_port()
    document = configuration(tmp_path, free_port())
    document["entryPoints"]["other"] = {"address": f"127.0.0.1:{configured}"}
    with (
        socket.create_server(("127.0.0.1", 0)) as v4,
        loopback_v6() as v6,
        socket.create_server(("127.0.0.1", 0)) as stray,
    ):
        handed = [("web", v4.fileno()), ("web", v6.fileno()), ("trio-wsb.socket", stray.fileno())]
        port, port6 = v4.getsockname()[1], v6.getsockname()[1]
        async with started(tmp_path, document, descriptors=handed) as service:
            assert await service.ping(port) == 200
            assert await service.ping(port6, "::1") == 200
            assert await service.ping(configured) == 200
            await service.running.line("no entry point takes a socket from systemd")
            service.document["wsbalancer"]["cacheTTL"] = "2s"
            service.write()
            assert (await service.reload())[0] == 0
            assert await service.ping(port) == 200
            service.running.signal(signal.SIGTERM)
            assert await service.running.exit() == 0
        # Between two runs of the daemon clients wait in the manager's socket.
        async with await trio.open_tcp_stream("127.0.0.1", port) as client:
            await client.send_all(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            async with started(tmp_path, document, descriptors=handed[:1]):
                with trio.fail_after(PATIENCE):
                    assert (await client.receive_some()).startswith(b"HTTP/1.1 200 ")


def loopback_v6() -> socket.socket:
    try:
        return socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")


async def test_a_socket_of_the_wrong_kind_ends_the_start(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        document = configuration(tmp_path, free_port())
        handed = [("web", datagram.fileno())]
        async with started(tmp_path, document, descriptors=handed, wait=False) as service:
            assert await service.running.exit() == 1
            assert await service.running.line('descriptor 3 ("web") is a datagram socket')


async def test_the_journal_gets_priorities_and_no_times(tmp_path: Path) -> None:
    document = configuration(tmp_path, port := free_port())
    document["global"] = {}
    async with started(tmp_path, document, journal=True) as service:
        lines = service.running.lines
        warning = await service.running.line("configuration warning")
        await service.running.line("started")
        for wanted in (f"address=127.0.0.1:{port}", "balancing", "descriptor limit", "started"):
            line = await service.running.line(wanted)
            assert line.startswith("<6>[info "), line
        assert warning.startswith("<4>[warning ")
        assert "global" in warning
        assert not any("\x1b" in line for line in lines)


async def test_level_and_format_of_the_log_change_with_a_reload(tmp_path: Path) -> None:
    document = configuration(tmp_path, free_port())
    async with started(tmp_path, document) as service:
        lines = service.running.lines
        await service.running.line("started")

        document["log"] = {"level": "ERROR"}
        service.write()
        assert (await service.reload())[0] == 0
        document["log"] = {"level": "ERROR", "colour": "blue"}
        service.write()
        assert (await service.reload())[0] == 1
        # Lines come in order: what the level leaves out would have been here by now.
        await service.running.line("reload failed")
        assert not [line for line in lines if "configuration reloaded" in line]

        document["log"] = {"level": "INFO", "format": "json"}
        service.write()
        assert (await service.reload())[0] == 0
        line = json.loads(await service.running.line("configuration reloaded"))
        assert (line["level"], line["reloads"]) == ("info", 2)


async def test_systemd_socket_activate(tmp_path: Path) -> None:
    """The real thing: it listens, and starts the daemon for the first client."""
    program = shutil.which("systemd-socket-activate")
    if program is None:
        pytest.skip("systemd-socket-activate is not installed")
    config = tmp_path / "trio-wsb.yaml"
    config.write_text(yaml.safe_dump(configuration(tmp_path, free_port())))
    port = free_port()
    command = [program, f"--listen=127.0.0.1:{port}", "--fdname=web", *unit.command("ExecStart", config)]
    async with Running.program(*command) as running:
        await running.line("Listening on")
        async with http_client() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/ping")).status_code == 200
        line = await running.line(lambda line: "listening" in line and "entryPoint=web" in line)
        assert f"address=127.0.0.1:{port}" in line
        assert "source=systemd" in line
        running.signal(signal.SIGTERM)
        assert await running.exit() == 0
