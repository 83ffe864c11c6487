"""A plugin for `make test-full`: a test that is skipped for a reason that is not listed fails the run.

    python -m pytest -p tests.strictness

A skip means that a promise was not looked at. So each one that is allowed stands here, with the reason why the run may do without it.
"""

from __future__ import annotations

import re
from typing import Final

import pytest

ALLOWED: Final[dict[str, str]] = {
    r"root may read everything": "one run is either root's or not, and the others of these need root",
    r"only root can give files away": "the same, the other way round",
    r"there is no limit here": "a bound on descriptors is the host's to set, and some set none",
    r"no IPv6": "a host, or a container, may have none; the IPv4 tests cover the same code",
    r"kernel relay needs CAP_BPF": "a container may forbid to load programs; the stream relay is the one that runs there",
    r"no network namespaces here|no veth links here|no mount namespaces here|a small tmpfs cannot be mounted": (
        "they take privileges that a container may not give"
    ),
    r"libfaketime": "not every distribution has it; that only what is shown asks for the wall clock is tested without it",
    r"systemd-analyze|systemd-socket-activate|libseccomp": "without systemd as the host's manager its tools judge nothing",
    r"cannot judge the security of a file": "systemd before 250 has no --offline",
}
"""Regular expressions of reasons, and why each may be. docs/security.md has the same list."""

_KNOWN: Final = {re.compile(pattern): why for pattern, why in ALLOWED.items()}


class Strictness:
    """Collects the reasons of skips, and makes the run fail for those that nobody allowed."""

    def __init__(self) -> None:
        self.unknown: list[tuple[str, str]] = []
        self.known = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report.nodeid, report.longrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._note(report.nodeid, report.longrepr)

    def _note(self, node: str, said: object) -> None:
        reason = str(said[2]) if isinstance(said, tuple) else str(said)
        if any(pattern.search(reason) for pattern in _KNOWN):
            self.known += 1
        else:
            self.unknown.append((node, reason))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.unknown and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("skipped")
        terminalreporter.line(f"{self.known} for reasons that tests/strictness.py allows")
        for node, reason in self.unknown:
            terminalreporter.line(f"NOT ALLOWED {node}: {reason}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Take part in the run."""
    config.pluginmanager.register(Strictness(), "strictness")
