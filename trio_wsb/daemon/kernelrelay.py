"""The kernel relay's start: load the program, see whether it works here, and give up the privileges that it took."""

from __future__ import annotations

import errno
from typing import Final

import structlog
import trio

from trio_wsb.config.kernelrelay import KernelRelay
from trio_wsb.config.model import HTTP
from trio_wsb.daemon.privileges import drop_capabilities, missing_capabilities
from trio_wsb.daemon.services import balancers_of
from trio_wsb.net.kernel.elf import BadObject
from trio_wsb.net.kernel.selftest import SelfTestFailed, self_test
from trio_wsb.net.kernel.table import KernelTable
from trio_wsb.proxy.relaying import CONFIGURED, KernelState

log = structlog.stdlib.get_logger("trio_wsb.kernel")

NOT_WANTED: Final = "every service says stream at the start"

STOP_TIMEOUT: Final = 0.5
"""Seconds for what the kernel has sent on to be written, when the daemon stops."""


def wanted_relay(http: HTTP) -> str:
    """Return "kernel" if a service asks for the kernel relay by name, "auto" if one may use it, else ""."""
    asked = {balancer.relay for balancer in balancers_of(http).values()}
    return "kernel" if "kernel" in asked else "auto" if "auto" in asked else ""


async def start_kernel_relay(config: KernelRelay, http: HTTP, nursery: trio.Nursery) -> KernelState:
    """Load it if a service of `http` may use it; return the table of sessions in the kernel, or why there is none; its task runs in `nursery`.

    One line of the log says which. Whatever comes of it, the capabilities that only loading needs are gone after it.
    The table is the caller's, who closes it.
    """
    table, reason, wanted = None, CONFIGURED, wanted_relay(http)
    if config.enabled and not wanted:
        reason = NOT_WANTED
    elif config.enabled:
        table, reason = _load(config)
    drop_capabilities()
    # The self-test comes after that: what sessions do must work without them, which Linux before 5.19 may forbid
    # (kernel.unprivileged_bpf_disabled).
    if table is not None and (problem := await _problem_of(table)):
        table, reason = None, f"the self-test failed: {problem}"
    if table is not None:
        nursery.start_soon(table.run)
        log.info("kernel relay ready", sessions=config.sessions, inFlight=config.in_flight)
    elif config.enabled and wanted:
        say = log.warning if wanted == "kernel" else log.info
        say("no kernel relay, the daemon moves all bytes itself", reason=reason)
    return KernelState(table, reason)


async def stop_kernel_relay(kernel: KernelState) -> None:
    """Give the last sessions a moment to reach their sockets; what the kernel holds goes with the process."""
    if kernel.table is not None:
        with trio.move_on_after(STOP_TIMEOUT, shield=True):
            await kernel.table.empty()


def _load(config: KernelRelay) -> tuple[KernelTable | None, str]:
    try:
        return KernelTable(config.sessions, config.in_flight), ""
    except (OSError, BadObject) as error:
        if getattr(error, "errno", None) == errno.EPERM:
            return None, _forbidden()
        return None, _words(error)


async def _problem_of(table: KernelTable) -> str:
    """Try `table` with a session of its own and return what is wrong; "" if nothing is. One that fails is closed."""
    problem = "it was broken off"
    try:
        # The task of this trial is over before the table is closed, however early it fails.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(table.run)
            try:
                await self_test(table)
                problem = ""
            except (OSError, SelfTestFailed) as error:
                problem = _words(error)
            nursery.cancel_scope.cancel()
    finally:
        if problem:
            table.close()
    return problem


def _forbidden() -> str:
    missing = missing_capabilities()
    if missing:
        return f"not permitted without {' and '.join(missing)}"
    return "not permitted, though the capabilities are there: something else forbids bpf(2), a seccomp filter (SystemCallFilter=) say"


def _words(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
