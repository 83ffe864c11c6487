"""What the rules of routers see of a connection: in memory, in virtual time."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.proxy.stage import answering, get, ok, staged

UPGRADE = ("Upgrade: websocket", "Connection: Upgrade")


@pytest.mark.parametrize(
    ("rule", "request_", "trusted", "status"),
    [
        ("Query(`room`, `1`) && Path(`/ws`)", get("//%77s?room=1", "X-A: 1"), (), 200),
        ("Query(`room`, `1`)", get("/?room=2"), (), 404),
        ("Header(`X-A`, `1`) && Method(`GET`)", get("/", "x-a: 1"), (), 200),
        ("Method(`POST`)", get(), (), 404),
        ("ClientIP(`192.0.2.0/24`)", get("/", "X-Forwarded-For: 10.0.0.1"), (), 200),
        # The peer, whoever it speaks for.
        ("ClientIP(`10.0.0.1`)", get("/", "X-Forwarded-For: 10.0.0.1"), ("192.0.2.7",), 404),
        ("Header(`X-Forwarded-For`, `10.0.0.1`)", get("/", "X-Forwarded-For: 10.0.0.1"), ("192.0.2.7",), 200),
        ("Header(`X-Forwarded-For`, `10.0.0.1`)", get("/", "X-Forwarded-For: 10.0.0.1"), (), 404),
        ("Header(`X-Forwarded-Proto`, `https`)", get("/", "X-Forwarded-Proto: https"), ("192.0.2.7",), 200),
        ("Header(`X-Forwarded-Proto`, `https`)", get("/", "X-Forwarded-Proto: https"), (), 404),
        ("Header(`X-Forwarded-Proto`, `http`)", get("/", "X-Forwarded-Proto: https"), (), 200),
        ("Header(`X-Forwarded-Proto`, `ws`)", get("/", "X-Forwarded-Proto: https", *UPGRADE), (), 426),
        ("Header(`X-Forwarded-Proto`, `http`)", get("/", "X-Forwarded-Proto: https", *UPGRADE), (), 404),
    ],
)  # fmt: skip
async def test_what_rules_see(
    rule: str, request_: bytes, trusted: tuple[str, ...], status: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(answering(ok(b"hi")), rule=rule, trusted=trusted) as stage:
        client = stage.connect()
        await client.send(request_)
        head, _ = await client.response()
    assert int(head.split()[1]) == status
