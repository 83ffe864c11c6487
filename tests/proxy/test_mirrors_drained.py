"""A drained backend loses its copies too, those that were on their way included, and gets no new ones."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.proxy.stage import End, echo, handshake
from tests.proxy.test_services import Recorder, mirroring, serving


async def test_copies_at_a_drained_backend_are_given_up_and_the_session_goes_on(
    autojump_clock: MockClock,
) -> None:
    recorder = Recorder()
    async with serving(echo, recorder.script) as (stage, services):
        services.serve(mirroring(services.leaf("main", 1), services.leaf("copy", 2)))
        mirrors, backend = stage.proxy.mirrors, stage.backends[1]
        client = stage.connect()
        await client.send(handshake())
        await client.head()
        await wait_all_tasks_blocked()
        assert backend.live == 1
        assert mirrors.drain(stage.backends[0], None) == 0
        assert mirrors.drain(backend, "main") == 0
        assert mirrors.drain(backend, "copy") == 1
        await wait_all_tasks_blocked()
        assert (backend.live, mirrors.running) == (0, 0)
        assert mirrors.dropped_total == {"drained": 1}
        await client.send(b"still here")
        assert await client.exactly(10) == b"still here"
        assert recorder.ended
        assert mirrors.drain(backend, None) == 0
        client.close()
        await client.done.wait()


async def test_a_copy_that_was_on_its_way(autojump_clock: MockClock) -> None:
    recorder = Recorder()

    async def slow(end: End) -> None:
        await trio.sleep(3)
        await recorder.script(end)

    async with serving(echo, slow) as (stage, services):
        services.serve(mirroring(services.leaf("main", 1), services.leaf("copy", 2)))
        client = stage.connect()
        await client.send(handshake())
        await client.head()
        await wait_all_tasks_blocked()
        assert stage.proxy.mirrors.drain(stage.backends[1], None) == 0
        await trio.sleep(5)
        assert stage.proxy.mirrors.drain(stage.backends[1], None) == 1
        client.close()
        await client.done.wait()
