"""The upgrade when backends fail: other tries, timeouts, and counts that come out even whatever happens."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.proxy.stage import (
    ANSWER_TIMEOUT,
    DIAL_TIMEOUT,
    SWITCH,
    SWITCHED,
    WRITE_TIMEOUT,
    Client,
    End,
    Script,
    Stage,
    answering,
    cancelling_at_every_step,
    die,
    echo,
    field_of,
    handshake,
    hang_dial,
    refuse_dial,
    staged,
    status_of,
    stay_silent,
)
from tests.proxy.world import frame
from trio_wsb.balancing.passive import FIRST_COOL_DOWN
from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.upgrade import QUICK_ANSWER
from trio_wsb.proxy.upstream import RETRY_AFTER

# Another try.


@pytest.mark.parametrize("first", [refuse_dial, die])
async def test_no_answer_at_all_is_tried_again_with_the_next(
    first: Script, autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(first, echo) as stage:
        client = await stage.open_session()
        assert stage.dialled == ["b1", "b2"]
        assert stage.counts == [(0, 0), (1, 0)]
        assert stage.backends[0].failures_total == 1
        [line] = stage.events("backend failed")
        assert (line["backend"], line["log_level"]) == ("http://b1:8080", "warning")
        assert stage.events("session opened")[0]["tries"] == 2
        client.close()


async def test_a_dial_that_hangs_is_given_up_in_time(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(hang_dial, echo) as stage:
        begun = trio.current_time()
        await stage.open_session()
        assert trio.current_time() - begun == DIAL_TIMEOUT


async def test_a_backend_that_resets_is_tried_again_with_the_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def reset(end: End) -> None:
        await end.head()
        end.abort()

    async def reset_at_once(end: End) -> None:
        end.abort()

    async with staged(reset, reset_at_once, echo) as stage:
        await stage.open_session()
        assert stage.dialled == ["b1", "b2", "b3"]


async def test_a_reset_in_the_middle_of_an_answer_is_502(autojump_clock: trio.testing.MockClock) -> None:
    async def reset(end: End) -> None:
        await end.head()
        await end.send(SWITCH[:20])
        await trio.sleep(1)
        end.abort()

    async with staged(reset, echo) as stage:
        assert status_of(await stage.ask(handshake())) == 502
        assert stage.dialled == ["b1"]


@pytest.mark.parametrize(
    "scripts", [(refuse_dial, die, refuse_dial), (die, die, die), (refuse_dial,), (die,)]
)
async def test_three_tries_and_no_backend_twice(
    scripts: tuple[Script, ...], autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(*scripts) as stage:
        answer = await stage.ask(handshake())
        assert status_of(answer) == 502
        assert stage.dialled == ["b1", "b2", "b3"][: len(scripts)]
        assert stage.counts == [(0, 0)] * len(scripts)


async def test_a_handshake_that_times_out_is_504_and_not_tried_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with staged(stay_silent, echo) as stage:
        begun = trio.current_time()
        client = stage.connect()
        await client.send(handshake())
        assert status_of(await client.rest()) == 504
        assert trio.current_time() - begun == ANSWER_TIMEOUT
        assert stage.dialled == ["b1"]
        assert stage.backends[0].failures_total == 1


async def test_an_answer_that_drips_does_not_move_the_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def drip(end: End) -> None:
        await end.head()
        for at in range(len(SWITCH)):
            await end.send(SWITCH[at : at + 1])
            await trio.sleep(1)

    async with staged(drip) as stage:
        begun = trio.current_time()
        client = stage.connect()
        await client.send(handshake())
        assert status_of(await client.rest()) == 504
        assert trio.current_time() - begun == ANSWER_TIMEOUT


async def test_an_answer_in_pieces_around_the_moment_when_the_watch_begins(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def pieces(end: End) -> None:
        await end.head()
        for at in range(len(SWITCH)):
            await end.send(SWITCH[at : at + 1])
            await trio.sleep(QUICK_ANSWER / 50)
        await end.rest()

    async with staged(pieces) as stage:
        client = stage.connect()
        await client.send(handshake())
        assert await client.head() == SWITCHED


async def test_no_eligible_backend_is_503_with_retry_after_and_the_reason_in_the_log(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with staged(echo, echo, max_connections=1) as stage:
        await stage.open_session()
        await stage.open_session()
        answer = await stage.ask(handshake())
        assert status_of(answer) == 503
        assert field_of(answer, "Retry-After") == [str(RETRY_AFTER)]
        assert answer.endswith(b"no available server\n")
        [line] = stage.events("no backend")
        assert line["reason"] == "all 2 backends at maxConnections"
        assert stage.counts == [(1, 0), (1, 0)]


# Counts, whatever happens.


async def test_counts_along_the_way(autojump_clock: trio.testing.MockClock) -> None:
    async def backend(end: End) -> None:
        await end.head()
        await trio.sleep(1)
        await end.send(SWITCH)
        await end.rest()

    async with staged(backend) as stage:
        client = stage.connect()
        await trio.testing.wait_all_tasks_blocked()
        assert stage.counts == [(0, 0)]  # a connection that has asked for nothing is nobody's load
        await client.send(handshake())
        await trio.testing.wait_all_tasks_blocked()
        assert stage.counts == [(0, 1)]
        await client.head()
        await trio.testing.wait_all_tasks_blocked()
        assert stage.counts == [(1, 0)]
        client.close()
        await client.done.wait()
        assert stage.counts == [(0, 0)]


async def test_a_client_that_vanishes_while_the_backend_thinks_frees_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ends: list[float] = []

    async def backend(end: End) -> None:
        await end.head()
        await end.rest()
        ends.append(trio.current_time())

    for leave in ("close", "abort"):
        async with staged(backend) as stage:
            client = stage.connect()
            await client.send(handshake())
            await trio.sleep(3)
            begun = trio.current_time()
            client.close() if leave == "close" else client.abort()
            await client.done.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert ends.pop() == begun
            assert stage.counts == [(0, 0)]
            assert stage.backends[0].failures_total == 0  # no fault of its own
            assert stage.backends[0].passive.recovering is False  # and no proof of its health


async def test_a_client_that_does_not_take_the_101(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(answering(SWITCH, until_closed=True)) as stage:
        client = stage.connect(capacity=10)
        begun = trio.current_time()
        await client.send(handshake())
        await client.done.wait()
        assert trio.current_time() - begun == WRITE_TIMEOUT
        assert stage.counts == [(0, 0)]
        assert stage.proxy.sessions.opened_total == 0


async def test_a_backend_that_does_not_take_the_handshake(autojump_clock: trio.testing.MockClock) -> None:
    async def read_nothing(end: End) -> None:
        await trio.sleep_forever()

    async with staged(read_nothing, capacity=50) as stage:
        client = stage.connect(capacity=65536)
        await client.send(handshake())
        assert status_of(await client.rest()) == 504


async def slow_echo(end: End) -> None:
    await end.head()
    await trio.sleep(1)
    await end.send(SWITCH[:20])
    await trio.sleep(1)
    await end.send(SWITCH[20:] + frame(b"x" * 500))
    await end.exactly(500)
    await trio.sleep(1)


async def slow_refusal(end: End) -> None:
    await end.head()
    await trio.sleep(1)
    await end.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 500\r\n\r\n")
    await trio.sleep(1)
    await end.send(bytes(500))


@pytest.mark.parametrize(
    "scripts",
    [(slow_echo,), (slow_refusal,), (die, refuse_dial, slow_echo), (stay_silent,), (refuse_dial, die)],
    ids=["session", "refusal", "retries", "timeout", "failure"],
)
async def test_counts_are_right_wherever_a_connection_is_cancelled(
    scripts: tuple[Script, ...], autojump_clock: trio.testing.MockClock
) -> None:
    async def play(stage: Stage, client: Client) -> None:
        await client.send(handshake() + frame(bytes(500), mask=True))

    await cancelling_at_every_step(scripts, play)


# Backends that accept and drop.


async def test_three_quick_drops_cool_a_backend_down(autojump_clock: trio.testing.MockClock) -> None:
    async def drop(end: End) -> None:
        await end.head()
        await end.send(SWITCH)

    async with staged(drop, echo) as stage:

        async def session(stage: Stage) -> str:
            client = await stage.open_session()
            if stage.dialled[-1] == "b1":
                await client.rest()
            client.close()
            await client.done.wait()
            return stage.dialled[-1]

        assert [await session(stage) for _ in range(5)] == ["b1", "b1", "b1", "b2", "b2"]
        [line] = stage.events("backend drops sessions")
        assert line["backend"] == "http://b1:8080"
        assert stage.causes[Cause.BACKEND_LOST] == 3
        await trio.sleep(FIRST_COOL_DOWN)
        assert [await session(stage) for _ in range(2)] == ["b1", "b2"]  # one drop is enough now
