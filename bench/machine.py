"""What the figures were measured on, as far as a reader of the report can use it."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from bench.native import FLAGS, compiler
from bench.processes import run_quietly


def describe(versions: Iterable[str], *, rounds: int, seconds: float) -> dict[str, str]:
    """Date, machine, versions and extent of a run, in the order in which a report shows them."""
    return {
        "Date": datetime.now(UTC).date().isoformat(),
        "Machine": f"Linux {kernel_version(platform.release())}, {os.cpu_count()} CPUs{_model()}",
        "Measured": ", ".join(versions),
        "Bench": f"{_compiler_version()} {FLAGS[0]}; {rounds} rounds of {seconds:g} s",
    }


def kernel_version(release: str) -> str:
    """The version number of a kernel release, without what a distribution or a provider appends."""
    match = re.match(r"\d+(\.\d+)*", release)
    return match[0] if match else release


def _model() -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f" ({match[1].strip()})" if match else ""


def _compiler_version() -> str:
    _, output = run_quietly([compiler(), "--version"])
    return re.sub(r" \(.*\)", "", output.partition("\n")[0])
