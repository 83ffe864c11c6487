"""The requests that the balancer answers itself, and who may see which.

Pages of the entry point `admin` are found by their path alone; on other entry points only routers lead to them, by
the names of their services (`api@internal`). The count table at `balancerMetricPath` is the exception: it names servers, so
on any other entry point only a program on this host may see it, and who that is must not be up to the sender of a request.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from trio_wsb.addresses import IPAddress, parse_ip
from trio_wsb.config.internal import PROMETHEUS
from trio_wsb.daemon.api.pages import APIPages
from trio_wsb.daemon.build import ADMIN
from trio_wsb.daemon.metrics.page import PATH as METRICS_PATH
from trio_wsb.daemon.metrics.page import Metrics
from trio_wsb.daemon.views import DaemonState, balancer_metrics
from trio_wsb.http.accept import prefers_html
from trio_wsb.http.head import RequestHead
from trio_wsb.observe.metricspage import METRICS_PAGE_HEADERS, metrics_page
from trio_wsb.proxy.internal import READING, InternalRequest
from trio_wsb.proxy.runtime import EntryPointRuntime, Handler
from trio_wsb.websocket.handshake import is_upgrade

_FORWARDED = ("x-forwarded-for", "x-real-ip", "forwarded", "via")


class InternalPages:
    """The pages of a daemon; `find` is what `Proxy.internal` asks, `services` is what routers lead to."""

    def __init__(
        self, state: DaemonState, metrics: Metrics | None = None, api: APIPages | None = None
    ) -> None:
        """Serve the pages of the daemon behind `state`; without `metrics` or `api` those are not among them."""
        self._state = state
        self._metrics = metrics
        self._api = api
        self.services: Mapping[str, Handler] = {
            **({} if metrics is None else {PROMETHEUS: metrics.page}),
            **({} if api is None else api.services),
        }
        """Pages by the name under which routers know them."""

    def find(self, entry: EntryPointRuntime, peer: IPAddress | None, head: RequestHead) -> Handler | None:
        """Return the page that a request is for, or None when it is to be routed."""
        if head.path == self._state.proxy.runtime.balancer_metric_path and self._may_see_counts(
            entry, peer, head
        ):
            return self.balancer_metrics
        metrics = self._metrics
        if metrics is not None and head.path == METRICS_PATH and metrics.answers_at(entry.name, ADMIN):
            return metrics.page
        return None if self._api is None else self._api.find(entry, head)

    def _may_see_counts(self, entry: EntryPointRuntime, peer: IPAddress | None, head: RequestHead) -> bool:
        return (
            head.method in READING and not is_upgrade(head) and (entry.name == ADMIN or is_local(peer, head))
        )

    async def balancer_metrics(self, request: InternalRequest) -> bool:
        """Answer the count table, as a page to a browser and as JSON to a program."""
        document = balancer_metrics(self._state, time.time())
        if prefers_html(request.head.headers):
            page = metrics_page(document).encode()
            return await request.answer(200, "text/html; charset=utf-8", page, METRICS_PAGE_HEADERS)
        return await request.answer_json(200, document, [("Vary", "Accept")])


def is_local(peer: IPAddress | None, head: RequestHead) -> bool:
    """Whether a request comes from a program on this host, not through a proxy on it.

    A proxy on this host connects from a loopback address too, whoever its client is. Most say so in a field; whether we
    trust what the field says is not asked, for with `forwardedHeaders.insecure` anybody could write 127.0.0.1 there.
    The host that is asked for must be this one as well: a proxy that says nothing passes its client's Host on, and so does
    the browser of somebody here whom a stranger's page makes ask (DNS rebinding).
    """
    if peer is None or not peer.is_loopback or any(name in head.headers for name in _FORWARDED):
        return False
    if head.host in {"", "localhost"}:
        return True
    try:
        return parse_ip(head.host).is_loopback
    except ValueError:
        return False
