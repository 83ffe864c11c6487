"""A client's sticky cookie at one load balancer: where it leads, and whether it gets another one."""

from __future__ import annotations

from trio_wsb.balancing.backend import Backend
from trio_wsb.http.cookies import StickyCookie
from trio_wsb.http.headers import Headers
from trio_wsb.proxy.services import ServiceRuntime


class Stickiness:
    """What one request's cookie means.

    A cookie that leads to a backend which is unknown, down, cooling down or without a weight, or that fails when it is
    tried, is replaced by that of the backend which answers. One whose backend is only full stays as it is: the client
    comes back to it.
    """

    __slots__ = ("_backend", "_cookie", "_kept", "_service", "_value")

    def __init__(self, service: ServiceRuntime, cookie: StickyCookie, headers: Headers) -> None:
        self._service = service
        self._cookie = cookie
        self._value = cookie.find(headers)
        self._backend: Backend | None = None
        self._kept = False

    def preferred(self, now: float, *, opening: bool) -> Backend | None:
        """Return the backend that the cookie leads to, if the client may go there now; `opening` as in `Pool.choose`."""
        self._kept = False
        if self._value is None:
            return None
        affinity = self._service.pool.affinity(self._value, now, opening=opening)
        self._kept = affinity.lasting
        return affinity.backend

    def tried(self, backend: Backend) -> None:
        """`backend` gets the request."""
        self._backend = backend

    def failed(self) -> None:
        """Note that the backend did not answer: the client is not to come back to it."""
        self._backend, self._value, self._kept = None, None, False

    def edit(self, headers: Headers) -> Headers:
        """Return the fields of the backend's answer, with the cookie that the client needs, if any."""
        if self._backend is None or self._kept:
            return headers
        return Headers([*headers, self._cookie.field(self._service.pool.sticky_value(self._backend))])
