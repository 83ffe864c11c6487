"""Connections over a limit: told so or not, and every observer learns of them."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.proxy.stage import End, greet, handshake, status_of
from tests.proxy.test_record import Witness, witnessed
from trio_wsb.net.channel import send_all
from trio_wsb.net.memory import memory_channel_pair
from trio_wsb.proxy.peer import Peer
from trio_wsb.proxy.record import Stage
from trio_wsb.proxy.refusals import REPORT_INTERVAL, Refusals
from trio_wsb.proxy.turnaway import REFUSAL_TIMEOUT, drop_connection, refuse_connection

PEER = Peer(None, "192.0.2.7:4711")


def seen(witness: Witness) -> list[tuple[str, str, int, int, str]]:
    return [
        (each.entry_point, each.peer.text, each.status, each.bytes_out, each.reason)
        for each in witness.requests
    ]


@pytest.mark.parametrize("status", [503, 429])
async def test_it_is_told_so(status: int, autojump_clock: trio.testing.MockClock) -> None:
    async with witnessed(greet) as (stage, witness), trio.open_nursery() as nursery:
        far, near = memory_channel_pair()
        client = End(far)
        nursery.start_soon(refuse_connection, stage.proxy, "web", near, PEER, status)
        await client.send(handshake())
        answer = await client.rest()
        client.close()
    assert status_of(answer) == status
    assert b"Retry-After: 5\r\n" in answer
    body = answer.partition(b"\r\n\r\n")[2]
    assert seen(witness) == [("web", "192.0.2.7:4711", status, len(body), "too many connections")]
    [record] = witness.requests
    assert (record.stage, record.head, record.upgrade, record.number) == (Stage.ARRIVAL, None, False, 1)
    assert trio.current_time() == 0


async def test_it_is_not_kept_for_long(autojump_clock: trio.testing.MockClock) -> None:
    async with witnessed(greet) as (stage, _):
        far, near = memory_channel_pair(200)
        await refuse_connection(stage.proxy, "web", near, PEER)
        assert trio.current_time() == REFUSAL_TIMEOUT
        with pytest.raises(BrokenPipeError):
            await send_all(far, b"x")


async def test_one_that_is_gone_already_was_sent_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with witnessed(greet) as (stage, witness):
        far, near = memory_channel_pair()
        far.abort()
        await refuse_connection(stage.proxy, "web", near, PEER)
    assert seen(witness) == [("web", "192.0.2.7:4711", 0, 0, "too many connections")]
    assert trio.current_time() == 0


async def test_without_a_word(autojump_clock: trio.testing.MockClock) -> None:
    async with witnessed(greet) as (stage, witness):
        far, near = memory_channel_pair()
        drop_connection(stage.proxy, "web", near, PEER)
        assert await End(far).rest() == b""
    assert seen(witness) == [("web", "192.0.2.7:4711", 0, 0, "too many connections")]


def test_they_are_counted_and_told_once_in_a_while() -> None:
    refusals = Refusals()
    told = [refusals.refused("web", now) for now in (0.0, 1.0, REPORT_INTERVAL - 1, REPORT_INTERVAL)]
    assert told == [True, False, False, True]
    assert refusals.refused("other", 1.0)
    assert refusals.refused_total == {"web": 4, "other": 1}
