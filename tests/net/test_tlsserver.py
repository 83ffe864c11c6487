"""TLS as a server, over loopback: the hello before the handshake, contexts, and handshakes that fail."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.net.pairs import descriptors, tcp_pair
from tests.net.test_clienthello import real_hello
from tests.tlsfiles import Authority, Files
from trio_wsb.errors import DialError
from trio_wsb.net.channel import receive_some, send_all
from trio_wsb.net.clienthello import ClientHello, ClientHelloError
from trio_wsb.net.tls import TLSChannel, handshake, load_certificate
from trio_wsb.net.tlsserver import (
    HandshakeError,
    load_certificate_bytes,
    peek_client_hello,
    say_goodbye,
    server_context,
    shake_hands,
)

NAME = "front.test"

SCRATCH = memoryview(bytearray(64 * 1024))


class CountingSocket(socket.socket):
    """A socket that counts how often it was looked at."""

    looks = 0

    def recv_into(self, *arguments: object, **more: object) -> int:
        self.looks += 1
        return super().recv_into(*arguments, **more)  # type: ignore[arg-type]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def files(authority: Authority) -> Files:
    return authority.issue("front", NAME)


# The hello.


async def pair() -> tuple[socket.socket, CountingSocket]:
    client, server = await tcp_pair()
    counting = CountingSocket(fileno=server.detach())
    counting.setblocking(False)
    return client, counting


async def peek_while(send: Callable[[socket.socket], Awaitable[None]]) -> tuple[ClientHello | None, int]:
    """Return what is found of what `send` sends, and how often the socket was looked at."""
    client, server = await pair()
    with client, server:
        found: list[ClientHello | None] = []

        async def peek() -> None:
            found.append(await peek_client_hello(server, SCRATCH))

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peek)
                await send(client)
        assert server.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
        return found[0], server.looks


async def test_a_hello_is_looked_at_and_left_where_it_is() -> None:
    client, server = await pair()
    with client, server:
        data = real_hello(NAME)
        client.send(data)
        found = await peek_client_hello(server, SCRATCH)
        assert found is not None
        assert found.server_name == NAME
        assert server.recv(1 << 16) == data


async def test_a_hello_in_single_bytes_is_not_looked_at_for_each() -> None:
    async def send(client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in real_hello(NAME):
            client.send(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked(0.0001)

    found, looks = await peek_while(send)
    assert found is not None
    assert found.server_name == NAME
    assert looks < 10


async def test_one_byte_tells_what_is_no_tls() -> None:
    async def send(client: socket.socket) -> None:
        client.send(b"G")

    assert (await peek_while(send))[0] is None


@pytest.mark.parametrize("data", [b"", real_hello(NAME)[:5], real_hello(NAME)[:100]], ids=["0", "5", "100"])
@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_that_leaves_early_is_noticed_at_once(data: bytes, reset: bool) -> None:
    client, server = await pair()
    with server:
        client.send(data)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        client.close()
        with trio.fail_after(5), pytest.raises(OSError, match=r"ended|reset"):
            await peek_client_hello(server, SCRATCH)
        assert server.looks < 5


async def test_silence_within_a_hello_can_be_cancelled() -> None:
    client, server = await pair()
    with client, server:
        client.send(real_hello(NAME)[:50])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peek_client_hello, server, SCRATCH)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
        assert server.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
        assert server.looks < 5


async def test_a_hello_that_cannot_be_answered_is_refused() -> None:
    client, server = await pair()
    with client, server:
        client.send(b"\x16\x03\x01\xff\xff")
        with pytest.raises(ClientHelloError):
            await peek_client_hello(server, SCRATCH)


async def test_a_unix_socket_has_no_watermark_and_works_all_the_same() -> None:
    client, server = socket.socketpair()
    data = real_hello(NAME)
    with client, server:
        server.setblocking(False)

        async def send() -> None:
            for piece in (data[:3], data[3:60], data[60:]):
                client.send(piece)
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            with trio.fail_after(10):
                found = await peek_client_hello(server, SCRATCH)
        assert found is not None
        assert found.server_name == NAME


# Handshakes.


async def serve(sock: socket.socket, context: ssl.SSLContext, turn: trio.Lock) -> TLSChannel | HandshakeError:
    try:
        return await shake_hands(sock, context, turn)
    except HandshakeError as error:
        await say_goodbye(sock, error, SCRATCH)
        return error


async def meet(
    context: ssl.SSLContext, client_context: ssl.SSLContext
) -> tuple[TLSChannel | HandshakeError, str]:
    """Return what became of a handshake at the server, and what the client saw: its cipher suite or its error."""
    client, server = await tcp_pair()
    outcome: list[TLSChannel | HandshakeError] = []
    seen = ""

    async def answer() -> None:
        found = await serve(server, context, trio.Lock())
        outcome.append(found)
        if isinstance(found, TLSChannel):
            await send_all(found, b"x")

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            try:
                channel = await handshake(client, client_context, NAME)
                try:
                    # In TLS 1.3 the client is done before its certificate is judged.
                    await receive_some(channel, bytearray(1))
                    seen = "-".join(channel.agreed())
                except OSError as error:
                    seen = str(error)
                channel.close()
            except DialError as error:
                seen = error.reason
    found = outcome[0]
    if isinstance(found, TLSChannel):
        found.close()
    return found, seen


def loaded(files: Files, **options: object) -> ssl.SSLContext:
    context = server_context(**options)  # type: ignore[arg-type]  # what each is, the test knows
    load_certificate(context, str(files.cert), str(files.key))
    return context


async def test_a_handshake(authority: Authority, files: Files) -> None:
    before = descriptors()
    client = authority.client()
    client.set_alpn_protocols(["h2", "http/1.1"])
    found, seen = await meet(loaded(files), client)
    assert isinstance(found, TLSChannel)
    assert seen.startswith("1.3-TLS_")
    assert descriptors() == before


async def test_versions_ciphers_and_curves(authority: Authority, files: Files) -> None:
    new, old = ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2
    _, seen = await meet(loaded(files, versions=(old, old)), authority.client())
    assert seen.startswith("1.2-ECDHE")
    ciphers = ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384"]
    _, seen = await meet(loaded(files, versions=(old, old), ciphers=ciphers), authority.client())
    assert seen.removeprefix("1.2-") in ciphers
    found, seen = await meet(loaded(files, versions=(new, new)), authority.client(maximum_version=old))
    assert isinstance(found, HandshakeError)
    assert found.reason == "the client offers no version of TLS that is allowed"
    assert "protocol version" in seen
    poor = authority.client(maximum_version=old)
    poor.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256")
    found, seen = await meet(loaded(files, ciphers=ciphers), poor)
    assert isinstance(found, HandshakeError)
    assert found.reason == "the client offers no cipher suite that is allowed"
    _, seen = await meet(loaded(files, curve="secp384r1"), authority.client())
    assert seen.startswith("1.3")
    stubborn = authority.client()
    stubborn.set_ecdh_curve("prime256v1")
    found, _ = await meet(loaded(files, curve="secp384r1"), stubborn)
    assert isinstance(found, HandshakeError)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_clients_certificates(
    tmp_path: Path, authority: Authority, files: Files, version: ssl.TLSVersion
) -> None:
    others, strangers = Authority(tmp_path, "clients"), Authority(tmp_path, "strangers")
    known, unknown = others.issue("known", "ada@x.test"), strangers.issue("unknown", "eve@x.test")
    for wanted, shows, reason in (
        ("required", known, ""),
        ("required", None, "the client showed no certificate"),
        ("required", unknown, "the client's certificate is not trusted"),
        ("optional", None, ""),
        ("optional", known, ""),
        ("optional", unknown, "the client's certificate is not trusted"),
        ("none", unknown, ""),
    ):
        context = loaded(files, client_certificate=wanted, client_cas=[str(others.file)])
        found, seen = await meet(context, authority.client(maximum_version=version, shows=shows))
        if not reason:
            assert isinstance(found, TLSChannel)
            continue
        assert isinstance(found, HandshakeError)
        assert found.reason.startswith(reason)
        # The client learns why, in either version.
        assert "alert" in seen.lower(), (wanted, shows, seen)


async def test_a_client_that_does_not_trust_us_is_told_apart(tmp_path: Path, files: Files) -> None:
    found, seen = await meet(loaded(files), Authority(tmp_path, "another").client())
    assert isinstance(found, HandshakeError)
    assert found.reason == "the client does not trust our certificate"
    assert "not trusted" in seen


@pytest.mark.parametrize(
    "data", [real_hello(NAME)[:60], real_hello(NAME) + b"\x16\x03\x03\x00\x04junk"], ids=["cut", "junk"]
)
async def test_a_client_that_breaks_off_leaves_nothing_behind(files: Files, data: bytes) -> None:
    before = descriptors()
    client, server = await tcp_pair()
    with client:
        client.send(data)
        client.shutdown(socket.SHUT_WR)
        with trio.fail_after(10):
            found = await serve(server, loaded(files), trio.Lock())
    assert isinstance(found, HandshakeError)
    assert found.reason
    assert descriptors() == before


async def test_a_cancelled_handshake_closes_its_socket(files: Files) -> None:
    before = descriptors()
    client, server = await tcp_pair()
    with client:
        with trio.move_on_after(0.05):
            await shake_hands(server, loaded(files), trio.Lock())
    assert descriptors() == before


async def test_handshakes_take_turns(authority: Authority, files: Files) -> None:
    """OpenSSL computes for one connection at a time, and other tasks run in between."""
    turn, context, client_context = trio.Lock(), loaded(files), authority.client()
    passes = 0
    done = trio.Event()

    async def live() -> None:
        nonlocal passes
        while not done.is_set():
            passes += 1
            await trio.lowlevel.checkpoint()

    async def greet(client: socket.socket) -> None:
        (await handshake(client, client_context, NAME)).close()

    async def one() -> None:
        client, server = await tcp_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(greet, client)
            channel = await shake_hands(server, context, turn)
        channel.close()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live)
            async with trio.open_nursery() as handshakes:
                for _ in range(20):
                    handshakes.start_soon(one)
            done.set()
    assert passes > 20


def test_a_certificate_from_memory(files: Files) -> None:
    before = descriptors()
    context = server_context()
    load_certificate_bytes(context, files.cert.read_bytes() + files.key.read_bytes())
    assert context.session_stats()["number"] == 0
    assert descriptors() == before


def test_no_tickets() -> None:
    context = server_context(tickets=False)
    assert context.num_tickets == 0
    assert context.options & ssl.OP_NO_TICKET
    assert context.options & ssl.OP_NO_RENEGOTIATION
