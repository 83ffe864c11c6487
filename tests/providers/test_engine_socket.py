"""The Engine over a real Unix socket: HTTP/1.1, chunked events, and what breaks off in the middle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from attrs import evolve

from tests.providers.engine import Engine, Fault, serve
from trio_wsb.config.docker import DockerProvider, EngineTLS, EngineURL, parse_engine_url
from trio_wsb.providers.docker import DockerProviderTask
from trio_wsb.providers.engine import EngineError, engine_transport, open_engine

PATIENCE = 20


class Told:
    """Counts changes, so that one can be waited for."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def __call__(self) -> None:
        self._event.set()
        self._event = trio.Event()

    async def until(self, holds: Callable[[], object]) -> None:
        with trio.fail_after(PATIENCE):
            while not holds():
                await self._event.wait()


def at(path: Path) -> DockerProvider:
    return DockerProvider(endpoint=EngineURL("unix", path=str(path)))


async def test_events_in_chunks_and_their_ends(tmp_path: Path) -> None:
    engine, told = Engine(), Told()
    task = DockerProviderTask(told)

    def names() -> list[str]:
        return [] if task.found is None else [each.name for each in task.found.containers]

    task.configure(at(tmp_path / "docker.sock"))
    one = engine.start("one")
    async with serve(engine, tmp_path / "docker.sock"), trio.open_nursery() as nursery:
        nursery.start_soon(task.run)
        await told.until(lambda: names() == ["one"])
        two = engine.start("two", {"key": "é" * 5000})
        await told.until(lambda: names() == ["one", "two"])
        # The next stream breaks off in the middle of an event, the first list in the middle of a name.
        engine.faults += [Fault("/events", cut=100, times=1), Fault("/containers/json", cut=30, times=1)]
        engine.hang_up()
        engine.stop(two)
        await told.until(lambda: names() == ["one"])
        engine.turn(one, "unhealthy")
        await told.until(lambda: task.found is not None and task.found.containers[0].health == "unhealthy")
        assert engine.asked["/events"] >= 3
        nursery.cancel_scope.cancel()
    assert engine.listening == 0


async def test_nobody_there(tmp_path: Path) -> None:
    options = at(tmp_path / "docker.sock")
    async with open_engine(options, engine_transport) as engine:
        with pytest.raises(EngineError, match="GET /version: cannot connect: No such file or directory"):
            await engine.greet()


async def test_tls_files_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    options = DockerProvider(
        endpoint=parse_engine_url("tcp://127.0.0.1:1"), tls=EngineTLS(ca=str(tmp_path / "ca.pem"))
    )
    with pytest.raises(EngineError, match=r"providers\.docker\.tls: cannot be used"):
        async with open_engine(options, engine_transport):
            pass
    missing = evolve(options, tls=EngineTLS(ca=str(tmp_path / "missing.pem")))
    with pytest.raises(EngineError, match="no such file"):
        async with open_engine(missing, engine_transport):
            pass
