"""The pages of the API: which path is what, and what every one of them must keep.

    /api/...         documents, in Traefik's shapes and in ours
    /api/events      the live feed, a WebSocket; without an upgrade the last events
    /dashboard/      the dashboard

Everything reads and nothing changes. Without a router only `admin` answers, and `traefik` with `api.insecure`, and they only
answer to their own names.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final
from urllib.parse import unquote

import structlog
import trio

from trio_wsb.config import api
from trio_wsb.config.internal import API, DASHBOARD
from trio_wsb.config.offered import ADMIN
from trio_wsb.daemon.api import documents, traefik
from trio_wsb.daemon.api.dashboard import CONTENT_TYPE, dashboard_page
from trio_wsb.daemon.api.eventsocket import serve_events
from trio_wsb.daemon.api.feed import Feed
from trio_wsb.daemon.api.hosts import is_own_host
from trio_wsb.daemon.api.queries import chosen, page_of, parse_query
from trio_wsb.daemon.api.tally import Tally
from trio_wsb.daemon.middlewares import MadeStep
from trio_wsb.daemon.views import DaemonState, View
from trio_wsb.errors import HTTPError
from trio_wsb.http.head import RequestHead
from trio_wsb.http.headers import Field
from trio_wsb.proxy.internal import NO_STORE, READING, InternalRequest
from trio_wsb.proxy.runtime import EntryPointRuntime, Handler

log = structlog.stdlib.get_logger("trio_wsb.api")

Parameters = Mapping[str, str]
Page = Callable[[InternalRequest, Parameters], Awaitable[bool]]

_NO_OTHER_SITES: Final[Field] = ("Cross-Origin-Resource-Policy", "same-origin")
_MAX_STRANGERS: Final = 100
"""Log lines for requests under a stranger's name; after them there are no more until a reload."""


class APIPages:
    """The pages of a daemon. `find` is for entry points, `services` for routers."""

    def __init__(self, state: DaemonState) -> None:
        self._state = state
        self.tally = Tally()
        """To be made one of `Proxy.observers`."""
        self.feed = Feed(state, self.tally)
        """To be run as long as the daemon lives."""
        self._strangers = 0
        self.services: Mapping[str, Handler] = {API: self.serve_api, DASHBOARD: self.serve_dashboard}
        self._pages: Mapping[str, Page] = {
            "/api/overview": self._overview,
            "/api/version": self._version,
            "/api/rawdata": self._rawdata,
            "/api/entrypoints": self._entry_points,
            "/api/http/routers": self._routers,
            "/api/http/services": self._services,
            "/api/http/middlewares": self._middlewares,
            "/api/sessions": self._sessions,
            "/api/backends": self._backends,
            "/api/events": self._events,
            "/api/websocket-metrics": self._websocket_metrics,
        }

    @property
    def paths(self) -> frozenset[str]:
        """The paths of all documents, without what may follow them."""
        return frozenset(self._pages)

    def configure(self, steps: Sequence[MadeStep]) -> None:
        """Take over a configuration that is in force now: the steps of its middlewares."""
        self.feed.changes.configure(steps)

    # Who answers.

    def find(self, entry: EntryPointRuntime, head: RequestHead) -> Handler | None:
        """Return who answers a request that came without a router, or None."""
        config = self._config
        if config is None or not (entry.name == ADMIN or (entry.name == traefik.TRAEFIK and config.insecure)):
            return None
        path = self._inner_path(head.path)
        if path is None or not (path == "/" or path.startswith(("/api", "/dashboard"))):
            return None
        guard = traefik.guard(self._state, entry.name)
        if guard is traefik.Guard.ROUTER:
            return None
        return self._serve_unknown if guard is traefik.Guard.UNKNOWN else self.serve_api

    async def serve_api(self, request: InternalRequest) -> bool:
        """Answer as `api@internal` does."""
        return await self._guarded(request, self._dispatch)

    async def serve_dashboard(self, request: InternalRequest) -> bool:
        """Answer as `dashboard@internal` does."""
        return await self._guarded(request, self._dispatch_dashboard)

    async def _serve_unknown(self, request: InternalRequest) -> bool:
        """Answer while nobody knows whether a router guards the pages."""

        async def refuse(_: InternalRequest) -> bool:
            reason = "a router whose rule cannot be read may guard this; `trio-wsb status` names it"
            raise HTTPError(503, reason)

        return await self._guarded(request, refuse)

    async def _guarded(
        self, request: InternalRequest, page: Callable[[InternalRequest], Awaitable[bool]]
    ) -> bool:
        """Let `page` answer; what it refuses is answered in JSON, as Traefik does."""
        try:
            if not request.router:
                self._check_host(request)
            if request.head.method not in READING:
                raise HTTPError(405, "nothing can be changed here", (("Allow", "GET, HEAD"),))
            return await page(request)
        except HTTPError as error:
            headers = [*error.headers, _NO_OTHER_SITES]
            return await request.answer_json(error.status, {"message": error.reason}, headers)

    def _check_host(self, request: InternalRequest) -> None:
        config = self._config
        allowed = () if config is None else config.allowed_hosts
        host = request.head.host
        if is_own_host(host, self._own_hosts(), allowed):
            return
        self._strangers += 1
        if self._strangers <= _MAX_STRANGERS:
            log.warning(
                "API asked for under a name that is not ours",
                client=request.peer.text,
                entryPoint=request.entry.name,
                host=host[:100],
                hint="if it is ours, write it in api.allowedHosts",
            )
        raise HTTPError(421, "this name is not in api.allowedHosts")

    def _own_hosts(self) -> set[str]:
        current = self._state.reloader.current
        if current is None:
            return set()
        hosts = (getattr(entry.address, "host", "") for entry in current.config.entry_points.values())
        return {host.lower() for host in hosts if host}

    @property
    def _config(self) -> api.API | None:
        current = self._state.reloader.current
        return api.API() if current is None else current.config.api

    def _inner_path(self, path: str) -> str | None:
        """Return what follows `api.basePath`, or None for a path elsewhere."""
        base = "" if self._config is None else self._config.base_path.rstrip("/")
        if path == base:
            return "/"
        return path.removeprefix(base) if path.startswith(f"{base}/") else None

    # What is where.

    async def _dispatch(self, request: InternalRequest) -> bool:
        path = self._inner_path(request.head.path)
        if path is None:
            raise HTTPError(404, "there is no such page")
        if path == "/" or path.startswith("/dashboard"):
            return await self._dispatch_dashboard(request)
        parameters = parse_query(request.head.query)
        page = self._pages.get(path)
        if page is not None:
            return await page(request, parameters)
        return await self._one(request, path)

    async def _dispatch_dashboard(self, request: InternalRequest) -> bool:
        path, config = self._inner_path(request.head.path), self._config
        if config is None or not config.dashboard:
            raise HTTPError(404, "the dashboard is switched off")
        base = config.base_path.rstrip("/")
        if path in {"/", "/dashboard"}:
            place = f"{base}/dashboard/"
            return await request.answer(
                302, "text/plain; charset=utf-8", f"{place}\n".encode(), [("Location", place), NO_STORE]
            )
        if path != "/dashboard/":
            raise HTTPError(404, "there is no such page")
        page = dashboard_page()
        return await request.answer(200, CONTENT_TYPE, page.body, page.headers)

    async def _one(self, request: InternalRequest, path: str) -> bool:
        """Answer one thing of a list, by its name."""
        folder, _, name = path.rpartition("/")
        if folder == "/api/sessions":
            return await self._json(request, documents.session(self._state, name))
        lists: Mapping[str, tuple[str, Callable[[], list[View]]]] = {
            "/api/entrypoints": ("entry point", lambda: traefik.entry_points(self._state)),
            "/api/http/routers": ("router", lambda: traefik.routers(self._state)),
            "/api/http/services": ("service", lambda: traefik.services(self._state, trio.current_time())),
            "/api/http/middlewares": ("middleware", lambda: traefik.middlewares(self._state)),
        }
        if folder not in lists:
            raise HTTPError(404, "there is no such page")
        noun, rows = lists[folder]
        wanted = unquote(name)
        for row in rows():
            if row["name"] in {wanted, traefik.named(wanted)}:
                return await self._json(request, row)
        raise HTTPError(404, f"{noun} not found")

    async def _json(self, request: InternalRequest, document: object, *headers: Field) -> bool:
        return await request.answer_json(200, document, [_NO_OTHER_SITES, *headers])

    async def _list(self, request: InternalRequest, rows: list[View], parameters: Parameters) -> bool:
        page = page_of(rows, parameters)
        return await self._json(request, list(page.items), ("X-Next-Page", str(page.next)))

    # Traefik's.

    async def _overview(self, request: InternalRequest, _: Parameters) -> bool:
        return await self._json(request, traefik.overview(self._state, trio.current_time()))

    async def _version(self, request: InternalRequest, _: Parameters) -> bool:
        return await self._json(request, traefik.version(self._state))

    async def _rawdata(self, request: InternalRequest, _: Parameters) -> bool:
        return await self._json(request, traefik.rawdata(self._state, trio.current_time()))

    async def _entry_points(self, request: InternalRequest, parameters: Parameters) -> bool:
        return await self._list(request, traefik.entry_points(self._state), parameters)

    async def _routers(self, request: InternalRequest, parameters: Parameters) -> bool:
        return await self._chosen(request, traefik.routers(self._state), parameters)

    async def _services(self, request: InternalRequest, parameters: Parameters) -> bool:
        return await self._chosen(request, traefik.services(self._state, trio.current_time()), parameters)

    async def _middlewares(self, request: InternalRequest, parameters: Parameters) -> bool:
        return await self._chosen(request, traefik.middlewares(self._state), parameters)

    async def _chosen(self, request: InternalRequest, rows: list[View], parameters: Parameters) -> bool:
        return await self._list(request, [dict(row) for row in chosen(rows, parameters)], parameters)

    # Ours.

    async def _sessions(self, request: InternalRequest, parameters: Parameters) -> bool:
        return await self._json(request, await documents.sessions(self._state, parameters))

    async def _backends(self, request: InternalRequest, parameters: Parameters) -> bool:
        documents.only(parameters, {"service"})
        pieces = documents.backend_pieces(self._state, parameters.get("service"))
        return await request.answer_pieces(200, "application/json", pieces, [NO_STORE, _NO_OTHER_SITES])

    async def _events(self, request: InternalRequest, parameters: Parameters) -> bool:
        if request.upgrade:
            return await serve_events(request, self.feed)
        return await self._json(request, documents.events(self._state, parameters))

    async def _websocket_metrics(self, request: InternalRequest, _: Parameters) -> bool:
        return await self._json(request, await self.tally.websocket_metrics(self._state.proxy.sessions))
