"""A peer that sends some bytes once more: the end of a connection is taken over, at an earlier sequence number (TCP_REPAIR)."""

from __future__ import annotations

import socket
import struct

REPAIR = 19
REPAIR_QUEUE = 20
QUEUE_SEQ = 21
REPAIR_OPTIONS = 22
TIMESTAMP = 24
REPAIR_WINDOW = 29

OFF_WITHOUT_PROBE = -1
LARGEST_SEGMENT = (
    32767  # all that may be wished for; a segment with old bytes alone would be dropped on arrival
)
RECEIVE_QUEUE, SEND_QUEUE = 1, 2
MSS_CODE, WINDOW_CODE, SACK_CODE, TIMESTAMP_CODE = 2, 3, 4, 8


def _get(sock: socket.socket, option: int) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, option) & 0xFFFFFFFF


def _set(sock: socket.socket, option: int, value: int) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, option, struct.pack("=I", value & 0xFFFFFFFF))


def sequence(sock: socket.socket, queue: int) -> int:
    """Return the next sequence number of a queue of a socket that is under repair."""
    _set(sock, REPAIR_QUEUE, queue)
    return _get(sock, QUEUE_SEQ)


def rewound(sock: socket.socket, back: int) -> socket.socket:
    """Return the same end of the connection, which sends its last `back` bytes again; everything must be acknowledged.

    `sock` is closed, without a packet. Raises OSError without CAP_NET_ADMIN.
    """
    sock.setsockopt(socket.IPPROTO_TCP, REPAIR, 1)
    written, received = sequence(sock, SEND_QUEUE), sequence(sock, RECEIVE_QUEUE)
    stamp = _get(sock, TIMESTAMP)
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    scales, mss = info[6], struct.unpack_from("=I", info, 16)[0]
    window = sock.getsockopt(socket.IPPROTO_TCP, REPAIR_WINDOW, 20)
    here, there = sock.getsockname(), sock.getpeername()
    sock.close()
    other = socket.socket()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    other.setsockopt(socket.IPPROTO_TCP, REPAIR, 1)
    other.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, LARGEST_SEGMENT)
    other.bind(here)
    for queue, number in ((SEND_QUEUE, written - back), (RECEIVE_QUEUE, received)):
        _set(other, REPAIR_QUEUE, queue)
        _set(other, QUEUE_SEQ, number)
    other.connect(there)
    _set(other, REPAIR_QUEUE, 0)
    options = (
        (MSS_CODE, mss),
        (WINDOW_CODE, (scales & 15) | scales >> 4 << 16),
        (SACK_CODE, 0),
        (TIMESTAMP_CODE, 0),
    )
    other.setsockopt(
        socket.IPPROTO_TCP, REPAIR_OPTIONS, b"".join(struct.pack("=II", *option) for option in options)
    )
    _set(other, TIMESTAMP, stamp)
    wl1, wnd, most, rcv_wnd, rcv_wup = struct.unpack("=5I", window)
    other.setsockopt(
        socket.IPPROTO_TCP,
        REPAIR_WINDOW,
        struct.pack("=5I", (wl1 - back) & 0xFFFFFFFF, wnd, most, rcv_wnd, rcv_wup),
    )
    other.setsockopt(socket.IPPROTO_TCP, REPAIR, OFF_WITHOUT_PROBE)
    other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    other.setblocking(False)
    return other
