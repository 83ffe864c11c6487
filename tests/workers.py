"""How `make test` spreads the tests over worker processes (pytest-xdist).

What waits for processes, timers and other programs comes first and test by test: whoever has time takes the next one. What
only computes comes last and by the file. So no worker has long to go when the others are done.
"""

from __future__ import annotations

import os
from typing import Any, Final

import pytest

WORKERS_PER_PROCESSOR: Final = 2
"""Tests of the running daemon wait more than they compute."""

TOGETHER: Final = frozenset({"differential", "install"})
"""Directories whose tests wait for something that takes seconds to make, and share it."""

FIRST: Final = TOGETHER | {
    "daemon", "demo", "faults", "hostile", "interop", "providers", "simulation", "systemd", "traefik"
}  # fmt: skip
"""Those and the others whose tests wait, or compute for long."""


def directory(nodeid: str) -> str:
    """Return the directory below tests/ that a test is in, or its file where it is in none."""
    return nodeid.partition("::")[0].split("/")[1]


def unit(nodeid: str) -> str:
    """Return what a test is handed out with: itself alone, or its file."""
    alone = directory(nodeid) in FIRST - TOGETHER
    return nodeid if alone else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Return how many workers `-n auto` means, unless the environment says it."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return WORKERS_PER_PROCESSOR * len(os.sched_getaffinity(0))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put first what is to be first, where there are workers."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: directory(item.nodeid) not in FIRST)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    """Return what hands out the units, in the order in which they were collected; `--dist` with another value has its own."""
    if config.getoption("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # it has types, and does not say so

    class Units(LoadScopeScheduling):  # type: ignore[misc]  # see above
        def _split_scope(self, nodeid: str) -> str:
            return unit(nodeid)

    config.option.loadscopereorder = False
    return Units(config, log)
