"""Which relay moves a session's bytes: the kernel where it may and can, else the one in user space."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import structlog
from attrs import frozen

from trio_wsb.net.channel import ByteChannel
from trio_wsb.net.kernel.table import KernelTable
from trio_wsb.net.sockets import SocketChannel

log = structlog.stdlib.get_logger("trio_wsb.relay")

RelayKind: TypeAlias = Literal["kernel", "stream"]
RelayMode: TypeAlias = Literal["auto", "kernel", "stream"]

CONFIGURED: Final = "configured"
UNAVAILABLE: Final = "not available"
NOT_TCP: Final = "not plain TCP"
MIRRORED: Final = "mirrored"
FULL: Final = "table full"
REFUSED: Final = "refused by the kernel"
BUSY: Final = "too much came early"
LEFT: Final = "a peer has left already"

MOST_WAITING: Final = 1 << 18
"""Bytes that may have come before the session is in the kernel; they are read first, and go on as early ones."""

_PIECE: Final = 4096


@frozen
class KernelState:
    """Whether there is a relay in the kernel; `reason` says why there is none."""

    table: KernelTable | None = None
    reason: str = CONFIGURED


@frozen
class Relayed:
    """The channels of a session and who moves its bytes; `reason` says why it is not the kernel."""

    client: ByteChannel
    backend: ByteChannel
    kind: RelayKind = "stream"
    reason: str = ""
    client_early: bytes = b""
    """What was read from the client meanwhile, to go on first."""
    backend_early: bytes = b""


def choose_relay(
    table: KernelTable | None,
    mode: RelayMode,
    client: ByteChannel,
    backend: ByteChannel,
    *,
    mirrored: bool,
) -> Relayed:
    """Return the channels to relay over: those given, or others that own their sockets from then on.

    Everything that was read from them must have been written, but for what the relay is given as early bytes.

    Args:
      table: the sessions in the kernel, None if there can be none.
      mode: what the configuration says of the service.
      client: the client's channel.
      backend: the backend's channel.
      mirrored: whether the client's bytes are copied.

    """
    reason = _against(table, mode, client, backend, mirrored=mirrored)
    if reason:
        return Relayed(client, backend, reason=reason)
    assert table is not None
    assert isinstance(client, SocketChannel)
    assert isinstance(backend, SocketChannel)
    client_early, client_ended = _read_up(client)
    backend_early, backend_ended = _read_up(backend)
    early = client_early, backend_early
    if client_ended or backend_ended:
        # Linux would not take it; and a probe, or a client that was lost, is not worth the way there.
        return Relayed(client, backend, "stream", LEFT, *early)
    if max(map(len, early)) >= MOST_WAITING:
        return Relayed(client, backend, "stream", BUSY, *early)
    try:
        legs = table.enter(client.socket, backend.socket)
    except OSError as error:
        reason = LEFT if client.has_ended() or backend.has_ended() else REFUSED
        log.debug("session not in the kernel", reason=(error.strerror or "failed").lower())
        return Relayed(client, backend, "stream", reason, *early)
    if legs is None:
        return Relayed(client, backend, "stream", FULL, *early)
    client.disown()
    backend.disown()
    return Relayed(*legs, "kernel", "", *early)


def _read_up(channel: SocketChannel) -> tuple[bytes, bool]:
    """Return what waits in a socket, so that it does not enter the kernel's map with a segment that was read in part.

    And whether its peer's end came behind that.
    """
    data, buffer = b"", bytearray(_PIECE)
    while len(data) < MOST_WAITING:
        try:
            count = channel.recv_into(buffer)
        except OSError:  # that there is nothing, or that it broke, which the relay will say
            break
        if not count:
            return data, True
        data += buffer[:count]
    return data, False


def _against(
    table: KernelTable | None,
    mode: RelayMode,
    client: ByteChannel,
    backend: ByteChannel,
    *,
    mirrored: bool,
) -> str:
    """Return what speaks against the kernel, "" for nothing."""
    if mode == "stream":
        return CONFIGURED
    if table is None:
        return UNAVAILABLE
    if mirrored:
        return MIRRORED
    for channel in (client, backend):
        if not (isinstance(channel, SocketChannel) and channel.is_tcp):
            return NOT_TCP
    return ""
