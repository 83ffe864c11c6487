"""The kernel relay's start: load the program, see whether it works here, and give up the privileges that it took."""

from __future__ import annotations

from typing import Final

import structlog
import trio

from trio_wsb.config.kernelrelay import KernelRelay
from trio_wsb.config.model import HTTP
from trio_wsb.daemon.privileges import drop_capabilities
from trio_wsb.daemon.services import balancers_of
from trio_wsb.net.kernel.elf import BadObject
from trio_wsb.net.kernel.selftest import SelfTestFailed, self_test
from trio_wsb.net.kernel.table import KernelTable
from trio_wsb.proxy.relaying import CONFIGURED, KernelState

log = structlog.stdlib.get_logger("trio_wsb.kernel")

NOT_WANTED: Final = "every service says stream at the start"

STOP_TIMEOUT: Final = 0.5
"""Seconds for what the kernel has sent on to be written, when the daemon stops."""


def wants_kernel(http: HTTP) -> bool:
    """Whether a service may use the kernel relay."""
    return any(balancer.relay != "stream" for balancer in balancers_of(http).values())


def insists_on_kernel(http: HTTP) -> bool:
    """Whether a service asks for the kernel relay by name, and somebody should hear that it has none."""
    return any(balancer.relay == "kernel" for balancer in balancers_of(http).values())


async def start_kernel_relay(config: KernelRelay, http: HTTP, nursery: trio.Nursery) -> KernelState:
    """Load it if a service of `http` may use it; return the table of sessions in the kernel, or why there is none; its task runs in `nursery`.

    One line of the log says which. Whatever comes of it, the capabilities that only loading needs are gone after it.
    The table is the caller's, who closes it.
    """
    table, reason, wanted = None, CONFIGURED, wants_kernel(http)
    if config.enabled and not wanted:
        reason = NOT_WANTED
    elif config.enabled:
        table, reason = await _load(config, nursery)
    drop_capabilities()
    if table is not None:
        log.info("kernel relay ready", sessions=config.sessions, inFlight=config.in_flight)
    elif config.enabled and wanted:
        say = log.warning if insists_on_kernel(http) else log.info
        say("no kernel relay, the daemon moves all bytes itself", reason=reason)
    return KernelState(table, reason)


async def stop_kernel_relay(kernel: KernelState) -> None:
    """Give the last sessions a moment to reach their sockets; what the kernel holds goes with the process."""
    if kernel.table is not None:
        with trio.move_on_after(STOP_TIMEOUT, shield=True):
            await kernel.table.empty()


async def _load(config: KernelRelay, nursery: trio.Nursery) -> tuple[KernelTable | None, str]:
    try:
        table = KernelTable(config.sessions, config.in_flight)
    except (OSError, BadObject) as error:
        return None, _why(error)
    scope = trio.CancelScope()
    nursery.start_soon(_run, table, scope)
    try:
        await self_test(table)
    except (OSError, SelfTestFailed) as error:
        scope.cancel()
        table.close()
        return None, f"the self-test failed: {_why(error)}"
    except BaseException:
        scope.cancel()
        raise
    return table, ""


async def _run(table: KernelTable, scope: trio.CancelScope) -> None:
    with scope:
        await table.run()


def _why(error: Exception) -> str:
    if isinstance(error, PermissionError) and not str(error.strerror or "").count(":"):
        return "not permitted; it takes CAP_BPF and CAP_NET_ADMIN"
    return (getattr(error, "strerror", None) or str(error)).lower()
