"""What a run of the demo client amounts to: the figures, the words and the JSON lines."""

from __future__ import annotations

import json

from attrs import asdict, field, fields_dict, frozen


@frozen
class Totals:
    """What happened so far in a run of the demo client. Times are seconds."""

    elapsed: float = 0.0
    clients: int = 0
    open: int = 0
    opened: int = 0
    failed: int = 0
    """Attempts that did not get a session."""
    never_opened: int = 0
    """Clients that have never had a session."""
    messages: int = 0
    """Echoes received."""
    wrong: int = 0
    """Messages received that were not the echo waited for."""
    lost: dict[str, int] = field(factory=dict)
    """Lost sessions by close code, or by what happened."""
    p50: float = 0.0
    p99: float = 0.0
    last_failure: str = ""

    @property
    def lost_sessions(self) -> int:
        """How many sessions were lost."""
        return sum(self.lost.values())

    @property
    def good(self) -> bool:
        """Whether no session was lost, no echo wrong and every client had a session."""
        return not (self.lost_sessions or self.wrong or self.never_opened)

    def line(self) -> str:
        """Return the line of a second."""
        failed = f"  failed {self.failed} ({self.last_failure})" if self.failed else ""
        return (
            f"{self.elapsed:6.1f}s  open {self.open}/{self.clients}  lost {self.lost_sessions}"
            f"  messages {self.messages}  p50 {milliseconds(self.p50)}  p99 {milliseconds(self.p99)}{failed}"
        )

    def summary(self) -> str:
        """Return the lines at the end."""
        codes = ", ".join(f"{code}: {count}" for code, count in sorted(self.lost.items()))
        rows = [
            ("sessions opened", str(self.opened)),
            ("failed to open", f"{self.failed} ({self.last_failure})" if self.failed else "0"),
            ("sessions lost", f"{self.lost_sessions} ({codes})" if codes else "0"),
            ("messages echoed", str(self.messages)),
            ("wrong echoes", str(self.wrong)),
            ("latency", f"p50 {milliseconds(self.p50)}, p99 {milliseconds(self.p99)}"),
        ]
        return "\n".join(f"{name + ':':<17}{value}" for name, value in rows)

    def json_line(self, event: str) -> str:
        """Return the figures as one JSON object with ``"event"``: "progress" or "summary"."""
        return json.dumps({"event": event} | asdict(self) | {"good": self.good})


def parse_totals(line: str) -> Totals:
    """Return the figures of a line that `Totals.json_line` made.

    Raises:
      ValueError: it is no such line.

    """
    values = json.loads(line)
    if not isinstance(values, dict) or "event" not in values:
        raise ValueError("is no line of the demo client")
    return Totals(**{name: values[name] for name in fields_dict(Totals) if name in values})


def add(first: Totals, second: Totals) -> Totals:
    """Return the figures of two client processes together; of the times, the longer ones."""
    return Totals(
        elapsed=max(first.elapsed, second.elapsed),
        clients=first.clients + second.clients,
        open=first.open + second.open,
        opened=first.opened + second.opened,
        failed=first.failed + second.failed,
        never_opened=first.never_opened + second.never_opened,
        messages=first.messages + second.messages,
        wrong=first.wrong + second.wrong,
        lost={
            code: first.lost.get(code, 0) + second.lost.get(code, 0)
            for code in sorted(first.lost.keys() | second.lost.keys())
        },
        p50=max(first.p50, second.p50),
        p99=max(first.p99, second.p99),
        last_failure=second.last_failure or first.last_failure,
    )


def milliseconds(seconds: float) -> str:
    """Return `seconds` as people read latencies."""
    value = seconds * 1000
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"
