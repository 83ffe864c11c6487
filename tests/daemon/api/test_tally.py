"""The tally: each session counts exactly once, whatever ends while it is added up."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from tests.daemon.state import PODS, make_world
from trio_wsb.daemon.api import tally
from trio_wsb.proxy.causes import Cause


async def test_what_ends_while_it_is_added_up_counts_once(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally, "BATCH", 1)
    world = make_world(tmp_path)
    for pod in (*PODS, *PODS):
        await world.open(nursery, pod)
    for session in world.proxy.sessions:
        session.relay.up.scanner.messages = 10
    seen: list[int] = []

    async def look() -> None:
        for _ in range(3):
            found = await world.api.tally.traffic(world.proxy.sessions)
            seen.append(found.messages_in)

    async with trio.open_nursery() as looking:
        looking.start_soon(look)
        for session in world.proxy.sessions:
            session.relay.cut(Cause.SHUTDOWN)
            await trio.lowlevel.checkpoint()
    assert seen == [60, 60, 60]
    assert len(world.proxy.sessions) == 0
    nursery.cancel_scope.cancel()
