"""A name server of the test's own for the daemon alone: a mount namespace in which /etc/resolv.conf names it.

So both ways to an address are tried as they are on a host: glibc's, and that of what asks for records itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.providers.nameserver import FakeNameServer

_MOUNT: Final = (
    'mount --bind "$0" /etc/resolv.conf && mount --bind "$1" /etc/nsswitch.conf && shift && exec "$@"'
)


@asynccontextmanager
async def name_server(
    tmp_path: Path, *, patience: int
) -> AsyncIterator[tuple[FakeNameServer, tuple[str, ...]]]:
    """Yield a name server, and the command line under which a program asks it and no other.

    getaddrinfo(3) asks once and waits for `patience` seconds, and nothing ends it before: so long its thread and its socket
    are taken when the name server is silent. The test is skipped where a mount namespace is not permitted.
    """
    # glibc asks port 53 and no other, so the server has an address of loopback to itself.
    address = f"127.53.{os.getpid() // 250 % 250 + 1}.{os.getpid() % 250 + 1}"
    conf, switch = tmp_path / "resolv.conf", tmp_path / "nsswitch.conf"
    conf.write_text(f"nameserver {address}\noptions timeout:{patience} attempts:1\n")
    switch.write_text("hosts: files dns\n")
    program = shutil.which("unshare")
    if program is None:
        pytest.skip("unshare of util-linux is not installed")
    under = (program, "--mount", "/bin/sh", "-c", _MOUNT, str(conf), str(switch))
    tried = subprocess.run([*under, "cat", "/etc/resolv.conf"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no mount namespaces here: {tried.stderr.strip()}")
    assert tried.stdout == conf.read_text()
    server = FakeNameServer()
    async with server.running(address, 53):
        yield server, under
