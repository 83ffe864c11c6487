"""What is counted: every request and session once, under few labels, and never backwards."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.daemon.metrics.scene import Scraped, Watched, monotonic, record, watch
from tests.daemon.state import PODS
from tests.proxy.world import close_frame, frame
from trio_wsb.addresses import parse_ip
from trio_wsb.daemon.metrics.figures import MAX_REASONS, code_label
from trio_wsb.net.channel import send_all
from trio_wsb.net.memory import MemoryChannel
from trio_wsb.proxy.record import Stage


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return watch(tmp_path)


FIRST = {"service": "wsbalancer", "backend": PODS[0]}


async def cut(watched: Watched, *, keep: int = 0) -> None:
    """End sessions, the oldest first, for the reason that is known by now."""
    sessions = list(watched.world.proxy.sessions)
    for session in sessions[: len(sessions) - keep]:
        session.relay.cut()
    await trio.testing.wait_all_tasks_blocked()
    assert len(watched.world.proxy.sessions) == min(keep, len(sessions))


async def test_a_session_from_its_opening_to_its_end(watched: Watched, autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        client = await watched.world.open(nursery, PODS[0])
        found = await watched.scrape()
        assert found["trio_wsb_sessions_open"] == found["trio_wsb_sessions_opened_total"] == 1
        assert found.get("trio_wsb_backend_sessions_open", **FIRST) == 1
        assert found.get("trio_wsb_service_sessions_open", service="wsbalancer") == 1
        assert found.get("trio_wsb_entrypoint_sessions_open", entrypoint="web") == 1
        assert found["trio_wsb_handshake_duration_seconds_count"] == 1
        assert (
            found.get(
                "trio_wsb_entrypoint_requests_total",
                entrypoint="web",
                code="101",
                method="GET",
                protocol="websocket",
            )
            == 1
        )
        await trio.sleep(90)
        await send_all(client, frame(b"hello", mask=True) + close_frame(4001, mask=True))
        await trio.testing.wait_all_tasks_blocked()
        await cut(watched)
        found = await watched.scrape()
        assert found["trio_wsb_sessions_open"] == 0
        assert found.get("trio_wsb_sessions_ended_total", cause="client_closed", code="4xxx") == 1
        assert found.get("trio_wsb_backend_sessions_ended_total", cause="client_closed", **FIRST) == 1
        assert found.get("trio_wsb_backend_sessions_open", **FIRST) == 0
        assert found["trio_wsb_session_duration_seconds_count"] == 1
        assert found["trio_wsb_session_duration_seconds_sum"] == pytest.approx(90, abs=11)
        assert found.get("trio_wsb_session_duration_seconds_bucket", le="60.0") == 0
        assert found.get("trio_wsb_messages_total", direction="in") == 1
        assert found.get("trio_wsb_bytes_total", direction="in") == 6 + 5 + 6 + 2
        nursery.cancel_scope.cancel()


async def test_open_sessions_count_with_what_they_have_relayed(watched: Watched) -> None:
    async with trio.open_nursery() as nursery:
        client = await watched.world.open(nursery, PODS[0])
        await send_all(client, frame(b"x" * 100, mask=True) * 3)
        await trio.testing.wait_all_tasks_blocked()
        found = await watched.scrape()
        for level, labels in (("", {}), ("_service", {"service": "wsbalancer"}), ("_backend", FIRST)):
            assert found.get(f"trio_wsb{level}_messages_total", direction="in", **labels) == 3
            assert found.get(f"trio_wsb{level}_bytes_total", direction="in", **labels) == 3 * 106
            assert found.get(f"trio_wsb{level}_messages_total", direction="out", **labels) == 0
        nursery.cancel_scope.cancel()


async def test_no_counter_ever_goes_back(watched: Watched) -> None:
    """Sessions open, send and end at random while scrapes are under way, several at a time."""
    rng = random.Random(5)
    scrapes: list[Scraped] = []
    sent = 0

    async def scrape() -> None:
        for _ in range(12):
            scrapes.append(await watched.scrape())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(scrape)
        clients: list[MemoryChannel] = []
        while len(scrapes) < 12:
            for _ in range(rng.randrange(4)):
                clients.append(await watched.world.open(nursery, rng.choice(PODS)))
            for client in rng.sample(clients, min(5, len(clients))):
                await send_all(client, frame(b"hello", mask=True))
                sent += 1
            if len(clients) > 20:
                await cut(watched, keep=10)
                clients = clients[-10:]
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        scrapes.append(await watched.scrape())
        nursery.cancel_scope.cancel()
    for before, after in pairwise(scrapes):
        assert monotonic(before, after) == {}
    last = scrapes[-1]
    assert last.get("trio_wsb_messages_total", direction="in") == sent
    by_backend = [last.get("trio_wsb_backend_messages_total", **labels) for labels in _in(last)]
    assert sum(value or 0 for value in by_backend) == sent


def _in(found: Scraped) -> list[dict[str, str]]:
    return [
        labels for labels in found.series("trio_wsb_backend_messages_total") if labels["direction"] == "in"
    ]


@pytest.mark.parametrize(
    ("code", "label"),
    [
        (None, "none"),
        (1000, "1000"),
        (1001, "1001"),
        (1005, "1005"),
        (1016, "other"),
        (2999, "other"),
        (3000, "3xxx"),
        (4999, "4xxx"),
        (5000, "other"),
        (0, "other"),
        (65535, "other"),
    ],
)
def test_close_codes_have_few_labels(code: int | None, label: str) -> None:
    assert code_label(code) == label


async def test_requests(watched: Watched) -> None:
    figures = watched.metrics.figures
    figures.request_ended(record(bytes_in=10, bytes_out=200, tries=3))
    figures.request_ended(record("POST", status=502, reason="no backend could be reached", stage=Stage.DIAL))
    figures.request_ended(record("BREW", status=405))
    figures.request_ended(record("ANYTHING", status=7000))
    figures.request_ended(
        record(head=None, router="", service="", status=400, reason="bad", stage=Stage.HEAD)
    )
    figures.request_ended(record(status=0))
    found = await watched.scrape()

    def requests(code: str, method: str) -> float | None:
        labels = {"entrypoint": "web", "code": code, "method": method, "protocol": "http"}
        return found.get("trio_wsb_entrypoint_requests_total", **labels)

    assert requests("200", "GET") == 1
    assert requests("502", "POST") == 1
    assert requests("405", "EXTENSION_METHOD") == 1
    assert requests("other", "EXTENSION_METHOD") == 1
    assert requests("400", "EXTENSION_METHOD") == 1
    assert requests("0", "GET") == 1
    http = {"entrypoint": "web", "protocol": "http"}
    assert found.get("trio_wsb_entrypoint_bytes_total", direction="out", **http) == 200
    assert found.get("trio_wsb_entrypoint_bytes_total", direction="in", **http) == 10
    assert found.get("trio_wsb_entrypoint_request_duration_seconds_sum", **http) == 6
    assert found["trio_wsb_retries_total"] == 2
    assert found.get("trio_wsb_service_retries_total", service="wsbalancer") == 2
    assert found.get("trio_wsb_request_failures_total", stage="head", reason="bad") == 1
    assert (
        found.get("trio_wsb_request_failures_total", stage="dial", reason="no backend could be reached") == 1
    )
    assert len(found.series("trio_wsb_request_failures_total")) == 2


async def test_handshakes_that_fail(watched: Watched) -> None:
    figures = watched.metrics.figures
    figures.request_ended(
        record(upgrade=True, status=503, reason="no available server", stage=Stage.CHOOSING)
    )
    figures.request_ended(record(upgrade=True, status=401, stage=Stage.ANSWER))
    for number in range(2 * MAX_REASONS):
        figures.request_ended(record(upgrade=True, status=502, reason=str(number), stage=Stage.HANDSHAKE))
    found = await watched.scrape()
    name = "trio_wsb_handshake_failures_total"
    assert found.get(name, stage="choosing", reason="no available server") == 1
    assert found.get(name, stage="answer", reason="the backend refused it") == 1
    assert len(found.series(name)) == MAX_REASONS + 1
    assert found.get(name, stage="handshake", reason="other") == 2 * MAX_REASONS - (MAX_REASONS - 2)
    failures = "trio_wsb_service_handshake_failures_total"
    assert found.get(failures, service="wsbalancer", stage="handshake") == 2 * MAX_REASONS


@pytest.mark.parametrize("wanted", [False, True])
async def test_our_own_pages(tmp_path: Path, wanted: bool) -> None:
    watched = watch(tmp_path, {"metrics": {"addInternals": wanted}, "wsbalancer": {"pods": PODS}})
    watched.metrics.figures.request_ended(
        record(entry_point="admin", router="", service="ping@internal", status=200)
    )
    found = await watched.scrape()
    labels = {"entrypoint": "admin", "code": "200", "method": "GET", "protocol": "http"}
    assert found.get("trio_wsb_entrypoint_requests_total", **labels) == (1 if wanted else None)


def document(*pods: str, **prometheus: object) -> dict[str, object]:
    return {"metrics": {"prometheus": prometheus}, "wsbalancer": {"pods": list(pods)}}


async def test_a_removed_backend_goes_with_its_last_session(tmp_path: Path) -> None:
    watched = watch(tmp_path, document(*PODS))
    async with trio.open_nursery() as nursery:
        await watched.world.open(nursery, PODS[0])
        await watched.reload(document(*PODS[1:]))
        found = await watched.scrape()
        assert found.get("trio_wsb_backend_sessions_open", **FIRST) == 1
        assert found.get("trio_wsb_backend_up", **FIRST) is None, "it is in no pool any more"
        await cut(watched)
        nursery.cancel_scope.cancel()
    after = await watched.scrape()
    assert after.get("trio_wsb_backend_sessions_open", **FIRST) is None
    assert monotonic(found, after) == {}
    assert after.get("trio_wsb_service_sessions_opened_total", service="wsbalancer") == 1
    assert after["trio_wsb_sessions_opened_total"] == 1


async def test_removed_services_routers_and_entry_points_go_too(tmp_path: Path) -> None:
    watched = watch(tmp_path, document(*PODS, addRoutersLabels=True))
    watched.metrics.figures.request_ended(record())
    assert (await watched.scrape()).series("trio_wsb_router_requests_total")
    async with trio.open_nursery() as nursery:
        await watched.world.open(nursery, PODS[0])
        other = {
            "entryPoints": {
                name: {"address": f"127.0.0.1:{port}"} for name, port in (("other", 9009), ("admin", 9001))
            },
            "metrics": {"prometheus": {"addRoutersLabels": True}},
            "http": {
                "routers": {"chat": {"rule": "PathPrefix(`/`)", "service": "chat"}},
                "services": {"chat": {"loadBalancer": {"servers": [{"url": PODS[1]}]}}},
            },
        }
        await watched.reload(other)
        found = await watched.scrape()
        labels = {"router": "wsbalancer", "service": "wsbalancer"}
        assert found.get("trio_wsb_router_sessions_open", **labels) == 1
        await cut(watched)
        nursery.cancel_scope.cancel()
    watched.configure()
    after = await watched.scrape()
    assert monotonic(found, after) == {}
    for name in ("trio_wsb_router_requests_total", "trio_wsb_entrypoint_requests_total"):
        assert after.series(name) == []
    assert after.series("trio_wsb_service_sessions_open") == [{"service": "chat"}]


async def test_other_ranges_begin_anew(tmp_path: Path) -> None:
    watched = watch(tmp_path, document(*PODS, buckets=[0.5, "1m"], sessionBuckets=["1h"]))
    watched.metrics.figures.request_ended(record())
    found = await watched.scrape()
    labels = {"entrypoint": "web", "protocol": "http"}
    name = "trio_wsb_entrypoint_request_duration_seconds"
    assert found.get(f"{name}_bucket", le="60.0", **labels) == 1
    assert {each["le"] for each in found.series("trio_wsb_session_duration_seconds_bucket")} == {
        "3600.0",
        "+Inf",
    }
    await watched.reload(document(*PODS, buckets=[2]))
    watched.metrics.figures.request_ended(record())
    found = await watched.scrape()
    assert found.get(f"{name}_count", **labels) == 1
    assert {each["le"] for each in found.series(f"{name}_bucket")} == {"2.0", "+Inf"}


async def test_a_record_of_somebody_elses_address_is_no_label(watched: Watched) -> None:
    """Nothing that a stranger sends becomes a label."""
    evil = 'evil"}\n# EOF'
    watched.metrics.figures.request_ended(record(username=evil, client=parse_ip("192.0.2.1")))
    text = (await watched.answer()).decode()
    assert "evil" not in text
    assert "192.0.2.1" not in text
