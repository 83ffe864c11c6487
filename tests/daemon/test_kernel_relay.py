"""The kernel relay in the real daemon: what is seen of it, what it takes, and life without it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.daemon.harness import backends, clients, daemon, echo, free_port, http_client
from tests.net.kernel.stage import needs_kernel
from trio_wsb.config.kernelrelay import KernelRelay
from trio_wsb.config.model import HTTP
from trio_wsb.config.services import LoadBalancer, Service
from trio_wsb.daemon import kernelrelay
from trio_wsb.daemon.privileges import CAP_BPF, CAP_NET_ADMIN
from trio_wsb.net.kernel.selftest import SelfTestFailed

pytestmark = pytest.mark.daemon


def services(url: str) -> dict[str, Any]:
    """Return services with each kind of relay, and one that the kernel cannot have."""
    balancer = {"servers": [{"url": url}]}
    return {
        "routers": {
            name: {"rule": f"Path(`/{name}`)", "service": name}
            for name in ("auto", "kernel", "stream", "rated", "copied")
        },
        "services": {
            "auto": {"loadBalancer": balancer},
            "kernel": {"loadBalancer": {**balancer, "relay": "kernel"}},
            "stream": {"loadBalancer": {**balancer, "relay": "stream"}},
            "rated": {"loadBalancer": {**balancer, "relay": "kernel", "session": {"messageRate": "1000/s"}}},
            "copied": {"mirroring": {"service": "kernel", "mirrors": [{"name": "stream", "percent": 100}]}},
        },
    }


def effective(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))


@needs_kernel
async def test_who_has_which_session(tmp_path: Path) -> None:
    port, admin = free_port(), free_port()
    entry_points = {
        "web": {"address": f"127.0.0.1:{port}"},
        "admin": {"address": f"127.0.0.1:{admin}"},
    }
    async with (
        backends(1) as (backend,),
        daemon(
            tmp_path, [], port=port, http=services(backend.url), entryPoints=entry_points, metrics={}
        ) as running,
        clients() as made,
    ):
        assert await running.logged("kernel relay ready")
        for name in ("auto", "kernel", "stream", "rated", "copied"):
            await echo(await made.connect(f"{running.ws}/{name}"), "hello")
        lines = {line["router"]: line["relay"] for line in running.log("session opened")}
        assert lines == {
            "auto": "kernel", "kernel": "kernel", "stream": "stream", "rated": "kernel", "copied": "stream",
        }  # fmt: skip
        reasons = {line["router"]: line.get("relayReason") for line in running.log("session opened")}
        assert reasons == {
            "auto": None, "kernel": None, "stream": "configured", "rated": None, "copied": "mirrored",
        }  # fmt: skip
        # The same everywhere.
        async with http_client(uds=str(tmp_path / "control.sock")) as control:
            status = (await control.get("http://localhost/status")).json()["kernelRelay"]
            listed = (await control.get("http://localhost/sessions")).json()["sessions"]
        assert (status["available"], status["sessions"], status["stalls"]) == (True, 3, 0)
        assert sorted(status["relays"], key=lambda each: str(each["reason"])) == [
            {"relay": "kernel", "reason": "", "sessions": 3, "opened": 3},
            {"relay": "stream", "reason": "configured", "sessions": 1, "opened": 1},
            {"relay": "stream", "reason": "mirrored", "sessions": 1, "opened": 1},
        ]
        assert {each["router"]: (each["relay"], each["relayReason"] or None) for each in listed} == {
            name: (lines[name], reasons[name]) for name in lines
        }
        async with http_client() as client:
            scraped = (await client.get(f"http://127.0.0.1:{admin}/metrics")).text.splitlines()
        assert {line for line in scraped if line.startswith(("trio_wsb_relays", "trio_wsb_kernel"))} == {
            'trio_wsb_relays_total{relay="kernel",reason=""} 3',
            'trio_wsb_relays_total{relay="stream",reason="configured"} 1',
            'trio_wsb_relays_total{relay="stream",reason="mirrored"} 1',
            "trio_wsb_kernel_relay_stalls_total 0",
        }
        assert "trio_wsb_sessions_in_kernel 3" in scraped


@needs_kernel
async def test_the_capabilities_are_gone_when_it_listens(tmp_path: Path) -> None:
    async with (
        backends(1) as (backend,),
        daemon(tmp_path, [], http=services(backend.url)) as running,
        clients() as made,
    ):
        pid = running.running.process.pid
        assert not effective(pid) & (1 << CAP_BPF | 1 << CAP_NET_ADMIN)
        # Sessions enter and leave the map without them, and so they do after a reload.
        await running.reload(count=1)
        connection = await made.connect(f"{running.ws}/kernel")
        await echo(connection, "hello")
        await connection.aclose()
        line = await running.logged("session ended")
        assert (line["messagesIn"], line["closeCode"]) == (1, 1000)


@needs_kernel
async def test_thousands_of_messages_are_counted_and_every_byte_comes(tmp_path: Path) -> None:
    async with (
        backends(1) as started,
        daemon(tmp_path, [], http=services(started[0].url)) as running,
        clients() as made,
    ):
        connections = await made.connect_many(f"{running.ws}/kernel", 20)
        async with trio.open_nursery() as nursery:
            for index, connection in enumerate(connections):

                async def talk(connection: Any = connection, size: int = 1 + index * 997) -> None:
                    for _ in range(20):
                        await echo(connection, "x" * size)

                nursery.start_soon(talk)
        for connection in connections:
            await connection.aclose()
        await running.running.line(lambda _: len(running.log("session ended")) == 20)
        ended = running.log("session ended")
        assert {(line["messagesIn"], line["messagesOut"], line["closeCode"]) for line in ended} == {
            (20, 20, 1000)
        }
        assert {line["cause"] for line in ended} == {"client_closed"}


@pytest.mark.parametrize(
    ("less", "reason"),
    [
        ("-bpf,-net_admin,-perfmon,-sys_admin", "not permitted without CAP_BPF and CAP_NET_ADMIN"),
        ("-net_admin,-sys_admin", "not permitted without CAP_NET_ADMIN"),
    ],
)
async def test_without_the_right_to_load_it(tmp_path: Path, less: str, reason: str) -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv is not installed")
    if less.startswith("-net_admin") and not effective(os.getpid()) & 1 << CAP_BPF:
        pytest.skip("the kernel relay needs CAP_BPF, and a part of what it needs is no less than that")
    under = (setpriv, f"--bounding-set={less}", f"--inh-caps={less}")
    async with (
        backends(1) as (backend,),
        daemon(tmp_path, [], http=services(backend.url), under=under) as running,
        clients() as made,
    ):
        line = await running.logged("no kernel relay, the daemon moves all bytes itself")
        assert line["reason"] == reason
        for name in ("auto", "kernel"):
            await echo(await made.connect(f"{running.ws}/{name}"), "hello")
        opened = running.log("session opened")
        assert {(line["relay"], line["relayReason"]) for line in opened} == {("stream", "not available")}


@needs_kernel
async def test_a_self_test_that_cannot_begin_is_no_end(tmp_path: Path) -> None:
    """In a network without a loopback interface that is up."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "--net", "true"], check=False).returncode:
        pytest.skip("no network namespaces here")
    async with daemon(tmp_path, [], http=services("http://127.0.0.1:9"), under=(unshare, "--net")) as running:
        line = await running.logged("no kernel relay, the daemon moves all bytes itself")
        assert line["reason"] == "the self-test failed: network is unreachable"
        async with http_client(uds=str(tmp_path / "control.sock")) as control:
            kernel = (await control.get("http://localhost/status")).json()["kernelRelay"]
        assert (kernel["available"], kernel["reason"], kernel["wanted"]) == (False, line["reason"], "kernel")
        running.running.process.send_signal(signal.SIGTERM)
        assert await running.running.exit() == 0


class FakeTable:
    """Owes an answer to whoever closes it while its task runs."""

    def __init__(self, *_: object) -> None:
        self.runs = 0
        self.closed = False

    async def run(self) -> None:
        assert not self.closed
        self.runs += 1
        try:
            await trio.sleep_forever()
        finally:
            self.runs -= 1

    def close(self) -> None:
        assert not self.runs
        self.closed = True


@pytest.mark.parametrize(
    "fault", [OSError(24, "Too many open files"), SelfTestFailed("what came is not what was sent")]
)
@pytest.mark.parametrize("after", [0, 3])
async def test_a_self_test_may_fail_at_any_moment(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery, fault: Exception, after: int
) -> None:
    tables: list[FakeTable] = []

    def make(*_: object) -> FakeTable:
        tables.append(FakeTable())
        return tables[0]

    async def fail(_: object) -> None:
        for _ in range(after):
            await trio.lowlevel.checkpoint()
        raise fault

    monkeypatch.setattr(kernelrelay, "KernelTable", make)
    monkeypatch.setattr(kernelrelay, "self_test", fail)
    monkeypatch.setattr(kernelrelay, "drop_capabilities", lambda: None)
    load_balancer = LoadBalancer(servers=())
    http = HTTP(services={"s": Service(load_balancer=load_balancer)})
    state = await kernelrelay.start_kernel_relay(KernelRelay(), http, nursery)
    await trio.testing.wait_all_tasks_blocked()
    assert state.table is None
    assert state.reason.startswith("the self-test failed: ")
    assert tables[0].closed


def test_what_is_forbidden_though_the_capabilities_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted (creating the map slots)")

    monkeypatch.setattr(kernelrelay, "KernelTable", refuse)
    monkeypatch.setattr(kernelrelay, "missing_capabilities", list)
    _, reason = kernelrelay._load(KernelRelay())
    assert reason.startswith(
        "not permitted, though the capabilities are there: something else forbids bpf(2)"
    )


async def test_switched_off(tmp_path: Path) -> None:
    async with (
        backends(1) as (backend,),
        daemon(tmp_path, [], http=services(backend.url), kernelRelay={"enabled": False}) as running,
        clients() as made,
    ):
        await echo(await made.connect(f"{running.ws}/kernel"), "hello")
        assert running.log("session opened")[0]["relay"] == "stream"
        assert not running.log("kernel relay ready")
        warned = [
            line["problem"] for line in running.log("configuration warning") if ".relay:" in line["problem"]
        ]
        assert len(warned) == 2, "the services kernel and rated"
        assert all("has no effect, since kernelRelay.enabled is false" in line for line in warned)
