"""Faults planted into the kernel relay's hand-over are found: each is a line of it that somebody might think needless."""

from __future__ import annotations

import inspect
import sys
import textwrap
import types
from typing import Any

import pytest

from tests.simulation import verdict
from tests.simulation.drill import drill
from tests.simulation.ledger import Violation
from trio_wsb.net.kernel.direction import Direction
from trio_wsb.net.kernel.legs import KernelLeg, KernelPair
from trio_wsb.net.kernel.table import KernelTable

SEEDS = 150
"""Sessions within which a fault must show."""

FAULTS: dict[str, tuple[Any, str, str, str]] = {
    "opened without the count of received bytes": (
        Direction,
        "open",
        "if received != self._offset + scanner.bytes:",
        "if False:",
    ),
    "passed is read after the count": (
        Direction,
        "open",
        "words[at + _GATE] = passed",
        "words[at + _GATE] = passed = words[at + _PASSED]",
    ),
    "no second look after opening": (Direction, "open", "if words[at + _PASSED] != passed:", "if False:"),
    "the second look without the lock": (
        Direction,
        "open",
        "    tcp_counts(self.source)\n    except",
        "    pass\n    except",
    ),
    "written before the flush": (
        KernelLeg,
        "send",
        "if not self._writes.flushed and not self._writes.is_flushed():",
        "if False:",
    ),
    "shut down before the flush": (KernelPair, "shutdown", "if writes.is_flushed():", "if True:"),
    "left before the flush": (KernelTable, "leave", "if flush and not direction.is_flushed():", "if False:"),
    "the end believed": (Direction, "is_behind", "return missing and", "return False and"),
    "the scanner's place not given": (Direction, "open", "words[at + _LEFT] = left", "words[at + _LEFT] = 0"),
    "the scanner's place not taken": (
        Direction,
        "shut",
        "self.scanner.take(words[at + _LEFT], flags & 0xFF, bool(flags >> 8 & 0xFF))",
        "pass",
    ),
    "what is acknowledged read last": (
        Direction,
        "is_flushed",
        "written = self._written(acked + self._queued(self.sink, termios.TIOCOUTQ))",
        "written = self._written(self._queued(self.sink, termios.TIOCOUTQ) + tcp_counts(self.sink)[0])",
    ),
    "the fragment under way not given": (Direction, "open", "fragmented << 8", "0 << 8"),
    "the counters not brought up to date": (Direction, "shut", "self.merge()", "pass"),
    "old bytes sent on": (verdict, "only_new", "data = data[cut:]", "pass"),
}


def plant(patch: pytest.MonkeyPatch, owner: Any, name: str, right: str, wrong: str) -> None:
    """Let `owner.name` have `wrong` in the place of `right`, which must be there once."""
    source = textwrap.dedent(inspect.getsource(inspect.getattr_static(owner, name)))
    assert source.count(right) == 1, f"{name} is not what it was when this fault was thought of"
    module = owner if isinstance(owner, types.ModuleType) else sys.modules[owner.__module__]
    found: dict[str, Any] = {}
    code = compile("from __future__ import annotations\n" + source.replace(right, wrong), "a fault", "exec")
    exec(code, vars(module), found)
    patch.setattr(owner, name, found[name])


@pytest.mark.parametrize("name", FAULTS)
def test_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, *FAULTS[name])

    def tell() -> None:
        for seed in range(SEEDS):
            drill(seed)

    with pytest.raises(Violation):
        tell()
