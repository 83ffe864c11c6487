"""TLS as a server: the ClientHello before anything is decided, contexts for clients, and the handshake.

    accepted -> hello looked at -> context chosen -> handshake -> TLSChannel

The context must be chosen before OpenSSL sees the connection: its callback for the server name comes too late to
change versions or whether the client's certificate is asked for.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
from collections.abc import Sequence
from typing import Final, Literal

import trio

from trio_wsb.net.channel import linger
from trio_wsb.net.clienthello import (
    MAX_HELLO,
    ClientHello,
    ClientHelloError,
    Incomplete,
    alert_record,
    parse_client_hello,
)
from trio_wsb.net.sockets import SocketChannel
from trio_wsb.net.tls import ANY_VERSION, TLSChannel, load_certificate

STALL_PAUSE: Final = 0.05
"""Seconds before another look at a hello that has not grown though the socket is readable."""

FAREWELL: Final = 1.0
"""Seconds that a client gets to read why its handshake failed."""

FAREWELL_LIMIT: Final = 64 * 1024
"""Bytes that it may still send meanwhile."""

_VERIFY: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


class HandshakeError(Exception):
    """A client's TLS handshake failed; `reason` is for the log and has nothing in it that the client sent."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def server_context(
    *,
    versions: tuple[ssl.TLSVersion, ssl.TLSVersion] = ANY_VERSION,
    ciphers: Sequence[str] = (),
    curve: str | None = None,
    client_certificate: Literal["none", "optional", "required"] = "none",
    client_cas: Sequence[str] = (),
    tickets: bool = True,
) -> ssl.SSLContext:
    """Return a context for connections of clients, still without a certificate: HTTP/1.1 only.

    Args:
      versions: the lowest and the highest version of TLS.
      ciphers: OpenSSL's names of cipher suites of TLS 1.2, in the order of preference; none means the safe ones.
      curve: OpenSSL's name of the one curve to use.
      client_certificate: whether the client's certificate is asked for, and must be shown; it is always verified.
      client_cas: PEM files with the authorities of clients' certificates.
      tickets: whether clients may resume TLS sessions.

    Raises:
      OSError: a file cannot be read; `ssl.SSLError` when OpenSSL takes none of the ciphers, or a file has no certificate.

    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = versions
    if ciphers:
        context.set_ciphers(":".join(ciphers))
    if curve is not None:
        context.set_ecdh_curve(curve)
    context.verify_mode = _VERIFY[client_certificate]
    if client_certificate != "none":
        for path in client_cas:
            context.load_verify_locations(path)
        # An authority that is named is trusted even if it was issued by another one.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not tickets:
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    # A client that could renegotiate could make us do the costly part again and again (CVE-2011-1473).
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_COMPRESSION
    return context


def load_certificate_bytes(context: ssl.SSLContext, pem: bytes) -> None:
    """Give `context` the certificate and the key that `pem` holds, without a file that others could read."""
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem)
        path = f"/proc/self/fd/{descriptor}"
        load_certificate(context, path, path)
    finally:
        os.close(descriptor)


async def peek_client_hello(sock: socket.socket, scratch: memoryview) -> ClientHello | None:
    """Wait for the ClientHello of a new connection and return it, None if the client does not speak TLS.

    Nothing is taken from the socket. The caller sets the deadline.

    Args:
      sock: the connection, non-blocking; stays the caller's.
      scratch: a buffer of at least `MAX_HELLO` bytes, used between two checkpoints only.

    Raises:
      ClientHelloError: it cannot be answered.
      OSError: the connection ended first.

    """
    seen = 0
    watermark = 1
    try:
        while True:
            try:
                size = sock.recv_into(scratch, MAX_HELLO, socket.MSG_PEEK)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(sock)
                continue
            if not size:
                raise ConnectionResetError("the connection ended before the ClientHello")
            found = parse_client_hello(scratch[:size])
            if not isinstance(found, Incomplete):
                return found
            if size == seen:
                # What has come keeps the socket readable: only the end of the stream or a watermark that the
                # kernel does not keep (Unix sockets) leads here again.
                if _has_ended(sock):
                    raise ConnectionResetError("the connection ended within the ClientHello")
                await trio.sleep(STALL_PAUSE)
            seen = size
            if found.needed != watermark:
                # SO_RCVLOWAT in socket(7): not readable before so much has come, or each byte would wake us.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, found.needed)
                watermark = found.needed
            await trio.lowlevel.wait_readable(sock)
    finally:
        if watermark != 1 and sock.fileno() != -1:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


def _has_ended(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))


async def shake_hands(sock: socket.socket, context: ssl.SSLContext, turn: trio.Lock) -> TLSChannel:
    """Make `sock` a TLS connection as its server.

    Args:
      sock: the connection; belongs to the channel, and when this raises HandshakeError still to the caller, who may
        send nothing more on it. It is closed when this is cancelled.
      context: what the connection is secured with.
      turn: held while OpenSSL computes. Each turn is a pass of the event loop, so that a thousand handshakes at
        once, a millisecond each, do not make live sessions wait for a second.

    Raises:
      HandshakeError: with the reason; the client has been told.

    """
    try:
        secured = context.wrap_socket(
            sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
    except (OSError, ValueError) as error:
        raise HandshakeError("the connection was lost") from error
    try:
        while True:
            try:
                async with turn:
                    secured.do_handshake()
                return TLSChannel(secured)
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(secured)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(secured)
    except OSError as error:
        raise _Failed(socket.socket(fileno=secured.detach()), _reason(error)) from error
    except BaseException:
        secured.close()
        raise


class _Failed(HandshakeError):
    """A handshake that OpenSSL ended; `sock` is the plain connection under it."""

    def __init__(self, sock: socket.socket, reason: str) -> None:
        super().__init__(reason)
        self.sock = sock


async def say_goodbye(sock: socket.socket, error: Exception, scratch: memoryview) -> None:
    """Close the connection after its handshake failed with `error`, so that the client gets to read the alert."""
    if isinstance(error, _Failed):
        sock = error.sock
        sock.setblocking(False)
    channel = SocketChannel(sock)
    try:
        if isinstance(error, ClientHelloError):
            sock.send(alert_record(error.alert))
        await linger(channel, scratch, seconds=FAREWELL, limit=FAREWELL_LIMIT)
    except OSError:
        pass
    finally:
        channel.close()


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError):
        return "the client left"
    if not isinstance(error, ssl.SSLError) or error.reason is None:
        return "the connection was lost"
    return _REASONS.get(error.reason) or error.reason.replace("_", " ").lower()


_REASONS: Final = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client showed no certificate",
    "UNSUPPORTED_PROTOCOL": "the client offers no version of TLS that is allowed",
    "NO_SHARED_CIPHER": "the client offers no cipher suite that is allowed",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not trust our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client does not accept our certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client does not accept our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client finds our certificate expired",
}
