"""A host of its own for a test: a network namespace with one link to this one, which can be silenced or cut.

Sockets belong to the namespace in which they were made, so clients and backends over there are tasks of the test like any other.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000


class Host:
    """Another host, at `address`; ours is `gateway` there."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.link = f"wsb{number}"
        self.address = f"10.203.{number}.2"
        self.gateway = f"10.203.{number}.1"

    def ip(self, *words: str) -> None:
        """Run ip(8) over there."""
        run("ip", "-n", self.name, *words)

    def silence(self) -> None:
        """Let nothing come from there any more: no answer, no acknowledgement, no end."""
        self.ip("route", "add", "blackhole", f"{self.gateway}/32")

    def speak(self) -> None:
        """End the silence."""
        self.ip("route", "del", "blackhole", f"{self.gateway}/32")

    def cut(self) -> None:
        """Take the link away, as when a laptop is closed."""
        run("ip", "link", "set", self.link, "down")

    def there(self, make: Callable[[], T]) -> T:
        """Return what `make` makes over there; it must not need the event loop."""
        made: list[T] = []
        failed: list[BaseException] = []

        def enter() -> None:
            try:
                descriptor = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
                try:
                    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                finally:
                    os.close(descriptor)
                made.append(make())
            except BaseException as error:
                failed.append(error)

        # A thread that ends takes its namespace with it; the others have never left theirs.
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return made[0]

    def listen(self) -> socket.socket:
        """Return a listening socket over there."""
        return self.there(lambda: socket.create_server((self.address, 0)))

    def connect(self, port: int) -> socket.socket:
        """Return a connection from there to a port of ours."""
        return self.there(lambda: socket.create_connection((self.gateway, port), timeout=10))


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


@contextmanager
def host() -> Iterator[Host]:
    """Make another host for the block; the test is skipped where that is not permitted."""
    if shutil.which("ip") is None:
        pytest.skip("ip of iproute2 is not installed")
    number = 1 + os.getpid() % 250
    made = Host(f"trio-wsb-{os.getpid()}", number)
    try:
        run("ip", "netns", "add", made.name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    try:
        try:
            run("ip", "link", "add", made.link, "type", "veth", "peer", "name", "eth0", "netns", made.name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no veth links here: {error.stderr.strip()}")
        run("ip", "addr", "add", f"{made.gateway}/30", "dev", made.link)
        run("ip", "link", "set", made.link, "up")
        made.ip("addr", "add", f"{made.address}/30", "dev", "eth0")
        made.ip("link", "set", "eth0", "up")
        yield made
    finally:
        run("ip", "netns", "del", made.name)
