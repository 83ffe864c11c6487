"""What all tests share: the same examples in every run, no clock that judges them, and the same surroundings however it was started."""

from __future__ import annotations

import gc
import os
import signal
import sys

import structlog
from hypothesis import HealthCheck, settings

from tests.workers import (  # noqa: F401 - hooks
    pytest_collection_modifyitems,
    pytest_xdist_auto_num_workers,
    pytest_xdist_make_scheduler,
)

settings.register_profile(
    "deterministic", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("deterministic")

# Hundreds of daemons are started. Where no bytecode may be written, as in many containers, each would compile the whole
# package again, and each worker every test.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell ignores SIGINT for what a script starts in the background, and all that it starts inherits that: a daemon or a
# command under test would never see its Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_CONSOLE = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)


def pytest_runtest_setup() -> None:
    """Let each test begin with a log that is nobody's, on standard output.

    Without a configuration structlog draws tracebacks with the value of every variable, which takes seconds.
    """
    structlog.reset_defaults()
    structlog.configure(processors=[structlog.processors.add_log_level, _CONSOLE])


def pytest_collection_finish() -> None:
    """Spare the garbage collector thousands of tests that live until the end."""
    gc.collect()
    gc.freeze()
