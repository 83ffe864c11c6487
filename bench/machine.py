"""What the figures were measured on, as far as a reader of the report can use it."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from bench.native import FLAGS, compiler
from bench.processes import run_quietly


def describe(versions: Iterable[str], *, rounds: int, seconds: float) -> dict[str, str]:
    """Return date, machine, versions and extent of a run, in the order in which a report shows them.

    Raises:
      MissingToolError: there is no C compiler.

    """
    return {
        "Date": datetime.now(UTC).date().isoformat(),
        "Machine": f"Linux {kernel_version(platform.release())}, {os.cpu_count()} CPUs{_model()}",
        "Measured": ", ".join(versions),
        "Bench": f"{_compiler_version()} {FLAGS[0]}; {rounds} rounds of {seconds:g} s",
    }


def busy_cores(seconds: float = 1.0) -> float:
    """Return how many cores are in use now, looking for `seconds`: what others take, the bench cannot measure."""
    before = busy_seconds()
    time.sleep(seconds)
    return (busy_seconds() - before) / seconds


def busy_seconds() -> float:
    """Return the CPU seconds that all cores were busy since some time in the past.

    They are what is left of the time: who runs is only looked up at ticks of the clock, and what runs for microseconds between
    two of them is seen seldom, while the time without work is measured.
    """
    passed = (os.cpu_count() or 1) * time.monotonic()
    return passed - parse_free_seconds(Path("/proc/stat").read_text())


def parse_free_seconds(stat: str) -> float:
    """Return the CPU seconds of all cores that were idle, waiting or somebody else's, from ``/proc/stat`` (proc(5))."""
    ticks = [int(word) for word in stat.partition("\n")[0].split()[1:9]]
    return (ticks[3] + ticks[4] + ticks[7]) / os.sysconf("SC_CLK_TCK")


def kernel_version(release: str) -> str:
    """Return the version number of a kernel release, without what a distribution or a provider appends."""
    match = re.match(r"\d+(\.\d+)*", release)
    return match[0] if match else release


def _model() -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f" ({match[1].strip()})" if match else ""


def _compiler_version() -> str:
    _, output = run_quietly([compiler(), "--version"])
    return re.sub(r" \(.*\)", "", output.partition("\n")[0])
