"""TLS: the channel over an OpenSSL connection, and the contexts for backends.

The OpenSSL object reads and writes the socket itself, which spares the copies that memory BIOs cost. A TLS
connection cannot be half-closed: once either side says close_notify, both are done.
"""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Awaitable
from pathlib import Path

import trio

from trio_wsb.errors import DialError
from trio_wsb.net.channel import Buffer, ByteChannel, Data
from trio_wsb.net.sockets import check_open, set_reset_on_close

_RECORD = 16384
"""Bytes sealed at a time: one TLS record (RFC 8446 section 5.1), so that OpenSSL never holds more of ours."""

ANY_VERSION = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.MAXIMUM_SUPPORTED)
"""The versions of TLS that are safe (RFC 8996)."""

_NOT_TLS = frozenset(
    {"wrong version number", "http request", "packet length too long", "record layer failure"}
)
"""What OpenSSL says of bytes that are no TLS record at all, as those of a plain HTTP server."""


class CertificateError(OSError):
    """A certificate and a private key that cannot be used; says why and names the files."""


def client_context(
    *,
    verify: bool = True,
    root_cas: tuple[str, ...] = (),
    certificate: tuple[str, str] | None = None,
    versions: tuple[ssl.TLSVersion, ssl.TLSVersion] = ANY_VERSION,
) -> ssl.SSLContext:
    """Return a context for connections to backends: HTTP/1.1 only.

    Args:
      verify: whether the backend's certificate and name are checked.
      root_cas: PEM files with the authorities to trust instead of the system's.
      certificate: PEM files with our own certificate and its key, for backends that ask for one.
      versions: the lowest and the highest version of TLS.

    Raises:
      OSError: a file cannot be read; `ssl.SSLError` when it has no certificate.
      CertificateError: the certificate and the key cannot be used.

    """
    context = ssl.create_default_context()
    if root_cas:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for path in root_cas:
            context.load_verify_locations(path)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        load_certificate(context, *certificate)
    context.minimum_version, context.maximum_version = versions
    context.set_alpn_protocols(["http/1.1"])
    # Renegotiation would make a write wait for a read; nobody needs it.
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def load_certificate(context: ssl.SSLContext, cert_file: str, key_file: str) -> None:
    """Give `context` a certificate and its private key.

    Raises:
      CertificateError: a file cannot be read or holds something else, or they do not belong together.

    """
    for path in (cert_file, key_file):
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise CertificateError(
                f"{path} cannot be read: {(error.strerror or 'failed').lower()}"
            ) from error
    try:
        # Without a password OpenSSL would ask at the terminal.
        context.load_cert_chain(cert_file, key_file, password=_no_password)
    except _EncryptedKeyError:
        raise CertificateError(f"{key_file} is encrypted; write the key without a password") from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            message = f"{key_file} is not the key of the certificate in {cert_file}"
        elif error.reason in {"EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"}:
            message = f"{cert_file} has a key or a signature that OpenSSL holds too weak here"
        else:
            message = f"{cert_file} and {key_file} are no certificate and private key in PEM"
        raise CertificateError(message) from error


class _EncryptedKeyError(Exception):
    pass


def _no_password() -> str:
    raise _EncryptedKeyError


class TLSChannel(ByteChannel):
    """A byte channel over an established TLS connection, which it owns from then on.

    An end of the TCP connection without a close_notify breaks the channel: anybody on the way could have made it,
    and a response that lasts until the end would look complete (RFC 9112 section 9.8). `sock` must have been
    made with ``suppress_ragged_eofs=False``, which otherwise hides a reset as well.
    """

    __slots__ = ("_shut", "_sock")

    can_half_close = False

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self._shut = False  # our close_notify is out; the socket may be a plain one by now

    def agreed(self) -> tuple[str, str]:
        """Return the version of TLS, as ``1.3``, and the cipher suite."""
        cipher = self._sock.cipher()
        return sys.intern((self._sock.version() or "").removeprefix("TLSv")), sys.intern(
            cipher[0] if cipher else ""
        )

    def recv_into(self, buffer: Buffer, /) -> int:
        try:
            if self._shut:
                return self._receive_last(buffer)
            return self._sock.recv_into(buffer)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLError as error:
            raise ConnectionResetError(f"TLS failed: {error.reason}") from error

    def _receive_last(self, buffer: Buffer) -> int:
        if self._sock.fileno() != -1 and self._sock.version() is None:
            return 0  # both said close_notify, and what comes now would not be TLS
        try:
            return self._sock.recv_into(buffer)
        except ssl.SSLZeroReturnError:
            return 0

    def send(self, data: Data, /) -> int:
        if self._shut:
            raise BrokenPipeError("the connection was shut down")
        # OpenSSL wants a retried write to begin with the same bytes and to be no shorter: both hold, since
        # callers repeat what is left and a record's length only depends on that.
        try:
            return self._sock.send(memoryview(data)[:_RECORD])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLError as error:
            raise BrokenPipeError(f"TLS failed: {error.reason}") from error

    async def wait_readable(self) -> None:
        check_open(self._sock)
        if self._sock.pending():
            await trio.lowlevel.checkpoint()
            return
        await trio.lowlevel.wait_readable(self._sock)

    def wait_writable(self) -> Awaitable[None]:
        check_open(self._sock)
        return trio.lowlevel.wait_writable(self._sock)

    def shutdown(self) -> None:
        if self._shut:
            return
        self._shut = True
        try:
            self._sock.unwrap()
        except (OSError, ValueError):
            # close_notify is out, or the peer is gone; its own close_notify is not waited for.
            pass

    def close(self) -> None:
        if self._sock.fileno() != -1:
            # RFC 8446 section 6.1: each party says close_notify before it closes its side.
            self.shutdown()
            self._close()

    def abort(self) -> None:
        if self._sock.fileno() != -1:
            set_reset_on_close(self._sock)
            self._close()

    def _close(self) -> None:
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()


async def handshake(sock: socket.socket, context: ssl.SSLContext, server_name: str) -> TLSChannel:
    """Make `sock` a TLS connection as its client; the socket belongs to the channel, or is closed on failure.

    Raises:
      DialError: the handshake failed (stage "tls"); its reason says why the certificate was refused.

    """
    try:
        secured = context.wrap_socket(
            sock, server_hostname=server_name, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
    except (OSError, ValueError) as error:
        sock.close()
        raise DialError("tls", "the connection was lost before the handshake") from error
    try:
        while True:
            try:
                secured.do_handshake()
                return TLSChannel(secured)
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(secured)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(secured)
    except ssl.SSLCertVerificationError as error:
        secured.close()
        raise DialError("tls", f"the certificate is not trusted: {error.verify_message}") from error
    except OSError as error:
        secured.close()
        raise DialError("tls", _reason(error)) from error
    except BaseException:
        secured.close()
        raise


def _reason(error: OSError) -> str:
    reason = str(getattr(error, "reason", None) or error.strerror or "the handshake failed")
    reason = reason.replace("_", " ").lower()
    if reason in _NOT_TLS:
        return f"the answer is not TLS: {reason}"
    return reason
