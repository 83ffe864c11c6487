"""Backends as this process knows them: sessions, handshakes under way, failures, names.

There is one `Backend` for a URL, whichever services and runtime snapshots refer to it, so that a reload
forgets nothing. Whoever runs a session or an attempt counts it in and out; everybody else only reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from weakref import WeakValueDictionary

from trio_wsb.addresses import BackendURL
from trio_wsb.balancing.passive import QUICK_DROP, PassiveHealth
from trio_wsb.balancing.report import Report


class Backend:
    """The state of one server URL.

    An attempt is counted by `begin_handshake` and then by exactly one of `handshake_failed`, `handshake_ended`
    and `session_opened`; an open session by `session_ended`. Counting out what was not counted in is a
    programming error and fails an assertion.
    """

    __slots__ = (
        "__weakref__",
        "drops_total",
        "failures_total",
        "live",
        "node_name",
        "opened_total",
        "opening",
        "own",
        "passive",
        "pod_ip",
        "pod_name",
        "url",
    )

    def __init__(self, url: BackendURL) -> None:
        self.url = url
        self.own = 0
        """Our part of its load: live sessions and handshakes under way. One attribute, because choosing
        among a thousand backends reads it a thousand times."""
        self.opening = 0
        """Of the handshakes under way those that are bounded; counted by who bounds them."""
        self.live = 0
        """Open sessions."""
        self.opened_total = 0
        """Sessions opened since the start."""
        self.failures_total = 0
        """Dials and handshakes that failed since the start."""
        self.drops_total = 0
        """Sessions that it ended within `QUICK_DROP` seconds by its own fault since the start."""
        self.passive = PassiveHealth()
        self.pod_name: str | None = None
        self.pod_ip: str | None = None
        self.node_name: str | None = None

    def __repr__(self) -> str:
        return f"<Backend {self.url} live={self.live} pending={self.pending}>"

    @property
    def pending(self) -> int:
        """Handshakes and plain requests under way."""
        return self.own - self.live

    def begin_handshake(self) -> None:
        """Count an attempt in, before the dial and without a checkpoint after the choice.

        A burst spreads evenly because each choice sees the attempts of those before it.
        """
        self.own += 1

    def handshake_failed(self, now: float) -> bool:
        """Count an attempt out: the dial or the handshake failed by the backend's fault.

        Returns whether a cool-down begins with it, which is worth a line in the log.
        """
        self.handshake_ended()
        self.failures_total += 1
        return self.passive.failed(now)

    def handshake_ended(self, now: float | None = None) -> None:
        """Count an attempt out that led to no session and was not the backend's fault.

        Args:
          now: the time if the backend answered (401, a plain response), which speaks for its health; None if
            the attempt was given up before, as when the client went away.

        """
        assert self.pending > 0, f"{self.url}: no handshake is under way"
        self.own -= 1
        if now is not None:
            self.passive.succeeded(now)

    def session_opened(self, now: float) -> None:
        """Turn an attempt into a live session."""
        assert self.pending > 0, f"{self.url}: no handshake is under way"
        self.live += 1
        self.opened_total += 1
        self.passive.succeeded(now)

    def session_ended(self, now: float, opened_at: float, *, backend_fault: bool = False) -> bool:
        """Count a live session out.

        Args:
          now: the time.
          opened_at: the time at which `session_opened` was called for it.
          backend_fault: whether the backend ended it without being asked to: a reset or an end of stream
            without a Close frame, or a Close frame that reports an error of its own.

        Returns whether a cool-down begins with it, which is worth a line in the log.

        """
        assert self.live > 0, f"{self.url}: no session is live"
        self.live -= 1
        self.own -= 1
        if not backend_fault or now - opened_at > QUICK_DROP:
            return False
        self.drops_total += 1
        return self.passive.dropped(now)

    @property
    def pod(self) -> dict[str, str]:
        """What a line of the log says beside its URL: the pod's name, if a report has given it."""
        return {} if self.pod_name is None else {"podName": self.pod_name}

    def learn_names(self, report: Report) -> None:
        """Keep the names that `report` gives; one that it leaves out stays as it was."""
        self.pod_name = report.pod_name or self.pod_name
        self.pod_ip = report.pod_ip or self.pod_ip
        self.node_name = report.node_name or self.node_name


class BackendTable:
    """Every backend that the configuration names or that somebody still uses.

    Backends of the current configuration are held strongly, others only by their sessions and by runtime
    snapshots that still run. So there are never two for one URL, also when a server comes back
    while sessions of its first time go on.
    """

    def __init__(self) -> None:
        self._known: WeakValueDictionary[BackendURL, Backend] = WeakValueDictionary()
        self._configured: dict[BackendURL, Backend] = {}

    def get(self, url: BackendURL) -> Backend:
        """Return the backend for `url`, a new one if there is none.

        A new one lives as long as the caller holds it, until `retain` makes it part of the configuration.
        """
        backend = self._known.get(url)
        if backend is None:
            backend = self._known[url] = Backend(url)
        return backend

    def find(self, url: BackendURL) -> Backend | None:
        """Return the backend for `url` if there is one."""
        return self._known.get(url)

    def retain(self, urls: Iterable[BackendURL]) -> None:
        """Make `urls` the backends of the current configuration; the others go with their last session."""
        self._configured = {url: self.get(url) for url in urls}

    def configured(self, backend: Backend) -> bool:
        """Whether the current configuration has this backend."""
        return self._configured.get(backend.url) is backend

    def __iter__(self) -> Iterator[Backend]:
        """Iterate over the configured backends and those that still have sessions or handshakes."""
        known = list(self._known.values())
        return iter([backend for backend in known if backend.own or backend.url in self._configured])

    def __len__(self) -> int:
        return sum(1 for _ in self)
