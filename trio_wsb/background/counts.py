"""The background task that asks the backends for their connection counts and refreshes the count table.

Each report is asked for by a task of its own, with its own schedule and its own httpx transport, so that what
happens to one has no effect on another; `trio_wsb.background.rounds` spreads and bounds them.

A backend is believed nothing: one deadline for the whole answer however slowly it drips, a cap on its size, no
redirects, no decompression, no cookies, no proxies from the environment.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from functools import lru_cache
from random import Random
from typing import cast

import attrs
import httpx
import structlog
import trio
from attrs import frozen

from trio_wsb.addresses import BackendURL
from trio_wsb.background.faults import describe_fault, leaves
from trio_wsb.background.rounds import FIRST_ROUND, JITTER, Rounds, Statistics
from trio_wsb.balancing.backend import BackendTable
from trio_wsb.balancing.counts import CountKey, CountTable, Sample
from trio_wsb.balancing.report import Report, ReportError, parse_report

MAX_BODY = 64 * 1024
"""Bytes of a report."""

SECOND_LOOK = 2.0
"""Seconds after which a first report that gave no exact figure is asked for once more."""

LEAST_INTERVAL = 0.1
"""Seconds; an interval of 0 would otherwise ask without a pause."""

_KEEP_ALIVE = 120.0
_CLOSE_TIMEOUT = 1.0

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("trio_wsb.counts")


@frozen
class CountTarget:
    """A report to ask for.

    `interval` and `timeout` are seconds. `ssl_context` is for https; without one the system's authorities
    decide. Contexts are compared by identity: hand in the same one as long as its settings are the same, or a reload asks
    anew. `server_name` is the name to expect in the certificate where it is not the URL's host, `host` the Host to send where
    it is not the URL's.
    """

    url: BackendURL
    path: str
    field: str
    interval: float
    timeout: float
    ssl_context: ssl.SSLContext | None = attrs.field(default=None, repr=False)
    server_name: str | None = None
    host: str | None = None

    @property
    def key(self) -> CountKey:
        """What the report's figures are kept under."""
        return CountKey(self.url, self.path, self.field)


def http_transport(target: CountTarget) -> httpx.AsyncBaseTransport:
    """Return a transport for `target`: one connection, kept alive between requests."""
    # A context is needed for plain http too: httpx would otherwise load the authorities again for each one.
    return httpx.AsyncHTTPTransport(
        verify=target.ssl_context or system_context(),
        trust_env=False,
        limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=_KEEP_ALIVE),
    )


@lru_cache(maxsize=1)
def system_context() -> ssl.SSLContext:
    """Return a context that trusts the system's authorities, the same one each time."""
    return ssl.create_default_context()


class CountRefresher:
    """Keeps asking every target for its report, from `run` on until that is cancelled.

    No answer and no lack of one raises out of it: a failure goes into the table, and into the log when its
    reason is news.

    Args:
      table: where the figures go; times in it are `trio.current_time`.
      backends: whose own counts belong to the reports, and who learn their names from them.
      rng: what varies the intervals.
      transport: makes the transport of a target, which the refresher then owns.

    """

    def __init__(
        self,
        table: CountTable,
        backends: BackendTable,
        *,
        rng: Random | None = None,
        transport: Callable[[CountTarget], httpx.AsyncBaseTransport] = http_transport,
    ) -> None:
        self._table = table
        self._backends = backends
        self._rng = rng or Random()
        self._transport = transport
        self._rounds = Rounds(self._keep_asking)

    def configure(self, targets: Iterable[CountTarget]) -> None:
        """Ask exactly `targets` from now on, and keep the figures of no others in the table.

        New and changed targets are asked within `FIRST_ROUND` seconds, the others keep schedule and connection. Of
        targets that ask for the same report the one with the shortest interval counts. May be called at any time,
        also before `run`.
        """
        self._table.retain(target.key for target in self._rounds.configure(targets).values())
        self._rounds.apply()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask until cancelled."""
        await self._rounds.run(task_status=task_status)

    def statistics(self) -> Statistics:
        """Return what is going on."""
        return self._rounds.statistics()

    async def _keep_asking(self, target: CountTarget, started: float, phase: float) -> None:
        interval = max(target.interval, LEAST_INTERVAL)
        asker = _Asker(target, self._transport)
        try:
            await trio.sleep_until(started + phase * min(FIRST_ROUND, interval))
            await self._ask(asker)
            if not self._table.entry(target.key).exact:
                # A first figure that a burst has blurred would stand for a whole interval.
                await trio.sleep(min(SECOND_LOOK, interval / 2))
                await self._ask(asker)
            # From the dense first round to the spread schedule: the second request comes after 0.5 to 1.5 intervals.
            due = max(started + interval * (phase if phase >= 0.5 else phase + 1), trio.current_time())
            while True:
                await trio.sleep_until(due)
                await self._ask(asker)
                # A request that took longer than the interval is followed by the next one, never by
                # all those that were missed.
                due = max(due + interval * self._rng.uniform(1 - JITTER, 1 + JITTER), trio.current_time())
        finally:
            await asker.close()

    async def _ask(self, asker: _Asker) -> None:
        """Ask once; see that the table, the names and the log learn what came of it."""
        target, reason = asker.target, ""
        async with self._rounds.place(failing=asker.failing):
            try:
                with trio.fail_after(target.timeout):
                    await self._refresh(asker)
            except* Exception as group:  # noqa: BLE001 - whatever it is, it is this backend's alone
                reason = _describe(group, target)
        asker.failing = bool(reason)
        if reason and self._table.fail(target.key, reason, trio.current_time()):
            backend = self._backends.find(target.url)
            names = {} if backend is None else backend.pod
            log.warning("no fresh report", backend=str(target.url), **names, path=target.path, reason=reason)

    async def _refresh(self, asker: _Asker) -> None:
        target = asker.target
        # Held for the duration: nobody else may hold the backend of a target that a reload is removing.
        backend = self._backends.get(target.url)

        def start() -> Sample:
            return self._table.start(target.key, backend.live, trio.current_time())

        sample, body = await asker.fetch(start)
        report: Report = parse_report(body, target.field)
        now = trio.current_time()
        backend.learn_names(report)
        if self._table.finish(sample, report.connections, backend.live, backend.pending, now):
            log.info(
                "reports again", backend=str(target.url), path=target.path, connections=report.connections
            )


class _Asker:
    """The requests of one target, and the connection that they share."""

    def __init__(
        self, target: CountTarget, make_transport: Callable[[CountTarget], httpx.AsyncBaseTransport]
    ) -> None:
        self.target = target
        self.failing = False
        self._make_transport = make_transport
        self._transport: httpx.AsyncBaseTransport | None = None
        self._used = False

    async def fetch(self, start: Callable[[], Sample]) -> tuple[Sample, bytes]:
        """Return what `start` returned right before the request, and the body of its 200 answer.

        Raises `ReportError` for an answer that is no report, and what httpx and Trio raise.
        """
        used = self._used
        try:
            return start(), await self._request()
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            # The backend may close an idle connection at the very moment that we use it (RFC 9112 section 9.5). This
            # says nothing about its health, and a GET may be repeated.
            if not used:
                raise
        return start(), await self._request()

    async def _request(self) -> bytes:
        # Whatever goes wrong, the next request begins with a new connection: no doubt is left about the old one.
        try:
            if self._transport is None:
                self._transport = self._make_transport(self.target)
            body = await self._exchange(self._transport)
        except BaseException:
            await self.close()
            raise
        self._used = True
        return body

    async def _exchange(self, transport: httpx.AsyncBaseTransport) -> bytes:
        target = self.target
        request = httpx.Request(
            "GET",
            f"{target.url}{target.path}",
            headers={
                **({} if target.host is None else {"Host": target.host}),
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": "trio-wsb",
            },
            extensions={} if target.server_name is None else {"sni_hostname": target.server_name},
        )
        response = await transport.handle_async_request(request)
        try:
            _check_head(response)
            return await _read_body(response)
        finally:
            with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                await response.aclose()

    async def close(self) -> None:
        """Close the connection, in a cancelled task too."""
        transport, self._transport, self._used = self._transport, None, False
        if transport is not None:
            with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                try:
                    await transport.aclose()
                except* Exception as group:  # noqa: BLE001 - it is given up whether or not it says so politely
                    log.debug("connection closed badly", backend=str(self.target.url), error=repr(group))


def _check_head(response: httpx.Response) -> None:
    if response.status_code != 200:
        raise ReportError(f"answered {response.status_code}")
    if response.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        raise ReportError("the report is compressed, which was not asked for")
    length = response.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 10 or int(length) > MAX_BODY):
        raise ReportError(_TOO_LARGE)


_TOO_LARGE = f"the report is over {MAX_BODY // 1024} KiB"


async def _read_body(response: httpx.Response) -> bytes:
    # The stream below httpx's decoders: nothing is ever inflated.
    body = bytearray()
    too_large = False
    try:
        async for chunk in cast("httpx.AsyncByteStream", response.stream):
            if too_large:
                continue
            body += chunk
            if len(body) > MAX_BODY:
                # Leaving the loop would leave generators inside httpx to the garbage collector. With the
                # connection closed their next read ends them.
                too_large = True
                body.clear()
                await response.aclose()
    except (httpx.HTTPError, trio.ClosedResourceError):
        if not too_large:
            raise
    if too_large:
        raise ReportError(_TOO_LARGE)
    return bytes(body)


def _describe(group: BaseExceptionGroup[Exception], target: CountTarget) -> str:
    """Return in a few words why there is no report."""
    error = next(leaves(group))
    return error.reason if isinstance(error, ReportError) else describe_fault(error, target.timeout)
