"""`drain`, `ready` and `rebalance` against the real daemon, with clients that come back by themselves."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.daemon.harness import PATIENCE, Daemon, Running, backends, daemon
from tests.daemon.shell import Operator, at_a_terminal
from tests.daemon.waiting import eventually

pytestmark = pytest.mark.daemon

CLIENTS = 90


@asynccontextmanager
async def reconnecting(running: Daemon) -> AsyncIterator[Running]:
    """Run clients that open a session for each one that they lose."""
    options = ("--clients", str(CLIENTS), "--message-interval", "0.5s", "--reconnect", "--json")
    async with Running.start("demo-client", "--url", running.ws, *options) as clients:
        yield clients


async def finished(clients: Running) -> dict[str, Any]:
    """End the clients and return what they counted."""
    clients.signal(signal.SIGINT)
    await clients.exit()
    last: dict[str, Any] = json.loads(clients.lines[-1])
    return last


async def settled(operator: Operator, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the status as soon as it fits."""
    status: dict[str, Any] = await eventually(partial(operator.json, "status"), fits)
    return status


def live(status: dict[str, Any]) -> list[int]:
    return [each["live"] for each in status["backends"]]


def open_are(count: int) -> Callable[[dict[str, Any]], bool]:
    return lambda status: bool(status["sessions"]["open"] == count)


@pytest.mark.usefixtures("both_relays")
async def test_a_backend_is_taken_away_and_comes_back(tmp_path: Path) -> None:
    operator = Operator(tmp_path / "control.sock")
    async with (
        backends(3) as started,
        daemon(tmp_path, [each.url for each in started]) as running,
        reconnecting(running) as clients,
    ):
        assert live(await settled(operator, open_are(CLIENTS))) == [30, 30, 30]
        victim = started[0].url.removeprefix("http://")
        code, out, err = await operator.run("drain", victim, "--rate", "100/s")
        assert (code, err) == (0, "")
        assert re.fullmatch(rf"{victim} drained in .*: 30 ended, 0 cut, 0 left", out.splitlines()[-1])
        status = await settled(operator, open_are(CLIENTS))
        assert live(status) == [0, 45, 45]
        assert status["backends"][0]["state"] == "drained"
        assert status["sessions"]["ended"]["drain"] == 30
        assert (await started[0].stats())["sessions"] == 0
        code, out, _ = await operator.run("status")
        assert f"{victim}: drained: 30 ended, 0 cut, 0 left" in out
        # A reload changes nothing, and neither does a configuration without it for a while.
        pods = running.document["wsbalancer"]["pods"]
        for number, now in enumerate((pods[1:], pods), 1):
            running.document["wsbalancer"]["pods"] = now
            running.write()
            await running.reload(count=number)
        assert (await operator.json("status"))["backends"][0]["state"] == "drained"
        # The same command shows it once more; `ready` gives it back, by the name of its report.
        assert (await operator.run("drain", victim))[0] == 0
        assert await operator.run("ready", "backend-1") == (0, f"{victim} gets new sessions again\n", "")
        assert (await operator.json("status"))["backends"][0]["state"] == "ready"
        totals = await finished(clients)
        # Whoever was there saw a Close frame, and nobody else saw anything.
        assert totals["lost"] == {"1001": 30}
        assert totals["wrong"] == 0
        assert len(running.log("drained")) == 1


async def test_ctrl_c_and_all_of_them(tmp_path: Path) -> None:
    operator = Operator(tmp_path / "control.sock")
    async with (
        backends(2) as started,
        daemon(tmp_path, [each.url for each in started]) as running,
        reconnecting(running) as clients,
    ):
        await settled(operator, open_are(CLIENTS))
        first, second = (each.url for each in started)
        async with at_a_terminal(operator, "drain", first, "--rate", "1/s") as (process, see):
            await see("left, 1/s")
            process.send_signal(signal.SIGINT)
            with trio.fail_after(PATIENCE):
                assert await process.wait() == 130
            await see("the drain goes on; `trio-wsb ready")
        total = (await operator.json("sessions", "--limit", "1"))["total"]
        (drain,) = (await operator.curl("GET", "/drain")).json()["drains"]
        assert (drain["state"], drain["total"], drain["cut"]) == ("draining", CLIENTS // 2, 0)
        assert drain["left"] + drain["ended"] == drain["total"]
        # One a second is told to go, also when nobody looks on. Each is away for a moment, or there already twice.
        told = drain["ended"] + drain["closing"]
        assert told <= drain["duration"] + 1
        assert abs(total - CLIENTS) <= told
        _, out, _ = await operator.run("sessions", "--backend", first, "--limit", "1")
        assert "(draining)" in out
        # With the other one gone too there is nowhere to go, and the log says why.
        assert (await operator.run("drain", second, "--rate", "200/s"))[0] == 0
        assert (await operator.run("drain", first, "--rate", "200/s"))[0] == 0
        line = await running.logged("no backend")
        assert line["reason"] == "all 2 backends draining"
        assert (await operator.run("ready", first))[0] == 0
        assert live(await settled(operator, open_are(CLIENTS))) == [CLIENTS, 0]
        assert set((await finished(clients))["lost"]) == {"1001"}


def chat(urls: list[str]) -> dict[str, Any]:
    balancer = {
        "servers": [{"url": url} for url in urls],
        "connectionCount": {"path": "/metric", "interval": "0.5s"},
        "rebalance": {"rate": "50/s", "minAge": "0s"},
    }
    return {
        "routers": {"all": {"rule": "PathPrefix(`/`)", "service": "chat"}},
        "services": {"chat": {"loadBalancer": balancer}},
    }


@pytest.mark.usefixtures("both_relays")
async def test_rebalance(tmp_path: Path) -> None:
    operator = Operator(tmp_path / "control.sock")
    async with (
        backends(3) as started,
        daemon(tmp_path, [], http=chat([each.url for each in started[:2]])) as running,
        reconnecting(running) as clients,
    ):
        await settled(operator, open_are(CLIENTS))
        running.document["http"] = chat([each.url for each in started])
        running.write()
        await running.reload(count=1)
        # The new one counts as soon as it has reported.
        await settled(
            operator, lambda status: all(each["reported"] is not None for each in status["backends"])
        )
        code, out, _ = await operator.run("rebalance", "--dry-run")
        assert (code, out.splitlines()[0]) == (0, "chat  30 sessions would move")
        code, out, _ = await operator.run("rebalance")
        assert (code, out.splitlines()[0]) == (0, "chat  30 sessions to move")
        assert out.splitlines()[-1].startswith("chat rebalanced in ")
        assert live(await settled(operator, open_are(CLIENTS))) == [30, 30, 30]
        assert (await finished(clients))["lost"] == {"1012": 30}
