"""TLS over loopback: the handshake and its failures, and how a connection ends."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme
from cryptography.hazmat.primitives import serialization

from tests.net.pairs import (
    CA,
    NAME,
    descriptors,
    serve_tls,
    server_context,
    tcp_pair,
    tls_pair,
    trusting_context,
)
from trio_wsb.addresses import parse_backend_url
from trio_wsb.errors import DialError
from trio_wsb.net.channel import receive_some, send_all
from trio_wsb.net.sockets import SocketChannel
from trio_wsb.net.tls import CertificateError, TLSChannel, client_context, handshake
from trio_wsb.proxy.runtime import TransportRuntime
from trio_wsb.proxy.upstream import dial

Server = Callable[[socket.socket], Awaitable[socket.socket | None]]
"""What the other end of a TCP connection does; returns the socket that is left to be closed, if it is another."""


async def shake_hands(server: Server, context: ssl.SSLContext, name: str = NAME) -> TLSChannel:
    """Make a client connection to `server`, which gets its end of a TCP connection."""
    client, accepted = await tcp_pair()

    async def serve() -> None:
        try:
            left = await server(accepted)
        except OSError:
            return  # the client did not like it
        if left is not None:
            left.close()

    found: list[TLSChannel | DialError] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        try:
            found.append(await handshake(client, context, name))
        except DialError as error:
            found.append(error)  # raised outside, for a nursery would wrap it in a group
            nursery.cancel_scope.cancel()
        accepted.close()
    if isinstance(found[0], DialError):
        raise found[0]
    return found[0]


async def failure(server: Server, context: ssl.SSLContext, name: str = NAME) -> DialError:
    """Return the error of a handshake that must fail, and see that it leaves no descriptor open."""
    before = descriptors()
    with pytest.raises(DialError) as caught:
        await shake_hands(server, context, name)
    assert descriptors() == before
    return caught.value


@pytest.fixture
def root(tmp_path: Path) -> str:
    CA.cert_pem.write_to_path(str(tmp_path / "root.pem"))
    return str(tmp_path / "root.pem")


# Contexts.


async def test_a_handshake_with_a_trusted_backend(root: str) -> None:
    seen: list[str | None] = []
    context = server_context()
    context.set_alpn_protocols(["h2", "http/1.1"])

    def note(_sock: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        seen.append(name)

    context.sni_callback = note

    async def server(sock: socket.socket) -> socket.socket:
        secured = await serve_tls(sock, context)
        seen.append(secured.selected_alpn_protocol())
        return secured

    channel = await shake_hands(server, client_context(root_cas=(root,)))
    channel.close()
    assert seen == [NAME, "http/1.1"]


async def test_an_address_in_the_certificate(root: str) -> None:
    async def server(sock: socket.socket) -> socket.socket:
        return await serve_tls(sock, server_context("127.0.0.1"))

    channel = await shake_hands(server, client_context(root_cas=(root,)), "127.0.0.1")
    channel.close()


async def test_an_unknown_authority_is_refused_unless_nothing_is_verified(root: str) -> None:
    async def server(sock: socket.socket) -> socket.socket:
        return await serve_tls(sock, server_context(ca=trustme.CA()))

    error = await failure(server, client_context(root_cas=(root,)))
    assert (error.stage, error.reason) == (
        "tls",
        "the certificate is not trusted: unable to get local issuer certificate",
    )
    error = await failure(server, client_context())
    assert error.stage == "tls"
    (await shake_hands(server, client_context(verify=False))).close()


async def test_another_name_is_refused_unless_nothing_is_verified(root: str) -> None:
    async def server(sock: socket.socket) -> socket.socket:
        return await serve_tls(sock, server_context("other.example"))

    error = await failure(server, client_context(root_cas=(root,)))
    assert error.stage == "tls"
    assert error.reason.startswith("the certificate is not trusted: Hostname mismatch")
    (await shake_hands(server, client_context(verify=False, root_cas=(root,)))).close()


class Identity:
    """A certificate of a client, in files."""

    def __init__(self, folder: Path, name: str = "client.example") -> None:
        issued = CA.issue_cert(name)
        self.cert, self.key = str(folder / f"{name}.pem"), str(folder / f"{name}.key")
        issued.private_key_pem.write_to_path(self.key)
        for index, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(self.cert, append=index > 0)


async def test_a_backend_that_asks_for_a_certificate_gets_ours(root: str, tmp_path: Path) -> None:
    ours = Identity(tmp_path)
    shown: list[object] = []
    context = server_context()
    CA.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED

    async def server(sock: socket.socket) -> socket.socket:
        secured = await serve_tls(sock, context)
        certificate = secured.getpeercert()
        shown.append(None if certificate is None else certificate.get("subjectAltName"))
        return secured

    context_of_ours = client_context(root_cas=(root,), certificate=(ours.cert, ours.key))
    (await shake_hands(server, context_of_ours)).close()
    assert shown == [(("DNS", "client.example"),)]


async def test_a_version_that_the_backend_does_not_know(root: str) -> None:
    context = server_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    async def server(sock: socket.socket) -> socket.socket:
        return await serve_tls(sock, context)

    only_13 = (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3)
    assert (await failure(server, client_context(root_cas=(root,), versions=only_13))).stage == "tls"
    only_12 = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)
    (await shake_hands(server, client_context(root_cas=(root,), versions=only_12))).close()


def test_certificates_that_cannot_be_loaded(tmp_path: Path) -> None:
    one, other = Identity(tmp_path), Identity(tmp_path, "other.example")
    missing = str(tmp_path / "none.pem")
    with pytest.raises(CertificateError, match=r"none\.pem cannot be read: no such file"):
        client_context(certificate=(one.cert, missing))
    with pytest.raises(
        CertificateError, match=r"other\.example\.key is not the key of the certificate in .*client"
    ):
        client_context(certificate=(one.cert, other.key))
    with pytest.raises(CertificateError, match="are no certificate and private key in PEM"):
        client_context(certificate=(one.key, one.key))
    key = serialization.load_pem_private_key(Path(one.key).read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(CertificateError, match=r"locked\.key is encrypted"):
        client_context(certificate=(one.cert, str(locked)))


def test_authorities_that_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client_context(root_cas=(str(tmp_path / "none.pem"),))
    (tmp_path / "empty.pem").write_text("nothing\n")
    with pytest.raises(ssl.SSLError):
        client_context(root_cas=(str(tmp_path / "empty.pem"),))


# Failures.


async def test_a_server_that_does_not_speak_tls() -> None:
    async def server(sock: socket.socket) -> None:
        await send_all(SocketChannel(sock), b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await trio.sleep_forever()

    error = await failure(server, trusting_context())
    assert (error.stage, error.reason.partition(":")[0]) == ("tls", "the answer is not TLS")


async def test_a_server_that_ends_the_connection_at_once() -> None:
    async def server(sock: socket.socket) -> None:
        await trio.lowlevel.wait_readable(sock)
        sock.recv(65536)
        sock.shutdown(socket.SHUT_WR)
        await trio.sleep_forever()

    error = await failure(server, trusting_context())
    assert error.stage == "tls"
    assert "eof" in error.reason


async def test_a_server_that_resets_the_connection() -> None:
    async def server(sock: socket.socket) -> None:
        await trio.lowlevel.wait_readable(sock)
        SocketChannel(sock).abort()

    error = await failure(server, trusting_context())
    assert error.stage == "tls"


async def test_a_server_without_a_common_version() -> None:
    context = server_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    mine = trusting_context()
    mine.maximum_version = ssl.TLSVersion.TLSv1_2

    async def server(sock: socket.socket) -> socket.socket:
        return await serve_tls(sock, context)

    error = await failure(server, mine)
    assert "protocol version" in error.reason


async def test_a_connection_that_is_gone_before_the_handshake() -> None:
    client, server = await tcp_pair()
    server.close()
    client.close()
    with pytest.raises(DialError) as caught:
        await handshake(client, trusting_context(), NAME)
    assert caught.value.stage == "tls"


async def test_a_handshake_that_is_cancelled_closes_its_socket(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client, server = await tcp_pair()
    with trio.move_on_after(1):
        await handshake(client, trusting_context(), NAME)
    await trio.lowlevel.wait_readable(server)
    while data := server.recv(65536):
        assert data  # its first message, then the end
    server.close()


# The whole dial.


async def dialled(port: int, context: ssl.SSLContext | None, scheme: str) -> str:
    """Dial the server on `port` and return why that failed."""
    url = parse_backend_url(f"{scheme}://127.0.0.1:{port}")
    with pytest.raises(DialError) as caught:
        await dial(url, TransportRuntime(2.0, 0.0, context, NAME))
    return str(caught.value)


async def test_a_dial_times_out_in_the_handshake(autojump_clock: trio.testing.MockClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reason = await dialled(listener.getsockname()[1], trusting_context(), "https")
    assert reason == "timeout: no connection in time"
    assert trio.current_time() == pytest.approx(2.0)


async def test_a_dial_that_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert await dialled(port, None, "http") == "connect: connection refused"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_dial_that_succeeds(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = parse_backend_url(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}")
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await trio.lowlevel.wait_readable(listener)
                sock, _ = listener.accept()
                sock.setblocking(False)
                if url.tls:
                    sock = await serve_tls(sock, server_context())
                sock.send(b"hello")
                sock.close()

            nursery.start_soon(serve)
            channel = await dial(url, TransportRuntime(2.0, 0.0, trusting_context(), NAME))
            assert isinstance(channel, TLSChannel if url.tls else SocketChannel)
            assert await receive_some(channel, bytearray(10)) == 5
            channel.close()


# The end.


async def received(sock: ssl.SSLSocket) -> bytes:
    """Receive until close_notify; any other end raises."""
    data = b""
    while True:
        try:
            piece = sock.recv(65536)
        except ssl.SSLWantReadError:
            await trio.lowlevel.wait_readable(sock)
            continue
        if not piece:
            return data
        data += piece


@pytest.mark.parametrize("end", ["shutdown", "close"])
async def test_we_say_close_notify(end: str) -> None:
    channel, server = await tls_pair()
    await send_all(channel, b"bye")
    getattr(channel, end)()
    assert await received(server) == b"bye"
    server.close()
    channel.close()


async def test_an_abort_says_nothing() -> None:
    channel, server = await tls_pair()
    await send_all(channel, b"bye")
    channel.abort()
    with pytest.raises(OSError):
        await received(server)
    server.close()


async def test_an_end_without_close_notify_is_no_orderly_end() -> None:
    """Anybody on the way can send a FIN, but not a close_notify."""
    channel, server = await tls_pair()
    server.send(b"half of it")
    with socket.socket(fileno=os.dup(server.fileno())) as below:
        below.shutdown(socket.SHUT_WR)
    buffer = bytearray(100)
    assert await receive_some(channel, buffer) == 10
    with pytest.raises(ConnectionResetError):
        await receive_some(channel, buffer)
    channel.close()
    server.close()


async def test_bytes_that_are_no_tls_break_the_channel() -> None:
    channel, server = await tls_pair()
    with socket.socket(fileno=os.dup(server.fileno())) as below:
        below.send(b"HTTP/1.1 200 OK\r\n\r\n")
    with pytest.raises(ConnectionResetError, match="TLS failed"):
        await receive_some(channel, bytearray(100))
    with pytest.raises(BrokenPipeError):
        channel.send(b"x")
    channel.close()
    server.close()


async def test_nothing_plain_is_sent_or_read_after_the_end() -> None:
    channel, server = await tls_pair()
    with pytest.raises(ssl.SSLWantReadError):
        server.unwrap()
    assert await receive_some(channel, bytearray(10)) == 0
    channel.shutdown()  # both have said close_notify: the socket below is a plain one from here on
    below = socket.socket(fileno=os.dup(server.fileno()))
    below.setblocking(False)
    below.send(b"plain text")
    assert channel.recv_into(bytearray(10)) == 0
    with pytest.raises(BrokenPipeError):
        channel.send(b"secret")
    channel.close()
    seen = b""
    with below:
        try:
            await trio.lowlevel.wait_readable(below)
            seen = below.recv(65536)
        except ConnectionResetError:
            pass
    assert b"secret" not in seen
    server.close()


async def test_leftovers_of_a_record_are_readable_at_once() -> None:
    channel, server = await tls_pair()
    server.send(b"hello world")
    buffer = bytearray(2)
    await receive_some(channel, buffer)
    with trio.fail_after(10):
        await channel.wait_readable()  # nothing more will come to the socket
    assert channel.recv_into(buffer) == 2
    assert buffer == b"ll"
    channel.close()
    server.close()
