"""What comes before the first request, or instead of one: tricks with the ClientHello, and heads that drip in."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.hostile.world import attacked
from tests.net.test_clienthello import alpn, hello, real_hello, records, server_name
from tests.proxy.stage import READ_TIMEOUT, echo, staged
from trio_wsb.net.clienthello import MAX_HELLO

GOOD = real_hello("front.test", ["http/1.1"])

HELLOS: dict[str, tuple[bytes, int, str]] = {
    "two names": (records(hello(server_name(b"front.test", b"evil.test"))), 47, "RFC 6066 3"),
    "a name with NUL": (records(hello(server_name(b"front.test\0.evil.test"))), 47, "RFC 6066 3"),
    "a name with a slash": (records(hello(server_name(b"../front.test"))), 47, "RFC 6066 3"),
    "an empty name": (records(hello(server_name(b""))), 47, "RFC 6066 3"),
    "a name that is too long": (records(hello(server_name(b"a" * 300))), 47, "RFC 6066 3"),
    "an extension twice": (records(hello(server_name(b"a"), server_name(b"b"))), 47, "RFC 8446 4.2"),
    "HTTP/2 alone": (real_hello("front.test", ["h2"]), 120, "RFC 7301 3.2"),
    "no protocol in the list": (records(hello(alpn())), 50, "RFC 7301 3.1"),
    "extensions cut short": (records(hello((0, b"\0\x05\0\0"))), 50, "RFC 8446 4.2"),
    "bytes behind the extensions": (records(hello(more=b"x")), 50, "RFC 8446 4.1.2"),
    "very many records": (records(hello(server_name(b"a" * 200)), 1), 50, "RFC 8446 5.1"),
    "an empty record": (b"\x16\x03\x01\x00\x00" + GOOD, 50, "RFC 8446 5.1"),
    "a record of another kind between": (GOOD[:5][:3] + b"\x00\x04" + GOOD[5:9] + b"\x15\x03\x01\x00\x02\x01\x00", 50, "RFC 8446 5.1"),
    "a record over 2^14": (b"\x16\x03\x01\xff\xff" + bytes(100), 50, "RFC 8446 5.1"),
    "a length beyond the limit": (b"\x16\x03\x01\x00\x04\x01\xff\xff\xff", 50, "RFC 8446 4"),
    "another message": (b"\x16\x03\x01\x00\x04\x0e\x00\x00\x00", 10, "RFC 8446 4"),
    "a major version that is none": (b"\x16\x02\x00\x00\x05hello", 50, "RFC 8446 5.1"),
}  # fmt: skip
"""What a client says first, the alert that it gets, and where it is said."""


@pytest.mark.daemon
async def test_a_client_hello_with_a_trick_in_it_gets_the_right_alert(tmp_path: Path) -> None:
    wrong = {}
    async with attacked(tmp_path) as world:
        for name, (sent, alert, _) in HELLOS.items():
            said = await world.ask(sent, "tls")
            if said != bytes((21, 3, 1, 0, 2, 2, alert)):
                wrong[name] = said
        # The hello of SSL 2, and plain HTTP with nothing that answers it there, are no TLS.
        assert (await world.ask(b"\x80\x2e\x01\x03\x01\r\n\r\n", "tls")).startswith(b"HTTP/1.1 400 ")
        plain = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        assert (await world.ask(plain, "tls")).startswith(b"HTTP/1.1 404 ")
        assert world.seen == []
    assert wrong == {}
    assert max(len(sent) for sent, _, _ in HELLOS.values()) < MAX_HELLO


async def test_heads_that_drip_in_are_bounded_in_memory_and_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Slowloris: RFC 9110 section 15.5.9 has the answer, 408."""
    clients = 100
    async with staged(echo) as stage:
        slow = [stage.connect(capacity=1 << 17) for _ in range(clients)]
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        began = trio.current_time()
        for client in slow:
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: " + b"b" * 60_000)
        await trio.testing.wait_all_tasks_blocked()
        held = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert held < clients * 150_000
        while trio.current_time() < began + READ_TIMEOUT - 1:
            for client in slow:
                await client.send(b"c")
            await trio.sleep(1)
        for client in slow:
            assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
            client.close()
            await client.done.wait()
        assert trio.current_time() <= began + READ_TIMEOUT + 5
        assert stage.dialled == []
