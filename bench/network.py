"""A network in which packets arrive as they do from a network card (Linux, root).

``python -m bench.network COMMAND…`` runs a command in it, and ends as that does; with ``--mtu 1500`` in packets of Ethernet's size.

On the loopback interface a packet is received inside the call that sends it: the sender's own CPU runs the receiver's TCP
before `send` returns. From a card it comes by an interrupt, on the CPU that its flow belongs to. For a proxy in user space
that makes no difference; for one in the kernel, which does its work where a packet is received, it is the difference between
interrupting the load generator for each message and not. Receive packet steering (Documentation/networking/scaling.rst of Linux)
makes the loopback interface of a network namespace behave like a card with a queue for each CPU.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.processes import BenchError, MissingToolError

_CLONE_NEWNET = 0x40000000

LOOPBACK_MTU = 65_536
"""Bytes of a packet: Linux's own for the interface."""

_SET_UP = """\
mount -t sysfs none /sys || exit
ip link set lo up mtu "$2" || exit
echo "$1" > /sys/class/net/lo/queues/rx-0/rps_cpus
"""
"""The namespace's own devices are seen in a sysfs that is mounted in it, out of sight of everybody else."""


def why_not() -> str:
    """Return what is missing for `steered`, "" if nothing is."""
    missing = [name for name in ("unshare", "ip", "mount") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} of util-linux and iproute2: not installed"
    return "" if os.geteuid() == 0 else "a network of its own is for root only"


@contextmanager
def steered(mtu: int = LOOPBACK_MTU) -> Iterator[None]:
    """Let this thread, and the processes that it starts, be in such a network until the block ends.

    A packet has `mtu` bytes at most.

    Raises:
      MissingToolError: see `why_not`.
      BenchError: the system does not let us.

    """
    if missing := why_not():
        raise MissingToolError(missing)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("unshare", _CLONE_NEWNET)
        try:
            command = [
                "unshare",
                "--mount",
                "sh",
                "-c",
                _SET_UP,
                "sh",
                cpu_mask(os.cpu_count() or 1),
                str(mtu),
            ]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise BenchError(f"no network with receive packet steering: {done.stderr.strip()}")
            yield
        finally:
            _call("setns", home, _CLONE_NEWNET)
    finally:
        os.close(home)


def cpu_mask(count: int) -> str:
    """Return the mask of the first `count` CPUs as the kernel reads it: hexadecimal words of 32 bits, the first CPUs last."""
    words = []
    while count > 0:
        words.append(f"{(1 << min(count, 32)) - 1:x}")
        count -= 32
    return ",".join(reversed(words))


def _call(name: str, *arguments: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments):
        raise BenchError(f"{name}: {os.strerror(ctypes.get_errno())}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command in such a network and return its exit status; 2 where that cannot be."""
    parser = argparse.ArgumentParser(prog="python -m bench.network", description=__doc__.partition("\n")[0])
    parser.add_argument("--mtu", type=int, default=LOOPBACK_MTU, help="bytes of a packet")
    parser.add_argument("command")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    try:
        with steered(options.mtu):
            return subprocess.run([options.command, *options.arguments], check=False).returncode
    except (BenchError, OSError) as error:
        print(f"bench.network: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
