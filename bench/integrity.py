"""Integrity under load: ``python -m bench.integrity``. Every byte once and in order, and bounded memory, in both relays.

Sessions of real frames, as many bytes each way at the same time, written in pieces of random sizes, while some receivers are slow;
digests of what came must be those of what was sent. Then a client floods a backend that never reads.

With ``--pings`` or ``--drain`` the balancer has something to say itself meanwhile (`bench.drills`).

Exit status: 0 all of it held, 1 something did not.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Self

import yaml

from bench import drills
from bench.processes import free_port, resident_bytes, running

GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
FLOOD_BOUND: Final = 16 << 20
PATIENCE: Final = 120.0
KINDS: Final = ((1, 200), (2, 65_536), (2, 1 << 20), (drills.PING, drills.PING_OF_TRAFFIC))
"""Opcodes and most bytes of the frames; a ping has just as many."""


def main() -> int:
    """Run it and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.integrity", description=__doc__.partition("\n")[0])
    parser.add_argument("--relays", default="stream,kernel")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--mib", type=int, default=60, help="in each direction of each session")
    parser.add_argument(
        "--loss",
        type=float,
        default=0.0,
        metavar="PERCENT",
        help="of packets, in a network namespace of its own",
    )
    parser.add_argument("--pings", action="store_true", help="the balancer pings whoever says nothing")
    parser.add_argument("--drain", action="store_true", help="the backend is drained meanwhile")
    options = parser.parse_args()
    if options.loss:
        return with_loss(options)
    failed = 0
    # Who answers the pings of others is never silent, and gets none of the balancer's.
    kinds = KINDS[:-1] if options.pings else KINDS
    up, down = (traffic(random.Random(seed), options.mib << 20, kinds, masked=not seed) for seed in (0, 1))
    for relay in options.relays.split(","):
        for run in range(options.runs):
            if options.pings or options.drain:
                failed += not drill(relay, options, up, down, seed=run)
                continue
            with Stage(relay) as stage:
                begun = time.monotonic()
                good = exchange(stage, options.sessions, up, down, seed=run)
                megabytes = options.sessions * (len(up) + len(down)) / 1e6
                speed = megabytes / (time.monotonic() - begun)
            failed += not good
            print(
                f"{relay:<7} run {run + 1:<3} {'equal' if good else 'DIFFERENT'}  {speed:,.0f} MB/s",
                flush=True,
            )
        if options.pings or options.drain:
            continue
        with Stage(relay) as stage:
            sent, grown = flood(stage)
        good = sent < FLOOD_BOUND and grown < FLOOD_BOUND
        failed += not good
        print(
            f"{relay:<7} flood   {sent / 2**20:.1f} MiB taken, daemon grew {grown / 2**20:.1f} MiB"
            f"{'' if good else ', TOO MUCH'}",
            flush=True,
        )
    return 1 if failed else 0


def with_loss(options: argparse.Namespace) -> int:
    """Run it where packets are lost, and return its exit status. It takes root, unshare, ip and nft."""
    one_of = round(100 / options.loss)
    rules = (
        "ip link set lo up && nft add table inet loss"
        " && nft add chain inet loss in '{ type filter hook input priority 0; }'"
        f" && nft add rule inet loss in meta l4proto tcp numgen random mod {one_of} == 0 drop"
        ' && exec "$0" "$@"'
    )
    again = [f"--{name}={getattr(options, name)}" for name in ("relays", "runs", "sessions", "mib")]
    again += [f"--{name}" for name in ("pings", "drain") if getattr(options, name)]
    command = ["unshare", "--net", "sh", "-c", rules, sys.executable, "-m", "bench.integrity", *again]
    return subprocess.run(command, check=False).returncode


def drill(relay: str, options: argparse.Namespace, up: bytes, down: bytes, seed: int) -> bool:
    """Run one exchange while the balancer has something to say itself; whether all was right."""
    with Stage(relay, pings=options.pings) as stage:
        pairs = [stage.session() for _ in range(options.sessions)]
        command = drills.drain_command(stage.control, stage.url) if options.drain else None
        good, told = drills.exchange(pairs, up, down, seed, command)
        if not good:
            stage.tell()
    print(f"{relay:<7} run {seed + 1:<3} {'right' if good else 'WRONG'}  {told}", flush=True)
    return good


class Stage:
    """A daemon with one relay, and the listener of its backend, which is ours."""

    def __init__(self, relay: str, *, pings: bool = False) -> None:
        self._stack = ExitStack()
        self.backend = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._stack.enter_context(self.backend)
        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="bench-integrity-")))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.backend.getsockname()[1]}"
        self.control = str(folder / "control.sock")
        document = {
            "entryPoints": {"web": {"address": f"127.0.0.1:{self.port}"}},
            "control": {"socket": self.control},
            "log": {"level": "WARN"},
            "accessLog": {"format": "json"},
            "http": {
                "routers": {"all": {"rule": "PathPrefix(`/`)", "service": "all"}},
                "services": {
                    "all": {
                        "loadBalancer": {
                            "servers": [{"url": self.url}],
                            "relay": relay,
                            "session": {"writeTimeout": 0, **({"pingInterval": "1s"} if pings else {})},
                        }
                    }
                },
            },
        }
        path = folder / "trio-wsb.yaml"
        path.write_text(yaml.safe_dump(document))
        command: list[str | Path] = [sys.executable, "-m", "trio_wsb", "run", "--config", path]
        self.log = folder / "output.log"
        self.daemon = self._stack.enter_context(running("trio-wsb", command, self.log, port=self.port))

    def tell(self) -> None:
        """Print the last lines of the log."""
        print(*self.log.read_text().splitlines()[-30:], sep="\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def session(self) -> tuple[socket.socket, socket.socket]:
        """Open a session and return its client's and its backend's end."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        key = base64.b64encode(os.urandom(16))
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
        )
        backend, _ = self.backend.accept()
        backend.settimeout(PATIENCE)
        _head(backend)
        accept = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
        backend.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        assert _head(client).startswith(b"HTTP/1.1 101")
        for sock in (client, backend):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client, backend


def _head(sock: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    return head


def traffic(
    rng: random.Random, size: int, kinds: Sequence[tuple[int, int]] = KINDS, *, masked: bool
) -> bytes:
    """Return frames of all sizes, `size` bytes or a little more."""
    pieces: list[bytes] = []
    total = 0
    block = rng.randbytes(1 << 20)
    while total < size:
        opcode, most = rng.choice(kinds)
        length = rng.randrange(most) if opcode != drills.PING else most
        bit = 0x80 if masked else 0
        if length < 126:
            head = bytes([0x80 | opcode, bit | length])
        elif length < 1 << 16:
            head = bytes([0x80 | opcode, bit | 126]) + length.to_bytes(2, "big")
        else:
            head = bytes([0x80 | opcode, bit | 127]) + length.to_bytes(8, "big")
        start = rng.randrange(len(block) - length + 1)
        piece = head + (rng.randbytes(4) if masked else b"") + block[start : start + length]
        pieces.append(piece)
        total += len(piece)
    return b"".join(pieces)


def exchange(stage: Stage, sessions: int, up: bytes, down: bytes, seed: int) -> bool:
    """Send `up` and `down` in every session at the same time; whether all came as they went."""
    expected = [(hashlib.sha256(data).digest(), len(data)) for data in (up, down)]
    pairs = [stage.session() for _ in range(sessions)]
    with ThreadPoolExecutor(4 * sessions) as threads:
        received = []
        for number, (client, backend) in enumerate(pairs):
            rng = random.Random(seed * 1000 + number)
            for data, source, sink in ((up, client, backend), (down, backend, client)):
                threads.submit(_send, source, data, random.Random(rng.random()))
                slow = number % 2 == 1
                received.append(threads.submit(_receive, sink, random.Random(rng.random()) if slow else None))
        found = [each.result() for each in received]
    for pair in pairs:
        for sock in pair:
            sock.close()
    good = True
    for index, each in enumerate(found):
        if each != expected[index % 2]:
            good = False
            way = ("to the backend", "to the client")[index % 2]
            begun = hashlib.sha256((up, down)[index % 2][: each[1]]).digest() == each[0]
            print(
                f"session {index // 2} {way}: {each[1]:,} bytes came of {expected[index % 2][1]:,}, "
                f"{'right as far as they go' if begun else 'wrong'}"
            )
    if not good:
        stage.tell()
    return good


def _send(sock: socket.socket, data: bytes, rng: random.Random) -> None:
    view, position = memoryview(data), 0
    while position < len(view):
        # Small pieces cost a system call each, so there are few of them.
        size = rng.choice(drills.PIECES) if rng.random() < 0.1 else 300_000
        sock.sendall(view[position : position + size])
        position += size
    sock.shutdown(socket.SHUT_WR)


def _receive(sock: socket.socket, slowly: random.Random | None) -> tuple[bytes, int]:
    digest, size = hashlib.sha256(), 0
    buffer = bytearray(1 << 18)
    view = memoryview(buffer)
    while True:
        count = sock.recv_into(buffer)
        if not count:
            return digest.digest(), size
        digest.update(view[:count])
        size += count
        if slowly is not None and slowly.random() < 0.02:
            time.sleep(0.01)


def flood(stage: Stage) -> tuple[int, int]:
    """Let a client send to a backend that reads nothing; return the bytes taken of it, and by how much the daemon grew."""
    client, backend = stage.session()
    before = resident_bytes(stage.daemon.pid)
    message = traffic(random.Random(0), 1 << 20, masked=True)
    sent = 0
    # What the sockets at both ends hold is theirs; small buffers leave the balancer's part.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
    client.settimeout(3)
    try:
        while sent < 16 * FLOOD_BOUND:
            sent += client.send(message)
    except TimeoutError:
        pass
    grown = resident_bytes(stage.daemon.pid) - before
    client.close()
    backend.close()
    return sent, grown


if __name__ == "__main__":
    sys.exit(main())
