"""What the project is for: bursts spread by what the backends really have, and one that hangs attracts nobody."""

from __future__ import annotations

from pathlib import Path

import pytest
from trio_websocket import ConnectionClosed

from tests.daemon.harness import (
    backends,
    clients,
    daemon,
    echo,
    free_port,
    http_client,
)
from tests.daemon.waiting import reports_arrived, sessions

pytestmark = pytest.mark.daemon


async def test_a_burst_of_900_ends_at_400_each(tmp_path: Path) -> None:
    async with (
        backends(3, [], ["--foreign", "100"], ["--foreign", "200"]) as started,
        daemon(tmp_path, [backend.url for backend in started], cacheTTL="2s") as running,
        clients() as made,
    ):
        await reports_arrived(started)
        await made.connect_many(running.ws, 900)
        own = await sessions(started)
        totals = [count + foreign for count, foreign in zip(own, (0, 100, 200), strict=True)]
        assert sum(own) == 900
        assert all(399 <= total <= 401 for total in totals), totals


async def test_a_backend_whose_metric_endpoint_hangs_does_not_attract_the_next_burst(tmp_path: Path) -> None:
    hanging = ["--foreign", "0", "--metric-fail", "hang"]
    async with (
        backends(3, hanging, ["--foreign", "50"], ["--foreign", "50"]) as started,
        daemon(tmp_path, [backend.url for backend in started], cacheTTL="1s") as running,
        clients() as made,
    ):
        await reports_arrived(started[1:])
        await made.connect_many(running.ws, 300)
        own = await sessions(started)
        # It has never reported, so it is taken to have as many foreign connections as its peers have.
        assert sum(own) == 300
        assert all(99 <= count <= 101 for count in own), own
        line = await running.logged("no fresh report", backend=started[0].url)
        assert line["reason"] == "no complete answer within 5 s"


async def test_a_killed_backend_ends_its_own_sessions_and_the_next_go_elsewhere(tmp_path: Path) -> None:
    async with (
        backends(3) as started,
        daemon(tmp_path, [backend.url for backend in started]) as running,
        clients() as made,
    ):
        connections = await made.connect_many(running.ws, 30)
        assert await sessions(started) == [10, 10, 10]
        victim = started[0]
        victim.running.process.kill()
        await victim.running.exit()
        await running.running.line(lambda line: sum("backend_lost" in x for x in running.running.lines) >= 10)
        lost = [line for line in running.log("session ended") if line["cause"] == "backend_lost"]
        assert len(lost) == 10
        assert {line["backend"] for line in lost} == {victim.url}
        # The survivors still echo, and newcomers land on them, at the cost of one refused dial at most.
        alive = 0
        for connection in connections:
            try:
                await echo(connection, "still there?")
                alive += 1
            except ConnectionClosed:
                continue
        assert alive == 20
        await made.connect_many(running.ws, 10)
        assert await sessions(started[1:]) == [15, 15]
        assert all(line["tries"] <= 2 for line in running.log("session opened"))


async def test_no_backend_at_all_is_a_503_with_retry_after_or_a_502(tmp_path: Path) -> None:
    async with daemon(tmp_path, [f"http://127.0.0.1:{free_port()}"]) as running:
        async with http_client() as client:
            answer = await client.get(running.url)
            assert answer.status_code == 502
        await running.logged("backend failed", reason="connect: connection refused")
