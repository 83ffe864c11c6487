"""The requests that move sessions: drain a backend, take that back, rebalance a service.

Each is about what somebody wrote by hand, so that it must mean exactly one thing, and a slip is answered with what was
probably meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import trio
from attrs import evolve

from trio_wsb.balancing.backend import Backend
from trio_wsb.balancing.drain import DrainKey
from trio_wsb.balancing.moving import DrainPolicy
from trio_wsb.config.moving import CLOSE_CODE, PACE
from trio_wsb.config.problems import nearest, quoted
from trio_wsb.daemon.control import ControlAnswer, ControlRequest, Routes
from trio_wsb.daemon.movingviews import drain_view, rebalance_view, verdict_view
from trio_wsb.daemon.sessionviews import named, names_of
from trio_wsb.daemon.views import DaemonState
from trio_wsb.errors import BadRequest, HTTPError
from trio_wsb.proxy.services import ServiceRuntime
from trio_wsb.units import parse_duration, parse_rate

LISTED: Final = 10
"""Names that a refusal may list."""


class MoveOperations:
    """The handlers of a daemon for drains and rebalancing."""

    def __init__(self, state: DaemonState) -> None:
        self._state = state
        self._mover = state.mover

    @property
    def routes(self) -> Routes:
        """Every handler by method and path."""
        return {
            ("GET", "/drain"): self.drains,
            ("POST", "/drain"): self.drain,
            ("POST", "/ready"): self.ready,
            ("GET", "/rebalance"): self.rebalances,
            ("POST", "/rebalance"): self.rebalance,
        }

    async def drains(self, request: ControlRequest) -> ControlAnswer:
        """Answer every drain, those that are done included."""
        _no_query(request)
        now = trio.current_time()
        return ControlAnswer(200, {"drains": [drain_view(each, now) for each in self._mover.drains]})

    async def drain(self, request: ControlRequest) -> ControlAnswer:
        """Begin a drain, or change the pace of one, and answer it; it goes on after the answer."""
        document = _document(request, {"backend", "service", "rate", "closeCode", "timeout"})
        if self._state.proxy.stopping:
            raise HTTPError(503, "the daemon is stopping")
        service = self._service(_text(document, "service"))
        backend = self._backend(_required(document, "backend"), service)
        key = DrainKey(backend.url, None if service is None else service.name)
        policy = self._policy(key, backend, service)
        rate = _value(document, "rate", parse_rate, PACE)
        code = _value(document, "closeCode", _whole, CLOSE_CODE)
        timeout = _value(document, "timeout", parse_duration)
        policy = evolve(
            policy,
            rate=policy.rate if rate is None else rate,
            close_code=policy.close_code if code is None else code,
            timeout=policy.timeout if timeout is None else timeout,
        )
        drain = self._mover.drainer.drain(key, policy)
        return ControlAnswer(200, drain_view(drain, trio.current_time()))

    async def ready(self, request: ControlRequest) -> ControlAnswer:
        """Take back every drain of a backend, or with a service that of this service alone; answer which there were."""
        document = _document(request, {"backend", "service"})
        service = self._service(_text(document, "service"))
        backend = self._backend(_required(document, "backend"), service)
        if service is None:
            keys = [each.key for each in self._mover.drains if each.key.url == backend.url]
        else:
            keys = [DrainKey(backend.url, service.name)]
            if self._mover.drains.get(DrainKey(backend.url, None)) is not None:
                raise HTTPError(
                    409, f"{backend.url} is drained in every service; make it ready without naming one"
                )
        now = trio.current_time()
        ended = [drain for key in keys if (drain := self._mover.drainer.ready(key)) is not None]
        return ControlAnswer(
            200, {"backend": str(backend.url), "drains": [drain_view(drain, now) for drain in ended]}
        )

    async def rebalances(self, request: ControlRequest) -> ControlAnswer:
        """Answer how the rebalancing of every service stands."""
        _no_query(request)
        rebalancer = self._mover.rebalancer
        services = self._state.proxy.runtime.services.values()
        views = [{"service": each.name, **rebalance_view(rebalancer, each)} for each in services]
        return ControlAnswer(200, {"services": views})

    async def rebalance(self, request: ControlRequest) -> ControlAnswer:
        """Rebalance one service, or all; answer what is planned. With `dryRun` nothing begins."""
        document = _document(request, {"service", "dryRun"})
        dry = document.get("dryRun", False)
        if not isinstance(dry, bool):
            raise BadRequest(400, "dryRun must be true or false")
        wanted = self._service(_text(document, "service"))
        services = list(self._state.proxy.runtime.services.values()) if wanted is None else [wanted]
        rebalancer = self._mover.rebalancer
        act = rebalancer.verdict if dry else rebalancer.start
        return ControlAnswer(
            200, {"dryRun": dry, "services": [verdict_view(each, act(each)) for each in services]}
        )

    def _policy(self, key: DrainKey, backend: Backend, service: ServiceRuntime | None) -> DrainPolicy:
        """Return the policy without what the request says: the present one, or the gentlest of the configuration."""
        drain = self._mover.drains.get(key)
        if drain is not None:
            return drain.policy
        services = self._state.proxy.runtime.services.values() if service is None else [service]
        policies = [each.moving.drain for each in services if backend in each.pool]
        return min(policies, key=lambda each: each.rate, default=DrainPolicy())

    def _service(self, name: str | None) -> ServiceRuntime | None:
        if name is None:
            return None
        runtime = self._state.proxy.runtime
        found = runtime.services.get(name)
        if found is None:
            if name in runtime.parents:
                raise HTTPError(404, f"{quoted(name)} has no backends of its own; name one of its parts")
            raise HTTPError(404, f"no service {quoted(name)}{_perhaps(name, runtime.services)}")
        return found

    def _backend(self, text: str, service: ServiceRuntime | None) -> Backend:
        """Return the one backend that somebody means.

        Raises:
          HTTPError: 404 for none, 409 for several.

        """
        known: dict[str, Backend] = {str(each.url): each for each in self._state.backends}
        for drain in self._mover.drains:
            known.setdefault(str(drain.key.url), self._state.backends.get(drain.key.url))
        if service is not None:
            known = {
                url: each
                for url, each in known.items()
                if each in service.pool or self._mover.drains.covering(each.url, service.name)
            }
        found = sorted(named(known.values(), text), key=lambda each: str(each.url))
        if len(found) == 1:
            return found[0]
        if found:
            listed = " and ".join(str(each.url) for each in found[:LISTED])
            raise HTTPError(409, f"{quoted(text)} means {len(found)} backends: {listed}; write which")
        where = "" if service is None else f" in the service {quoted(service.name)}"
        names = [name for each in known.values() for name in names_of(each)]
        raise HTTPError(404, f"no backend {quoted(text)}{where}{_perhaps(text, [*known, *names], known)}")


def _perhaps(word: str, valid: Iterable[str], listed: Iterable[str] | None = None) -> str:
    near = nearest(word, valid)
    if near is not None:
        return f"; did you mean {quoted(near)}?"
    names = sorted(valid if listed is None else listed)
    return f"; there are {', '.join(names)}" if 0 < len(names) <= LISTED else ""


def _no_query(request: ControlRequest) -> None:
    if request.query:
        raise BadRequest(400, "there is no parameter of that name")


def _document(request: ControlRequest, known: set[str]) -> Mapping[str, Any]:
    _no_query(request)
    if unknown := sorted(request.document.keys() - known):
        raise BadRequest(400, f"there is no key {quoted(unknown[0])}; there are {', '.join(sorted(known))}")
    return request.document


def _text(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    if value is not None and not isinstance(value, str):
        raise BadRequest(400, f"{key} must be a string")
    return value


def _required(document: Mapping[str, Any], key: str) -> str:
    value = _text(document, key)
    if value is None:
        raise BadRequest(400, f'the body must have "{key}"')
    return value


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("is not a whole number; write a number such as 1001")
    return value


def _value(
    document: Mapping[str, Any],
    key: str,
    read: Callable[[object], Any],
    check: Callable[[object], None] | None = None,
) -> Any:
    """Return what a key means, None when it is not there, in the words of the configuration."""
    value = document.get(key)
    if value is None:
        return None
    try:
        found = read(value)
        if check is not None:
            check(found)
    except ValueError as error:
        message, _, hint = str(error).partition("; ")
        raise BadRequest(400, f"{key}: {message} ({hint})" if hint else f"{key}: {message}") from None
    return found
