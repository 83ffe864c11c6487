"""The page: what a scraper gets, what it costs others, and what a stranger may ask for."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.daemon.metrics.scene import Watched, understood, unzipped, watch
from tests.daemon.pages import head, request_of
from tests.opening import UPGRADE_LINES
from trio_wsb.config.internal import PROMETHEUS
from trio_wsb.daemon.internal import InternalPages
from trio_wsb.daemon.metrics import page
from trio_wsb.errors import HTTPError
from trio_wsb.net.memory import memory_channel_pair
from trio_wsb.observe.exposition import OPENMETRICS, TEXT

PODS = [f"http://10.0.0.{number}:8080" for number in range(1, 101)]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return watch(tmp_path, {"wsbalancer": {"pods": PODS}})


async def test_text(watched: Watched) -> None:
    fields, _, body = (await watched.answer()).partition(b"\r\n\r\n")
    assert fields.startswith(b"HTTP/1.1 200 OK\r\n")
    assert f"Content-Type: {TEXT}".encode() in fields
    assert f"Content-Length: {len(body)}".encode() in fields
    assert b"Vary: Accept, Accept-Encoding" in fields
    assert understood(body.decode())["trio_wsb_sessions_open"] == 0


async def test_openmetrics_in_gzip(watched: Watched) -> None:
    answer = await watched.answer(f"Accept: {OPENMETRICS}", "Accept-Encoding: gzip")
    fields, _, body = answer.partition(b"\r\n\r\n")
    assert f"Content-Type: {OPENMETRICS}".encode() in fields
    assert b"Content-Encoding: gzip" in fields
    text = unzipped(body).decode()
    assert text.endswith("# EOF\n")
    assert len(body) < len(text) / 10
    assert understood(text, openmetrics=True)["trio_wsb_sessions_open"] == 0


async def test_both_formats_say_the_same(watched: Watched) -> None:
    text, openmetrics = await watched.scrape(), await watched.scrape(openmetrics=True)
    assert text.values.keys() == openmetrics.values.keys()


async def test_head_costs_nothing(watched: Watched) -> None:
    answer = await watched.answer("Accept-Encoding: gzip", method="HEAD")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Encoding: gzip\r\n" in answer
    assert b"Content-Length" not in answer
    assert answer.endswith(b"\r\n\r\n")
    assert watched.metrics._last_scrape.seconds == 0


@pytest.mark.parametrize("method", ["POST", "DELETE", "BREW"])
async def test_metrics_are_read(watched: Watched, method: str) -> None:
    near, _ = memory_channel_pair()
    with pytest.raises(HTTPError) as caught:
        await watched.metrics.page(request_of(watched.world, head("/metrics", method=method), near))
    assert caught.value.status == 405
    assert ("Allow", "GET, HEAD") in caught.value.headers


async def test_others_run_while_it_is_made(watched: Watched) -> None:
    """Whoever waits for the loop gets it hundreds of times during a scrape of a hundred backends."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await watched.scrape()
        nursery.cancel_scope.cancel()
    assert turns > 60


async def test_who_asks_meanwhile_shares_the_next_one(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = trio.Event(), trio.Event()
    made: list[str] = []
    make = watched.metrics._make

    async def slow(content_type: str, *, gzip: bool) -> page.Made:
        made.append(content_type)
        found = await make(content_type, gzip=gzip)
        begun.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(watched.metrics, "_make", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.scrape)
        await begun.wait()
        for _ in range(9):
            nursery.start_soon(watched.scrape)
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
    assert len(made) == 2, "one for the first, one for the nine that came while it was made"
    assert not watched.metrics._made, "nothing is kept when nobody waits"


async def test_the_garbage_collector_stays_away(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    make = watched.metrics._make

    async def looking(content_type: str, *, gzip: bool) -> page.Made:
        seen.append(gc.isenabled())
        return await make(content_type, gzip=gzip)

    monkeypatch.setattr(watched.metrics, "_make", looking)
    await watched.scrape()
    assert seen == [False]
    assert gc.isenabled()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.scrape)
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert gc.isenabled()


async def test_too_many_at_once_are_refused(watched: Watched) -> None:
    refusals: list[HTTPError] = []

    async def scrape() -> None:
        try:
            await watched.metrics._scrape(TEXT, gzip=False)
        except HTTPError as error:
            refusals.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(1 + page.MAX_WAITING + 5):
            nursery.start_soon(scrape)
    assert [(each.status, each.headers) for each in refusals] == [(503, (("Retry-After", "1"),))] * 5


async def test_a_scraper_that_leaves_does_not_hold_up_the_next(watched: Watched) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.scrape)
        nursery.start_soon(watched.scrape)
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert (await watched.scrape())["trio_wsb_sessions_open"] == 0


WHERE = {
    "default": ({}, {"admin": True, "web": False, "metrics": False}),
    "named": ({"entryPoint": "metrics"}, {"admin": False, "web": False, "metrics": True}),
    "manual": ({"manualRouting": True}, {"admin": False, "web": False, "metrics": False}),
    "manual, named": ({"manualRouting": True, "entryPoint": "web"}, {"admin": False, "web": False}),
}


@pytest.mark.parametrize(("options", "expected"), list(WHERE.values()), ids=list(WHERE))
async def test_where_it_is(tmp_path: Path, options: dict[str, object], expected: dict[str, bool]) -> None:
    watched = watch(
        tmp_path,
        {
            "entryPoints": {
                name: {"address": f"127.0.0.1:{9000 + index}"}
                for index, name in enumerate(("web", "admin", "metrics"))
            },
            "metrics": {"prometheus": options},
            "wsbalancer": {"pods": PODS[:1]},
        },
    )
    pages = InternalPages(watched.world.state, watched.metrics)
    entries = watched.world.proxy.runtime.entry_points
    for name, found in expected.items():
        assert (pages.find(entries[name], None, head("/metrics")) is not None) is found, name
        assert pages.find(entries[name], None, head("/metrics/x")) is None
    assert pages.services[PROMETHEUS] == watched.metrics.page


async def test_it_is_no_session(watched: Watched) -> None:
    near, _ = memory_channel_pair()
    upgrade = head("/metrics", *UPGRADE_LINES)
    with pytest.raises(HTTPError) as caught:
        await watched.metrics.page(request_of(watched.world, upgrade, near))
    assert caught.value.status == 405
