"""The requests that the balancer answers itself: its count table at `balancerMetricPath`.

The table names servers, so it is not for everybody. Whoever can connect to the entry point `admin` may see it; on any
other entry point only a program on this host may, and who that is must not be up to the sender of a request.
"""

from __future__ import annotations

import time

from trio_wsb.addresses import IPAddress, parse_ip
from trio_wsb.daemon.build import ADMIN
from trio_wsb.daemon.views import DaemonState, balancer_metrics
from trio_wsb.http.accept import prefers_html
from trio_wsb.http.answers import content_response, json_response
from trio_wsb.http.head import RequestHead
from trio_wsb.observe.metricspage import METRICS_PAGE_HEADERS, metrics_page
from trio_wsb.proxy.runtime import EntryPointRuntime
from trio_wsb.websocket.handshake import is_upgrade

_FORWARDED = ("x-forwarded-for", "x-real-ip", "forwarded", "via")


class InternalPages:
    """Answers for the balancer itself; `answer` is what `Proxy.internal` asks."""

    def __init__(self, state: DaemonState) -> None:
        self._state = state

    def answer(
        self, entry: EntryPointRuntime, peer: IPAddress | None, head: RequestHead, keep_alive: bool
    ) -> bytes | None:
        """Return the whole answer, or None for a request that is to be routed."""
        if head.path != self._state.proxy.runtime.balancer_metric_path or head.method not in {"GET", "HEAD"}:
            return None
        if is_upgrade(head) or not (entry.name == ADMIN or is_local(peer, head)):
            return None
        document = balancer_metrics(self._state, time.time())
        head_only, close = head.method == "HEAD", not keep_alive
        if prefers_html(head.headers):
            page = metrics_page(document).encode()
            return content_response(
                200,
                "text/html; charset=utf-8",
                page,
                METRICS_PAGE_HEADERS,
                close=close,
                head_only=head_only,
            )
        return json_response(200, document, [("Vary", "Accept")], close=close, head_only=head_only)


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
